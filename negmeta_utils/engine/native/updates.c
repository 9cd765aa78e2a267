/* The outer loop's own arithmetic, and functions on which no two C libraries agree to the last bit.
 */
#include "passes.h"

#if BITS == 64
#define ROOT __builtin_sqrt
#else
#define ROOT __builtin_sqrtf
#endif

/* 1 / n! */
static const double FACTORS[] = {1.0, 1.0, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720,
                                 1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800,
                                 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800.0};

/* exp(x) of x <= 0: 2^k exp(r) with |r| <= ln(2) / 2. */
double exponential(double x) {
    if (!(x > -700))
        return x != x ? x : 0;
    long k = (long)(x * 1.4426950408889634 - 0.5);
    double r = (x - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10, sum = 0;
    for (int n = 13; n >= 0; n--)
        sum = FACTORS[n] + sum * r;
    return __builtin_ldexp(sum, k);
}

/* log(1 + x) of x >= 0: 2^k m = 1 + x, and log m = 2 artanh((m - 1) / (m + 1)). */
double log_one_plus(double x) {
    if (!(x <= 1e300))
        return x;
    int k = 0;
    double more = x; /* m - 1 */
    if (x > 0.5) {
        double m = 2 * __builtin_frexp(1 + x, &k); /* 1 <= m < 2 */
        k--;
        if (m > 1.4142135623730951) {
            m /= 2;
            k++;
        }
        more = m - 1;
    }
    double s = more / (2 + more), square = s * s, sum = 0;
    for (int n = 23; n > 0; n -= 2)
        sum = 1.0 / n + sum * square;
    return k * 0.69314718055994530942 + 2 * s * sum;
}

typedef struct {
    real *params, *first, *second;
    const real *gradient;
    long size;
    double lr, beta1, beta2, epsilon;
    long step;
} Update;

static double power(double base, long exponent) {
    double result = 1;
    for (; exponent; exponent /= 2, base *= base)
        if (exponent % 2)
            result *= base;
    return result;
}

static void move(Memory *memory, void *arguments) {
    (void)memory;
    const Update *u = arguments;
    real step = u->lr / (1 - power(u->beta1, u->step)), new1 = 1 - u->beta1, beta2 = u->beta2;
    real new2 = 1 - u->beta2, root = __builtin_sqrt(1 - power(u->beta2, u->step));
    real epsilon = u->epsilon;
    for (long at = 0; at < u->size; at++) {
        real g = u->gradient[at];
        u->first[at] += new1 * (g - u->first[at]);
        u->second[at] = u->second[at] * beta2 + new2 * (g * g);
        u->params[at] -= step * (u->first[at] / (ROOT(u->second[at]) / root + epsilon));
    }
}

/* One step of Adam (Kingma and Ba 2015, algorithm 1), as torch.optim.Adam takes it. first, second:
 * the moments. */
int adam(real *params, const real *gradient, real *first, real *second, long size, double lr,
         double beta1, double beta2, double epsilon, long step) {
    Update u = {.params = params, .first = first, .second = second, .gradient = gradient,
                .size = size, .lr = lr, .beta1 = beta1, .beta2 = beta2, .epsilon = epsilon,
                .step = step};
    return attempt(move, &u);
}

typedef struct {
    const real *logits;
    const int64_t *labels;
    long n, n_way;
    double *loss, *accuracy;
} Judged;

static void judge_all(Memory *memory, void *arguments) {
    (void)memory;
    const Judged *j = arguments;
    *j->loss = mean_cross_entropy(j->logits, j->labels, j->n, j->n_way);
    *j->accuracy = right_answers(j->logits, j->labels, j->n, j->n_way) / (double)j->n;
}

/* Mean cross-entropy and accuracy of logits [n][n_way]. */
int judge(const real *logits, const int64_t *labels, long n, long n_way, double *loss,
          double *accuracy) {
    Judged j = {logits, labels, n, n_way, loss, accuracy};
    return attempt(judge_all, &j);
}
