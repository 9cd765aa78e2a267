/* See passes.h. */
#include "passes.h"

long weight_at(const Network *t, int block) {
    return block == 0 ? 0 : 9 * t->filters * (t->channels + (block - 1) * t->filters);
}
long gamma_at(const Network *t, int block) {
    return weight_at(t, BLOCKS) + 2 * block * t->filters;
}
long features_of(const Network *t) {
    return (t->height >> BLOCKS) * (t->width >> BLOCKS) * t->filters;
}
long head_at(const Network *t) { return gamma_at(t, BLOCKS); }
static long bias_at(const Network *t) { return head_at(t) + t->n_way * features_of(t); }
long size_of(const Network *t) { return (bias_at(t) + t->n_way + 31) / 32 * 32; }

static Planes planes_of(const Network *t, long n, int block) {
    return (Planes){n, t->height >> block, t->width >> block};
}
static long n_places(Planes p) { return p.n * p.height * p.width; }
static long pooled_places(Planes p) { return p.n * (p.height / 2) * (p.width / 2); }

static void signs_of(const real *gamma, real *sign, long filters) {
    for (long f = 0; f < filters; f++)
        sign[f] = gamma[f] < 0 ? -1 : 1;
}

/* 1 / standard deviation. */
static void r_of(const real *variance, real *r, long filters) {
    for (long f = 0; f < filters; f++)
        r[f] = 1 / __builtin_sqrt((double)variance[f] + EPS);
}

/* Small tiles, since a gradient follows: it depends on which value of a window is the largest, and
 * large tiles lose a digit. */
static void normalise(Memory *memory, Block *b, long filters) {
    Mark before = mark(memory);
    real *mean = reals(memory, filters), *variance = reals(memory, filters);
    real *sign = reals(memory, filters);
    convolve(memory, b->x, b->w, NULL, NULL, b->centred, 0, SMALL_TILES, b->planes, b->channels,
             filters);
    moments(b->centred, 1, mean, variance, n_places(b->planes), filters);
    r_of(variance, b->r, filters);
    signs_of(b->gamma, sign, filters);
    pool(b->centred, sign, b->r, b->place, b->pooled, b->planes, filters);
    release(memory, before);
}

/* Activations of a block behind the first, of x. */
static void activate_planes(Memory *memory, const real *x, const real *w, Scale scale, real *out,
                            Planes p, long filters) {
    real *z = reals(memory, n_places(p) * filters), *mean = reals(memory, filters);
    real *variance = reals(memory, filters), *r = reals(memory, filters);
    convolve(memory, x, w, NULL, NULL, z, 0, LARGE_TILES, p, filters, filters);
    moments(z, 0, mean, variance, n_places(p), filters);
    r_of(variance, r, filters);
    scale.mean = mean, scale.r = r;
    pool_and_activate(z, &scale, out, p, filters);
}

const real *embed(Memory *memory, const Network *t, const real *params, const Images *images) {
    long filters = t->filters;
    real *x = NULL, *sign = reals(memory, filters);
    for (int block = 0; block < BLOCKS; block++) {
        Planes p = planes_of(t, images->planes.n, block);
        const real *w = params + weight_at(t, block), *gamma = params + gamma_at(t, block);
        real *out = reals(memory, pooled_places(p) * filters);
        Scale scale = {.sign = sign, .gamma = gamma, .beta = gamma + filters};
        Mark before = mark(memory);
        signs_of(gamma, sign, filters);
        if (block)
            activate_planes(memory, x, w, scale, out, p, filters);
        else
            activate_images(memory, t, images, w, scale, out);
        release(memory, before);
        x = out;
    }
    return x;
}

void answers_of(const Network *t, const real *params, const real *features, long n, real *logits) {
    logits_of(features, params + head_at(t), params + bias_at(t), n, features_of(t), t->n_way,
              logits);
}

void forward(Memory *memory, const Network *t, const real *params, const Images *images,
             Forward *pass) {
    long filters = t->filters, n = images->planes.n;
    pass->params = params;
    pass->images = images;
    for (int block = 0; block < BLOCKS; block++) {
        Block *b = pass->blocks + block;
        b->planes = planes_of(t, n, block);
        b->channels = block ? filters : t->channels;
        b->x = block ? b[-1].out : images->padded;
        b->w = params + weight_at(t, block);
        b->gamma = params + gamma_at(t, block);
        b->beta = b->gamma + filters;
        long size = n_places(b->planes) * filters, pooled = pooled_places(b->planes) * filters;
        b->centred = reals(memory, block ? size : 9 * b->channels * filters);
        b->r = reals(memory, filters);
        b->place = take(memory, pooled);
        b->pooled = reals(memory, pooled);
        b->out = reals(memory, pooled);
        if (block)
            normalise(memory, b, filters);
        else
            normalise_images(memory, images, b, filters);
        activate(NULL, b->beta, b->gamma, b->pooled, NULL, NULL, b->out, pooled / filters, filters);
    }
    pass->logits = reals(memory, n * t->n_way);
    pass->probabilities = reals(memory, n * t->n_way);
    answers_of(t, params, pass->blocks[BLOCKS - 1].out, n, pass->logits);
    softmax(pass->logits, n, t->n_way, pass->probabilities);
}

