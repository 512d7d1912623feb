# Declarations of csrc/include/trpo; the contracts stand there.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "trpo/types.h" nogil:
    ctypedef enum trpo_dtype:
        TRPO_FLOAT32
        TRPO_FLOAT64
    ctypedef enum trpo_activation:
        TRPO_IDENTITY
        TRPO_TANH
        TRPO_RELU
        TRPO_ELU
        TRPO_LEAKY_RELU
        TRPO_SIGMOID
        TRPO_SILU
        TRPO_GELU
        TRPO_SOFTPLUS
    const int TRPO_DERIVATIVE
    ctypedef enum trpo_function:
        TRPO_EXP
        TRPO_EXPM1
        TRPO_LOG
        TRPO_LOG1P
        TRPO_SINE_OF_TURNS
        TRPO_COSINE_OF_TURNS
    ctypedef enum trpo_distribution:
        TRPO_GAUSSIAN
        TRPO_CATEGORICAL
        TRPO_BERNOULLI
        TRPO_PRODUCT
    ctypedef enum trpo_kl_direction:
        TRPO_KL_NEW_OLD
        TRPO_KL_OLD_NEW
    ctypedef enum trpo_status:
        TRPO_STATUS_SUCCESS
        TRPO_STATUS_ITERATION_LIMIT
        TRPO_STATUS_STAGNATED
        TRPO_STATUS_NO_GRADIENT
        TRPO_STATUS_NO_PROGRESS
        TRPO_STATUS_NOT_POSITIVE_DEFINITE
        TRPO_STATUS_NON_FINITE
        TRPO_STATUS_NO_IMPROVEMENT
        TRPO_STATUS_KL_VIOLATED
        TRPO_STATUS_NO_CURVATURE
        TRPO_STATUS_CONDITION_VIOLATED
    ctypedef struct trpo_part:
        size_t offset
        size_t bytes
    const int TRPO_ALIGNMENT

cdef extern from "trpo/mlp.h" nogil:
    const int TRPO_MAX_LAYERS
    const int TRPO_TILE_ROWS
    ctypedef struct trpo_mlp:
        int layers
        size_t parameters
        size_t *widths
        size_t *padded
        size_t forward_items
        size_t backward_items
        size_t sum_items
        size_t activation_items
        size_t scratch_items
        size_t *weight
        size_t *bias
    int trpo_block_count(size_t rows, size_t parameters)
    ctypedef struct trpo_bfloat16_kernels "struct trpo_bfloat16_kernels":
        pass

cdef extern from "trpo/random.h" nogil:
    const uint32_t TRPO_MAX_STREAM
    const uint64_t TRPO_MAX_STEP
    ctypedef struct trpo_random_key:
        uint64_t seed
        uint32_t stream
        uint64_t step
    void trpo_philox(const uint32_t *counter, const uint32_t *key, uint32_t *out)
    void trpo_random_permutation(const trpo_random_key *key, int64_t n, int64_t *order)
    void trpo_random_uniform(const trpo_random_key *key, uint32_t row, int count, double *out)
    void trpo_random_normal(const trpo_random_key *key, uint32_t row, int count, double *out)

cdef extern from "trpo/threads.h" nogil:
    const int TRPO_MAX_THREADS
    int trpo_get_threads()
    int trpo_chosen_threads()
    int trpo_openmp_limit()
    int trpo_usable_cores()
    void trpo_set_threads(int count)
    uint64_t trpo_floating_mode()
    void trpo_set_floating_mode(uint64_t mode)
    int trpo_claim(int *claim)
    void trpo_release(int *claim)

