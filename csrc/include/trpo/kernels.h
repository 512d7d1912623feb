/* One table of kernels per (instruction set, precision), chosen once at import.
 *
 * REAL below is the table's precision. No kernel allocates; buffers are the caller's and, unless said otherwise, must
 * not overlap. Arrays are contiguous and need no alignment. */
#ifndef TRPO_KERNELS_H
#define TRPO_KERNELS_H

#include "trpo/critic.h"
#include "trpo/kfac.h"
#include "trpo/mlp.h"
#include "trpo/policy.h"
#include "trpo/random.h"
#include "trpo/types.h"

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
    int (*all_finite)(size_t n, const void *x);
    /* r -= sum_j Q_j (Z_j . r); Z, Q: k x n, may be the same array; coefficients: k, OUT */
    void (*project_out)(size_t n, size_t k, const void *Z, const void *Q, double *coefficients, void *r);

    /* ---- networks; see mlp.h for sizes ---- */
    void (*mlp_plan)(int layers, const size_t *widths, trpo_activation activation, trpo_mlp *plan);
    void (*mlp_pack_forward)(const trpo_mlp *plan, const void *parameters, void *packed);
    void (*mlp_pack_backward)(const trpo_mlp *plan, const void *parameters, void *packed);
    void (*mlp_outputs)(const trpo_mlp *plan, const void *packed, size_t rows, const void *x, void *out, void *scratch,
                        int threads);
    void (*elementary)(trpo_activation activation, size_t n, const void *x, void *y);

    /* ---- policies; see policy.h ---- */
    void (*policy_bind)(const trpo_policy_batch *batch);
    void (*policy_gradient)(const trpo_policy_batch *batch, void *out);
    void (*policy_fisher)(const trpo_policy_batch *batch, const void *v, void *out);
    void (*policy_evaluate)(const trpo_policy_batch *batch, const void *parameters, trpo_kl_direction direction,
                            double *improvement, double *kl);
    double (*policy_entropy)(const trpo_policy_batch *batch);
    trpo_act_outcome (*act)(const trpo_actor *actor, const void *packed, size_t rows, const void *observations,
                            int observations_double, const uint8_t *masks, uint32_t first_row, void *normalized,
                            void *actions, void *log_probs, void *env_actions, int env_double, void *scratch,
                            int threads, size_t *bad_row);
    void (*sample)(const trpo_actor *actor, size_t rows, const void *outputs, const uint8_t *masks, uint32_t first_row,
                   void *actions, void *log_probs);
    void (*gaussian_actions)(size_t rows, size_t n, const void *means, const void *log_std, void *noise,
                             void *log_probs);

    /* ---- Kronecker-factored preconditioners; see kfac.h ---- */
    void (*kronecker_plan)(trpo_kronecker *plan);
    void (*kfac_statistics)(const trpo_kfac_sample *sample, void *factors);
    void (*kronecker_diagonal)(const trpo_kronecker *plan, const void *factors, void *out);
    int (*kronecker_invert)(const trpo_kronecker *plan, void *factors, double damping, double share, void *work,
                            int threads);
    /* x = 1 / (x + shift); returns 0 where an x is negative or not finite */
    int (*shifted_reciprocal)(size_t n, double shift, void *x);
    void (*kronecker_apply)(const trpo_kronecker *plan, const void *factors, const void *diagonal, const void *v,
                            void *out, void *work, int threads);

    /* ---- value fit ---- */
    double (*critic_gradient)(const trpo_mlp *plan, const void *forward, const void *backward, size_t count,
                              const int64_t *order, const void *observations, const void *returns, void *gathered,
                              void *sums, void *scratch, void *gradient);
    int (*adam)(size_t n, double learning_rate, double beta1, double beta2, double epsilon, int64_t step, const void *g,
                void *m, void *v, void *theta);

    /* ---- rollouts ---- */
    void (*gae)(size_t steps, size_t envs, double gamma, double lambda, const void *rewards, const void *values,
                const void *next_values, const uint8_t *terminated, const uint8_t *truncated, void *advantages,
                void *returns);
    void (*standardize)(size_t n, void *a, double *mean, double *std);
    size_t (*merge_moments)(size_t rows, size_t columns, const void *data, double count, double *mean, double *m2);

    /* ---- measuring ---- */
    /* Nothing but multiply-adds in registers, `rounds` times on each of `threads` threads: the limit that kernels are
     * measured against. Returns the number of operations done. */
    double (*multiply_adds)(size_t rounds, int threads);
} trpo_kernels;

/* Table for `dtype`; never NULL once trpo_dispatch succeeded. */
const trpo_kernels *trpo_kernels_for(trpo_dtype dtype);

/* The same of at most 256 bits. Some CPUs run at a lower clock for about a millisecond after 512-bit arithmetic: what
 * steps between two calls of `act` loses more by that than `act` gains. */
const trpo_kernels *trpo_narrow_kernels_for(trpo_dtype dtype);

/* Choose the instruction set: `wanted` ("x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64"), or NULL for the best that the
 * CPU runs. Returns 0, -1 for a name that is not built in, -2 for one that this CPU lacks. */
int trpo_dispatch(const char *wanted);

/* The i-th built-in instruction set that this CPU runs, lowest first; NULL past the end. */
const char *trpo_available_isa(int i);

#endif