static void spread(const Block *b, Spread *s, const real *dgamma, long filters) {
    double size = n_places(b->planes);
    real constant[filters], factor[filters];
    for (long f = 0; f < filters; f++) {
        s->slope[f] = b->r[f] * dgamma[f] / size;
        constant[f] = s->scale[f] * s->dbeta[f] / -size;
        factor[f] = -s->scale[f] * s->slope[f];
    }
    combine(constant, factor, b->centred, NULL, NULL, s->scale, s->u, NULL, NULL, b->place, s->dz,
            b->planes, filters);
}

/* The gradient of the blocks' parameters from that of the last one's output, which is overwritten. */
void backward(Memory *memory, const Network *t, const Forward *pass, real *da, Backward *back) {
    long filters = t->filters;
    for (int block = BLOCKS - 1; block >= 0; block--) {
        const Block *b = pass->blocks + block;
        Spread *s = back->spreads + block;
        long inputs = 9 * b->channels;
        real *dw = back->gradient + weight_at(t, block);
        real *dgamma = back->gradient + gamma_at(t, block), *dbeta = dgamma + filters;
        gate(b->out, da, b->pooled, NULL, NULL, dbeta, dgamma, pooled_places(b->planes), filters);
        s->u = da;
        s->dbeta = dbeta;
        s->scale = reals(memory, filters);
        s->slope = reals(memory, filters);
        s->dz = reals(memory, (block ? n_places(b->planes) : inputs) * filters);
        for (long f = 0; f < filters; f++)
            s->scale[f] = b->gamma[f] * b->r[f];
        if (!block) {
            spread_images(memory, pass->images, b, s, dgamma, dw, filters);
            break;
        }
        spread(b, s, dgamma, filters);
        weight_gradient(memory, b->x, s->dz, NULL, NULL, dw, b->planes, filters, filters);
        da = reals(memory, n_places(b->planes) * filters);
        convolve(memory, s->dz, b->w, NULL, NULL, da, 1, LARGE_TILES, b->planes, filters, filters);
    }
}

static void sum_columns(const real *rows, long n, long size, real *out) {
    for (long k = 0; k < size; k++) {
        double sum = 0;
        for (long i = 0; i < n; i++)
            sum += rows[i * size + k];
        out[k] = sum;
    }
}

/* Of the mean cross-entropy. */
void gradient(Memory *memory, const Network *t, const Forward *pass, const int64_t *labels,
              Backward *back) {
    long n = pass->images->planes.n, size = features_of(t), n_way = t->n_way;
    const real *head = pass->params + head_at(t), *features = pass->blocks[BLOCKS - 1].out;
    real *delta = back->delta = reals(memory, n * n_way), *da = reals(memory, n * size);
    back->gradient = reals(memory, size_of(t));
    memset(back->gradient, 0, size_of(t) * sizeof(real));
    for (long i = 0; i < n * n_way; i++)
        delta[i] = (pass->probabilities[i] - (labels[i / n_way] == i % n_way)) / n;
    sum_rows(delta, 1, n_way, features, n, size, back->gradient + head_at(t), n_way, 0);
    sum_columns(delta, n, n_way, back->gradient + bias_at(t));
    sum_rows(delta, n_way, 1, head, n_way, size, da, n, 0);
    backward(memory, t, pass, da, back);
}

static void forward_tangent(Memory *memory, const Network *t, const Forward *pass,
                            const real *direction, Tangent tangents[BLOCKS]) {
    long filters = t->filters;
    for (int block = 0; block < BLOCKS; block++) {
        const Block *b = pass->blocks + block;
        Tangent *now = tangents + block;
        const real *w_t = direction + weight_at(t, block);
        const real *gamma_t = direction + gamma_at(t, block), *beta_t = gamma_t + filters;
        long pooled = pooled_places(b->planes);
        now->z = reals(memory, (block ? n_places(b->planes) : 9 * b->channels) * filters);
        now->mean = reals(memory, filters);
        now->m2 = reals(memory, filters);
        now->pooled = reals(memory, pooled * filters);
        now->out = reals(memory, pooled * filters);
        if (block) {
            convolve(memory, b->x, w_t, now[-1].out, b->w, now->z, 0, LARGE_TILES,
                     b->planes, filters, filters);
            normalise_tangent(now->z, b->centred, b->r, b->place, b->pooled, now->mean, now->m2,
                              now->pooled, b->planes, filters);
        } else {
            normalise_images_tangent(memory, pass->images, b, w_t, now, filters);
        }
        activate(b->out, beta_t, gamma_t, b->pooled, b->gamma, now->pooled, now->out, pooled,
                 filters);
    }
}

