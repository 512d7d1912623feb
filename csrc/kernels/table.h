/* Everything of one precision, and its table. Includes the kernels; undefines what they need. */
#include "simd.h"

#include "elementary.h"

#include "activations.h"
#include "vector.h"

#include "operands.h"

#include "product.h"

#include "gemm.h"
#include "packing.h"
#undef OPERAND

#include "mlp.h"

#include "jacobian.h"

#include "distributions.h"

#include "products.h"

#include "policy.h"
#if TRPO_REAL_IS_DOUBLE
#define NARROW(name) NULL
#else
#define NARROW(name) F(name)
#include "mlp_bfloat16.h"

#include "policy_bfloat16.h"
#endif

#include "kfac_statistics.h"

#include "kfac_apply.h"
#include "kfac_inverse.h"

#include "act.h"
#include "critic.h"
#if !TRPO_REAL_IS_DOUBLE
#include "critic_bfloat16.h"
#endif
#include "recurrent.h"
#include "statistics.h"

INLINE vreal F(link)(vreal s) { return s * F(splat)((REAL)0.999) + F(splat)((REAL)1e-3); }
#define OPERATIONS 2
#include "peak.h"

static const trpo_kernels F(table) = {
    .isa = TRPO_ISA_NAME,
    .item_size = sizeof(REAL),
    .vector_items = TRPO_VECTOR_BYTES / sizeof(REAL),
    .epsilon = sizeof(REAL) == 4 ? (double)FLT_EPSILON : DBL_EPSILON,
    .dot = F(dot),
    .cg_update = F(cg_update),
    .cg_direction = F(cg_direction),
    .axpy = F(axpy),
    .scaled_copy = F(scaled_copy),
    .step_from = F(step_from),
    .all_finite = F(all_finite),
    .project_out = F(project_out),
    .mlp_plan = F(mlp_plan),
    .mlp_pack_forward = F(mlp_pack_forward),
    .mlp_outputs = F(outputs_of),
    .elementary = F(elementary),
    .policy_bind = F(policy_bind),
    .policy_gradient = F(policy_gradient),
    .policy_jacobians = F(policy_jacobians),
    .policy_fisher = F(policy_fisher),
    .policy_narrow = NARROW(policy_narrow),
    .policy_fisher_narrow = NARROW(policy_fisher_narrow),
    .policy_evaluate = F(policy_evaluate),
    .policy_entropy = F(policy_entropy),
    .normalize_rows = F(normalize_rows),
    .act = F(act),
    .sample = F(sample),
    .gaussian_actions = F(gaussian_actions),
    .kronecker_plan = F(kronecker_plan),
    .kfac_statistics = F(kfac_statistics),
    .kronecker_diagonal = F(kronecker_diagonal),
    .kronecker_invert = F(kronecker_invert),
    .shifted_reciprocal = F(shifted_reciprocal),
    .kronecker_apply = F(kronecker_apply),
    .critic_load = F(critic_load),
    .critic_step = F(critic_step),
    .critic_step_narrow = NARROW(critic_step_narrow),
    .critic_save = F(critic_save),
    .cell_plan = F(cell_plan),
    .cell_pack = F(cell_pack),
    .cell_forward = F(cell_forward),
    .cell_jvp = F(cell_jvp),
    .cell_vjp = F(cell_vjp),
    .gae = F(gae),
    .standardize = F(standardize),
    .merge_moments = F(merge_moments),
    .multiply_adds = F(multiply_adds),
};

#undef REAL
#undef INT
#undef UINT
#undef SUFFIX
#undef TRPO_REAL_IS_DOUBLE
#undef vreal
#undef vint
#undef vuint
#undef VLEN
#undef INLINE
#undef NOINLINE
#undef FOR_TILES
#undef FOR_PARTS
#undef NARROW
#undef D
#undef F
