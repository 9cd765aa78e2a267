/* 3x3 convolutions of activations. */
#include "common.h"

static real *bordered(const real *x, long n, long height, long width, long channels) {
    return padded(x, n, height, width, channels, height + 2, width + 2);
}

/* acc += W*x at PIXELS places for 2 vectors of filters; w: [9][channels][filters] from the first
 * of these filters on; pixels: where the places' patches begin. */
static inline __attribute__((always_inline)) void add_products(
    vec acc[PIXELS][2], const real *const pixels[PIXELS], const real *w, long padded_width,
    long channels, long filters) {
    for (int tap = 0; tap < 9; tap++) {
        long patch = (tap / 3 * padded_width + tap % 3) * channels;
        for (long c = 0; c < channels; c++, w += filters) {
            vec w0 = LOAD(w), w1 = LOAD(w + LANES);
            UNROLL for (int p = 0; p < PIXELS; p++) {
                vec x = splat(pixels[p][patch + c]);
                acc[p][0] += x * w0;
                acc[p][1] += x * w1;
            }
        }
    }
}

static void patches(const real *pixels[PIXELS], const real *padded_x, long first, long size,
                    long height, long width, long channels) {
    for (int p = 0; p < PIXELS; p++) {
        long at = first + p < size ? first + p : size - 1, place = at % (height * width);
        long row = at / (height * width) * (height + 2) + place / width;
        pixels[p] = padded_x + (row * (width + 2) + place % width) * channels;
    }
}

/* The weights of the transposed convolution, from w [9][filters][channels]. NULL where there is no
 * memory. */
static real *turned(const real *w, long channels, long filters) {
    real *out = malloc(9 * channels * filters * sizeof(real));
    for (int tap = 0; out && tap < 9; tap++)
        for (long c = 0; c < channels; c++)
            for (long f = 0; f < filters; f++)
                out[((8 - tap) * channels + c) * filters + f] = w[(tap * filters + f) * channels + c];
    return out;
}

/* z = W*x, or W*x + W2*x2 where x2 is not NULL. Not 0 where there is no memory. */
static int convolve_taps(const real *x, const real *w, const real *x2, const real *w2, real *z,
                         long n, long height, long width, long channels, long filters) {
    if (winograd_pays(height, width))
        return winograd_convolve(x, w, x2, w2, z, n, height, width, channels, filters);
    long together = images_at_once((height + 2) * (width + 2) * channels), plane = height * width;
    for (long image = 0; image < n; image += together) {
        long images = n - image < together ? n - image : together, size = images * plane;
        real *px = bordered(x + image * plane * channels, images, height, width, channels);
        real *px2 = NULL;
        if (x2)
            px2 = bordered(x2 + image * plane * channels, images, height, width, channels);
        real *out = z + image * plane * filters;
        int failed = !px || (x2 && !px2);
        for (long f = 0; f < filters && !failed; f += 2 * LANES)
            for (long first = 0; first < size; first += PIXELS) {
                const real *pixels[PIXELS];
                vec acc[PIXELS][2] = {0};
                patches(pixels, px, first, size, height, width, channels);
                add_products(acc, pixels, w + f, width + 2, channels, filters);
                if (x2) {
                    patches(pixels, px2, first, size, height, width, channels);
                    add_products(acc, pixels, w2 + f, width + 2, channels, filters);
                }
                UNROLL for (int p = 0; p < PIXELS; p++) if (first + p < size) {
                    STORE(out + (first + p) * filters + f, acc[p][0]);
                    STORE(out + (first + p) * filters + f + LANES, acc[p][1]);
                }
            }
        free(px);
        free(px2);
        if (failed)
            return 1;
    }
    return 0;
}

/* z = W*x, or W*x + W2*x2 where x2 is not NULL; of weights [9][filters][channels], the transposed
 * convolution, if transposed. z may be x. Not 0 where there is no memory. */
int convolve(const real *x, const real *w, const real *x2, const real *w2, real *z,
             long transposed, long n, long height, long width, long channels, long filters) {
    if (!transposed)
        return convolve_taps(x, w, x2, w2, z, n, height, width, channels, filters);
    real *t = turned(w, channels, filters), *t2 = x2 ? turned(w2, channels, filters) : NULL;
    int failed = !t || (x2 && !t2) ||
                 convolve_taps(x, t, x2, t2, z, n, height, width, channels, filters);
    free(t);
    free(t2);
    return failed;
}

/* acc += x (*) dz for one tap, CHANNELS channels and 2 vectors of filters; px, padded, from the
 * tap's and the channels' first on. */
static inline __attribute__((always_inline)) void add_places(
    vec acc[CHANNELS][2], const real *px, const real *dz, long images, long height, long width,
    long channels, long filters) {
    for (long i = 0; i < images; i++)
        for (long y = 0; y < height; y++) {
            const real *row = px + (i * (height + 2) + y) * (width + 2) * channels;
            for (long x = 0; x < width; x++, row += channels, dz += filters) {
                vec d0 = LOAD(dz), d1 = LOAD(dz + LANES);
                UNROLL for (int c = 0; c < CHANNELS; c++) {
                    vec value = splat(row[c]);
                    acc[c][0] += value * d0;
                    acc[c][1] += value * d1;
                }
            }
        }
}

/* dw [9][channels][filters] = x (*) dz, or plus x2 (*) dz2 where x2 is not NULL. Not 0 where there
 * is no memory. */
int weight_gradient(const real *x, const real *dz, const real *x2, const real *dz2, real *dw,
                    long n, long height, long width, long channels, long filters) {
    if (winograd_pays(height, width))
        return winograd_weight_gradient(x, dz, x2, dz2, dw, n, height, width, channels, filters);
    long together = images_at_once((height + 2) * (width + 2) * channels), plane = height * width;
    memset(dw, 0, 9 * channels * filters * sizeof(real));
    for (long image = 0; image < n; image += together) {
        long images = n - image < together ? n - image : together;
        const real *parts[2] = {x, x2}, *dzs[2] = {dz, dz2};
        for (int part = 0; part < 2 && parts[part]; part++) {
            const real *d = dzs[part] + image * plane * filters;
            real *px =
                bordered(parts[part] + image * plane * channels, images, height, width, channels);
            if (!px)
                return 1;
            for (int tap = 0; tap < 9; tap++)
                for (long c = 0; c < channels; c += CHANNELS)
                    for (long f = 0; f < filters; f += 2 * LANES) {
                        const real *from = px + (tap / 3 * (width + 2) + tap % 3) * channels + c;
                        real *to = dw + (tap * channels + c) * filters + f;
                        vec acc[CHANNELS][2] = {0}; /* short sums lose fewer digits */
                        add_places(acc, from, d + f, images, height, width, channels, filters);
                        UNROLL for (int k = 0; k < CHANNELS; k++) {
                            ADD(to + k * filters, acc[k][0]);
                            ADD(to + k * filters + LANES, acc[k][1]);
                        }
                    }
            free(px);
        }
    }
    return 0;
}

