/* Batch statistics and pooling. */
#include "common.h"

#define PART 64 /* places that are summed in the precision of the data; more of them, in float64 */

static long part_of(long first, long size) { return size - first < PART ? size - first : PART; }

/* Adds the sums over a part's places of a, and of a b. total, product: [filters]. */
static void add_sums(const real *a, const real *b, long count, long filters, double *total,
                     double *product) {
    for (long f = 0; f < filters; f += LANES) {
        vec sum = {0}, sum_of_products = {0};
        for (long i = f; i < count * filters; i += filters) {
            vec value = LOAD(a + i);
            sum += value;
            sum_of_products = fmadd(value, LOAD(b + i), sum_of_products);
        }
        for (int k = 0; k < LANES; k++) {
            total[f + k] += sum[k];
            product[f + k] += sum_of_products[k];
        }
    }
}

/* Adds the sums over a part's places of (z - mean)^2; z becomes z - mean, if `centre`. */
INLINE void add_squares(real *z, int centre, const real *mean, long count, long filters,
                        double *squares) {
    for (long f = 0; f < filters; f += LANES) {
        vec middle = LOAD(mean + f), sum = {0};
        for (long i = f; i < count * filters; i += filters) {
            vec value = LOAD(z + i) - middle;
            if (centre)
                STORE(z + i, value);
            sum = fmadd(value, value, sum);
        }
        for (int k = 0; k < LANES; k++)
            squares[f + k] += sum[k];
    }
}

/* mean, variance: [filters], of z [size][filters], which becomes z - mean z, if `centre`. */
void moments(real *z, int centre, real *mean, real *variance, long size, long filters) {
    double total[filters], squares[filters];
    memset(total, 0, sizeof(total));
    memset(squares, 0, sizeof(squares));
    for (long first = 0; first < size; first += PART)
        add_sums(z + first * filters, z + first * filters, part_of(first, size), filters, total,
                 squares);
    for (long f = 0; f < filters; f++)
        mean[f] = total[f] / size;
    memset(squares, 0, sizeof(squares));
    for (long first = 0; first < size; first += PART)
        add_squares(z + first * filters, centre, mean, part_of(first, size), filters, squares);
    for (long f = 0; f < filters; f++)
        variance[f] = squares[f] / size;
}

/* The activations that the largest values of sign z in every window make. */
void pool_and_activate(const real *z, const Scale *scale, real *out, Planes p, long filters) {
    for (long i = 0; i < p.n; i++)
        for (long y = 0; y < p.height / 2; y++)
            for (long x = 0; x < p.width / 2; x++, out += filters) {
                const real *window = z + ((i * p.height + 2 * y) * p.width + 2 * x) * filters;
                for (long f = 0; f < filters; f += LANES) {
                    vec s = LOAD(scale->sign + f), best = s * LOAD(window + f);
                    UNROLL for (int q = 1; q < 4; q++) {
                        vec value = s * LOAD(window + (q / 2 * p.width + q % 2) * filters + f);
                        best = SELECT(value > best, value, best);
                    }
                    STORE(out + f, activated(scale, best, f));
                }
            }
}

/* The places of the largest values of sign c, and n = r c there. sign, r: [filters]. */
void pool(const real *c, const real *sign, const real *r, int8_t *place, real *pooled, Planes p,
          long filters) {
    for (long i = 0; i < p.n; i++)
        for (long y = 0; y < p.height / 2; y++)
            for (long x = 0; x < p.width / 2; x++, place += filters, pooled += filters) {
                const real *window = c + ((i * p.height + 2 * y) * p.width + 2 * x) * filters;
                for (long f = 0; f < filters; f += LANES) {
                    vec s = LOAD(sign + f), best = s * LOAD(window + f);
                    ivec where = {0};
                    UNROLL for (int q = 1; q < 4; q++) {
                        vec value = s * LOAD(window + (q / 2 * p.width + q % 2) * filters + f);
                        ivec better = value > best;
                        best = SELECT(better, value, best);
                        where = (better & q) | (~better & where);
                    }
                    STORE(pooled + f, s * best * LOAD(r + f));
                    store_places(place + f, where);
                }
            }
}

/* The tangent of batch normalisation from that of z: mean z., m2 = mean(n z.) and n. at the places
 * given. c, pooled: what `centre` and `pool` left; mean, m2, r: [filters]. */
