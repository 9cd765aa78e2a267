/* Block 1: convolution of images, of 1 or 3 channels, with pooling inside. */
#include "common.h"

/* acc = W*x at the four places of a window, for 2 vectors of filters. */
static inline __attribute__((always_inline)) void window_products(
    vec acc[4][2], const real *window, const real *w, long padded_width, int channels,
    long filters) {
    UNROLL for (int tap = 0; tap < 9; tap++)
        UNROLL for (int c = 0; c < channels; c++) {
            const real *weight = w + (tap * channels + c) * filters;
            const real *x = window + (tap / 3 * padded_width + tap % 3) * channels + c;
            vec w0 = LOAD(weight), w1 = LOAD(weight + LANES);
            UNROLL for (int q = 0; q < 4; q++) {
                vec value = splat(x[(q / 2 * padded_width + q % 2) * channels]);
                acc[q][0] += value * w0;
                acc[q][1] += value * w1;
            }
        }
}

static inline __attribute__((always_inline)) void pooled_windows(
    const real *px, const real *w, int8_t *place, real *out, int at_given, long n, long height,
    long width, int channels, long filters) {
    for (long i = 0; i < n; i++)
        for (long y = 0; y < height / 2; y++)
            for (long x = 0; x < width / 2; x++, place += filters, out += filters) {
                const real *window =
                    px + ((i * (height + 2) + 2 * y) * (width + 2) + 2 * x) * channels;
                for (long f = 0; f < filters; f += 2 * LANES) {
                    vec acc[4][2] = {0};
                    window_products(acc, window, w + f, width + 2, channels, filters);
                    UNROLL for (int half = 0; half < 2; half++) {
                        long at = f + half * LANES;
                        vec best = acc[0][half];
                        ivec where = at_given ? places(place + at) : (ivec){0};
                        UNROLL for (int q = 1; q < 4; q++) {
                            ivec better = at_given ? where == q : acc[q][half] > best;
                            best = SELECT(better, acc[q][half], best);
                            if (!at_given)
                                where = (better & q) | (~better & where);
                        }
                        STORE(out + at, best);
                        if (!at_given)
                            *(bvec *)(place + at) = __builtin_convertvector(where, bvec);
                    }
                }
            }
}

/* The largest value of W*x in every window and its place; or, if at_given, the value at the place
 * that is given. Not 0 where there is no memory. */
int pooled_convolve(const real *x, const real *w, int8_t *place, real *out, int at_given, long n,
                    long height, long width, long channels, long filters) {
    real *px = padded(x, n, height, width, channels, height + 2, width + 2);
    if (!px)
        return 1;
    if (channels == 1)
        pooled_windows(px, w, place, out, at_given, n, height, width, 1, filters);
    else
        pooled_windows(px, w, place, out, at_given, n, height, width, 3, filters);
    free(px);
    return 0;
}

/* dw += x (*) dz of the windows of one row, for one vector of filters. */
static inline __attribute__((always_inline)) void add_windows(
    real *dw, const real *row, const int8_t *place, const real *u, long width, int channels,
    long filters) {
    vec acc[27] = {0};
    for (long x = 0; x < width / 2; x++, place += filters, u += filters) {
        ivec where = places(place);
        __builtin_prefetch(u + width / 2 * filters); /* the next row: it comes from far away */
        __builtin_prefetch(place + width / 2 * filters);
        UNROLL for (int q = 0; q < 4; q++) {
            vec value = (vec)((where == q) & (ivec)LOAD(u));
            const real *patch = row + (q / 2 * (width + 2) + 2 * x + q % 2) * channels;
            UNROLL for (int k = 0; k < 9 * channels; k++) {
                int tap = k / channels;
                long at = (tap / 3 * (width + 2) + tap % 3) * channels + k % channels;
                acc[k] += splat(patch[at]) * value;
            }
        }
    }
    UNROLL for (int k = 0; k < 9 * channels; k++)
        ADD(dw + k * filters, acc[k]);
}

/* dw [9][channels][filters] = x (*) dz, dz being u at the given places and 0 elsewhere. Not 0 where
 * there is no memory. */
int weight_gradient_at(const real *x, const real *u, const int8_t *place, real *dw, long n,
                       long height, long width, long channels, long filters) {
    long size = 9 * channels * filters, in_row = width / 2 * filters;
    real *px = padded(x, n, height, width, channels, height + 2, width + 2);
    real *of_image = malloc(size * sizeof(real)); /* short sums lose fewer digits */
    int failed = !px || !of_image;
    memset(dw, 0, size * sizeof(real));
    for (long i = 0; i < n && !failed; i++) {
        memset(of_image, 0, size * sizeof(real));
        for (long y = 0; y < height / 2; y++, place += in_row, u += in_row) {
            const real *row = px + (i * (height + 2) + 2 * y) * (width + 2) * channels;
            for (long f = 0; f < filters; f += LANES)
                if (channels == 1)
                    add_windows(of_image + f, row, place + f, u + f, width, 1, filters);
                else
                    add_windows(of_image + f, row, place + f, u + f, width, 3, filters);
        }
        for (long k = 0; k < size; k += LANES)
            ADD(dw + k, LOAD(of_image + k));
    }
    free(px);
    free(of_image);
    return failed;
}
