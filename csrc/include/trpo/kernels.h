/* One table of kernels per (instruction set, precision), chosen once.
 *
 * REAL below is the table's precision. Pointers to const are not modified; OUT is written whatever it held, all else is
 * updated in place or is work memory. No kernel allocates, and none fails but by the outcome that it returns; buffers are
 * the caller's and, unless said otherwise, must not overlap. Arrays are contiguous and aligned as their items are. A plan
 * or a batch is used with the table that made it alone: padding and precision are its own. What else holds is in trpo.h.
 *
 * `threads` is how many may work on a call, 1..TRPO_MAX_THREADS, and how many parts its work memory has. Kernels take up to
 * 200 KiB of stack. */
#ifndef TRPO_KERNELS_H
#define TRPO_KERNELS_H

#include "trpo/critic.h"
#include "trpo/kfac.h"
#include "trpo/mlp.h"
#include "trpo/policy.h"
#include "trpo/random.h"
#include "trpo/recurrent.h"
#include "trpo/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What came out of a step of Adam that is infinite or NaN; a parameter is named before the second moment. */
typedef enum { TRPO_ADAM_FINITE = 0, TRPO_ADAM_PARAMETER = 1, TRPO_ADAM_SECOND_MOMENT = 2 } trpo_adam_outcome;

