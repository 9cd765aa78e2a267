/* 3x3 convolutions of activations by Winograd's F(2x2, 3x3) (Lavin and Gray 2016, "Fast Algorithms
 * for Convolutional Neural Networks", section 4.1): 16 products where the definition has 36.
 *
 * A tile is 2x2 places of z. With d the 4x4 places of x that it reads,
 *     z tile = A^T [(G w G^T) . (B^T d B)] A
 *     B^T = 1 0 -1 0,  0 1 1 0,  0 -1 1 0,  0 1 0 -1
 *     G   = 1 0 0,  1/2 1/2 1/2,  1/2 -1/2 1/2,  0 0 1
 *     A^T = 1 1 1 0,  0 1 -1 -1
 * and the gradient of w is that formula's own: G^T [sum over tiles (B^T d B) . (A dz A^T)] G.
 * In each of the 16 points the sums over channels, or tiles, are a product of matrices, of TILES
 * tiles at once, which stay in a core's cache: u [16][TILES][channels], v [16][channels][filters],
 * m [16][TILES][filters].
 */
#include "common.h"

#define POINTS 16
#define TILES (2 * PIXELS)

/* Where tiles lie: the images, their padded x, and how many tiles they have. */
typedef struct {
    long height, width, rows, columns, padded_width, plane;
} Tiling;

static Tiling tiling(long height, long width) {
    long rows = (height + 1) / 2, columns = (width + 1) / 2;
    return (Tiling){height, width, rows, columns, 2 * columns + 2,
                    (2 * rows + 2) * (2 * columns + 2)};
}

/* Of the tiles of all images the number `tile`: image, row and column of its first place. */
static void place_of(const Tiling *t, long tile, long *image, long *y, long *x) {
    *image = tile / (t->rows * t->columns);
    *y = tile / t->columns % t->rows * 2;
    *x = tile % t->columns * 2;
}

static inline void four_by_three(vec d[4], vec a, vec b, vec c) { /* G */
    vec even = (a + c) * (real)0.5, odd = b * (real)0.5;
    d[0] = a, d[1] = even + odd, d[2] = even - odd, d[3] = c;
}

/* v = G w G^T. */
static void transform_weights(const real *w, real *v, long size) {
    for (long at = 0; at < size; at += LANES) {
        vec half[3][4], full[4];
        for (int i = 0; i < 3; i++)
            four_by_three(half[i], LOAD(w + 3 * i * size + at), LOAD(w + (3 * i + 1) * size + at),
                          LOAD(w + (3 * i + 2) * size + at));
        for (int j = 0; j < 4; j++) {
            four_by_three(full, half[0][j], half[1][j], half[2][j]);
            for (int i = 0; i < 4; i++)
                STORE(v + (4 * i + j) * size + at, full[i]);
        }
    }
}

/* w += G^T v G. */
static void add_weights(const real *v, real *w, long size) {
    for (long at = 0; at < size; at += LANES) {
        vec half[4][3];
        for (int i = 0; i < 4; i++) {
            vec a = LOAD(v + 4 * i * size + at), b = LOAD(v + (4 * i + 1) * size + at);
            vec c = LOAD(v + (4 * i + 2) * size + at), d = LOAD(v + (4 * i + 3) * size + at);
            vec even = (b + c) * (real)0.5;
            half[i][0] = a + even, half[i][1] = (b - c) * (real)0.5, half[i][2] = even + d;
        }
        for (int j = 0; j < 3; j++) {
            vec even = (half[1][j] + half[2][j]) * (real)0.5;
            ADD(w + j * size + at, half[0][j] + even);
            ADD(w + (3 + j) * size + at, (half[1][j] - half[2][j]) * (real)0.5);
            ADD(w + (6 + j) * size + at, even + half[3][j]);
        }
    }
}

/* u = B^T d B of the tiles from `first` on, of x with a border. */
static void transform_input(const real *px, const Tiling *t, long first, long count, long channels,
                            real *u) {
    for (long tile = 0; tile < count; tile++) {
        long image, y, x;
        place_of(t, first + tile, &image, &y, &x);
        const real *from = px + (image * t->plane + y * t->padded_width + x) * channels;
        for (long c = 0; c < channels; c += LANES) {
            vec d[4][4];
            UNROLL for (int j = 0; j < 4; j++) {
                const real *p = from + j * channels + c;
                long row = t->padded_width * channels;
                vec d0 = LOAD(p), d1 = LOAD(p + row), d2 = LOAD(p + 2 * row), d3 = LOAD(p + 3 * row);
                d[0][j] = d0 - d2, d[1][j] = d1 + d2, d[2][j] = d2 - d1, d[3][j] = d1 - d3;
            }
            UNROLL for (int i = 0; i < 4; i++) {
                real *to = u + (4 * i * TILES + tile) * channels + c;
                long point = TILES * channels;
                STORE(to, d[i][0] - d[i][2]);
                STORE(to + point, d[i][1] + d[i][2]);
                STORE(to + 2 * point, d[i][2] - d[i][1]);
                STORE(to + 3 * point, d[i][1] - d[i][3]);
            }
        }
    }
}

