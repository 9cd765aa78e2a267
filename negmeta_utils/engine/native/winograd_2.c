/* Winograd's F(2x2, 3x3): 16 products where the definition has 36. Its points are 0, 1, -1 and
 * infinity:
 *     B^T = 1 0 -1 0,  0 1 1 0,  0 -1 1 0,  0 1 0 -1
 *     G   = 1 0 0,  1/2 1/2 1/2,  1/2 -1/2 1/2,  0 0 1
 *     A^T = 1 1 1 0,  0 1 -1 -1
 */
#define TILE 2
#define SUMMED 64 /* tiles that are summed before they go to the rest, on every processor */
#define NAMED(function) winograd_2_##function
#include "winograd.h"

INLINE void input_points(vec out[4], const vec d[4]) {
    out[0] = d[0] - d[2], out[1] = d[1] + d[2], out[2] = d[2] - d[1], out[3] = d[1] - d[3];
}

INLINE void weight_points(vec out[4], const vec w[3]) {
    vec even = (w[0] + w[2]) * splat(0.5), odd = w[1] * splat(0.5);
    out[0] = w[0], out[1] = even + odd, out[2] = even - odd, out[3] = w[2];
}

INLINE void output_places(vec out[2], const vec m[4]) {
    out[0] = m[0] + m[1] + m[2], out[1] = m[1] - m[2] - m[3];
}

INLINE void gradient_points(vec out[4], const vec dz[2]) {
    out[0] = dz[0], out[1] = dz[0] + dz[1], out[2] = dz[0] - dz[1], out[3] = -dz[1];
}

INLINE void weight_gradients(vec out[3], const vec v[4]) {
    vec even = (v[1] + v[2]) * splat(0.5);
    out[0] = v[0] + even, out[1] = (v[1] - v[2]) * splat(0.5), out[2] = even + v[3];
}
