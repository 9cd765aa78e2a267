/* Block 1: convolution of images, of 1 or 3 channels, with pooling inside. */
#include "common.h"

#define TOGETHER (32 / LANES) /* vectors of filters, so that sums do not wait for one another */
#if defined(__AVX512F__) || defined(__aarch64__)
#define WIDE 4 /* vectors of filters at the four places of a window, in 32 registers */
#else
#define WIDE 2 /* in 16 registers */
#endif

/* Images of x in the middle of zeros, [n][height + 2][width + 2][channels]. */
real *padded(Memory *memory, const real *x, Planes p, long channels) {
    long row = p.width * channels, padded_row = (p.width + 2) * channels;
    real *out = reals(memory, p.n * (p.height + 2) * padded_row), *to = out;
    for (long y = 0; y < p.n * (p.height + 2); y++, to += padded_row) {
        long inside = y % (p.height + 2) - 1;
        memset(to, 0, padded_row * sizeof(real));
        if (inside >= 0 && inside < p.height)
            memcpy(to + channels, x + (y / (p.height + 2) * p.height + inside) * row,
                   row * sizeof(real));
    }
    return out;
}

/* acc = W*x at the four places of a window, for so many vectors of filters. */
INLINE void window_products(vec acc[4][WIDE], const real *window, const real *w, long padded_width,
                            int channels, int vectors, long filters) {
    long row = padded_width * channels;
    for (int i = 0; i < 3; i++, window += row)
        UNROLL for (int at = 0; at < 3 * channels; at++, w += filters) /* a row of a patch */
            UNROLL for (int q = 0; q < 4; q++) {
                vec value = splat(window[q / 2 * row + q % 2 * channels + at]);
                UNROLL for (int k = 0; k < vectors; k++)
                    acc[q][k] = fmadd(value, LOAD(w + k * LANES), acc[q][k]);
            }
}

INLINE void pooled_windows(const real *px, const real *w, int8_t *place, const Scale *scale,
                           real *out, Planes p, int channels, int vectors, long filters) {
    for (long i = 0; i < p.n; i++)
        for (long y = 0; y < p.height / 2; y++)
            for (long x = 0; x < p.width / 2; x++, out += filters) {
                const real *window =
                    px + ((i * (p.height + 2) + 2 * y) * (p.width + 2) + 2 * x) * channels;
                for (long f = 0; f < filters; f += vectors * LANES) {
                    vec acc[4][WIDE] = {0};
                    window_products(acc, window, w + f, p.width + 2, channels, vectors, filters);
                    UNROLL for (int k = 0; k < vectors; k++) {
                        long at = f + k * LANES;
                        vec best = acc[0][k];
                        ivec where = {0};
                        UNROLL for (int q = 1; q < 4; q++) {
                            ivec better = acc[q][k] > best;
                            best = SELECT(better, acc[q][k], best);
                            where = (better & q) | (~better & where);
                        }
                        STORE(out + at, scale ? activated(scale, best, at) : best);
                        if (place)
                            store_places(place + at, where);
                    }
                }
                place = place ? place + filters : NULL;
            }
}

/* The largest value of W*x in every window and its place; or, where scale is not NULL, the
 * activation that it makes, and no place. */
void pooled_convolve(const real *padded_x, const real *w, int8_t *place, const Scale *scale,
                     real *out, Planes p, long channels, long filters) {
    int wide = filters % (WIDE * LANES) == 0;
    if (channels == 1 && wide)
        pooled_windows(padded_x, w, place, scale, out, p, 1, WIDE, filters);
    else if (channels == 1)
        pooled_windows(padded_x, w, place, scale, out, p, 1, 2, filters);
    else if (wide)
        pooled_windows(padded_x, w, place, scale, out, p, 3, WIDE, filters);
    else
        pooled_windows(padded_x, w, place, scale, out, p, 3, 2, filters);
}

/* four [width / 2][9][channels][4]: what each tap reads at the four places of each window of a row.
 */
INLINE void read_windows_of(const real *row, real *four, long width, int channels) {
    for (long x = 0; x < width / 2; x++, row += 2 * channels)
        UNROLL for (int tap = 0; tap < 9; tap++)
            UNROLL for (int c = 0; c < channels; c++, four += 4) {
                const real *at = row + (tap / 3 * (width + 2) + tap % 3) * channels + c;
                const real *below = at + (width + 2) * channels;
                four[0] = at[0], four[1] = at[channels];
                four[2] = below[0], four[3] = below[channels];
            }
}

