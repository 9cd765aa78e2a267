/* What one task asks for, each a single call: the meta-gradient, adapted parameters, embeddings. */
#include "passes.h"

/* a - b c */
static void minus_product(const real *a, const real *b, const real *c, real *out, long size) {
    for (long at = 0; at < size; at += LANES)
        STORE(out + at, fmadd(-LOAD(b + at), LOAD(c + at), LOAD(a + at)));
}

typedef struct {
    const Network *network;
    const real *params, *rates, *support, *query;
    const int64_t *support_labels, *query_labels;
    long n_support, n_query, n_steps, first_order;
    real *gradient, *rates_gradient;
    double *loss, *accuracy;
} Task;

typedef struct {
    Forward forward;
    Backward backward;
} Step;

/* lam and d_alpha of equations (1) and (2) of engine/meta_gradient.py, downwards through the steps. */
static void descend(Memory *memory, const Task *task, const Step *steps, real *lam) {
    long size = size_of(task->network);
    real *direction = reals(memory, size), *product = reals(memory, size);
    memset(task->rates_gradient, 0, size * sizeof(real));
    for (const Step *step = steps + task->n_steps - 1; step >= steps; step--) {
        minus_product(task->rates_gradient, step->backward.gradient, lam, task->rates_gradient,
                      size);
        if (task->first_order)
            continue;
        for (long at = 0; at < size; at += LANES)
            STORE(direction + at, LOAD(task->rates + at) * LOAD(lam + at));
        hessian_product(memory, task->network, &step->forward, &step->backward, direction, product);
        for (long at = 0; at < size; at += LANES)
            STORE(lam + at, LOAD(lam + at) - LOAD(product + at));
    }
}

static void differentiate(Memory *memory, void *arguments) {
    const Task *task = arguments;
    const Network *t = task->network;
    long size = size_of(t);
    Images support, query;
    Step *steps = take(memory, (task->n_steps + 1) * sizeof(Step)), *last = steps + task->n_steps;
    const real *params = task->params;
    prepare(memory, t, task->support, task->n_support, &support);
    for (Step *step = steps; step < last; step++) {
        forward(memory, t, params, &support, &step->forward);
        gradient(memory, t, &step->forward, task->support_labels, &step->backward);
        real *moved = reals(memory, size);
        minus_product(params, task->rates, step->backward.gradient, moved, size);
        params = moved;
    }
    Mark before = mark(memory);
    prepare(memory, t, task->query, task->n_query, &query);
    forward(memory, t, params, &query, &last->forward);
    const real *logits = last->forward.logits;
    *task->loss = mean_cross_entropy(logits, task->query_labels, task->n_query, t->n_way);
    *task->accuracy =
        right_answers(logits, task->query_labels, task->n_query, t->n_way) / (double)task->n_query;
    gradient(memory, t, &last->forward, task->query_labels, &last->backward);
    memcpy(task->gradient, last->backward.gradient, size * sizeof(real));
    release(memory, before);
    descend(memory, task, steps, task->gradient);
}

/* The meta-gradient of one task: of its query loss after n_steps inner steps, by the parameters and
 * by the rates; loss and accuracy. Not 0 where there is no memory, as of all functions here. */
int task_gradient(const Network *network, const real *params, const real *rates,
                  const real *support, const int64_t *support_labels, long n_support,
                  const real *query, const int64_t *query_labels, long n_query, long n_steps,
                  long first_order, real *gradient, real *rates_gradient, double *loss,
                  double *accuracy) {
    Task task = {network,      params,    rates,   support, query,       support_labels,
                 query_labels, n_support, n_query, n_steps, first_order, gradient,
                 rates_gradient, loss, accuracy};
    return attempt(differentiate, &task);
}

typedef struct {
    const Network *network;
    const real *params, *rates, *images;
    const int64_t *labels;
    long n, n_steps;
    real *out;
} Adaptation;

static void take_steps(Memory *memory, void *arguments) {
    const Adaptation *a = arguments;
    long size = size_of(a->network);
    Images images;
    prepare(memory, a->network, a->images, a->n, &images);
    if (a->out != a->params)
        memcpy(a->out, a->params, size * sizeof(real));
    for (long step = 0; step < a->n_steps; step++) {
        Forward pass;
        Backward back;
        Mark before = mark(memory);
        forward(memory, a->network, a->out, &images, &pass);
        gradient(memory, a->network, &pass, a->labels, &back);
        minus_product(a->out, a->rates, back.gradient, a->out, size);
        release(memory, before);
    }
}

/* out = the parameters after n_steps inner steps. */
int adapt(const Network *network, const real *params, const real *rates, const real *images,
          const int64_t *labels, long n, long n_steps, real *out) {
    Adaptation a = {network, params, rates, images, labels, n, n_steps, out};
    return attempt(take_steps, &a);
}

typedef struct {
    const Network *network;
    const real *params, *images;
    long n_sets, n;
    real *features, *logits;
} Prediction;

static void predict_all(Memory *memory, void *arguments) {
    const Prediction *a = arguments;
    Images images;
    prepare(memory, a->network, a->images, a->n, &images);
    for (long set = 0; set < a->n_sets; set++) {
        const real *params = a->params + set * size_of(a->network);
        long size = a->n * features_of(a->network);
        Mark before = mark(memory);
        const real *features = embed(memory, a->network, params, &images);
        memcpy(a->features + set * size, features, size * sizeof(real));
        answers_of(a->network, params, features, a->n, a->logits + set * a->n * a->network->n_way);
        release(memory, before);
    }
}

