/* The linear layer, its loss, and the sums over their rows. */
#include "passes.h"

#define PARTS 16 /* of a sum along a row, on every processor */

static real dot(const real *a, const real *b, long size) {
    vec sums[PARTS / LANES] = {0};
    for (long at = 0; at < size; at += PARTS)
        UNROLL for (int part = 0; part < PARTS / LANES; part++) {
            long here = at + part * LANES;
            sums[part] = fmadd(LOAD(a + here), LOAD(b + here), sums[part]);
        }
    double sum = 0;
    for (int k = 0; k < PARTS; k++)
        sum += sums[k / LANES][k % LANES];
    return sum;
}

/* [n][n_way] of features [n][size], head [n_way][size], bias [n_way]. */
void logits_of(const real *features, const real *head, const real *bias, long n, long size,
               long n_way, real *logits) {
    for (long i = 0; i < n; i++)
        for (long k = 0; k < n_way; k++)
            logits[i * n_way + k] = dot(features + i * size, head + k * size, size) + bias[k];
}

static real largest(const real *values, long size) {
    real most = values[0];
    for (long k = 1; k < size; k++)
        most = values[k] > most ? values[k] : most;
    return most;
}

/* The sum over classes of exp(logit - the largest). */
static double sum_of_exponentials(const real *logits, long n_way, real most) {
    double sum = 0;
    for (long k = 0; k < n_way; k++)
        sum += exponential((double)logits[k] - most);
    return sum;
}

void softmax(const real *logits, long n, long n_way, real *probabilities) {
    for (long i = 0; i < n; i++, logits += n_way, probabilities += n_way) {
        real most = largest(logits, n_way);
        double sum = sum_of_exponentials(logits, n_way, most);
        for (long k = 0; k < n_way; k++)
            probabilities[k] = exponential((double)logits[k] - most) / sum;
    }
}

double mean_cross_entropy(const real *logits, const int64_t *labels, long n, long n_way) {
    double total = 0;
    for (long i = 0; i < n; i++, logits += n_way) {
        real most = largest(logits, n_way);
        double sum = sum_of_exponentials(logits, n_way, most);
        total += log_one_plus(sum - 1) - ((double)logits[labels[i]] - most);
    }
    return total / n;
}

/* How many rows have the first of their largest values at their label. */
long right_answers(const real *logits, const int64_t *labels, long n, long n_way) {
    long right = 0;
    for (long i = 0; i < n; i++, logits += n_way) {
        long best = 0;
        for (long k = 1; k < n_way; k++)
            if (logits[k] > logits[best])
                best = k;
        right += best == labels[i];
    }
    return right;
}

/* out [n_out][size] = the sum over rows [n_rows][size], times factors[of_out * o + of_row * row];
 * or that is added to it. */
void sum_rows(const real *factors, long of_out, long of_row, const real *rows, long n_rows,
              long size, real *out, long n_out, int add) {
    for (long o = 0; o < n_out; o++, out += size)
        for (long at = 0; at < size; at += LANES) {
            vec sum = add ? LOAD(out + at) : (vec){0};
            for (long row = 0; row < n_rows; row++)
                sum = fmadd(splat(factors[of_out * o + of_row * row]),
                            LOAD(rows + row * size + at), sum);
            STORE(out + at, sum);
        }
}
