/* 3x3 convolutions of activations by Winograd's F(2x2, 3x3) (Lavin and Gray 2016, "Fast Algorithms
 * for Convolutional Neural Networks", section 4.1): 16 products where the definition has 36.
 *
 * A tile is 2x2 places of z. With d the 4x4 places of x that it reads,
 *     z tile = A^T [(G w G^T) . (B^T d B)] A
 *     B^T = 1 0 -1 0,  0 1 1 0,  0 -1 1 0,  0 1 0 -1
 *     G   = 1 0 0,  1/2 1/2 1/2,  1/2 -1/2 1/2,  0 0 1
 *     A^T = 1 1 1 0,  0 1 -1 -1
 * and the gradient of w is that formula's own: G^T [sum over tiles (B^T d B) . (A dz A^T)] G.
 * In each of the 16 points the sums over channels, or tiles, are a product of matrices, of so many
 * tiles at once that they stay in a core's cache: u [16][tiles][channels], v [16][channels][filters],
 * m [16][tiles][filters].
 */
#include "common.h"

#define POINTS 16
#define TILES (4 * ROWS) /* of a convolution at once, where each tile is a sum of its own */
#define SUMMED 64        /* tiles that are summed before they go to the rest, on every processor */
#define GAP 16           /* values between two points, a line of memory of floats */

/* Where a tile lies: image, row and column of its first place. */
typedef struct {
    long image, y, x;
} Tile;

/* From one point of u or m to the next. */
INLINE long to_next(long tiles, long channels) { return tiles * channels + GAP; }

static long tiles_of(Planes p) { return (p.height + 1) / 2 * ((p.width + 1) / 2); }

static Tile place_of(Planes p, long tile) {
    long columns = (p.width + 1) / 2, in_image = tile % tiles_of(p);
    return (Tile){tile / tiles_of(p), in_image / columns * 2, in_image % columns * 2};
}

INLINE void four_by_three(vec d[4], vec a, vec b, vec c) { /* G */
    vec even = (a + c) * splat(0.5), odd = b * splat(0.5);
    d[0] = a, d[1] = even + odd, d[2] = even - odd, d[3] = c;
}

/* v = G w G^T. */
static void transform_weights(const real *w, real *v, long size) {
    for (long at = 0; at < size; at += LANES) {
        vec half[3][4], full[4];
        UNROLL for (int i = 0; i < 3; i++)
            four_by_three(half[i], LOAD(w + 3 * i * size + at), LOAD(w + (3 * i + 1) * size + at),
                          LOAD(w + (3 * i + 2) * size + at));
        UNROLL for (int j = 0; j < 4; j++) {
            four_by_three(full, half[0][j], half[1][j], half[2][j]);
            UNROLL for (int i = 0; i < 4; i++)
                STORE(v + (4 * i + j) * size + at, full[i]);
        }
    }
}

/* w = G^T v G. */
static void gather_weights(const real *v, real *w, long size) {
    for (long at = 0; at < size; at += LANES) {
        vec half[4][3];
        UNROLL for (int i = 0; i < 4; i++) {
            vec a = LOAD(v + 4 * i * size + at), b = LOAD(v + (4 * i + 1) * size + at);
            vec c = LOAD(v + (4 * i + 2) * size + at), d = LOAD(v + (4 * i + 3) * size + at);
            vec even = (b + c) * splat(0.5);
            half[i][0] = a + even, half[i][1] = (b - c) * splat(0.5), half[i][2] = even + d;
        }
        UNROLL for (int j = 0; j < 3; j++) {
            vec even = (half[1][j] + half[2][j]) * splat(0.5);
            STORE(w + j * size + at, half[0][j] + even);
            STORE(w + (3 + j) * size + at, (half[1][j] - half[2][j]) * splat(0.5));
            STORE(w + (6 + j) * size + at, even + half[3][j]);
        }
    }
}

/* Where the 4x4 places of a tile's x begin, in x or in `zeros`. */
static void patch_of(const real *patch[4][4], const real *x, const real *zeros, Planes p, Tile tile,
                     long channels) {
    const real *plane = x + tile.image * p.height * p.width * channels;
    for (long i = 0; i < 4; i++)
        for (long j = 0; j < 4; j++) {
            long row = tile.y + i - 1, column = tile.x + j - 1;
            int inside = row >= 0 && row < p.height && column >= 0 && column < p.width;
            patch[i][j] = inside ? plane + (row * p.width + column) * channels : zeros;
        }
}

