from libc.stdint cimport uint8_t, uint32_t, uint64_t

from trpo_fast._core.csrc cimport trpo_actor, trpo_mlp
from trpo_fast._core.library cimport Extent, Memory
from trpo_fast._core.policy cimport PolicyKernel


cdef class Actor:
    cdef PolicyKernel policy
    cdef trpo_actor actor
    cdef Memory memory, work
    cdef tuple held                     # arrays that `actor` points into
    cdef int threads                    # that `scratch` has room for
    cdef const void *parameters         # live
    cdef Extent reads[8]                # what it reads at every call
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