/* dz. in place of z. */
static void spread_tangent(const Block *b, const Tangent *t, const Spread *s, const real *scale_t,
                           const real *u_t, const real *dbeta_t, const real *dgamma_t,
                           long filters) {
    double size = n_places(b->planes);
    real constant[filters], factor[filters], factor_t[filters];
    for (long f = 0; f < filters; f++) {
        double slope_t = b->r[f] * dgamma_t[f] / size - s->slope[f] * b->r[f] * t->m2[f];
        constant[f] = s->scale[f] * (s->slope[f] * t->mean[f] - dbeta_t[f] / size) -
                      scale_t[f] * s->dbeta[f] / size;
        factor[f] = -(s->scale[f] * slope_t + scale_t[f] * s->slope[f]);
        factor_t[f] = -s->scale[f] * s->slope[f];
    }
    combine(constant, factor, b->centred, factor_t, t->z, s->scale, u_t, scale_t, s->u, b->place,
            t->z, b->planes, filters);
}

static void backward_tangent(Memory *memory, const Network *t, const Forward *pass,
                             const Backward *back, const real *direction,
                             const Tangent tangents[BLOCKS], real *da_t, real *product) {
    long filters = t->filters;
    for (int block = BLOCKS - 1; block >= 0; block--) {
        const Block *b = pass->blocks + block;
        const Tangent *now = tangents + block;
        const Spread *s = back->spreads + block;
        const real *w_t = direction + weight_at(t, block);
        real *dw = product + weight_at(t, block);
        real *dgamma_t = product + gamma_at(t, block), *dbeta_t = dgamma_t + filters;
        real scale_t[filters];
        gate(b->out, da_t, b->pooled, s->u, now->pooled, dbeta_t, dgamma_t,
             pooled_places(b->planes), filters);
        for (long f = 0; f < filters; f++)
            scale_t[f] = b->r[f] * (direction[gamma_at(t, block) + f] - s->scale[f] * now->m2[f]);
        if (!block) {
            spread_images_tangent(memory, pass->images, b, now, s, scale_t, da_t, dbeta_t, dgamma_t,
                                  dw, filters);
            break;
        }
        spread_tangent(b, now, s, scale_t, da_t, dbeta_t, dgamma_t, filters);
        weight_gradient(memory, b->x, now->z, now[-1].out, s->dz, dw, b->planes, filters, filters);
        da_t = reals(memory, n_places(b->planes) * filters);
        convolve(memory, now->z, b->w, s->dz, w_t, da_t, 1, LARGE_TILES, b->planes, filters,
                 filters);
    }
}

/* delta. = s (o. - sum s o.) / rows, in place of o. */
static void softmax_tangent(const real *probabilities, long n, long n_way, real *output_t) {
    for (long i = 0; i < n; i++, probabilities += n_way, output_t += n_way) {
        double mean = 0;
        for (long k = 0; k < n_way; k++)
            mean += (double)probabilities[k] * output_t[k];
        for (long k = 0; k < n_way; k++)
            output_t[k] = probabilities[k] * (output_t[k] - mean) / n;
    }
}

/* H V of the mean cross-entropy with V = direction. */
void hessian_product(Memory *memory, const Network *t, const Forward *pass, const Backward *back,
                     const real *direction, real *product) {
    Mark before = mark(memory);
    long n = pass->images->planes.n, size = features_of(t), n_way = t->n_way;
    const real *head = pass->params + head_at(t), *head_t = direction + head_at(t);
    const real *features = pass->blocks[BLOCKS - 1].out, *delta = back->delta;
    Tangent tangents[BLOCKS];
    forward_tangent(memory, t, pass, direction, tangents);
    const real *features_t = tangents[BLOCKS - 1].out;
    real *delta_t = reals(memory, n * n_way), *more = reals(memory, n * n_way);
    real *da_t = reals(memory, n * size), none[n_way];
    memset(none, 0, sizeof(none));
    memset(product, 0, size_of(t) * sizeof(real));
    logits_of(features_t, head, none, n, size, n_way, delta_t);
    logits_of(features, head_t, direction + bias_at(t), n, size, n_way, more);
    for (long i = 0; i < n * n_way; i++)
        delta_t[i] += more[i];
    softmax_tangent(pass->probabilities, n, n_way, delta_t);
    sum_rows(delta_t, 1, n_way, features, n, size, product + head_at(t), n_way, 0);
    sum_rows(delta, 1, n_way, features_t, n, size, product + head_at(t), n_way, 1);
    sum_columns(delta_t, n, n_way, product + bias_at(t));
    sum_rows(delta_t, n_way, 1, head, n_way, size, da_t, n, 0);
    sum_rows(delta, n_way, 1, head_t, n_way, size, da_t, n, 1);
    backward_tangent(memory, t, pass, back, direction, tangents, da_t, product);
    release(memory, before);
}
