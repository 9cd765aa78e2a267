/* 3x3 convolutions of activations, with a border of zeros. */
#include "common.h"

#define IMAGES 16 /* whose places are summed before they go to the rest: short sums lose less */

/* Which rows or columns of a plane have one that lies `step` - 1 further: from, to. */
static long first_of(int step) { return step == 0; }
static long after_last_of(int step, long size) { return step == 2 ? size - 1 : size; }

/* acc += x w at the same place of ROWS images, for 2 vectors of filters. x: of these images. */
INLINE void add_channels(vec acc[ROWS][2], const real *const x[ROWS], const real *w, long channels,
                         long filters) {
    for (long c = 0; c < channels; c++, w += filters) {
        vec w0 = LOAD(w), w1 = LOAD(w + LANES);
        UNROLL for (int i = 0; i < ROWS; i++) {
            vec value = splat(x[i][c]);
            acc[i][0] = fmadd(value, w0, acc[i][0]);
            acc[i][1] = fmadd(value, w1, acc[i][1]);
        }
    }
}

/* acc += W*x at place (y, x) of ROWS images from `image` on. */
INLINE void add_taps(vec acc[ROWS][2], const real *x, const real *w, long image, long row,
                     long column, Planes p, long channels, long filters) {
    for (int tap = 0; tap < 9; tap++) {
        long y = row + tap / 3 - 1, at = column + tap % 3 - 1;
        if (y < 0 || y >= p.height || at < 0 || at >= p.width)
            continue;
        const real *from[ROWS];
        for (int i = 0; i < ROWS; i++) {
            long of = image + i < p.n ? image + i : p.n - 1;
            from[i] = x + ((of * p.height + y) * p.width + at) * channels;
        }
        add_channels(acc, from, w + tap * channels * filters, channels, filters);
    }
}

/* z = W*x, or W*x + W2*x2 where x2 is not NULL. Images are rows of a product of matrices, so that
 * small planes, which are most of all border, cost nothing for what lies outside. */
static void convolve_taps(const real *x, const real *w, const real *x2, const real *w2, real *z,
                          Planes p, long channels, long filters) {
    for (long place = 0; place < p.height * p.width; place++)
        for (long f = 0; f < filters; f += 2 * LANES)
            for (long image = 0; image < p.n; image += ROWS) {
                long y = place / p.width, column = place % p.width;
                vec acc[ROWS][2] = {0};
                add_taps(acc, x, w + f, image, y, column, p, channels, filters);
                if (x2)
                    add_taps(acc, x2, w2 + f, image, y, column, p, channels, filters);
                UNROLL for (int i = 0; i < ROWS; i++) if (image + i < p.n) {
                    real *to = z + ((image + i) * p.height * p.width + place) * filters + f;
                    STORE(to, acc[i][0]);
                    STORE(to + LANES, acc[i][1]);
                }
            }
}

/* The side of Winograd's tiles, or 0 where the products saved are less than what tiles that stick
 * out and the transforms cost. Large tiles save most, and lose digits. */
static int tile_of(Planes p) {
    if (p.height * p.width >= 400)
        return 4;
    return 16 * winograd_2_tiles_of(p) * 13 < 9 * p.height * p.width * 10 ? 2 : 0;
}

/* The weights of the transposed convolution, from w [9][filters][channels]. */
static real *turned(Memory *memory, const real *w, long channels, long filters) {
    real *out = reals(memory, 9 * channels * filters);
    for (int tap = 0; tap < 9; tap++)
        for (long c0 = 0; c0 < channels; c0 += 8) /* a line of memory of w is read once */
            for (long f = 0; f < filters; f++)
                for (long c = c0; c < c0 + 8; c++)
                    out[((8 - tap) * channels + c) * filters + f] =
                        w[(tap * filters + f) * channels + c];
    return out;
}

/* z = W*x, or W*x + W2*x2 where x2 is not NULL; of weights [9][filters][channels], the transposed
 * convolution, if transposed. */
void convolve(Memory *memory, const real *x, const real *w, const real *x2, const real *w2, real *z,
              int transposed, int largest_tile, Planes p, long channels, long filters) {
    Mark before = mark(memory);
    int tile = tile_of(p);
    if (tile > largest_tile)
        tile = largest_tile;
    if (transposed) {
        w = turned(memory, w, channels, filters);
        w2 = x2 ? turned(memory, w2, channels, filters) : NULL;
    }
    if (tile == 4)
        winograd_4_convolve(memory, x, w, x2, w2, z, p, channels, filters);
    else if (tile == 2)
        winograd_2_convolve(memory, x, w, x2, w2, z, p, channels, filters);
    else
        convolve_taps(x, w, x2, w2, z, p, channels, filters);
    release(memory, before);
}

/* acc += x (*) dz for one tap, CHANNELS channels and 2 vectors of filters, of so many images. */
INLINE void add_places(vec acc[CHANNELS][2], const real *x, const real *dz, int tap, Planes p,
                       long channels, long filters) {
    int down = tap / 3, right = tap % 3;
    long shift = ((down - 1) * p.width + right - 1) * channels;
    for (long i = 0; i < p.n; i++)
        for (long y = first_of(down); y < after_last_of(down, p.height); y++)
            for (long at = first_of(right); at < after_last_of(right, p.width); at++) {
                long place = (i * p.height + y) * p.width + at;
                const real *value = x + place * channels + shift, *d = dz + place * filters;
                vec d0 = LOAD(d), d1 = LOAD(d + LANES);
                UNROLL for (int c = 0; c < CHANNELS; c++) {
                    acc[c][0] = fmadd(splat(value[c]), d0, acc[c][0]);
                    acc[c][1] = fmadd(splat(value[c]), d1, acc[c][1]);
                }
            }
}

/* dw += x (*) dz. */
static void add_weight_gradient(const real *x, const real *dz, real *dw, Planes p, long channels,
                                long filters) {
    for (int tap = 0; tap < 9; tap++)
        for (long c = 0; c < channels; c += CHANNELS)
            for (long f = 0; f < filters; f += 2 * LANES) {
                real *to = dw + (tap * channels + c) * filters + f;
                vec acc[CHANNELS][2] = {0};
                add_places(acc, x + c, dz + f, tap, p, channels, filters);
                UNROLL for (int k = 0; k < CHANNELS; k++) {
                    ADD(to + k * filters, acc[k][0]);
                    ADD(to + k * filters + LANES, acc[k][1]);
                }
            }
}

/* dw [9][channels][filters] = x (*) dz, or plus x2 (*) dz2 where x2 is not NULL. */
void weight_gradient(Memory *memory, const real *x, const real *dz, const real *x2, const real *dz2,
                     real *dw, Planes p, long channels, long filters) {
    if (tile_of(p) == 4) {
        winograd_4_weight_gradient(memory, x, dz, x2, dz2, dw, p, channels, filters);
        return;
    }
    if (tile_of(p) == 2) {
        winograd_2_weight_gradient(memory, x, dz, x2, dz2, dw, p, channels, filters);
        return;
    }
    memset(dw, 0, 9 * channels * filters * sizeof(real));
    for (long image = 0; image < p.n; image += IMAGES) {
        Planes some = {p.n - image < IMAGES ? p.n - image : IMAGES, p.height, p.width};
        long places = image * p.height * p.width, of_x = places * channels, of_z = places * filters;
        add_weight_gradient(x + of_x, dz + of_z, dw, some, channels, filters);
        if (x2)
            add_weight_gradient(x2 + of_x, dz2 + of_z, dw, some, channels, filters);
    }
}