/* By each of n_sets parameters: features [n][height][width][filters], the last block's output, and
 * logits [n][n_way]. */
int predict(const Network *network, const real *params, long n_sets, const real *images, long n,
            real *features, real *logits) {
    Prediction a = {network, params, images, n_sets, n, features, logits};
    return attempt(predict_all, &a);
}

/* Where the loss is that of the nearest prototype: `head` and `bias` of logits 2 q.c - c.c, which
 * are minus the squared distances but for what all classes share. */
static void head_of(Memory *memory, const Network *t, const Forward *support, const real *share,
                    real *head, real *bias) {
    long size = features_of(t), n = support->images->planes.n;
    real *products = reals(memory, t->n_way * t->n_way), none[t->n_way];
    memset(none, 0, sizeof(none));
    sum_rows(share, 1, t->n_way, support->blocks[BLOCKS - 1].out, n, size, head, t->n_way, 0);
    logits_of(head, head, none, t->n_way, size, t->n_way, products);
    for (long k = 0; k < t->n_way; k++)
        bias[k] = -products[k * t->n_way + k];
    for (long at = 0; at < t->n_way * size; at++)
        head[at] *= 2;
}

/* The gradients at the features of support and query. delta: at the logits. */
static void head_gradient(Memory *memory, const Network *t, const Forward *support,
                          const Forward *query, const real *share, const real *head,
                          const real *delta, real *of_support, real *of_query) {
    long size = features_of(t), n = query->images->planes.n, n_way = t->n_way;
    real *of_head = reals(memory, n_way * size), *twice = reals(memory, n * n_way);
    real *sums = reals(memory, n_way);
    sum_rows(delta, n_way, 1, head, n_way, size, of_query, n, 0);
    memset(sums, 0, n_way * sizeof(real));
    for (long i = 0; i < n * n_way; i++) {
        twice[i] = 2 * delta[i];
        sums[i % n_way] += delta[i];
    }
    sum_rows(twice, 1, n_way, query->blocks[BLOCKS - 1].out, n, size, of_head, n_way, 0);
    for (long at = 0; at < n_way * size; at++)
        of_head[at] -= head[at] * sums[at / size]; /* 2 c, from the square */
    sum_rows(share, n_way, 1, of_head, n_way, size, of_support, support->images->planes.n, 0);
}

static void differentiate_prototypes(Memory *memory, void *arguments) {
    const Task *task = arguments;
    const Network *t = task->network;
    long size = features_of(t), n = task->n_query, n_way = t->n_way;
    Images images[2];
    Forward support, query;
    Backward back[2];
    prepare(memory, t, task->support, task->n_support, images);
    prepare(memory, t, task->query, n, images + 1);
    forward(memory, t, task->params, images, &support);
    forward(memory, t, task->params, images + 1, &query);
    real *share = reals(memory, task->n_support * n_way), *head = reals(memory, n_way * size);
    real *bias = reals(memory, n_way), *logits = reals(memory, n * n_way);
    for (long i = 0; i < task->n_support * n_way; i++) /* a prototype is a mean */
        share[i] = task->support_labels[i / n_way] == i % n_way ? (real)n_way / task->n_support : 0;
    head_of(memory, t, &support, share, head, bias);
    logits_of(query.blocks[BLOCKS - 1].out, head, bias, n, size, n_way, logits);
    *task->loss = mean_cross_entropy(logits, task->query_labels, n, n_way);
    *task->accuracy = right_answers(logits, task->query_labels, n, n_way) / (double)n;
    softmax(logits, n, n_way, logits);
    for (long i = 0; i < n * n_way; i++)
        logits[i] = (logits[i] - (task->query_labels[i / n_way] == i % n_way)) / n;
    real *of_support = reals(memory, task->n_support * size), *of_query = reals(memory, n * size);
    head_gradient(memory, t, &support, &query, share, head, logits, of_support, of_query);
    for (int part = 0; part < 2; part++) {
        back[part].gradient = reals(memory, size_of(t));
        memset(back[part].gradient, 0, size_of(t) * sizeof(real));
        backward(memory, t, part ? &query : &support, part ? of_query : of_support, back + part);
    }
    for (long at = 0; at < size_of(t); at++)
        task->gradient[at] = back[0].gradient[at] + back[1].gradient[at];
}

/* The gradient of the loss of one task of a prototypical network, as
 * `adaptation.prototype_gradient`, with classes in equal numbers in the support. */
int prototype_gradient(const Network *network, const real *params, const real *support,
                       const int64_t *support_labels, long n_support, const real *query,
                       const int64_t *query_labels, long n_query, real *gradient, double *loss,
                       double *accuracy) {
    Task task = {.network = network, .params = params, .support = support, .query = query,
                 .support_labels = support_labels, .query_labels = query_labels,
                 .n_support = n_support, .n_query = n_query, .gradient = gradient, .loss = loss,
                 .accuracy = accuracy};
    return attempt(differentiate_prototypes, &task);
}