cdef extern from "trpo/policy.h" nogil:
    const int TRPO_MAX_OUTPUTS
    const size_t TRPO_CACHE_BYTES
    ctypedef struct trpo_action_layout:
        trpo_distribution distribution
        size_t outputs
        size_t components
        const size_t *sizes
        size_t mask_items
        size_t count
        const trpo_action_layout *parts
    size_t trpo_log_std_items(const trpo_action_layout *layout)
    bint trpo_action_is_real(const trpo_action_layout *layout)
    ctypedef struct trpo_policy_problem:
        const trpo_mlp *network
        trpo_action_layout layout
        size_t rows
        double total
        double entropy_coefficient
        const void *observations
        const void *actions
        const uint8_t *masks
        const void *advantages
        const void *parameters
        const void *behaviour
    ctypedef struct trpo_policy_cache:
        void *forward
        void *backward
        size_t tiles
        void *activations
        double *log_probs
        void *ratios
        void *jacobians
    ctypedef struct trpo_policy_work:
        void *trial
        void *sums
        double *totals
        void *scratch
        int blocks
        int threads
    ctypedef struct trpo_policy_bfloat16:
        const trpo_bfloat16_kernels *kernels
        void *weights
        void *trial
        void *scratch
        int threads
    ctypedef struct trpo_policy_batch:
        trpo_policy_problem problem
        trpo_policy_cache cache
        trpo_policy_work work
        trpo_policy_bfloat16 bfloat16
    ctypedef struct trpo_bfloat16_workspace:
        size_t bytes
    trpo_bfloat16_workspace trpo_bfloat16_workspace_for(const trpo_mlp *network, int threads)
    void trpo_bfloat16_place(const trpo_bfloat16_workspace *w, void *memory, trpo_policy_batch *batch)
    ctypedef struct trpo_policy_workspace:
        size_t bytes
    size_t trpo_policy_jacobian_items(const trpo_policy_batch *batch)
    size_t trpo_policy_parameters(const trpo_mlp *network, const trpo_action_layout *layout)
    trpo_policy_workspace trpo_policy_workspace_for(const trpo_policy_problem *problem, size_t item_size,
                                                    size_t cache_bytes, int threads)
    void trpo_policy_place(const trpo_policy_workspace *w, void *memory, trpo_policy_batch *batch)
    ctypedef struct trpo_actor:
        const trpo_mlp *network
        trpo_action_layout layout
        const void *log_std
        const double *mean
        const double *scale
        double clip
        const double *low
        const double *high
        const double *action_scale
        const double *action_offset
        const int64_t *start
        trpo_random_key key
        int deterministic
    ctypedef enum trpo_act_outcome:
        TRPO_ACT_OK
        TRPO_ACT_BAD_OBSERVATION
        TRPO_ACT_BAD_ACTION

cdef extern from "trpo/kfac.h" nogil:
    const size_t TRPO_NO_BIAS
    ctypedef struct trpo_kronecker_layer:
        size_t inputs
        size_t outputs
        size_t weight
        size_t bias
        size_t input_size
        size_t input_pad
        size_t output_pad
        size_t A
        size_t G
    ctypedef struct trpo_kronecker:
        int layers
        size_t size
        trpo_kronecker_layer *layer
        size_t factor_items
        size_t work_items
        size_t invert_items
        double apply_operations
        double invert_operations
    ctypedef struct trpo_kfac_sample:
        const trpo_policy_batch *batch
        const trpo_kronecker *plan
        const int64_t *rows
        size_t count
        size_t input_step
        size_t score_step
        trpo_random_key key
        int blocks
        int threads
        void *sums
        void *scratch
    ctypedef struct trpo_kfac_workspace:
        size_t bytes
    trpo_kfac_workspace trpo_kfac_workspace_for(const trpo_kfac_sample *sample, size_t item_size, int threads)
    void trpo_kfac_place(const trpo_kfac_workspace *w, void *memory, trpo_kfac_sample *sample)
    ctypedef struct trpo_kronecker_workspace:
        trpo_part factors
        trpo_part diagonal
        trpo_part work
        size_t bytes
    trpo_kronecker_workspace trpo_kronecker_workspace_for(const trpo_kronecker *plan, size_t item_size)

