/* Winograd's F(4x4, 3x3): 36 products where the definition has 144. Its points are 0, a, -a, b, -b
 * and infinity, with P = a^2 and Q = b^2:
 *     B^T = PQ 0 -P-Q 0 1 0,  0 -aQ -Q a 1 0,  0 aQ -Q -a 1 0,  0 -bP -P b 1 0,  0 bP -P -b 1 0,
 *           0 PQ 0 -P-Q 0 1
 *     G   = 1/PQ 0 0,  (1 a P)/Na,  (1 -a P)/Na,  (1 b Q)/Nb,  (1 -b Q)/Nb,  0 0 1
 *           with Na = 2P(P-Q) and Nb = 2Q(Q-P)
 *     A^T = 1 1 1 1 1 0,  0 a -a b -b 0,  0 P P Q Q 0,  0 aP -aP bQ -bQ 1
 * The usual a = 1 and b = 2 lose twice as many digits as these, for which PQ = 1.
 */
#define TILE 4
#define SUMMED 16 /* tiles that are summed before they go to the rest, on every processor */
#define NAMED(function) winograd_4_##function
#include "winograd.h"

#define a splat(0.70710678118654752)
#define b splat(1.41421356237309505)
#define P splat(0.5)
#define Q splat(2)
#define Na splat(-1.5)
#define Nb splat(6)

INLINE void input_points(vec out[6], const vec d[6]) {
    vec even_a = fmadd(-Q, d[2], d[4]), odd_a = a * fmadd(-Q, d[1], d[3]);
    vec even_b = fmadd(-P, d[2], d[4]), odd_b = b * fmadd(-P, d[1], d[3]);
    out[0] = fmadd(-P - Q, d[2], d[0] + d[4]), out[5] = fmadd(-P - Q, d[3], d[1] + d[5]);
    out[1] = even_a + odd_a, out[2] = even_a - odd_a;
    out[3] = even_b + odd_b, out[4] = even_b - odd_b;
}

INLINE void weight_points(vec out[6], const vec w[3]) {
    vec even_a = fmadd(P, w[2], w[0]) / Na, odd_a = a / Na * w[1];
    vec even_b = fmadd(Q, w[2], w[0]) / Nb, odd_b = b / Nb * w[1];
    out[0] = w[0], out[5] = w[2];
    out[1] = even_a + odd_a, out[2] = even_a - odd_a;
    out[3] = even_b + odd_b, out[4] = even_b - odd_b;
}

INLINE void output_places(vec out[4], const vec m[6]) {
    vec even_a = m[1] + m[2], odd_a = m[1] - m[2], even_b = m[3] + m[4], odd_b = m[3] - m[4];
    out[0] = m[0] + even_a + even_b;
    out[1] = fmadd(a, odd_a, b * odd_b);
    out[2] = fmadd(P, even_a, Q * even_b);
    out[3] = fmadd(a * P, odd_a, fmadd(b * Q, odd_b, m[5]));
}

INLINE void gradient_points(vec out[6], const vec dz[4]) {
    vec even_a = fmadd(P, dz[2], dz[0]), odd_a = a * fmadd(P, dz[3], dz[1]);
    vec even_b = fmadd(Q, dz[2], dz[0]), odd_b = b * fmadd(Q, dz[3], dz[1]);
    out[0] = dz[0], out[5] = dz[3];
    out[1] = even_a + odd_a, out[2] = even_a - odd_a;
    out[3] = even_b + odd_b, out[4] = even_b - odd_b;
}

INLINE void weight_gradients(vec out[3], const vec v[6]) {
    vec even_a = (v[1] + v[2]) / Na, even_b = (v[3] + v[4]) / Nb;
    out[0] = v[0] + even_a + even_b;
    out[1] = fmadd(a / Na, v[1] - v[2], b / Nb * (v[3] - v[4]));
    out[2] = fmadd(P, even_a, fmadd(Q, even_b, v[5]));
}
