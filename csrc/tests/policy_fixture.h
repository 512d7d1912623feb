/* A bound batch with every buffer its own allocation, so that a sanitizer sees each overrun. */
#ifndef TRPO_TESTS_POLICY_FIXTURE_H
#define TRPO_TESTS_POLICY_FIXTURE_H

#include "check.h"

typedef struct {
    trpo_mlp plan;
    trpo_policy_batch batch;
    size_t parameters; /* log_std included */
    void *owned[16];
    int count;
} fixture;

static inline void *own(fixture *f, void *block) {
    f->owned[f->count++] = block;
    return block;
}

static inline void fixture_free(fixture *f) {
    for (int i = 0; i < f->count; i++) free(f->owned[i]);
}

static inline void fixture_make(fixture *f, const trpo_kernels *k, int layers, const size_t *widths,
                                trpo_activation activation, trpo_distribution distribution, size_t rows, int threads) {
    memset(f, 0, sizeof *f);
    k->mlp_plan(layers, widths, activation, &f->plan);
    trpo_policy_batch *b = &f->batch;
    const size_t outputs = widths[layers], item_size = k->item_size;
    f->parameters = f->plan.parameters + (distribution == TRPO_GAUSSIAN ? outputs : 0);
    *b = (trpo_policy_batch){.network = &f->plan, .distribution = distribution, .rows = rows, .total = rows};
    b->threads = threads;
    b->blocks = trpo_block_count(rows, f->plan.parameters);
    b->observations = own(f, random_values(k, rows * widths[0], 1, 11));
    b->advantages = own(f, random_values(k, rows, 1, 12));
    b->parameters = own(f, random_values(k, f->parameters, 0.3, 13));
    if (distribution == TRPO_GAUSSIAN) {
        b->actions = own(f, random_values(k, rows * outputs, 1, 14));
    } else {
        int64_t *actions = own(f, malloc(rows * sizeof(int64_t)));
        for (size_t i = 0; i < rows; i++) actions[i] = (int64_t)(i * 7 % outputs);
        b->actions = actions;
    }
    b->forward = own(f, malloc(f->plan.forward_items * item_size));
    b->backward = own(f, malloc(f->plan.backward_items * item_size + 1));
    b->trial = own(f, malloc(f->plan.forward_items * item_size));
    b->activations = own(f, malloc(rows * f->plan.activation_items * item_size));
    b->probabilities = own(f, malloc(rows * f->plan.padded[layers] * item_size));
    b->log_probs = own(f, malloc(rows * item_size));
    b->ratios = own(f, malloc(rows * item_size));
    b->sums = own(f, malloc((size_t)b->blocks * f->plan.sum_items * item_size));
    b->totals = own(f, malloc((size_t)b->blocks * (2 + outputs) * sizeof(double)));
    b->scratch = own(f, malloc((size_t)threads * f->plan.scratch_items * item_size));
    k->policy_bind(b);
}

#endif
