from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from trpo_fast._core.csrc cimport trpo_action_layout, trpo_actor, trpo_kernels, trpo_mlp, trpo_policy_batch
from trpo_fast._core.library cimport Memory
from trpo_fast._core.operator cimport Operator


cdef const int64_t *checked_rows(object rows, Py_ssize_t bound) except NULL


cdef class PolicyKernel:
    cdef readonly object dtype
    cdef readonly tuple widths
    cdef readonly str activation, distribution
    cdef readonly tuple nvec                # choices of each component of a "multicategorical", None else
    cdef readonly Py_ssize_t size           # parameters
    cdef readonly Py_ssize_t log_std_items  # A for a Gaussian, 0 else
    cdef const trpo_kernels *kernels
    cdef char code
    cdef trpo_mlp plan
    cdef trpo_action_layout layout
    cdef Memory layout_memory
    # the bound batch: arrays that it points into, buffers that it owns, and how often bind ran
    cdef trpo_policy_batch batch
    cdef tuple bound
    cdef Memory work
    cdef readonly Py_ssize_t bindings
    cdef int claimed                    # by the thread that works on the batch

    cdef int claim(self) except -1 nogil

    cdef int require_batch(self) except -1


cdef class FisherOperator(Operator):
    cdef PolicyKernel policy, source    # whose batch is multiplied with; whose next bind outlives this operator
    cdef Py_ssize_t binding             # of `source`


cdef class Actor:
    cdef PolicyKernel policy
    cdef trpo_actor actor
    cdef Memory memory, work
    cdef tuple held                     # arrays that `actor` points into
    cdef int threads                    # that `scratch` has room for
    cdef const void *parameters         # live
    cdef void *known                    # the parameters that `packed` was made from
    cdef void *packed
    cdef void *scratch
    cdef int claimed
    cdef bint is_packed

    # `act` on arrays that were checked. `unchanged`: so are the parameters, since this actor's last call.
    cdef int run(
        self, size_t rows, const void *x, bint x_double, const uint8_t *masks, uint32_t first, uint64_t step,
        bint deterministic, void *seen, void *a, void *lp, void *e, bint e_double, bint unchanged
    ) except -1


cdef class ActorCritic:
    cdef PolicyKernel policy
    cdef trpo_mlp critic
    cdef Memory memory, work
    cdef tuple held                     # the arrays of parameters
    # of policy and value function
    cdef const trpo_mlp *plans[2]
    cdef const void *live[2]            # parameters
    cdef size_t bytes[2]                # how many
    cdef void *known[2]                 # the parameters that `packed` was made from
    cdef void *packed[2]
    cdef bint is_packed[2]
