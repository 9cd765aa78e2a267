/* The products of matrices in Winograd's convolutions, at every point of their tiles:
 * u [points][tiles][channels], v [points][channels][filters], m [points][tiles][filters]. */
#include "common.h"

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
INLINE void multiply_all(const real *u, const real *v, const real *u2, const real *v2, real *m,
                         long points, long count, long channels, long filters) {
    for (long point = 0; point < points; point++)
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

void multiply(const real *u, const real *v, const real *u2, const real *v2, real *m, long points,
              long count, long channels, long filters) {
    if (channels == 64 && filters == 64)
        multiply_all(u, v, u2, v2, m, points, count, 64, 64); /* addresses known beforehand */
    else
        multiply_all(u, v, u2, v2, m, points, count, channels, filters);
}

/* v += u^T m at every point, summed over `count` tiles; u and m have room for `tiles`. */
INLINE void add_all(const real *u, const real *m, real *v, long points, long tiles, long count,
                    long channels, long filters) {
    for (long point = 0; point < points; point++)
        for (long c = 0; c < channels; c += CHANNELS)
            for (long f = 0; f < filters; f += 2 * LANES) {
                const real *a = u + point * to_next(tiles, channels) + c;
                const real *b = m + point * to_next(tiles, filters) + f;
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

void add_tiles(const real *u, const real *m, real *v, long points, long tiles, long count,
               long channels, long filters) {
    if (channels == 64 && filters == 64)
        add_all(u, m, v, points, tiles, count, 64, 64);
    else
        add_all(u, m, v, points, tiles, count, channels, filters);
}
