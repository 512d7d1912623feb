/* Block-diagonal Kronecker-factored matrices (K-FAC, Martens & Grosse 2015, "Optimizing Neural Networks with
 * Kronecker-factored Approximate Curvature"): their statistics, their inverse, and its product with a vector.
 *
 * One block belongs to one affine layer W (outputs x inputs), b (outputs): A x G, with A = E[a a'] of the layer's input
 * with a 1 appended (input_size = inputs + 1; inputs where there is no bias) and G = E[d d'] of the derivatives of log pi
 * with respect to the layer's outputs. REAL is the table's precision; sizes are in items of it. */
#ifndef TRPO_KFAC_H
#define TRPO_KFAC_H

#include "trpo/policy.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    size_t inputs, outputs;
    size_t weight, bias;          /* offsets in the vector; bias is TRPO_NO_BIAS where the layer has none */
    size_t input_size, input_pad; /* A: input_size rows of input_pad items */
    size_t output_pad;            /* G: outputs rows of output_pad items */
    size_t A, G;                  /* where they start in the factors */
    size_t work;                  /* where this layer's work starts in that of a product */
} trpo_kronecker_layer;

#define TRPO_NO_BIAS SIZE_MAX

/* The caller fills layers, size, and of each layer inputs, outputs, weight, bias; kronecker_plan the rest. */
typedef struct {
    int layers; /* 0..TRPO_MAX_LAYERS */
    size_t size;
    trpo_kronecker_layer layer[TRPO_MAX_LAYERS];
    size_t factor_items;      /* both factors of every layer */
    size_t work_items;        /* of a product */
    size_t invert_items;      /* per thread, of an inversion */
    double apply_operations;  /* multiply-adds of a product */
    double invert_operations; /* ... and of an inversion: the sum of n^3 / 2 */
} trpo_kronecker;

/* Which rows of a bound batch the statistics are made from: rows[i], or i where rows is NULL, for i = 0, step, 2 step ...
 * below count. An odd step passes all environments when rows are ordered by time. */
typedef struct {
    const trpo_policy_batch *batch; /* bound, with activations cached for every row */
    const trpo_kronecker *plan;     /* a layer for each of the network's */
    const int64_t *rows;
    size_t count;
    size_t input_step, score_step;
    trpo_random_key key; /* of the scores' signs */
    int blocks, threads; /* blocks: trpo_kfac_block_count of every input_step-th row */
    void *sums;          /* work: blocks * factor_items */
    void *scratch;       /* work: threads * trpo_kfac_scratch_items */
} trpo_kfac_sample;

/* Tile buffers of the statistics. */
static inline size_t trpo_kfac_scratch_items(const trpo_mlp *network) {
    size_t widest = 0;
    for (int l = 0; l <= network->layers; l++)
        if (network->padded[l] > widest) widest = network->padded[l];
    return 3 * widest * TRPO_TILE_ROWS;
}

/* Items that the partial sums of the statistics take together, unless a single one takes more: wide inputs make large
 * factors, and these are bounded by the memory for one of them. */
#define TRPO_KFAC_SUM_ITEMS ((size_t)1 << 26)

/* Partial sums of the statistics: at most half as many as a product has, since adding them up costs more here. */
static inline int trpo_kfac_block_count(size_t rows, size_t factor_items) {
    const int most = (trpo_block_count(rows, factor_items) + 1) / 2;
    const size_t fitting = TRPO_KFAC_SUM_ITEMS / factor_items;
    return fitting >= (size_t)most ? most : (fitting ? (int)fitting : 1);
}

/* Where the parts of the statistics' work lie in one stretch of memory of `bytes`. */
typedef struct {
    trpo_part sums, scratch;
    size_t bytes;
    int blocks, threads;
} trpo_kfac_workspace;

/* Of sample's batch, plan, count and input_step. item_size: of the table. threads: that may work on it. */
static inline trpo_kfac_workspace trpo_kfac_workspace_for(const trpo_kfac_sample *sample, size_t item_size,
                                                          int threads) {
    const size_t rows = (sample->count + sample->input_step - 1) / sample->input_step;
    trpo_kfac_workspace w;
    memset(&w, 0, sizeof w);
    w.blocks = trpo_kfac_block_count(rows, sample->plan->factor_items);
    w.threads = threads < w.blocks ? threads : w.blocks;
    w.sums = trpo_part_after(&w.bytes, (size_t)w.blocks * sample->plan->factor_items * item_size);
    w.scratch = trpo_part_after(&w.bytes, (size_t)w.threads * trpo_kfac_scratch_items(sample->batch->problem.network) *
                                              item_size);
    return w;
}

/* Points sample's work into memory, w->bytes of it. */
static inline void trpo_kfac_place(const trpo_kfac_workspace *w, void *memory, trpo_kfac_sample *sample) {
    sample->blocks = w->blocks;
    sample->threads = w->threads;
    sample->sums = (char *)memory + w->sums.offset;
    sample->scratch = (char *)memory + w->scratch.offset;
}

/* Where what a preconditioner keeps lies in one stretch of memory of `bytes`: both factors of every layer, the diagonal,
 * and the work of a product. Inverting takes threads * invert_items besides, once. */
typedef struct {
    trpo_part factors, diagonal, work;
    size_t bytes;
} trpo_kronecker_workspace;

/* Of a plan that kronecker_plan has filled. item_size: of the table. */
static inline trpo_kronecker_workspace trpo_kronecker_workspace_for(const trpo_kronecker *plan, size_t item_size) {
    trpo_kronecker_workspace w;
    memset(&w, 0, sizeof w);
    w.factors = trpo_part_after(&w.bytes, plan->factor_items * item_size);
    w.diagonal = trpo_part_after(&w.bytes, plan->size * item_size);
    w.work = trpo_part_after(&w.bytes, plan->work_items * item_size);
    return w;
}

#ifdef __cplusplus
}
#endif

#endif