/* u [16][tiles][channels] = B^T d B of `count` tiles from `first` on. */
static void transform_input(const real *x, const real *zeros, Planes p, long first, long count,
                            long channels, real *u, long tiles) {
    long point = to_next(tiles, channels);
    for (long tile = 0; tile < count; tile++, u += channels) {
        const real *patch[4][4];
        patch_of(patch, x, zeros, p, place_of(p, first + tile), channels);
        for (long c = 0; c < channels; c += LANES) {
            vec d[4][4];
            UNROLL for (int j = 0; j < 4; j++) {
                vec d0 = LOAD(patch[0][j] + c), d1 = LOAD(patch[1][j] + c);
                vec d2 = LOAD(patch[2][j] + c), d3 = LOAD(patch[3][j] + c);
                d[0][j] = d0 - d2, d[1][j] = d1 + d2, d[2][j] = d2 - d1, d[3][j] = d1 - d3;
            }
            UNROLL for (int i = 0; i < 4; i++) {
                real *to = u + 4 * i * point + c;
                STORE(to, d[i][0] - d[i][2]);
                STORE(to + point, d[i][1] + d[i][2]);
                STORE(to + 2 * point, d[i][2] - d[i][1]);
                STORE(to + 3 * point, d[i][1] - d[i][3]);
            }
        }
    }
}

/* z = A^T m A at `count` tiles from `first` on. */
static void transform_output(const real *m, Planes p, long first, long count, long filters,
                             real *z) {
    long point = to_next(TILES, filters);
    for (long tile = 0; tile < count; tile++, m += filters) {
        Tile at = place_of(p, first + tile);
        real *to = z + ((at.image * p.height + at.y) * p.width + at.x) * filters;
        int right = at.x + 1 < p.width, below = at.y + 1 < p.height;
        for (long f = 0; f < filters; f += LANES) {
            vec half[4][2];
            UNROLL for (int i = 0; i < 4; i++) {
                const real *from = m + 4 * i * point + f;
                vec b = LOAD(from + point), c = LOAD(from + 2 * point);
                half[i][0] = LOAD(from) + b + c;
                half[i][1] = b - c - LOAD(from + 3 * point);
            }
            UNROLL for (int j = 0; j < 2; j++) if (!j || right) {
                STORE(to + j * filters + f, half[0][j] + half[1][j] + half[2][j]);
                if (below)
                    STORE(to + (p.width + j) * filters + f, half[1][j] - half[2][j] - half[3][j]);
            }
        }
    }
}

/* m [16][SUMMED][filters] = A dz A^T of `count` tiles from `first` on. */
static void transform_gradient(const real *dz, Planes p, long first, long count, long filters,
                               real *m) {
    long point = to_next(SUMMED, filters);
    for (long tile = 0; tile < count; tile++, m += filters) {
        Tile at = place_of(p, first + tile);
        const real *from = dz + ((at.image * p.height + at.y) * p.width + at.x) * filters;
        int right = at.x + 1 < p.width, below = at.y + 1 < p.height;
        for (long f = 0; f < filters; f += LANES) {
            vec none = {0}, half[4][2];
            UNROLL for (int j = 0; j < 2; j++) {
                vec a = j && !right ? none : LOAD(from + j * filters + f);
                vec b = !below || (j && !right) ? none : LOAD(from + (p.width + j) * filters + f);
                half[0][j] = a, half[1][j] = a + b, half[2][j] = a - b, half[3][j] = -b;
            }
            UNROLL for (int i = 0; i < 4; i++) {
                real *to = m + 4 * i * point + f;
                STORE(to, half[i][0]);
                STORE(to + point, half[i][0] + half[i][1]);
                STORE(to + 2 * point, half[i][0] - half[i][1]);
                STORE(to + 3 * point, -half[i][1]);
            }
        }
    }
}

/* acc += u v for ROWS tiles and 2 vectors of filters. */
INLINE void add_channels(vec acc[ROWS][2], const real *u, const real *v, long channels,
                         long filters) {
    for (long c = 0; c < channels; c++, v += filters) {
        vec v0 = LOAD(v), v1 = LOAD(v + LANES);
        UNROLL for (int p = 0; p < ROWS; p++) {
            vec value = splat(u[p * channels + c]);
            acc[p][0] = fmadd(value, v0, acc[p][0]);
            acc[p][1] = fmadd(value, v1, acc[p][1]);
        }
    }
}

/* m = u v, or u v + u2 v2 where u2 is not NULL, at every point, of `count` tiles and more. */
INLINE void multiply_points(const real *u, const real *v, const real *u2, const real *v2, real *m,
                            long count, long channels, long filters) {
    for (int point = 0; point < POINTS; point++)
        for (long f = 0; f < filters; f += 2 * LANES)
            for (long tile = 0; tile < count; tile += ROWS) {
                long of_u = point * to_next(TILES, channels) + tile * channels;
                long of_v = point * channels * filters + f;
                real *to = m + point * to_next(TILES, filters) + tile * filters + f;
                vec acc[ROWS][2] = {0};
                add_channels(acc, u + of_u, v + of_v, channels, filters);
                if (u2)
                    add_channels(acc, u2 + of_u, v2 + of_v, channels, filters);
                UNROLL for (int p = 0; p < ROWS; p++) {
                    STORE(to + p * filters, acc[p][0]);
                    STORE(to + p * filters + LANES, acc[p][1]);
                }
            }
}