typedef struct {
    const char *isa;
    size_t item_size;    /* sizeof(REAL) */
    size_t vector_items; /* REALs per vector register */
    double epsilon;      /* spacing of REAL at 1 */

    /* ---- vectors of n REAL ---- */
    double (*dot)(size_t n, const void *x, const void *y);
    /* x += alpha p;  r -= alpha Ap;  returns r.r -- one pass over four streams */
    double (*cg_update)(size_t n, double alpha, const void *p, const void *Ap, void *x, void *r);
    void (*cg_direction)(size_t n, double beta, const void *z, void *p);                   /* p = z + beta p */
    void (*axpy)(size_t n, double alpha, const void *x, void *y);                          /* y += alpha x */
    void (*scaled_copy)(size_t n, double alpha, const void *x, void *y);                   /* y = alpha x */
    void (*step_from)(size_t n, const void *origin, double alpha, const void *x, void *y); /* y = origin + alpha x */
    int (*all_finite)(size_t n, const void *x); /* 1, or 0 with an infinity or NaN among them */
    /* r -= sum_j Q_j (Z_j . r); Z, Q: k x n, may be the same array; coefficients: k, OUT */
    void (*project_out)(size_t n, size_t k, const void *Z, const void *Q, double *coefficients, void *r);

    /* ---- networks; see mlp.h for sizes ---- */
    /* widths: layers + 1 items, inputs first, each 1..2^24. layers: 1..TRPO_MAX_LAYERS. Checked by the caller. */
    void (*mlp_plan)(int layers, const size_t *widths, trpo_activation activation, trpo_mlp *plan);
    /* parameters: plan->parameters items. packed: forward_items, OUT. */
    void (*mlp_pack_forward)(const trpo_mlp *plan, const void *parameters, void *packed);
    /* x: rows x widths[0]. packed: forward. out: rows x widths[layers], OUT: not activated. scratch: threads *
     * scratch_items. */
    void (*mlp_outputs)(const trpo_mlp *plan, const void *packed, size_t rows, const void *x, void *out, void *scratch,
                        int threads);
    /* y[i] = function(x[i]): a trpo_activation or a trpo_function */
    void (*elementary)(int function, size_t n, const void *x, void *y);

    /* ---- policies; see policy.h ---- */
    /* Writes the batch's cache; every other function reads it. All of them overwrite its work: one call at a time. */
    void (*policy_bind)(const trpo_policy_batch *batch);
    /* out, OUT: gradient of the objective at theta_old, the entropy included where it counts. It, v and parameters have
     * trpo_policy_parameters items. */
    void (*policy_gradient)(const trpo_policy_batch *batch, void *out);
    /* Writes the batch's Jacobians, which products from then on use: the same F v but for rounding. See policy.h. */
    void (*policy_jacobians)(const trpo_policy_batch *batch);
    /* out = F v at theta_old, undamped. v may not be out. */
    void (*policy_fisher)(const trpo_policy_batch *batch, const void *v, void *out);
    /* F v with every product of bf16 numbers that sum in float, those of theta_old rounded once, by policy_narrow, before the
     * first product after policy_bind: relative errors of thousandths. Sums of biases, M, activations' derivatives and
     * log_std are as in policy_fisher. Cached Jacobians are not used. NULL in double's tables. */
    void (*policy_narrow)(const trpo_policy_batch *batch);
    void (*policy_fisher_narrow)(const trpo_policy_batch *batch, const void *v, void *out);
    /* Mean improvement of the objective over theta_old, or over the behaviour policy where that is another, and mean KL, in
     * nats, at trial parameters; NaN for an improvement where an output is not finite. */
    void (*policy_evaluate)(const trpo_policy_batch *batch, const void *parameters, trpo_kl_direction direction,
                            double *improvement, double *kl);
    /* Mean entropy at theta_old, in nats. */
    double (*policy_entropy)(const trpo_policy_batch *batch);
    /* Rows first ... end - 1 as a policy sees them: of each observation (x - mean) scale, clipped; as it is where mean is
     * NULL. mean, scale: inputs. observations, normalized: as for act. The first row that is not finite, before or after,
     * or end. */
    size_t (*normalize_rows)(size_t inputs, size_t first, size_t end, const void *observations, int observations_double,
                             const double *mean, const double *scale, double clip, void *normalized);
    /* One call per environment step.
     *   packed: forward pack of the network.  scratch: threads * scratch_items.
     *   observations: rows x widths[0] of float (observations_double = 0) or double, raw.
     *   masks: rows x mask_items as in policy.h, at least one allowed per component, or NULL.
     *   first_row: number of the first row's noise.
     *   normalized: REAL, rows x widths[0], OUT.  actions: rows x components, OUT.  log_probs: REAL, rows, OUT.
     *   env_actions: float or double (env_double), or int64, rows x components, OUT.
     * On a bad row *bad_row names it and what was written for this call is meaningless. A row's bits depend neither on the
     * rows beside it nor on `threads`, and its log-probability has those of policy_bind. */
    trpo_act_outcome (*act)(const trpo_actor *actor, const void *packed, size_t rows, const void *observations,
                            int observations_double, const uint8_t *masks, uint32_t first_row, void *normalized,
                            void *actions, void *log_probs, void *env_actions, int env_double, void *scratch,
                            int threads, size_t *bad_row);
    /* Draws from outputs computed elsewhere: rows x outputs, means or logits. Logits of -inf are choices of probability 0;
     * rows that are no distribution get a log-probability of NaN. Of actor: layout, log_std, key, deterministic. */
    void (*sample)(const trpo_actor *actor, size_t rows, const void *outputs, const uint8_t *masks, uint32_t first_row,
                   void *actions, void *log_probs);
    /* Gaussian actions out of unit noise drawn elsewhere. means: rows x n, n up to TRPO_MAX_OUTPUTS. log_std: n.
     * noise: rows x n, becomes the actions mean + noise std. log_probs: rows, OUT: of the actions as they came out. */
    void (*gaussian_actions)(size_t rows, size_t n, const void *means, const void *log_std, void *noise,
                             void *log_probs);

    /* ---- Kronecker-factored preconditioners; see kfac.h ---- */
    /* Fills the rest of a plan whose layers say where they are. */
    void (*kronecker_plan)(trpo_kronecker *plan);
    /* factors: factor_items, OUT: E[a a'] and E[d d'] of every layer, both triangles; the padding is not written. */
    void (*kfac_statistics)(const trpo_kfac_sample *sample, void *factors);
    /* out: of plan->size items those that belong to a layer, OUT: the diagonal of the blocks. */
    void (*kronecker_diagonal)(const trpo_kronecker *plan, const void *factors, void *out);
    /* Both factors of every layer become their damped inverses, in place; `share` of the damping is theirs. work:
     * threads * invert_items. Returns -1, or 2 l (A) or 2 l + 1 (G) of the first matrix that has no inverse: one that is
     * not finite, or not positive semi-definite; factors are spoiled then. */
    int (*kronecker_invert)(const trpo_kronecker *plan, void *factors, double damping, double share, void *work,
                            int threads);
    /* x = 1 / (x + shift); returns 0 where an x is negative or not finite */
    int (*shifted_reciprocal)(size_t n, double shift, void *x);
    /* out = M v: G^-1 V A^-1 for every layer, diagonal * v for all other parameters. factors: inverses. diagonal, v, out:
     * size items; v may not be out. work: work_items. */
    void (*kronecker_apply)(const trpo_kronecker *plan, const void *factors, const void *diagonal, const void *v,
                            void *out, void *work, int threads);

    /* ---- value fit; see critic.h ---- */
    /* Begins a fit at parameters and Adam's moments, each plan->parameters items: they are copied to the fit's work, which
     * nothing but the next two functions may touch until the fit ends. */
    void (*critic_load)(const trpo_critic_fit *fit, const void *parameters, const void *first_moment,
                        const void *second_moment);
    /* One step of Adam (Kingma & Ba 2015), number `step` counted from 1, with torch's placing of epsilon, along the gradient
     * of mean (V(s) - R)^2 over the `count` rows that `order` names, which are within observations and returns (checked by
     * the caller) and no more than the batch size that the work is for. squares, OUT: the sum of squared errors, before the
     * step. Returns what came out non-finite: a v that overflowed is infinite for good, and its parameter would never move
     * again. */
    trpo_adam_outcome (*critic_step)(const trpo_critic_fit *fit, size_t count, const int64_t *order, int64_t step,
                                     double *squares);
    /* The same step with the gradient of the hidden layers by products of bf16 numbers that sum in float: weights,
     * activations and what is propagated back are rounded, parameters, moments, biases and the output are not. fit->bfloat16
     * is wanted, from trpo_bfloat16_kernels_for. NULL in double's table. */
    trpo_adam_outcome (*critic_step_narrow)(const trpo_critic_fit *fit, size_t count, const int64_t *order,
                                            int64_t step, double *squares);
    /* What the fit has come to, as critic_load had it. All OUT. */
    void (*critic_save)(const trpo_critic_fit *fit, void *parameters, void *first_moment, void *second_moment);

    /* ---- recurrent cells; see recurrent.h ---- */
    /* units: 1..2^24, checked by the caller. */
    void (*cell_plan)(trpo_cell_kind kind, size_t units, trpo_cell *plan);
    /* weight, bias: of W_hh and b_hh. forward: forward_items, OUT. backward: backward_items, OUT, or NULL. */
    void (*cell_pack)(const trpo_cell *cell, const void *weight, const void *bias, void *forward, void *backward);
    /* starts: steps x sequences, 1 where an episode starts, or NULL. scratch: sequences * scratch_items.
     * inputs: steps x sequences x gates * units. first: sequences x state_items, before the first step.
     * states: steps x sequences x state_items, OUT, after each step. kept: steps * sequences * kept_items, OUT, for the two
     * functions below, or NULL. */
    void (*cell_forward)(const trpo_cell *cell, size_t steps, size_t sequences, const void *packed, const void *inputs,
                         const uint8_t *starts, const void *first, void *states, void *kept, void *scratch,
                         int threads);
    /* Tangents of h, steps x sequences x units, OUT, from those of the inputs and of u at a fixed h (recurrent: what the
     * tangents of W_hh and b_hh bring); the first states are fixed. packed: forward. */
    void (*cell_jvp)(const trpo_cell *cell, size_t steps, size_t sequences, const void *packed, const void *kept,
                     const uint8_t *starts, const void *inputs, const void *recurrent, void *tangents, void *scratch,
                     int threads);
    /* Cotangents of the inputs and, of a GRU, of u (recurrent), OUT, from those of h; an LSTM's are the same, and recurrent
     * is NULL. packed: backward. */
    void (*cell_vjp)(const trpo_cell *cell, size_t steps, size_t sequences, const void *packed, const void *kept,
                     const uint8_t *starts, const void *cotangents, void *inputs, void *recurrent, void *scratch,
                     int threads);

    /* ---- rollouts ---- */
    /* All steps x envs; advantages and returns OUT. next_values: V of the state after the step; flags: 0 or 1. */
    void (*gae)(size_t steps, size_t envs, double gamma, double lambda, const void *rewards, const void *values,
                const void *next_values, const uint8_t *terminated, const uint8_t *truncated, void *advantages,
                void *returns);
    /* a = (a - mean) / std in place, zeros where std is of rounding size; mean, std: 1 item each, OUT. */
    void (*standardize)(size_t n, void *a, double *mean, double *std);
    /* Merges rows into running moments of `count` rows: mean and m2, the sum of squared deviations, columns items each,
     * updated in place. Returns 1 + the flat index of the first non-finite entry, with nothing changed, or 0. */
    size_t (*merge_moments)(size_t rows, size_t columns, const void *data, double count, double *mean, double *m2);

    /* ---- measuring ---- */
    /* Nothing but multiply-adds in registers, `rounds` times on each of `threads` threads: the limit that kernels are
     * measured against. Returns the number of operations done. */
    double (*multiply_adds)(size_t rounds, int threads);
} trpo_kernels;

