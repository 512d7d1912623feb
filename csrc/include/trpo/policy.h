/* One bound batch of an MLP policy: all that a trust-region step needs from it. */
#ifndef TRPO_POLICY_H
#define TRPO_POLICY_H

#include "trpo/mlp.h"
#include "trpo/random.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Most outputs of a policy network: a row of them lies on the stack. Checked by the caller. */
enum { TRPO_MAX_OUTPUTS = 4096 };

/* Bytes of activations, and of derivatives where they are kept, that a bound batch keeps. Rows beyond are passed forward again by every product, to the same bits,
 * for a fifth to a third more arithmetic: a million rows of a 64-64 network fit, and twenty million do not exhaust the
 * machine. */
#define TRPO_CACHE_BYTES ((size_t)1 << 30)

/* What a row of the network's outputs means, and how an action and its mask are stored. Outputs, actions and masks of a
 * product's parts stand one after the other, and all its actions are REAL: choices as whole numbers, which are exact. */
typedef struct trpo_action_layout {
    trpo_distribution distribution;
    size_t outputs;      /* widths[layers] of the network: means or logits */
    size_t components;   /* items of an action: REAL, = outputs, for a Gaussian; else int64, counted from 0 */
    const size_t *sizes; /* components: logits of each block, adding up to `outputs`; categorical only */
    size_t mask_items;   /* of a mask: outputs, or 2 * outputs, pairs (may be 0, may be 1), for a Bernoulli; else 0 */
    size_t count;        /* of parts, > 0 for a product; as the next one product only */
    const struct trpo_action_layout *parts; /* count: no products, whose sizes above add up to this one's */
} trpo_action_layout;

/* Items of log_std: one for each mean, in the order of the outputs. */
static inline size_t trpo_log_std_items(const trpo_action_layout *layout) {
    size_t items = layout->distribution == TRPO_GAUSSIAN ? layout->outputs : 0;
    if (layout->distribution == TRPO_PRODUCT)
        for (size_t i = 0; i < layout->count; i++)
            if (layout->parts[i].distribution == TRPO_GAUSSIAN) items += layout->parts[i].outputs;
    return items;
}

/* Whether the items of an action are REAL; int64 otherwise. */
static inline int trpo_action_is_real(const trpo_action_layout *layout) {
    return layout->distribution == TRPO_GAUSSIAN || layout->distribution == TRPO_PRODUCT;
}

/* What a trust-region step is about. The flat buffer of a policy is log_std (trpo_log_std_items), then the network's
 * parameters. REAL is the precision of the table that planned `network` and that every call with this batch uses.
 * All means are sums over the rows divided by `total`.
 *
 * Nothing of it is modified, and none of it may change from policy_bind to the last call with the batch. The caller has
 * checked what is said of values here: discrete actions and masks index memory. */
typedef struct {
    const trpo_mlp *network;
    trpo_action_layout layout;
    size_t rows;                /* > 0 */
    double total;               /* >= rows, of this batch and of others whose means are added to these; finite */
    double entropy_coefficient; /* of the mean entropy, which is added to the surrogate; finite */
    const void *observations;   /* REAL, rows x widths[0] */
    const void *actions;        /* rows x components, in range */
    const uint8_t *masks;       /* rows x mask_items, 0: forbidden; at least one allowed per component; NULL: all are */
    const void *advantages;     /* REAL, rows */
    const void *parameters;     /* REAL, theta_old: trpo_policy_parameters items */
    const void *behaviour;      /* REAL, rows: log pi_old(a|s) from the rollout; NULL: as computed here */
} trpo_policy_problem;

/* What policy_bind and policy_jacobians write and the other functions read. */
typedef struct {
    void *forward;     /* theta_old's forward_items */
    void *backward;    /* ... and backward_items */
    size_t tiles;      /* how many of the batch's tiles keep their activations, the first ones; set by the caller */
    void *activations; /* tiles * trpo_tile_items */
    double
        *log_probs; /* rows: log pi_old, the denominators of the ratio; double, because of hundreds of action dimensions
                        * the sum's rounding to float would be as large as a step's improvement */
    void *ratios;   /* REAL, rows: pi_theta_old / pi_old, 1 for the same bits, NaN where outputs are not finite */
    /* trpo_policy_jacobian_items that policy_jacobians writes after policy_bind, for products to come; NULL: products go
     * through the weights. The caller sets it, and may set it to NULL and back. Only where all tiles keep their
     * activations. */
    void *jacobians;
} trpo_policy_cache;

