/* Shared enumerations. Values are part of the contract with trpo_fast/_core and trpo_fast/solvers/status.py. */
#ifndef TRPO_TYPES_H
#define TRPO_TYPES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { TRPO_FLOAT32 = 0, TRPO_FLOAT64 = 1 } trpo_dtype;

/* The derivatives of those up to sigmoid are computed from the activation's own value, so that only outputs are cached;
 * those of the others are cached, too: see trpo_keeps_derivative. */
typedef enum {
    TRPO_IDENTITY = 0,
    TRPO_TANH = 1,
    TRPO_RELU = 2,
    TRPO_ELU = 3,        /* alpha = 1 */
    TRPO_LEAKY_RELU = 4, /* negative slope 0.01 */
    TRPO_SIGMOID = 5,
    TRPO_SILU = 6,    /* z sigmoid(z) */
    TRPO_GELU = 7,    /* z Phi(z), Phi the standard normal distribution function: not the approximation by tanh */
    TRPO_SOFTPLUS = 8 /* log(1 + e^z); z itself above 20, as in torch */
} trpo_activation;

/* Whether the derivative at a pre-activation is kept, as the activation's value does not tell it. */
static inline int trpo_keeps_derivative(trpo_activation activation) { return activation >= TRPO_SILU; }

/* What `elementary` computes besides activations, none of which has such a number: TRPO_DERIVATIVE plus an activation whose
 * derivative is kept, and functions. A turn is 2 pi. */
enum { TRPO_DERIVATIVE = 32 };
typedef enum {
    TRPO_EXP = 64,
    TRPO_EXPM1 = 65,
    TRPO_LOG = 66,
    TRPO_LOG1P = 67,
    TRPO_SINE_OF_TURNS = 68,
    TRPO_COSINE_OF_TURNS = 69
} trpo_function;

/* Diagonal with state-independent log-std; independent blocks of logits (one for a Discrete space); independent
 * logits of 1 against 0; several of these, independent of each other. */
typedef enum { TRPO_GAUSSIAN = 0, TRPO_CATEGORICAL = 1, TRPO_BERNOULLI = 2, TRPO_PRODUCT = 3 } trpo_distribution;

/* KL(new || old) or KL(old || new). */
typedef enum { TRPO_KL_NEW_OLD = 0, TRPO_KL_OLD_NEW = 1 } trpo_kl_direction;

/* 0: goal reached; > 0: stopped early, result usable; < 0: failed. */
typedef enum {
    TRPO_STATUS_SUCCESS = 0,
    TRPO_STATUS_ITERATION_LIMIT = 1,
    TRPO_STATUS_STAGNATED = 2,
    TRPO_STATUS_NO_GRADIENT = 3,
    TRPO_STATUS_NO_PROGRESS = 4,
    TRPO_STATUS_NOT_POSITIVE_DEFINITE = -1,
    TRPO_STATUS_NON_FINITE = -2,
    TRPO_STATUS_NO_IMPROVEMENT = -3,
    TRPO_STATUS_KL_VIOLATED = -4,
    TRPO_STATUS_NO_CURVATURE = -5,
    TRPO_STATUS_CONDITION_VIOLATED = -6
} trpo_status;

/* A piece of a stretch of memory that the caller owns: `bytes` from `offset`, a multiple of TRPO_ALIGNMENT. */
typedef struct {
    size_t offset, bytes;
} trpo_part;

/* No kernel needs an alignment: parts start at cache lines, so that a vector crosses none and threads share none. */
enum { TRPO_ALIGNMENT = 64 };

/* A part of `bytes` behind what ends at *end, which moves to where the next one may start. */
static inline trpo_part trpo_part_after(size_t *end, size_t bytes) {
    const trpo_part part = {*end, bytes};
    *end += (bytes + TRPO_ALIGNMENT - 1) / TRPO_ALIGNMENT * TRPO_ALIGNMENT;
    return part;
}

#ifdef __cplusplus
}
#endif

#endif
