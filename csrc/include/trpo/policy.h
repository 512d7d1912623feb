/* One bound batch of an MLP policy: all that a trust-region step needs from it. */
#ifndef TRPO_POLICY_H
#define TRPO_POLICY_H

#include "trpo/mlp.h"
#include "trpo/random.h"

/* Most outputs of a policy network: a row of them lies on the stack. Checked by the caller. */
enum { TRPO_MAX_OUTPUTS = 4096 };

/* Bytes of activations that a bound batch keeps. Rows beyond are passed forward again by every product, to the same bits,
 * for a fifth to a third more arithmetic: a million rows of a 64-64 network fit, and twenty million do not exhaust the
 * machine. */
#define TRPO_CACHE_BYTES ((size_t)1 << 30)

/* What a row of the network's outputs means, and how an action and its mask are stored. */
typedef struct {
    trpo_distribution distribution;
    size_t outputs;      /* widths[layers] of the network: means or logits */
    size_t components;   /* items of an action: REAL, = outputs, for a Gaussian; else int64, counted from 0 */
    const size_t *sizes; /* components: logits of each block, adding up to `outputs`; categorical only */
    size_t mask_items;   /* of a mask: outputs, or 2 * outputs, pairs (may be 0, may be 1), for a Bernoulli; else 0 */
} trpo_action_layout;

/* The flat buffer of a policy is log_std (widths[layers] items, Gaussian only), then the network's parameters.
 * REAL is the table's precision. The caller owns every buffer; "OUT" ones are written by policy_bind, which must come
 * first. All means are sums over the rows divided by `total`. */
typedef struct {
    const trpo_mlp *network;
    trpo_action_layout layout;
    size_t rows;
    double total;
    double entropy_coefficient; /* of the mean entropy, which is added to the surrogate */
    const void *observations;   /* REAL, rows x widths[0] */
    const void *actions;        /* rows x components, in range (checked by the caller) */
    const uint8_t *masks;       /* rows x mask_items, 0: forbidden; at least one allowed per component; NULL: all are */
    const void *advantages;     /* REAL, rows */
    const void *parameters;     /* REAL, theta_old; not modified, must not change while the batch is bound */
    const void *behaviour;      /* REAL, rows: log pi_old(a|s) from the rollout; NULL: as computed here */
    void *forward, *backward;   /* OUT: packs of theta_old */
    void *trial;                /* work: forward_items, a tangent's or trial parameters' pack */
    size_t cached_tiles;        /* how many of the batch's tiles keep their activations, the first ones */
    void *activations;          /* OUT: cached_tiles * trpo_tile_items */
    void *log_probs;            /* OUT: REAL, rows: log pi_old, the denominators of the ratio */
    void *ratios;               /* OUT: REAL, rows: pi_theta_old / pi_old, exactly 1 where both are the same bits; NaN
                               * where the network's outputs are not finite */
    void *sums;                 /* work: blocks * sum_items */
    double *totals;             /* work: blocks * (2 + widths[layers]) */
    void *scratch;              /* work: threads * scratch_items */
    int blocks, threads;        /* blocks: trpo_block_count(rows, parameters) */
} trpo_policy_batch;

/* Items of theta_old's forward pass of one tile: activations, whose output is as `row_resolve` leaves it, then, discrete
 * only, the metric: p, or p (1 - p) for a Bernoulli, leading dimension padded[layers]. */
static inline size_t trpo_tile_items(const trpo_mlp *network, trpo_distribution distribution) {
    const size_t metric = distribution == TRPO_GAUSSIAN ? 0 : network->padded[network->layers];
    return TRPO_TILE_ROWS * (network->activation_items + metric);
}

/* How observations enter and actions leave; every pointer may be shared between calls, none is modified. */
typedef struct {
    const trpo_mlp *network;
    trpo_action_layout layout;
    const void *log_std;      /* REAL, Gaussian only */
    const double *mean;       /* widths[0], or NULL: observations are not normalized */
    const double *scale;      /* widths[0]: 1 / standard deviation */
    double clip;              /* bound on |normalized observation| */
    const double *low, *high; /* widths[layers], or NULL: the environment's action bounds, Gaussian only */
    /* widths[layers], or NULL: an action a becomes scale a + offset before it meets the bounds, Gaussian only */
    const double *action_scale, *action_offset;
    const int64_t *start; /* components: first action of each, or NULL: 0; discrete only */
    trpo_random_key key;
    int deterministic; /* mean or mode instead of a sample */
} trpo_actor;

/* What acting on a row found: rows that are not finite are reported, never acted on. */
typedef enum { TRPO_ACT_OK = 0, TRPO_ACT_BAD_OBSERVATION = 1, TRPO_ACT_BAD_ACTION = 2 } trpo_act_outcome;

#endif