static void multiply(const real *u, const real *v, const real *u2, const real *v2, real *m,
                     long count, long channels, long filters) {
    if (channels == 64 && filters == 64)
        multiply_points(u, v, u2, v2, m, count, 64, 64); /* addresses that are known beforehand */
    else
        multiply_points(u, v, u2, v2, m, count, channels, filters);
}

/* v += u^T m at every point, summed over `count` tiles. */
INLINE void add_tiles_of(const real *u, const real *m, real *v, long count, long channels,
                         long filters) {
    for (int point = 0; point < POINTS; point++)
        for (long c = 0; c < channels; c += CHANNELS)
            for (long f = 0; f < filters; f += 2 * LANES) {
                const real *a = u + point * to_next(SUMMED, channels) + c;
                const real *b = m + point * to_next(SUMMED, filters) + f;
                real *to = v + (point * channels + c) * filters + f;
                vec acc[CHANNELS][2] = {0};
                for (long tile = 0; tile < count; tile++, a += channels, b += filters) {
                    vec b0 = LOAD(b), b1 = LOAD(b + LANES);
                    UNROLL for (int k = 0; k < CHANNELS; k++) {
                        vec value = splat(a[k]);
                        acc[k][0] = fmadd(value, b0, acc[k][0]);
                        acc[k][1] = fmadd(value, b1, acc[k][1]);
                    }
                }
                UNROLL for (int k = 0; k < CHANNELS; k++) {
                    ADD(to + k * filters, acc[k][0]);
                    ADD(to + k * filters + LANES, acc[k][1]);
                }
            }
}

static void add_tiles(const real *u, const real *m, real *v, long count, long channels,
                      long filters) {
    if (channels == 64 && filters == 64)
        add_tiles_of(u, m, v, count, 64, 64);
    else
        add_tiles_of(u, m, v, count, channels, filters);
}

/* Whether the products saved are more than what tiles that stick out and the transforms cost. */
int winograd_pays(Planes p) { return POINTS * tiles_of(p) * 13 < 9 * p.height * p.width * 10; }

/* As `convolve` of not transposed weights. */
void winograd_convolve(Memory *memory, const real *x, const real *w, const real *x2, const real *w2,
                       real *z, Planes p, long channels, long filters) {
    long size_of_u = POINTS * to_next(TILES, channels), tiles = p.n * tiles_of(p);
    real *zeros = reals(memory, channels), *m = reals(memory, POINTS * to_next(TILES, filters));
    real *u = reals(memory, size_of_u), *u2 = x2 ? reals(memory, size_of_u) : NULL;
    real *v = reals(memory, POINTS * channels * filters), *v2 = NULL;
    memset(zeros, 0, channels * sizeof(real));
    memset(u, 0, size_of_u * sizeof(real)); /* the last tiles may be fewer */
    transform_weights(w, v, channels * filters);
    if (x2) {
        v2 = reals(memory, POINTS * channels * filters);
        memset(u2, 0, size_of_u * sizeof(real));
        transform_weights(w2, v2, channels * filters);
    }
    for (long first = 0; first < tiles; first += TILES) {
        long count = tiles - first < TILES ? tiles - first : TILES;
        transform_input(x, zeros, p, first, count, channels, u, TILES);
        if (x2)
            transform_input(x2, zeros, p, first, count, channels, u2, TILES);
        multiply(u, v, u2, v2, m, count, channels, filters);
        transform_output(m, p, first, count, filters, z);
    }
}

/* As `weight_gradient`. */
void winograd_weight_gradient(Memory *memory, const real *x, const real *dz, const real *x2,
                              const real *dz2, real *dw, Planes p, long channels, long filters) {
    const real *xs[2] = {x, x2}, *dzs[2] = {dz, dz2};
    long size_of_v = POINTS * channels * filters, tiles = p.n * tiles_of(p);
    Mark before = mark(memory);
    real *zeros = reals(memory, channels), *v = reals(memory, size_of_v);
    real *u = reals(memory, POINTS * to_next(SUMMED, channels));
    real *m = reals(memory, POINTS * to_next(SUMMED, filters));
    memset(zeros, 0, channels * sizeof(real));
    memset(v, 0, size_of_v * sizeof(real));
    for (int part = 0; part < 2 && xs[part]; part++)
        for (long first = 0; first < tiles; first += SUMMED) {
            long count = tiles - first < SUMMED ? tiles - first : SUMMED;
            transform_input(xs[part], zeros, p, first, count, channels, u, SUMMED);
            transform_gradient(dzs[part], p, first, count, filters, m);
            add_tiles(u, m, v, count, channels, filters);
        }
    gather_weights(v, dw, channels * filters);
    release(memory, before);
}
