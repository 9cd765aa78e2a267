/* Block 1, whose input is the images themselves: they stay the same through all inner steps, and a
 * convolution is linear in their 3x3 patches X, so statistics of z are those of the patches: mean
 * z = w . mean X and var z = w . C w with C the patches' covariance. */
#include "passes.h"

void prepare(Memory *memory, const Network *t, const real *x, long n, Images *images) {
    long size = 9 * t->channels;
    Planes p = images->planes = (Planes){n, t->height, t->width};
    double places = n * t->height * t->width;
    images->padded = padded(memory, x, p, t->channels);
    double *mean = images->mean = take(memory, size * sizeof(double));
    double *product = images->covariance = take(memory, size * size * sizeof(double));
    patch_sums(memory, x, mean, product, p, t->channels);
    for (long k = 0; k < size; k++)
        mean[k] /= places;
    for (long k = 0; k < size; k++)
        for (long l = 0; l < size; l++) /* in float64: the variance is a difference of these */
            product[k * size + l] = product[k * size + l] / places - mean[k] * mean[l];
}

/* The mean of z for one filter, and C w [size]. */
static double mean_and_product(const Images *images, const real *w, long size, long filters,
                               double *product) {
    double mean = 0;
    for (long k = 0; k < size; k++)
        product[k] = 0;
    for (long l = 0; l < size; l++) {
        double value = w[l * filters];
        mean += images->mean[l] * value;
        for (long k = 0; k < size; k++)
            product[k] += images->covariance[l * size + k] * value;
    }
    return mean;
}

/* centred = C w; mean and r of z; and w by the sign of gamma: oriented. */
static void moments_of_images(const Images *images, const real *w, const real *gamma, long size,
                              long filters, real *centred, real *mean, real *r, real *oriented) {
    for (long f = 0; f < filters; f++) {
        double product[27], variance = 0;
        mean[f] = mean_and_product(images, w + f, size, filters, product);
        for (long k = 0; k < size; k++) {
            real value = w[k * filters + f];
            variance += product[k] * value;
            centred[k * filters + f] = product[k];
            oriented[k * filters + f] = gamma[f] < 0 ? -value : value;
        }
        r[f] = 1 / __builtin_sqrt(variance + EPS);
    }
}

void activate_images(Memory *memory, const Network *t, const Images *images, const real *w,
                     Scale scale, real *out) {
    long size = 9 * t->channels, filters = t->filters;
    real *centred = reals(memory, size * filters), *oriented = reals(memory, size * filters);
    real *mean = reals(memory, filters), *r = reals(memory, filters);
    moments_of_images(images, w, scale.gamma, size, filters, centred, mean, r, oriented);
    scale.mean = mean, scale.r = r;
    pooled_convolve(images->padded, oriented, NULL, &scale, out, images->planes, t->channels,
                    filters);
}

void normalise_images(Memory *memory, const Images *images, Block *b, long filters) {
    long size = 9 * b->channels, pooled = b->planes.n * (b->planes.height / 2) *
                                          (b->planes.width / 2);
    Mark before = mark(memory);
    real *oriented = reals(memory, size * filters), *mean = reals(memory, filters);
    moments_of_images(images, b->w, b->gamma, size, filters, b->centred, mean, b->r, oriented);
    pooled_convolve(images->padded, oriented, b->place, NULL, b->pooled, b->planes, b->channels,
                    filters);
    for (long at = 0; at < pooled * filters; at += filters)
        for (long f = 0; f < filters; f++) {
            real value = b->gamma[f] < 0 ? -b->pooled[at + f] : b->pooled[at + f];
            b->pooled[at + f] = (value - mean[f]) * b->r[f];
        }
    release(memory, before);
}

void normalise_images_tangent(Memory *memory, const Images *images, const Block *b,
                              const real *w_t, Tangent *t, long filters) {
    long size = 9 * b->channels, pooled = b->planes.n * (b->planes.height / 2) *
                                          (b->planes.width / 2);
    for (long f = 0; f < filters; f++) {
        double product[27], m2 = 0;
        t->mean[f] = mean_and_product(images, w_t + f, size, filters, product);
        for (long k = 0; k < size; k++) {
            m2 += b->centred[k * filters + f] * (double)w_t[k * filters + f];
            t->z[k * filters + f] = product[k];
        }
        t->m2[f] = m2 * b->r[f];
    }
    convolve_at(memory, images->padded, w_t, b->place, t->pooled, b->planes, b->channels, filters);
    for (long at = 0; at < pooled * filters; at += filters)
        for (long f = 0; f < filters; f += LANES) {
            vec value = LOAD(t->pooled + at + f) - LOAD(t->mean + f);
            value -= LOAD(b->pooled + at + f) * LOAD(t->m2 + f);
            STORE(t->pooled + at + f, value * LOAD(b->r + f));
        }
}

void spread_images(Memory *memory, const Images *images, const Block *b, Spread *s,
                   const real *dgamma, real *dw, long filters) {
    long size = 9 * b->channels;
    double places = b->planes.n * b->planes.height * b->planes.width;
    weight_gradient_at(memory, images->padded, s->u, b->place, s->dz, b->planes, b->channels,
                       filters);
    for (long f = 0; f < filters; f++)
        s->slope[f] = b->r[f] * dgamma[f] / places;
    for (long k = 0; k < size; k++)
        for (long f = 0; f < filters; f++) {
            double q = s->dz[k * filters + f] - s->dbeta[f] * images->mean[k];
            q -= s->slope[f] * places * b->centred[k * filters + f];
            s->dz[k * filters + f] = q;
            dw[k * filters + f] = s->scale[f] * s->dz[k * filters + f];
        }
}

void spread_images_tangent(Memory *memory, const Images *images, const Block *b, const Tangent *t,
                           const Spread *s, const real *scale_t, const real *u_t,
                           const real *dbeta_t, const real *dgamma_t, real *dw, long filters) {
    long size = 9 * b->channels;
    double places = b->planes.n * b->planes.height * b->planes.width;
    weight_gradient_at(memory, images->padded, u_t, b->place, dw, b->planes, b->channels, filters);
    for (long k = 0; k < size; k++)
        for (long f = 0; f < filters; f++) {
            long at = k * filters + f;
            double slope_t = b->r[f] * dgamma_t[f] / places - s->slope[f] * b->r[f] * t->m2[f];
            double q_t = dw[at] - dbeta_t[f] * images->mean[k];
            q_t -= (s->slope[f] * (double)t->z[at] + slope_t * b->centred[at]) * places;
            dw[at] = s->scale[f] * q_t + scale_t[f] * s->dz[at];
        }
}
