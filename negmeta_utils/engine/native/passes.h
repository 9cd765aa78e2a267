/* The three passes through Conv4 that everything is made of, by the formulas of `engine/passes.py`:
 * forward, gradient, and the gradient's tangent, which is the product of Hessian and direction.
 *
 * Parameters, rates and gradients are vectors of `size_of` values: the convolutions' weights
 * [9][channels][filters] block by block, then gamma and beta of every block, the linear layer's
 * weights [n_way][height][width][filters] of the last block's output, its bias, and zeros. The
 * convolutions' own biases cancel in front of batch statistics and are left out.
 */
#include "common.h"

#define BLOCKS 4
#define EPS 1e-5 /* of batch normalisation */

typedef struct {
    long channels, height, width, filters, n_way;
} Network;

/* Images with a border, and mean [9 * channels] and covariance of their 3x3 patches: they stay the
 * same through all inner steps. */
typedef struct {
    Planes planes;
    real *padded;
    double *mean, *covariance;
} Images;

/* A block's forward pass. */
typedef struct {
    Planes planes; /* of z */
    long channels;
    const real *x, *w, *gamma, *beta;
    real *centred; /* z - mean z; in block 1 C w [9 * channels][filters], C the covariance */
    real *r, *pooled, *out; /* 1 / standard deviation, n and a at the pooled places */
    int8_t *place;
} Block;

typedef struct {
    const real *params;
    const Images *images;
    Block blocks[BLOCKS];
    real *logits, *probabilities; /* [n][n_way] */
} Forward;

/* The gradient at a block's convolution. */
typedef struct {
    real *scale, *u, *dbeta, *slope; /* gamma r, at the pooled places, sum u, r dgamma / M */
    real *dz;                        /* in block 1 the sum of X q [9 * channels][filters] */
} Spread;

typedef struct {
    real *gradient, *delta; /* delta [n][n_way] */
    Spread spreads[BLOCKS];
} Backward;

/* The tangent of a block's forward pass. */
typedef struct {
    real *z, *mean, *m2, *pooled, *out; /* z in block 1: C w. */
} Tangent;

long weight_at(const Network *t, int block);
long gamma_at(const Network *t, int block); /* beta follows */
long head_at(const Network *t);
long features_of(const Network *t);
long size_of(const Network *t);

void prepare(Memory *memory, const Network *t, const real *x, long n, Images *images);
void forward(Memory *memory, const Network *t, const real *params, const Images *images,
             Forward *pass);
/* The features [n][features_of] that `forward` gives, but by large tiles, where no gradient follows:
 * nothing else is kept, and pooling, normalisation and activation are one pass. */
const real *embed(Memory *memory, const Network *t, const real *params, const Images *images);
void answers_of(const Network *t, const real *params, const real *features, long n, real *logits);
void gradient(Memory *memory, const Network *t, const Forward *pass, const int64_t *labels,
              Backward *back);
void backward(Memory *memory, const Network *t, const Forward *pass, real *da, Backward *back);
void hessian_product(Memory *memory, const Network *t, const Forward *pass, const Backward *back,
                     const real *direction, real *product);

void activate_images(Memory *memory, const Network *t, const Images *images, const real *w,
                     Scale scale, real *out);
void normalise_images(Memory *memory, const Images *images, Block *b, long filters);
void normalise_images_tangent(Memory *memory, const Images *images, const Block *b,
                              const real *w_t, Tangent *t, long filters);
void spread_images(Memory *memory, const Images *images, const Block *b, Spread *s,
                   const real *dgamma, real *dw, long filters);
void spread_images_tangent(Memory *memory, const Images *images, const Block *b, const Tangent *t,
                           const Spread *s, const real *scale_t, const real *u_t,
                           const real *dbeta_t, const real *dgamma_t, real *dw, long filters);

double exponential(double x);
double log_one_plus(double x);

void logits_of(const real *features, const real *head, const real *bias, long n, long size,
               long n_way, real *logits);
void softmax(const real *logits, long n, long n_way, real *probabilities);
double mean_cross_entropy(const real *logits, const int64_t *labels, long n, long n_way);
long right_answers(const real *logits, const int64_t *labels, long n, long n_way);
void sum_rows(const real *factors, long of_out, long of_row, const real *rows, long n_rows,
              long size, real *out, long n_out, int add);
