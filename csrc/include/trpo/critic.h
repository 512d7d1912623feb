/* Fitting a value network: an MLP with one output. */
#ifndef TRPO_CRITIC_H
#define TRPO_CRITIC_H

#include "trpo/mlp.h"

/* Where the parts of the work of a minibatch's gradient lie in one stretch of memory of `bytes`. */
typedef struct {
    trpo_part forward, backward; /* packs of the parameters */
    trpo_part gathered;          /* a tile of observations */
    trpo_part sums, scratch;     /* sum_items; scratch_items, of one thread */
    trpo_part gradient;          /* parameters */
    size_t bytes;
} trpo_critic_workspace;

/* The one place that says how large they are. item_size: of the table that planned the network. */
static inline trpo_critic_workspace trpo_critic_workspace_for(const trpo_mlp *network, size_t item_size) {
    trpo_critic_workspace w = {.bytes = 0};
    w.forward = trpo_part_after(&w.bytes, network->forward_items * item_size);
    w.backward = trpo_part_after(&w.bytes, network->backward_items * item_size);
    w.gathered = trpo_part_after(&w.bytes, TRPO_TILE_ROWS * network->widths[0] * item_size);
    w.sums = trpo_part_after(&w.bytes, network->sum_items * item_size);
    w.scratch = trpo_part_after(&w.bytes, network->scratch_items * item_size);
    w.gradient = trpo_part_after(&w.bytes, network->parameters * item_size);
    return w;
}

#endif