/* Table for `dtype`; never NULL once trpo_dispatch succeeded. Tables are constants: threads share them. */
const trpo_kernels *trpo_kernels_for(trpo_dtype dtype);

/* The same of at most 256 bits. Some CPUs run at a lower clock for about a millisecond after 512-bit arithmetic: what
 * steps between two calls of `act` loses more by that than `act` gains. */
const trpo_kernels *trpo_narrow_kernels_for(trpo_dtype dtype);

/* bf16 products for float32's table as it is chosen now: `wanted` is NULL for those of this CPU's own instructions, or
 * "portable" for plain C, slower than float32's, which tests need. NULL where there are none. Constants, as tables are. */
const struct trpo_bfloat16_kernels *trpo_bfloat16_kernels_for(const char *wanted);

/* "AVX512_BF16", "BF16" or "portable". */
const char *trpo_bfloat16_name(const struct trpo_bfloat16_kernels *kernels);

/* As multiply_adds of a table; an instruction counts as four operations a lane. */
double trpo_bfloat16_multiply_adds(const struct trpo_bfloat16_kernels *kernels, size_t rounds, int threads);

/* Choose the instruction set: `wanted` ("x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64"), or NULL for the best that the
 * CPU runs. Returns 0, -1 for a name that is not built in, -2 for one that this CPU lacks; what was chosen before
 * holds then. Not while another thread asks for a table. */
int trpo_dispatch(const char *wanted);

/* The i-th built-in instruction set that this CPU runs, lowest first; NULL past the end. */
const char *trpo_available_isa(int i);

/* The i-th instruction set, those of bf16 included, that this build is without, as its compiler did not know it; NULL past
 * the end. */
const char *trpo_left_out_isa(int i);

#ifdef __cplusplus
}
#endif

#endif
