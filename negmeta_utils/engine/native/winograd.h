/* 3x3 convolutions of activations by Winograd's F(TILE x TILE, 3x3) (Lavin and Gray 2016, "Fast
 * Algorithms for Convolutional Neural Networks", section 4), as far as it does not depend on TILE.
 * winograd_2.c and winograd_4.c define TILE, SUMMED, NAMED and the transforms of one dimension.
 *
 * A tile is TILE x TILE places of z. With d the SIDE x SIDE places of x that it reads,
 *     z tile = A^T [(G w G^T) . (B^T d B)] A
 * and the gradient of w is that formula's own: G^T [sum over tiles (B^T d B) . (A dz A^T)] G.
 * In each of the SIDE x SIDE points the sums over channels, or tiles, are a product of matrices, of
 * so many tiles at once that they stay in a core's cache (products.c).
 */
#include "common.h"

#define SIDE (TILE + 2)
#define POINTS (SIDE * SIDE)

INLINE void input_points(vec out[SIDE], const vec d[SIDE]);     /* B^T d */
INLINE void weight_points(vec out[SIDE], const vec w[3]);       /* G w */
INLINE void output_places(vec out[TILE], const vec m[SIDE]);    /* A^T m */
INLINE void gradient_points(vec out[SIDE], const vec dz[TILE]); /* A dz */
INLINE void weight_gradients(vec out[3], const vec v[SIDE]);    /* G^T v */

/* Where a tile lies: image, row and column of its first place. */
typedef struct {
    long image, y, x;
} Tile;

static long in_line(long size) { return (size + TILE - 1) / TILE; }

long NAMED(tiles_of)(Planes p) { return in_line(p.height) * in_line(p.width); }

static Tile place_of(Planes p, long tile) {
    long columns = in_line(p.width), in_image = tile % NAMED(tiles_of)(p);
    return (Tile){tile / NAMED(tiles_of)(p), in_image / columns * TILE, in_image % columns * TILE};
}

/* The tile behind it; divisions would take as long as some of the transforms. */
INLINE Tile after(Planes p, Tile tile) {
    tile.x += TILE;
    if (tile.x >= p.width)
        tile.x = 0, tile.y += TILE;
    if (tile.y >= p.height)
        tile.y = 0, tile.image++;
    return tile;
}

/* v = G w G^T. */
static void transform_weights(const real *w, real *v, long size) {
    for (long at = 0; at < size; at += LANES) {
        vec half[3][SIDE], column[3], full[SIDE];
        UNROLL for (int i = 0; i < 3; i++) {
            UNROLL for (int j = 0; j < 3; j++)
                column[j] = LOAD(w + (3 * i + j) * size + at);
            weight_points(half[i], column);
        }
        UNROLL for (int j = 0; j < SIDE; j++) {
            UNROLL for (int i = 0; i < 3; i++)
                column[i] = half[i][j];
            weight_points(full, column);
            UNROLL for (int i = 0; i < SIDE; i++)
                STORE(v + (SIDE * i + j) * size + at, full[i]);
        }
    }
}

/* w = G^T v G. */
static void gather_weights(const real *v, real *w, long size) {
    for (long at = 0; at < size; at += LANES) {
        vec half[SIDE][3], column[SIDE], full[3];
        UNROLL for (int i = 0; i < SIDE; i++) {
            UNROLL for (int j = 0; j < SIDE; j++)
                column[j] = LOAD(v + (SIDE * i + j) * size + at);
            weight_gradients(half[i], column);
        }
        UNROLL for (int j = 0; j < 3; j++) {
            UNROLL for (int i = 0; i < SIDE; i++)
                column[i] = half[i][j];
            weight_gradients(full, column);
            UNROLL for (int i = 0; i < 3; i++)
                STORE(w + (3 * i + j) * size + at, full[i]);
        }
    }
}

/* Where the places of a tile's x begin, in x or in `zeros`. */
static void patch_of(const real *patch[SIDE][SIDE], const real *x, const real *zeros, Planes p,
                     Tile tile, long channels) {
    const real *plane = x + tile.image * p.height * p.width * channels;
    for (long i = 0; i < SIDE; i++)
        for (long j = 0; j < SIDE; j++) {
            long row = tile.y + i - 1, column = tile.x + j - 1;
            int inside = row >= 0 && row < p.height && column >= 0 && column < p.width;
            patch[i][j] = inside ? plane + (row * p.width + column) * channels : zeros;
        }
}

/* u [POINTS][tiles][channels] = B^T d B of `count` tiles from `first` on. */
static void transform_input(const real *x, const real *zeros, Planes p, long first, long count,
                            long channels, real *u, long tiles) {
    long point = to_next(tiles, channels);
    Tile at = place_of(p, first);
    for (long tile = 0; tile < count; tile++, u += channels, at = after(p, at)) {
        const real *patch[SIDE][SIDE];
        patch_of(patch, x, zeros, p, at, channels);
        for (long c = 0; c < channels; c += LANES) {
            vec half[SIDE][SIDE], line[SIDE], out[SIDE];
            UNROLL for (int j = 0; j < SIDE; j++) {
                UNROLL for (int i = 0; i < SIDE; i++)
                    line[i] = LOAD(patch[i][j] + c);
                input_points(out, line);
                UNROLL for (int i = 0; i < SIDE; i++)
                    half[i][j] = out[i];
            }
            UNROLL for (int i = 0; i < SIDE; i++) {
                input_points(out, half[i]);
                UNROLL for (int j = 0; j < SIDE; j++)
                    STORE(u + (SIDE * i + j) * point + c, out[j]);
            }
        }
    }
}