static void read_windows(const real *row, real *four, long width, long channels) {
    if (channels == 1)
        read_windows_of(row, four, width, 1);
    else
        read_windows_of(row, four, width, 3);
}

/* Of each lane the one of four values that it names. */
INLINE vec chosen(const real *four, ivec where) {
#if defined(__AVX512F__) && BYTES == 64 && BITS != 64
    return (vec)_mm512_permutevar_ps(_mm512_broadcast_f32x4(_mm_loadu_ps(four)), (__m512i)where);
#elif defined(__AVX__) && BYTES == 32 && BITS != 64
    return (vec)_mm256_permutevar_ps(_mm256_broadcast_ps((const __m128 *)four), (__m256i)where);
#else
    vec value = splat(four[0]);
    UNROLL for (int q = 1; q < 4; q++) value = SELECT(where == q, splat(four[q]), value);
    return value;
#endif
}

/* W*x at the given places. */
void convolve_at(Memory *memory, const real *padded_x, const real *w, const int8_t *place,
                 real *out, Planes p, long channels, long filters) {
    Mark before = mark(memory);
    real *of_row = reals(memory, p.width / 2 * 9 * channels * 4);
    for (long y = 0; y < p.n * (p.height / 2); y++) {
        long row = y / (p.height / 2) * (p.height + 2) + y % (p.height / 2) * 2;
        read_windows(padded_x + row * (p.width + 2) * channels, of_row, p.width, channels);
        const real *four = of_row;
        for (long x = 0; x < p.width / 2; x++, four += 9 * channels * 4)
            for (long f = 0; f < filters; f += TOGETHER * LANES, place += TOGETHER * LANES) {
                vec acc[TOGETHER] = {0};
                ivec where[TOGETHER];
                UNROLL for (int k = 0; k < TOGETHER; k++)
                    where[k] = places(place + k * LANES);
                for (long tap = 0; tap < 9 * channels; tap++)
                    UNROLL for (int k = 0; k < TOGETHER; k++)
                        acc[k] = fmadd(chosen(four + tap * 4, where[k]),
                                       LOAD(w + tap * filters + f + k * LANES), acc[k]);
                UNROLL for (int k = 0; k < TOGETHER; k++, out += LANES)
                    STORE(out, acc[k]);
            }
    }
    release(memory, before);
}

/* dw += x (*) dz of the windows of one row, for the places of one channel and one vector of
 * filters. four: from the channel on. */
INLINE void add_windows(real *dw, const real *four, const int8_t *place, const real *u, long width,
                        int channels, long filters) {
    vec acc[9] = {0};
    for (long x = 0; x < width / 2; x++, place += filters, u += filters, four += 9 * channels * 4) {
        ivec where = places(place);
        vec value = LOAD(u);
        UNROLL for (int tap = 0; tap < 9; tap++)
            acc[tap] = fmadd(chosen(four + tap * channels * 4, where), value, acc[tap]);
    }
    UNROLL for (int tap = 0; tap < 9; tap++)
        ADD(dw + tap * channels * filters, acc[tap]);
}

/* dw [9][channels][filters] = x (*) dz, dz being u at the given places and 0 elsewhere. */
void weight_gradient_at(Memory *memory, const real *padded_x, const real *u, const int8_t *place,
                        real *dw, Planes p, long channels, long filters) {
    long size = 9 * channels * filters, in_row = p.width / 2 * filters;
    Mark before = mark(memory);
    real *of_image = reals(memory, size); /* short sums lose fewer digits */
    real *four = reals(memory, p.width / 2 * 9 * channels * 4);
    memset(dw, 0, size * sizeof(real));
    for (long i = 0; i < p.n; i++) {
        memset(of_image, 0, size * sizeof(real));
        for (long y = 0; y < p.height / 2; y++, place += in_row, u += in_row) {
            const real *row = padded_x + (i * (p.height + 2) + 2 * y) * (p.width + 2) * channels;
            read_windows(row, four, p.width, channels);
            for (long f = 0; f < filters; f += LANES)
                for (long c = 0; c < channels; c++)
                    if (channels == 1)
                        add_windows(of_image + f, four, place + f, u + f, p.width, 1, filters);
                    else
                        add_windows(of_image + c * filters + f, four + 4 * c, place + f, u + f,
                                    p.width, 3, filters);
        }
        for (long k = 0; k < size; k += LANES)
            ADD(dw + k, LOAD(of_image + k));
    }
    release(memory, before);
}