cdef extern from "trpo/critic.h" nogil:
    ctypedef struct trpo_critic_bfloat16:
        const trpo_bfloat16_kernels *kernels
    ctypedef struct trpo_critic_fit:
        const trpo_mlp *network
        const void *observations
        const void *returns
        double learning_rate, beta1, beta2, epsilon, weight_decay
        int threads
        trpo_critic_bfloat16 bfloat16
    ctypedef struct trpo_critic_workspace:
        size_t bytes
    trpo_critic_workspace trpo_critic_workspace_for(const trpo_mlp *network, size_t item_size, size_t batch_size,
                                                    int threads, int bfloat16)
    void trpo_critic_place(const trpo_critic_workspace *w, void *memory, trpo_critic_fit *fit)

cdef extern from "trpo/recurrent.h" nogil:
    ctypedef enum trpo_cell_kind:
        TRPO_GRU
        TRPO_LSTM
    ctypedef struct trpo_cell:
        size_t units
        size_t gates
        size_t state_items
        size_t forward_items
        size_t backward_items
        size_t kept_items
        size_t scratch_items

cdef extern from "trpo/kernels.h" nogil:
    ctypedef enum trpo_adam_outcome:
        TRPO_ADAM_FINITE
        TRPO_ADAM_PARAMETER
        TRPO_ADAM_SECOND_MOMENT
    ctypedef struct trpo_kernels:
        const char *isa
        size_t item_size
        size_t vector_items
        double epsilon
        double (*dot)(size_t n, const void *x, const void *y) noexcept nogil
        double (*cg_update)(size_t n, double alpha, const void *p, const void *Ap, void *x, void *r) noexcept nogil
        void (*cg_direction)(size_t n, double beta, const void *z, void *p) noexcept nogil
        void (*axpy)(size_t n, double alpha, const void *x, void *y) noexcept nogil
        void (*scaled_copy)(size_t n, double alpha, const void *x, void *y) noexcept nogil
        void (*step_from)(size_t n, const void *origin, double alpha, const void *x, void *y) noexcept nogil
        int (*all_finite)(size_t n, const void *x) noexcept nogil
        void (*project_out)(size_t n, size_t k, const void *Z, const void *Q, double *coefficients,
                            void *r) noexcept nogil
        void (*mlp_plan)(int layers, const size_t *widths, trpo_activation activation, trpo_mlp *plan) noexcept nogil
        void (*mlp_pack_forward)(const trpo_mlp *plan, const void *parameters, void *packed) noexcept nogil
        void (*mlp_outputs)(const trpo_mlp *plan, const void *packed, size_t rows, const void *x, void *out,
                            void *scratch, int threads) noexcept nogil
        void (*elementary)(int function, size_t n, const void *x, void *y) noexcept nogil
        void (*policy_bind)(const trpo_policy_batch *batch) noexcept nogil
        void (*policy_gradient)(const trpo_policy_batch *batch, void *out) noexcept nogil
        void (*policy_jacobians)(const trpo_policy_batch *batch) noexcept nogil
        void (*policy_fisher)(const trpo_policy_batch *batch, const void *v, void *out) noexcept nogil
        void (*policy_narrow)(const trpo_policy_batch *batch) noexcept nogil
        void (*policy_fisher_narrow)(const trpo_policy_batch *batch, const void *v, void *out) noexcept nogil
        void (*policy_evaluate)(const trpo_policy_batch *batch, const void *parameters, trpo_kl_direction direction,
                                double *improvement, double *kl) noexcept nogil
        double (*policy_entropy)(const trpo_policy_batch *batch) noexcept nogil
        size_t (*normalize_rows)(size_t inputs, size_t first, size_t end, const void *observations,
                                 int observations_double, const double *mean, const double *scale, double clip,
                                 void *normalized) noexcept nogil
        trpo_act_outcome (*act)(const trpo_actor *actor, const void *packed, size_t rows, const void *observations,
                                int observations_double, const uint8_t *masks, uint32_t first_row, void *normalized,
                                void *actions, void *log_probs, void *env_actions, int env_double, void *scratch,
                                int threads, size_t *bad_row) noexcept nogil
        void (*sample)(const trpo_actor *actor, size_t rows, const void *outputs, const uint8_t *masks,
                       uint32_t first_row, void *actions, void *log_probs) noexcept nogil
        void (*gaussian_actions)(size_t rows, size_t n, const void *means, const void *log_std, void *noise,
                                 void *log_probs) noexcept nogil
        void (*kronecker_plan)(trpo_kronecker *plan) noexcept nogil
        void (*kfac_statistics)(const trpo_kfac_sample *sample, void *factors) noexcept nogil
        void (*kronecker_diagonal)(const trpo_kronecker *plan, const void *factors, void *out) noexcept nogil
        int (*kronecker_invert)(const trpo_kronecker *plan, void *factors, double damping, double share, void *work,
                                int threads) noexcept nogil
        int (*shifted_reciprocal)(size_t n, double shift, void *x) noexcept nogil
        void (*kronecker_apply)(const trpo_kronecker *plan, const void *factors, const void *diagonal, const void *v,
                                void *out, void *work, int threads) noexcept nogil
        void (*critic_load)(const trpo_critic_fit *fit, const void *parameters, const void *first_moment,
                            const void *second_moment) noexcept nogil
        trpo_adam_outcome (*critic_step)(const trpo_critic_fit *fit, size_t count, const int64_t *order, int64_t step,
                                         double *squares) noexcept nogil
        trpo_adam_outcome (*critic_step_narrow)(const trpo_critic_fit *fit, size_t count, const int64_t *order,
                                                int64_t step, double *squares) noexcept nogil
        void (*critic_save)(const trpo_critic_fit *fit, void *parameters, void *first_moment,
                            void *second_moment) noexcept nogil
        void (*cell_plan)(trpo_cell_kind kind, size_t units, trpo_cell *plan) noexcept nogil
        void (*cell_pack)(const trpo_cell *cell, const void *weight, const void *bias, void *forward,
                          void *backward) noexcept nogil
        void (*cell_forward)(const trpo_cell *cell, size_t steps, size_t sequences, const void *packed,
                             const void *inputs, const uint8_t *starts, const void *first, void *states, void *kept,
                             void *scratch, int threads) noexcept nogil
        void (*cell_jvp)(const trpo_cell *cell, size_t steps, size_t sequences, const void *packed, const void *kept,
                         const uint8_t *starts, const void *inputs, const void *recurrent, void *tangents,
                         void *scratch, int threads) noexcept nogil
        void (*cell_vjp)(const trpo_cell *cell, size_t steps, size_t sequences, const void *packed, const void *kept,
                         const uint8_t *starts, const void *cotangents, void *inputs, void *recurrent, void *scratch,
                         int threads) noexcept nogil
        void (*gae)(size_t steps, size_t envs, double gamma, double gae_lambda, const void *rewards,
                    const void *values, const void *next_values, const uint8_t *terminated, const uint8_t *truncated,
                    void *advantages, void *returns) noexcept nogil
        void (*standardize)(size_t n, void *a, double *mean, double *std) noexcept nogil
        size_t (*merge_moments)(size_t rows, size_t columns, const void *data, double count, double *mean,
                                double *m2) noexcept nogil
        double (*multiply_adds)(size_t rounds, int threads) noexcept nogil
    const trpo_kernels *trpo_kernels_for(trpo_dtype dtype)
    const trpo_kernels *trpo_narrow_kernels_for(trpo_dtype dtype)
    int trpo_dispatch(const char *wanted)
    const char *trpo_available_isa(int i)
    const char *trpo_left_out_isa(int i)
    const trpo_bfloat16_kernels *trpo_bfloat16_kernels_for(const char *wanted)
    const char *trpo_bfloat16_name(const trpo_bfloat16_kernels *kernels)
    double trpo_bfloat16_multiply_adds(const trpo_bfloat16_kernels *kernels, size_t rounds, int threads)
