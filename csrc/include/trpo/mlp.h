/* Layout of a multilayer perceptron in the flat parameter buffer and in the buffers that callers own.
 *
 * Parameters: W1 (widths[1], widths[0]) row-major, b1 (widths[1]), W2, b2, ... as torch.nn.Linear stores them. The
 * activation follows every layer but the last. Sizes are in items of the table's precision, never bytes; every buffer is
 * owned by the caller. "padded" means rounded up to the vector length of the kernel table that made the plan. */
#ifndef TRPO_MLP_H
#define TRPO_MLP_H

#include "trpo/types.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TRPO_MAX_LAYERS = 64,
    TRPO_TILE_ROWS = 96, /* samples that pass all layers together: their activations stay in the L2 cache */
    TRPO_MAX_BLOCKS = 32 /* partial sums of parameter size; see trpo_block_count */
};

typedef struct {
    int layers; /* affine layers, 1..TRPO_MAX_LAYERS */
    trpo_activation activation;
    size_t widths[TRPO_MAX_LAYERS + 1]; /* widths[0]: inputs */
    size_t padded[TRPO_MAX_LAYERS + 1];
    size_t weight[TRPO_MAX_LAYERS], bias[TRPO_MAX_LAYERS]; /* offsets in the flat buffer */
    size_t parameters;
    /* forward pack: per layer the panels of W' (widths[l] x padded[l+1]), then the padded bias */
    size_t forward_weight[TRPO_MAX_LAYERS], forward_bias[TRPO_MAX_LAYERS];
    size_t forward_items;
    /* backward pack: per layer but the first the panels of W (widths[l+1] x padded[l]) */
    size_t backward_weight[TRPO_MAX_LAYERS];
    size_t backward_items;
    /* gradient accumulator: per layer dW' (widths[l] x padded[l+1]) where transposed, else dW (widths[l+1] x padded[l]),
     * whichever wastes less on padding; then the padded db */
    int transposed[TRPO_MAX_LAYERS];
    size_t sum_weight[TRPO_MAX_LAYERS], sum_bias[TRPO_MAX_LAYERS];
    size_t sum_items;
    /* activations of a tile: layer l (1..layers, the last being the output) starts at TRPO_TILE_ROWS * activation_column[l]
     * and has leading dimension padded[l]; what the derivative of a hidden layer's activation is computed from lies in the
     * same way at derivative_column[l]: the activations again, or behind them all the derivatives themselves */
    size_t activation_column[TRPO_MAX_LAYERS + 1], derivative_column[TRPO_MAX_LAYERS + 1];
    size_t activation_items; /* per sample, with what is kept of derivatives */
    /* per thread: two pairs of tile buffers of the widest layer, then one tile of activations and one more of outputs */
    size_t scratch_items;
    size_t tile_activations; /* where in the scratch that last part starts */
} trpo_mlp;

/* How many partial sums a batch is split into: a function of the problem alone, never of the number of threads, so
 * that results do not depend on it. Adding them up is what threads do not share, so a small batch or a large network has
 * fewer; a large batch has more, so that no thread waits long for another's last block. */
static inline int trpo_block_count(size_t rows, size_t parameters) {
    const size_t tiles = (rows + TRPO_TILE_ROWS - 1) / TRPO_TILE_ROWS;
    const size_t most = TRPO_MAX_BLOCKS / (tiles < 64 ? 2 : 1) / (parameters > 65536 ? 2 : 1);
    return (int)(tiles < most ? tiles : most);
}

/* Products of bf16 numbers; see trpo_bfloat16_kernels_for. */
struct trpo_bfloat16_kernels;

/* Pairs of bf16 numbers that a row of `width` takes. */
static inline size_t trpo_bfloat16_pairs(size_t width) { return (width + 1) / 2; }

/* Where layer l of a network lies, in pairs: its weights in a pack that is read forwards, W' in column panels, and one that
 * is read backwards, W (all but the first layer); its inputs, in a tile's scratch, along its rows and down its columns. Of
 * l = layers: the ends. */
typedef struct {
    size_t forward, backward;
    size_t along, down;
} trpo_bfloat16_layer;

static inline trpo_bfloat16_layer trpo_bfloat16_layer_of(const trpo_mlp *network, int l) {
    trpo_bfloat16_layer at;
    memset(&at, 0, sizeof at);
    for (int i = 0; i < l; i++) {
        const size_t inputs = i ? network->padded[i] : network->widths[0];
        at.forward += trpo_bfloat16_pairs(network->widths[i]) * network->padded[i + 1];
        at.backward += i ? trpo_bfloat16_pairs(network->widths[i + 1]) * network->padded[i] : 0;
        at.along += TRPO_TILE_ROWS * trpo_bfloat16_pairs(inputs);
        at.down += TRPO_TILE_ROWS / 2 * inputs;
    }
    return at;
}

/* A thread's scratch, in pairs: inputs of every layer, then a tangent or cotangent of the widest, along and down. */
static inline size_t trpo_bfloat16_tile_items(const trpo_mlp *network) {
    const trpo_bfloat16_layer end = trpo_bfloat16_layer_of(network, network->layers);
    return end.along + end.down + network->tile_activations / 4;
}

#ifdef __cplusplus
}
#endif

#endif