/* What every function may overwrite, and whose contents nobody needs between two calls. */
typedef struct {
    void *trial;    /* forward_items: the pack of a tangent or of trial parameters */
    void *sums;     /* blocks * sum_items */
    double *totals; /* blocks * (2 + widths[layers]) */
    void *scratch;  /* threads * scratch_items */
    int blocks;     /* trpo_block_count(rows, parameters); set by the caller, as the next one is */
    int threads;    /* 1..TRPO_MAX_THREADS: that there is room for; results do not depend on it */
} trpo_policy_work;

/* What products of bf16 numbers take besides. */
typedef struct {
    const struct trpo_bfloat16_kernels *kernels; /* set by the caller */
    void *weights; /* theta_old's pack, rounded: policy_narrow writes it after policy_bind, products read it */
    void *trial;   /* work: the pack of a tangent, and the layers' padded biases, which are not rounded */
    void *scratch; /* work: threads * trpo_bfloat16_tile_items */
    int threads;   /* that there is room for; as many as the other work has, or fewer */
} trpo_policy_bfloat16;

/* One bound batch. All but policy_bind, policy_jacobians and policy_narrow, which write the cache, may run at once for
 * batches that share a cache and have each their own work. */
typedef struct {
    trpo_policy_problem problem;
    trpo_policy_cache cache;
    trpo_policy_work work;
    trpo_policy_bfloat16 bfloat16; /* of policy_narrow and policy_fisher_narrow alone */
} trpo_policy_batch;

/* Items of a policy's flat buffer. */
static inline size_t trpo_policy_parameters(const trpo_mlp *network, const trpo_action_layout *layout) {
    return network->parameters + trpo_log_std_items(layout);
}

/* Items of theta_old's forward pass of one tile: activations, whose output is as `joint_resolve` leaves it, then, but for a
 * Gaussian, the metric: p, or p (1 - p) for a Bernoulli, leading dimension padded[layers]. */
static inline size_t trpo_tile_items(const trpo_mlp *network, trpo_distribution distribution) {
    const size_t metric = distribution == TRPO_GAUSSIAN ? 0 : network->padded[network->layers];
    return TRPO_TILE_ROWS * (network->activation_items + metric);
}

/* Items of the output Jacobians of one tile: outputs x pre-activations of every hidden layer but the last. */
static inline size_t trpo_tile_jacobian_items(const trpo_mlp *network) {
    return network->layers < 3
               ? 0
               : TRPO_TILE_ROWS * network->widths[network->layers] * network->activation_column[network->layers - 1];
}

/* ... and of a bound batch, whose cache has its tiles: 0 where there are none, or they cannot be used. */
static inline size_t trpo_policy_jacobian_items(const trpo_policy_batch *batch) {
    const size_t tiles = (batch->problem.rows + TRPO_TILE_ROWS - 1) / TRPO_TILE_ROWS;
    return batch->cache.tiles < tiles ? 0 : tiles * trpo_tile_jacobian_items(batch->problem.network);
}

/* Where the parts of a batch's bf16 products lie in one stretch of memory of `bytes`: the pack of theta_old, which is kept
 * from product to product, and what every product writes. */
typedef struct {
    trpo_part weights, trial, scratch;
    size_t bytes;
    int threads;
} trpo_bfloat16_workspace;

static inline trpo_bfloat16_workspace trpo_bfloat16_workspace_for(const trpo_mlp *network, int threads) {
    const trpo_bfloat16_layer end = trpo_bfloat16_layer_of(network, network->layers);
    trpo_bfloat16_workspace w;
    memset(&w, 0, sizeof w);
    w.threads = threads;
    size_t biases = 0;
    for (int l = 1; l <= network->layers; l++) biases += network->padded[l];
    w.weights = trpo_part_after(&w.bytes, (end.forward + end.backward) * sizeof(uint32_t));
    w.trial = trpo_part_after(&w.bytes, end.forward * sizeof(uint32_t) + biases * sizeof(float));
    w.scratch = trpo_part_after(&w.bytes, (size_t)threads * trpo_bfloat16_tile_items(network) * sizeof(uint32_t));
    return w;
}

/* As trpo_policy_place. What `kernels` are is left as it was. */
static inline void trpo_bfloat16_place(const trpo_bfloat16_workspace *w, void *memory, trpo_policy_batch *batch) {
    char *base = (char *)memory;
    batch->bfloat16.weights = base + w->weights.offset;
    batch->bfloat16.trial = base + w->trial.offset;
    batch->bfloat16.scratch = base + w->scratch.offset;
    batch->bfloat16.threads = w->threads;
}

