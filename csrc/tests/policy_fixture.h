/* A bound batch with every buffer its own allocation, so that a sanitizer sees each overrun. */
#ifndef TRPO_TESTS_POLICY_FIXTURE_H
#define TRPO_TESTS_POLICY_FIXTURE_H

#include "check.h"

typedef struct {
    trpo_mlp plan;
    trpo_policy_batch batch;
    size_t parameters; /* log_std included */
    void *owned[24];
    int count;
} fixture;

static inline void *own(fixture *f, void *block) {
    f->owned[f->count++] = block;
    return block;
}

static inline void fixture_free(fixture *f) {
    for (int i = 0; i < f->count; i++) free(f->owned[i]);
}

static inline trpo_action_layout fixture_layout(fixture *f, trpo_distribution distribution, size_t outputs);

/* Of choices, means, items of 0 and 1, and means again, each a fourth of the outputs, as far as they go. */
static inline trpo_action_layout fixture_product(fixture *f, size_t outputs) {
    const trpo_distribution kinds[4] = {TRPO_CATEGORICAL, TRPO_GAUSSIAN, TRPO_BERNOULLI, TRPO_GAUSSIAN};
    trpo_action_layout layout = {.distribution = TRPO_PRODUCT, .outputs = outputs};
    trpo_action_layout *parts = own(f, malloc(4 * sizeof *parts));
    for (size_t i = 0; i < 4; i++) {
        const size_t n = (outputs + 3 - i) / 4;
        if (n == 0) break;
        parts[i] = fixture_layout(f, kinds[i], n);
        layout.components += parts[i].components;
        layout.mask_items += parts[i].mask_items;
        layout.count++;
    }
    layout.parts = parts;
    return layout;
}

/* Of `outputs` outputs: categorical components of 3 logits, the last of what is left (a single one included). */
static inline trpo_action_layout fixture_layout(fixture *f, trpo_distribution distribution, size_t outputs) {
    if (distribution == TRPO_PRODUCT) return fixture_product(f, outputs);
    trpo_action_layout layout = {.distribution = distribution, .outputs = outputs, .components = outputs};
    if (distribution == TRPO_BERNOULLI) layout.mask_items = 2 * outputs;
    if (distribution != TRPO_CATEGORICAL) return layout;
    layout.components = (outputs + 2) / 3;
    layout.mask_items = outputs;
    size_t *sizes = own(f, malloc(layout.components * sizeof(size_t)));
    for (size_t j = 0; j < layout.components; j++) sizes[j] = outputs - 3 * j < 3 ? outputs - 3 * j : 3;
    layout.sizes = sizes;
    return layout;
}

/* Choices of a product's component, 0 of a mean. */
static inline size_t fixture_choices(const trpo_action_layout *layout, size_t component) {
    const trpo_action_layout *part = layout->parts;
    for (; component >= part->components; part++) component -= part->components;
    if (part->distribution == TRPO_GAUSSIAN) return 0;
    return part->sizes ? part->sizes[component] : 2;
}

/* As fixture_choose for a product, all of whose actions are numbers: `actions` has random ones. */
static inline void fixture_mix(fixture *f, const trpo_kernels *k, int masked, void *actions) {
    trpo_policy_batch *b = &f->batch;
    const trpo_action_layout *layout = &b->problem.layout;
    uint8_t *masks = own(f, malloc(b->problem.rows * layout->mask_items));
    for (size_t i = 0, m = 0; i < b->problem.rows * layout->components; i++) {
        const size_t count = fixture_choices(layout, i % layout->components);
        const size_t action = count ? i * 7 / 3 % count : 0;
        if (count) set_item(k, actions, i, (double)action);
        for (size_t j = 0; j < count; j++, m++) masks[m] = j == action || (i + 5 * j) % 3 == 0;
    }
    b->problem.actions = actions;
    b->problem.masks = masked ? masks : NULL;
}

/* Fills the discrete actions of `b` and, where wanted, masks that allow them and about half of the rest. */
static inline void fixture_choose(fixture *f, int masked) {
    trpo_policy_batch *b = &f->batch;
    const trpo_action_layout *layout = &b->problem.layout;
    int64_t *actions = own(f, malloc(b->problem.rows * layout->components * sizeof(int64_t)));
    uint8_t *masks = own(f, malloc(b->problem.rows * layout->mask_items));
    for (size_t i = 0, m = 0; i < b->problem.rows * layout->components; i++) {
        const size_t count = layout->sizes ? layout->sizes[i % layout->components] : 2;
        actions[i] = (int64_t)(i * 7 / 3 % count);
        for (size_t j = 0; j < count; j++, m++) masks[m] = (int64_t)j == actions[i] || (i + 5 * j) % 3 == 0;
    }
    b->problem.actions = actions;
    b->problem.masks = masked ? masks : NULL;
}

static inline void fixture_make(fixture *f, const trpo_kernels *k, int layers, const size_t *widths,
                                trpo_activation activation, trpo_distribution distribution, int masked, size_t rows,
                                int threads) {
    memset(f, 0, sizeof *f);
    k->mlp_plan(layers, widths, activation, &f->plan);
    trpo_policy_batch *b = &f->batch;
    const size_t outputs = widths[layers];
    *b = (trpo_policy_batch){.problem = {.network = &f->plan,
                                         .layout = fixture_layout(f, distribution, outputs),
                                         .rows = rows,
                                         .total = (double)rows,
                                         .entropy_coefficient = 0.3}};
    f->parameters = trpo_policy_parameters(&f->plan, &b->problem.layout);
    b->problem.observations = own(f, random_values(k, rows * widths[0], 1, 11));
    b->problem.advantages = own(f, random_values(k, rows, 1, 12));
    b->problem.parameters = own(f, random_values(k, f->parameters, 0.3, 13));
    if (distribution == TRPO_GAUSSIAN) {
        b->problem.actions = own(f, random_values(k, rows * outputs, 1, 14));
    } else if (distribution == TRPO_PRODUCT) {
        fixture_mix(f, k, masked, own(f, random_values(k, rows * b->problem.layout.components, 1, 14)));
    } else {
        fixture_choose(f, masked);
    }
    const trpo_policy_workspace w = trpo_policy_workspace_for(&b->problem, k->item_size, SIZE_MAX, threads);
    b->cache = (trpo_policy_cache){.forward = own(f, malloc(w.forward.bytes)),
                                   .backward = own(f, malloc(w.backward.bytes + 1)),
                                   .tiles = w.tiles,
                                   .activations = own(f, malloc(w.activations.bytes)),
                                   .log_probs = own(f, malloc(w.log_probs.bytes)),
                                   .ratios = own(f, malloc(w.ratios.bytes))};
    b->work = (trpo_policy_work){.trial = own(f, malloc(w.trial.bytes)),
                                 .sums = own(f, malloc(w.sums.bytes)),
                                 .totals = own(f, malloc(w.totals.bytes)),
                                 .scratch = own(f, malloc(w.scratch.bytes)),
                                 .blocks = w.blocks,
                                 .threads = w.threads};
    k->policy_bind(b);
}

#endif
