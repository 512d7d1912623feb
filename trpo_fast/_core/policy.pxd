from trpo_fast._core.csrc cimport trpo_actor, trpo_distribution, trpo_kernels, trpo_mlp, trpo_policy_batch
from trpo_fast._core.library cimport Memory
from trpo_fast._core.operator cimport Operator


cdef class PolicyKernel:
    cdef readonly object dtype
    cdef readonly tuple widths
    cdef readonly str activation, distribution
    cdef readonly Py_ssize_t size           # parameters
    cdef readonly Py_ssize_t log_std_items  # A for a Gaussian, 0 else
    cdef const trpo_kernels *kernels
    cdef str code
    cdef trpo_mlp plan
    cdef trpo_distribution kind
    # the bound batch: arrays that it points into, buffers that it owns, and how often bind ran
    cdef trpo_policy_batch batch
    cdef tuple bound
    cdef Memory memory
    cdef readonly Py_ssize_t bindings
    cdef int claimed                    # by the thread that works on the batch

    cdef int claim(self) except -1 nogil

    cdef int require_batch(self) except -1


cdef class FisherOperator(Operator):
    cdef PolicyKernel policy
    cdef Py_ssize_t binding


cdef class Actor:
    cdef PolicyKernel policy
    cdef trpo_actor actor
    cdef Memory memory
    cdef tuple held                     # arrays that `actor` points into
    cdef const void *parameters         # live
    cdef void *known                    # the parameters that `packed` was made from
    cdef void *packed
    cdef void *scratch
    cdef int claimed
    cdef bint is_packed