/* Where the parts of a batch's cache and work lie in one stretch of memory of `bytes`. */
typedef struct {
    trpo_part forward, backward, activations, log_probs, ratios; /* cache */
    trpo_part trial, sums, totals, scratch;                      /* work */
    size_t bytes;
    size_t tiles;
    int blocks, threads;
} trpo_policy_workspace;

/* The one place that says how large they are. Looks at problem's network, layout and rows alone; item_size: of the table.
 * cache_bytes: of activations, at most (see TRPO_CACHE_BYTES). threads: 1..TRPO_MAX_THREADS that may work on it. */
static inline trpo_policy_workspace trpo_policy_workspace_for(const trpo_policy_problem *problem, size_t item_size,
                                                              size_t cache_bytes, int threads) {
    const trpo_mlp *network = problem->network;
    const size_t tile_bytes = trpo_tile_items(network, problem->layout.distribution) * item_size;
    const size_t tiles = (problem->rows + TRPO_TILE_ROWS - 1) / TRPO_TILE_ROWS, fitting = cache_bytes / tile_bytes;
    trpo_policy_workspace w;
    memset(&w, 0, sizeof w);
    w.tiles = tiles < fitting ? tiles : fitting;
    w.blocks = trpo_block_count(problem->rows, network->parameters);
    w.threads = threads < w.blocks ? threads : w.blocks;
    const size_t blocks = (size_t)w.blocks, outputs = network->widths[network->layers];
    w.forward = trpo_part_after(&w.bytes, network->forward_items * item_size);
    w.backward = trpo_part_after(&w.bytes, network->backward_items * item_size);
    w.activations = trpo_part_after(&w.bytes, w.tiles * tile_bytes);
    w.log_probs = trpo_part_after(&w.bytes, problem->rows * sizeof(double));
    w.ratios = trpo_part_after(&w.bytes, problem->rows * item_size);
    w.trial = trpo_part_after(&w.bytes, network->forward_items * item_size);
    w.sums = trpo_part_after(&w.bytes, blocks * network->sum_items * item_size);
    w.totals = trpo_part_after(&w.bytes, blocks * (2 + outputs) * sizeof(double));
    w.scratch = trpo_part_after(&w.bytes, (size_t)w.threads * network->scratch_items * item_size);
    return w;
}

/* Points batch's cache and work into memory, w->bytes of it, aligned for double; TRPO_ALIGNMENT is best. There are no
 * Jacobians then. */
static inline void trpo_policy_place(const trpo_policy_workspace *w, void *memory, trpo_policy_batch *batch) {
    char *base = (char *)memory;
    batch->cache.forward = base + w->forward.offset;
    batch->cache.backward = base + w->backward.offset;
    batch->cache.tiles = w->tiles;
    batch->cache.activations = base + w->activations.offset;
    batch->cache.log_probs = (double *)(void *)(base + w->log_probs.offset);
    batch->cache.ratios = base + w->ratios.offset;
    batch->cache.jacobians = NULL;
    batch->work.trial = base + w->trial.offset;
    batch->work.sums = base + w->sums.offset;
    batch->work.totals = (double *)(void *)(base + w->totals.offset);
    batch->work.scratch = base + w->scratch.offset;
    batch->work.blocks = w->blocks;
    batch->work.threads = w->threads;
}

/* How observations enter and actions leave; every pointer may be shared between calls, none is modified. */
typedef struct {
    const trpo_mlp *network;
    trpo_action_layout layout;
    const void *log_std; /* REAL, trpo_log_std_items */
    const double *mean;  /* widths[0], or NULL: observations are not normalized */
    const double *scale; /* widths[0]: 1 / standard deviation */
    double clip;         /* bound on |normalized observation| */
    /* components, or NULL: the environment's action bounds, where actions are REAL */
    const double *low, *high;
    /* components, or NULL: an action a becomes scale a + offset before it meets the bounds, where actions are REAL */
    const double *action_scale, *action_offset;
    const int64_t *start; /* components: first action of each, or NULL: 0; where actions are int64 */
    trpo_random_key key;
    int deterministic; /* mean or mode instead of a sample */
} trpo_actor;

/* What acting on a row found: rows that are not finite are reported, never acted on. */
typedef enum { TRPO_ACT_OK = 0, TRPO_ACT_BAD_OBSERVATION = 1, TRPO_ACT_BAD_ACTION = 2 } trpo_act_outcome;

#ifdef __cplusplus
}
#endif

#endif