/* z = A^T m A at the tiles from `first` on. */
static void transform_output(const real *m, const Tiling *t, long first, long count, long filters,
                             real *z) {
    for (long tile = 0; tile < count; tile++) {
        long image, y, x;
        place_of(t, first + tile, &image, &y, &x);
        real *to = z + ((image * t->height + y) * t->width + x) * filters;
        for (long f = 0; f < filters; f += LANES) {
            vec half[4][2];
            UNROLL for (int i = 0; i < 4; i++) {
                const real *from = m + (4 * i * TILES + tile) * filters + f;
                long point = TILES * filters;
                vec b = LOAD(from + point), c = LOAD(from + 2 * point);
                half[i][0] = LOAD(from) + b + c;
                half[i][1] = b - c - LOAD(from + 3 * point);
            }
            UNROLL for (int j = 0; j < 2; j++) if (x + j < t->width) {
                STORE(to + j * filters + f, half[0][j] + half[1][j] + half[2][j]);
                if (y + 1 < t->height)
                    STORE(to + (t->width + j) * filters + f, half[1][j] - half[2][j] - half[3][j]);
            }
        }
    }
}

/* m = A dz A^T of the tiles from `first` on. */
static void transform_gradient(const real *dz, const Tiling *t, long first, long count,
                               long filters, real *m) {
    for (long tile = 0; tile < count; tile++) {
        long image, y, x;
        place_of(t, first + tile, &image, &y, &x);
        const real *from = dz + ((image * t->height + y) * t->width + x) * filters;
        int right = x + 1 < t->width, below = y + 1 < t->height;
        for (long f = 0; f < filters; f += LANES) {
            vec none = {0}, half[4][2];
            UNROLL for (int j = 0; j < 2; j++) {
                vec a = j && !right ? none : LOAD(from + j * filters + f);
                vec b = !below || (j && !right) ? none : LOAD(from + (t->width + j) * filters + f);
                half[0][j] = a, half[1][j] = a + b, half[2][j] = a - b, half[3][j] = -b;
            }
            UNROLL for (int i = 0; i < 4; i++) {
                real *to = m + (4 * i * TILES + tile) * filters + f;
                long point = TILES * filters;
                STORE(to, half[i][0]);
                STORE(to + point, half[i][0] + half[i][1]);
                STORE(to + 2 * point, half[i][0] - half[i][1]);
                STORE(to + 3 * point, -half[i][1]);
            }
        }
    }
}

/* acc += u v for PIXELS tiles and 2 vectors of filters. */
static inline __attribute__((always_inline)) void add_channels(
    vec acc[PIXELS][2], const real *u, const real *v, long channels, long filters) {
    for (long c = 0; c < channels; c++, v += filters) {
        vec v0 = LOAD(v), v1 = LOAD(v + LANES);
        UNROLL for (int p = 0; p < PIXELS; p++) {
            vec value = splat(u[p * channels + c]);
            acc[p][0] += value * v0;
            acc[p][1] += value * v1;
        }
    }
}

/* m = u v, or u v + u2 v2 where u2 is not NULL, at every point, of `count` tiles and more. */
static void multiply(const real *u, const real *v, const real *u2, const real *v2, real *m,
                     long count, long channels, long filters) {
    for (int point = 0; point < POINTS; point++)
        for (long f = 0; f < filters; f += 2 * LANES)
            for (long tile = 0; tile < count; tile += PIXELS) {
                long of_u = (point * TILES + tile) * channels;
                long of_v = point * channels * filters + f;
                real *to = m + (point * TILES + tile) * filters + f;
                vec acc[PIXELS][2] = {0};
                add_channels(acc, u + of_u, v + of_v, channels, filters);
                if (u2)
                    add_channels(acc, u2 + of_u, v2 + of_v, channels, filters);
                UNROLL for (int p = 0; p < PIXELS; p++) {
                    STORE(to + p * filters, acc[p][0]);
                    STORE(to + p * filters + LANES, acc[p][1]);
                }
            }
}