void normalise_tangent(const real *z, const real *c, const real *r, const int8_t *place,
                       const real *pooled, real *mean, real *m2, real *pooled_t, Planes p,
                       long filters) {
    double total[filters], product[filters];
    long size = p.n * p.height * p.width;
    memset(total, 0, sizeof(total));
    memset(product, 0, sizeof(product));
    for (long first = 0; first < size; first += PART)
        add_sums(z + first * filters, c + first * filters, part_of(first, size), filters, total,
                 product);
    for (long f = 0; f < filters; f++) {
        mean[f] = total[f] / size;
        m2[f] = product[f] / size * r[f];
    }
    for (long i = 0; i < p.n; i++)
        for (long y = 0; y < p.height / 2; y++)
            for (long x = 0; x < p.width / 2;
                 x++, place += filters, pooled += filters, pooled_t += filters) {
                const real *window = z + ((i * p.height + 2 * y) * p.width + 2 * x) * filters;
                for (long f = 0; f < filters; f += LANES) {
                    ivec where = places(place + f);
                    vec value = LOAD(window + f);
                    UNROLL for (int q = 1; q < 4; q++) value = SELECT(
                        where == q, LOAD(window + (q / 2 * p.width + q % 2) * filters + f), value);
                    value -= fmadd(LOAD(pooled + f), LOAD(m2 + f), LOAD(mean + f));
                    STORE(pooled_t + f, value * LOAD(r + f));
                }
            }
}

/* out = max(0, beta + gamma n); or, where gate is not NULL, the tangent of that:
 * beta + gamma n + gamma2 n2 where gate > 0, else 0. beta, gamma, gamma2: [filters]; size: pooled
 * places. */
void activate(const real *gate, const real *beta, const real *gamma, const real *n,
             const real *gamma2, const real *n2, real *out, long size, long filters) {
    for (long at = 0; at < size * filters; at += filters)
        for (long f = 0; f < filters; f += LANES) {
            vec value = fmadd(LOAD(gamma + f), LOAD(n + at + f), LOAD(beta + f)), test = value;
            if (gate) {
                value = fmadd(LOAD(gamma2 + f), LOAD(n2 + at + f), value);
                test = LOAD(gate + at + f);
            }
            STORE(out + at + f, where_positive(test, value));
        }
}

/* u becomes 0 where gate is not > 0; dbeta = sum u, and dgamma = sum (u n), plus sum (u2 n2) where
 * u2 is not NULL. dbeta, dgamma: [filters]; size: pooled places. */
void gate(const real *gate, real *u, const real *n, const real *u2, const real *n2,
         real *dbeta, real *dgamma, long size, long filters) {
    double total[filters], product[filters], unused[filters];
    memset(total, 0, sizeof(total));
    memset(product, 0, sizeof(product));
    memset(unused, 0, sizeof(unused));
    for (long first = 0; first < size; first += PART) {
        long at = first * filters, count = part_of(first, size);
        for (long i = at; i < at + count * filters; i += LANES)
            STORE(u + i, where_positive(LOAD(gate + i), LOAD(u + i)));
        add_sums(u + at, n + at, count, filters, total, product);
        if (u2)
            add_sums(u2 + at, n2 + at, count, filters, unused, product);
    }
    for (long f = 0; f < filters; f++) {
        dbeta[f] = total[f];
        dgamma[f] = product[f];
    }
}

/* A place's vector of filters of `combine`, without u and v. */
INLINE vec sum_at(const real *constant, const real *ka, const real *a, const real *kb,
                  const real *b, long at, long f) {
    vec value = fmadd(LOAD(ka + f), LOAD(a + at + f), LOAD(constant + f));
    return b ? fmadd(LOAD(kb + f), LOAD(b + at + f), value) : value;
}

/* out = constant + ka a + kb b, plus ku u + kv v at the given places. constant and factors:
 * [filters]; b and v may be NULL; out may be a or b. */
void combine(const real *constant, const real *ka, const real *a, const real *kb, const real *b,
            const real *ku, const real *u, const real *kv, const real *v, const int8_t *place,
            real *out, Planes p, long filters) {
    for (long row = 0; row < p.n * p.height; row++) {
        long y = row % p.height, begin = row * p.width, x = 0;
        if (y % 2 == 0 && y + 1 < p.height)
            for (; x + 1 < p.width; x += 2, place += filters, u += filters) {
                for (long f = 0; f < filters; f += LANES) {
                    vec value = LOAD(ku + f) * LOAD(u + f);
                    if (v)
                        value = fmadd(LOAD(kv + f), LOAD(v + f), value);
                    ivec where = places(place + f);
                    UNROLL for (int q = 0; q < 4; q++) {
                        long at = (begin + q / 2 * p.width + x + q % 2) * filters;
                        vec sum = sum_at(constant, ka, a, kb, b, at, f);
                        STORE(out + at + f, sum + (vec)((where == q) & (ivec)value));
                    }
                }
                v = v ? v + filters : NULL;
            }
        else if (y % 2 == 1) /* its windows are done */
            x = p.width / 2 * 2;
        for (; x < p.width; x++)
            for (long f = 0, at = (begin + x) * filters; f < filters; f += LANES)
                STORE(out + at + f, sum_at(constant, ka, a, kb, b, at, f));
    }
}
