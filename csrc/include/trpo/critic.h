/* Fitting a value network, an MLP with one output, by Adam over minibatches.
 *
 * For as long as a fit goes on, parameters and Adam's moments are in the layout that gradients come out in, so that nothing
 * is packed, unpacked or reordered in a minibatch: of every layer but the last its part of the forward pack (see mlp.h),
 * then the output's weights, padded[layers - 1], and its bias, padded[layers]. Padding is zero and stays zero. */
#ifndef TRPO_CRITIC_H
#define TRPO_CRITIC_H

#include "trpo/mlp.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows that pass all layers together: less than TRPO_TILE_ROWS, so that a usual minibatch is two equal halves. */
enum { TRPO_FIT_TILE_ROWS = 64, TRPO_FIT_BLOCKS = 16 /* partial sums of parameter size, at most */ };

/* What products of bf16 numbers take besides. */
typedef struct {
    const struct trpo_bfloat16_kernels *kernels; /* set by the caller */
    void *scratch;                               /* work: threads * trpo_critic_bfloat16_items pairs */
} trpo_critic_bfloat16;

typedef struct {
    const trpo_mlp *network;
    const void *observations; /* REAL, rows x widths[0] */
    const void *returns;      /* REAL, rows */
    double learning_rate, beta1, beta2, epsilon;
    double weight_decay; /* AdamW's: a step begins with the parameters times 1 - learning_rate weight_decay */
    int threads;         /* 1..TRPO_MAX_THREADS, that there is room for; results do not depend on it */
    int blocks;          /* partial sums that there is room for */
    /* work */
    void *state[3];                /* trpo_critic_state_items each: parameters, Adam's m and v */
    void *sums;                    /* blocks * trpo_critic_state_items: the gradient */
    double *squares;               /* blocks */
    void *scratch;                 /* threads * trpo_critic_scratch_items */
    trpo_critic_bfloat16 bfloat16; /* of critic_step_narrow alone */
} trpo_critic_fit;

/* Items of the parameters, or of a moment, in a fit's layout. */
static inline size_t trpo_critic_state_items(const trpo_mlp *network) {
    const int last = network->layers - 1;
    return network->forward_weight[last] + network->padded[last] + network->padded[last + 1];
}

/* ... and of what a thread works on: a network's scratch, a tile of observations, padded, and the backward pack. */
static inline size_t trpo_critic_scratch_items(const trpo_mlp *network) {
    return network->scratch_items + TRPO_FIT_TILE_ROWS * network->padded[0] + network->backward_items;
}

/* ... and, in pairs, with bf16 products: a tile's operands, and the rounded weights of both passes. */
static inline size_t trpo_critic_bfloat16_items(const trpo_mlp *network) {
    const trpo_bfloat16_layer end = trpo_bfloat16_layer_of(network, network->layers);
    return trpo_bfloat16_tile_items(network) + end.forward + end.backward;
}

/* How many partial sums a minibatch is split into, a function of the problem alone. */
static inline int trpo_critic_blocks(size_t rows, size_t parameters) {
    const size_t tiles = (rows + TRPO_FIT_TILE_ROWS - 1) / TRPO_FIT_TILE_ROWS,
                 most = TRPO_FIT_BLOCKS / (parameters > 65536 ? 2 : 1);
    return (int)(tiles < most ? tiles : most);
}

/* Where the parts of a fit's work lie in one stretch of memory of `bytes`. */
typedef struct {
    trpo_part state[3], sums, squares, scratch, narrow;
    size_t bytes;
    int blocks, threads;
} trpo_critic_workspace;

/* The one place that says how large they are. item_size: of the table that planned the network. batch_size: rows of the
 * largest minibatch. threads: 1..TRPO_MAX_THREADS that may work on it. bfloat16: whether it may be with such products. */
static inline trpo_critic_workspace trpo_critic_workspace_for(const trpo_mlp *network, size_t item_size,
                                                              size_t batch_size, int threads, int bfloat16) {
    const size_t items = trpo_critic_state_items(network);
    trpo_critic_workspace w;
    memset(&w, 0, sizeof w);
    w.blocks = trpo_critic_blocks(batch_size, network->parameters);
    w.threads = threads < w.blocks ? threads : w.blocks;
    for (int i = 0; i < 3; i++) w.state[i] = trpo_part_after(&w.bytes, items * item_size);
    w.sums = trpo_part_after(&w.bytes, (size_t)w.blocks * items * item_size);
    w.squares = trpo_part_after(&w.bytes, (size_t)w.blocks * sizeof(double));
    w.scratch = trpo_part_after(&w.bytes, (size_t)w.threads * trpo_critic_scratch_items(network) * item_size);
    const size_t pairs = bfloat16 ? trpo_critic_bfloat16_items(network) : 0;
    w.narrow = trpo_part_after(&w.bytes, (size_t)w.threads * pairs * sizeof(uint32_t));
    return w;
}

/* Points fit's work into memory, w->bytes of it, aligned for double; TRPO_ALIGNMENT is best. */
static inline void trpo_critic_place(const trpo_critic_workspace *w, void *memory, trpo_critic_fit *fit) {
    char *base = (char *)memory;
    for (int i = 0; i < 3; i++) fit->state[i] = base + w->state[i].offset;
    fit->sums = base + w->sums.offset;
    fit->squares = (double *)(void *)(base + w->squares.offset);
    fit->scratch = base + w->scratch.offset;
    fit->bfloat16.scratch = base + w->narrow.offset;
    fit->blocks = w->blocks;
    fit->threads = w->threads;
}

#ifdef __cplusplus
}
#endif

#endif