/* z = A^T m A at `count` tiles from `first` on. */
static void transform_output(const real *m, Planes p, long first, long count, long filters,
                             real *z) {
    long point = to_next(TILES, filters);
    Tile at = place_of(p, first);
    for (long tile = 0; tile < count; tile++, m += filters, at = after(p, at)) {
        real *to = z + ((at.image * p.height + at.y) * p.width + at.x) * filters;
        for (long f = 0; f < filters; f += LANES) {
            vec half[SIDE][TILE], line[SIDE], out[TILE];
            UNROLL for (int i = 0; i < SIDE; i++) {
                UNROLL for (int j = 0; j < SIDE; j++)
                    line[j] = LOAD(m + (SIDE * i + j) * point + f);
                output_places(half[i], line);
            }
            UNROLL for (int j = 0; j < TILE; j++) {
                UNROLL for (int i = 0; i < SIDE; i++)
                    line[i] = half[i][j];
                output_places(out, line);
                UNROLL for (int i = 0; i < TILE; i++) if (at.y + i < p.height && at.x + j < p.width)
                    STORE(to + (i * p.width + j) * filters + f, out[i]);
            }
        }
    }
}

/* m [POINTS][SUMMED][filters] = A dz A^T of `count` tiles from `first` on. */
static void transform_gradient(const real *dz, Planes p, long first, long count, long filters,
                               real *m) {
    long point = to_next(SUMMED, filters);
    Tile at = place_of(p, first);
    for (long tile = 0; tile < count; tile++, m += filters, at = after(p, at)) {
        const real *from = dz + ((at.image * p.height + at.y) * p.width + at.x) * filters;
        for (long f = 0; f < filters; f += LANES) {
            vec none = {0}, half[SIDE][TILE], line[TILE], out[SIDE];
            UNROLL for (int j = 0; j < TILE; j++) {
                UNROLL for (int i = 0; i < TILE; i++)
                    line[i] = at.y + i < p.height && at.x + j < p.width
                                  ? LOAD(from + (i * p.width + j) * filters + f)
                                  : none;
                gradient_points(out, line);
                UNROLL for (int i = 0; i < SIDE; i++)
                    half[i][j] = out[i];
            }
            UNROLL for (int i = 0; i < SIDE; i++) {
                gradient_points(out, half[i]);
                UNROLL for (int j = 0; j < SIDE; j++)
                    STORE(m + (SIDE * i + j) * point + f, out[j]);
            }
        }
    }
}

/* u = 0 at the tiles behind the last, as far as `multiply` goes. */
static void clear_rows(real *u, long count, long channels) {
    long missing = (ROWS - count % ROWS) % ROWS * channels;
    for (int point = 0; missing && point < POINTS; point++)
        memset(u + point * to_next(TILES, channels) + count * channels, 0, missing * sizeof(real));
}

/* As `convolve` of not transposed weights. */
void NAMED(convolve)(Memory *memory, const real *x, const real *w, const real *x2, const real *w2,
                     real *z, Planes p, long channels, long filters) {
    long size_of_u = POINTS * to_next(TILES, channels), tiles = p.n * NAMED(tiles_of)(p);
    real *zeros = reals(memory, channels), *m = reals(memory, POINTS * to_next(TILES, filters));
    real *u = reals(memory, size_of_u), *u2 = x2 ? reals(memory, size_of_u) : NULL;
    real *v = reals(memory, POINTS * channels * filters), *v2 = NULL;
    memset(zeros, 0, channels * sizeof(real));
    transform_weights(w, v, channels * filters);
    if (x2) {
        v2 = reals(memory, POINTS * channels * filters);
        transform_weights(w2, v2, channels * filters);
    }
    for (long first = 0; first < tiles; first += TILES) {
        long count = tiles - first < TILES ? tiles - first : TILES;
        transform_input(x, zeros, p, first, count, channels, u, TILES);
        clear_rows(u, count, channels);
        if (x2) {
            transform_input(x2, zeros, p, first, count, channels, u2, TILES);
            clear_rows(u2, count, channels);
        }
        multiply(u, v, u2, v2, m, POINTS, count, channels, filters);
        transform_output(m, p, first, count, filters, z);
    }
}

/* As `weight_gradient`. */
void NAMED(weight_gradient)(Memory *memory, const real *x, const real *dz, const real *x2,
                            const real *dz2, real *dw, Planes p, long channels, long filters) {
    const real *xs[2] = {x, x2}, *dzs[2] = {dz, dz2};
    long size_of_v = POINTS * channels * filters, tiles = p.n * NAMED(tiles_of)(p);
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
            add_tiles(u, m, v, POINTS, SUMMED, count, channels, filters);
        }
    gather_weights(v, dw, channels * filters);
    release(memory, before);
}