/* v += u^T m at every point, summed over `count` tiles. */
static void add_tiles(const real *u, const real *m, real *v, long count, long channels,
                      long filters) {
    for (int point = 0; point < POINTS; point++)
        for (long c = 0; c < channels; c += CHANNELS)
            for (long f = 0; f < filters; f += 2 * LANES) {
                const real *a = u + point * TILES * channels + c;
                const real *b = m + point * TILES * filters + f;
                real *to = v + (point * channels + c) * filters + f;
                vec acc[CHANNELS][2] = {0};
                for (long tile = 0; tile < count; tile++, a += channels, b += filters) {
                    vec b0 = LOAD(b), b1 = LOAD(b + LANES);
                    UNROLL for (int k = 0; k < CHANNELS; k++) {
                        vec value = splat(a[k]);
                        acc[k][0] += value * b0;
                        acc[k][1] += value * b1;
                    }
                }
                UNROLL for (int k = 0; k < CHANNELS; k++) {
                    ADD(to + k * filters, acc[k][0]);
                    ADD(to + k * filters + LANES, acc[k][1]);
                }
            }
}

/* Whether the products saved are more than what tiles that stick out and the transforms cost. */
int winograd_pays(long height, long width) {
    Tiling t = tiling(height, width);
    return POINTS * t.rows * t.columns * 13 < 9 * height * width * 10;
}

static real *bordered(const real *x, long n, const Tiling *t, long channels) {
    return padded(x, n, t->height, t->width, channels, 2 * t->rows + 2, t->padded_width);
}

/* As `convolve` of not transposed weights. */
int winograd_convolve(const real *x, const real *w, const real *x2, const real *w2, real *z, long n,
                      long height, long width, long channels, long filters) {
    Tiling t = tiling(height, width);
    long together = images_at_once(t.plane * channels), plane = height * width;
    long size_of_u = POINTS * TILES * channels, size_of_v = POINTS * channels * filters;
    long size_of_m = POINTS * TILES * filters;
    real *work = malloc((2 * size_of_u + 2 * size_of_v + size_of_m) * sizeof(real));
    int failed = !work;
    real *u = work, *u2 = x2 ? u + size_of_u : NULL, *v = u + 2 * size_of_u, *v2 = v + size_of_v;
    real *m = v2 + size_of_v;
    if (work)
        transform_weights(w, v, channels * filters);
    if (work && x2)
        transform_weights(w2, v2, channels * filters);
    for (long image = 0; image < n && !failed; image += together) {
        long images = n - image < together ? n - image : together;
        long tiles = images * t.rows * t.columns;
        real *px = bordered(x + image * plane * channels, images, &t, channels);
        real *px2 = x2 ? bordered(x2 + image * plane * channels, images, &t, channels) : NULL;
        failed = !px || (x2 && !px2);
        for (long first = 0; first < tiles && !failed; first += TILES) {
            long count = tiles - first < TILES ? tiles - first : TILES;
            transform_input(px, &t, first, count, channels, u);
            if (x2)
                transform_input(px2, &t, first, count, channels, u2);
            multiply(u, v, u2, v2, m, count, channels, filters);
            transform_output(m, &t, first, count, filters, z + image * plane * filters);
        }
        free(px);
        free(px2);
    }
    free(work);
    return failed;
}

/* As `weight_gradient`. */
int winograd_weight_gradient(const real *x, const real *dz, const real *x2, const real *dz2,
                             real *dw, long n, long height, long width, long channels,
                             long filters) {
    Tiling t = tiling(height, width);
    long together = images_at_once(t.plane * channels), plane = height * width;
    long size_of_u = POINTS * TILES * channels, size_of_m = POINTS * TILES * filters;
    long size_of_v = POINTS * channels * filters;
    const real *xs[2] = {x, x2}, *dzs[2] = {dz, dz2};
    real *work = malloc((size_of_u + size_of_m + size_of_v) * sizeof(real));
    int failed = !work;
    real *u = work, *m = u + size_of_u, *v = m + size_of_m;
    memset(dw, 0, 9 * channels * filters * sizeof(real));
    for (int part = 0; part < 2 && xs[part] && !failed; part++)
        for (long image = 0; image < n && !failed; image += together) {
            long images = n - image < together ? n - image : together;
            long tiles = images * t.rows * t.columns;
            real *px = bordered(xs[part] + image * plane * channels, images, &t, channels);
            failed = !px;
            memset(v, 0, size_of_v * sizeof(real));
            for (long first = 0; first < tiles && !failed; first += TILES) {
                long count = tiles - first < TILES ? tiles - first : TILES;
                transform_input(px, &t, first, count, channels, u);
                transform_gradient(dzs[part] + image * plane * filters, &t, first, count, filters, m);
                add_tiles(u, m, v, count, channels, filters);
            }
            if (!failed)
                add_weights(v, dw, channels * filters);
            free(px);
        }
    free(work);
    return failed;
}
