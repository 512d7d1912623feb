from trpo_fast._core.csrc cimport trpo_action_layout, trpo_bfloat16_kernels, trpo_kernels, trpo_mlp, trpo_policy_batch
from trpo_fast._core.library cimport Memory
from trpo_fast._core.operator cimport Operator


cdef class PolicyKernel:
    cdef readonly object dtype
    cdef readonly tuple widths
    cdef readonly str activation, distribution
    cdef readonly tuple nvec                # choices of each component of a "multicategorical", None else
    cdef readonly tuple parts               # of a "product", None else
    cdef readonly Py_ssize_t size           # parameters
    cdef readonly Py_ssize_t log_std_items  # one for each mean
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

    cdef Memory jacobians               # room for output Jacobians, kept from batch to batch; None: none were wanted
    cdef bint jacobians_made            # of the bound batch
    cdef Memory narrow                  # room for bf16 products, kept from batch to batch; None: none were wanted
    cdef Memory room                    # scratch of more threads than were allowed at bind; None: of no more

    cdef int claim(self) except -1 nogil
    cdef int begin(self) except -1 nogil
    cdef int make_room(self, int most) except -1
    cdef int make_narrow(self, const trpo_bfloat16_kernels *kernels) except -1

    # Raises TypeError where it is not initialized, and RuntimeError where no batch is bound.
    cdef int require(self, str name) except -1
    cdef int require_batch(self) except -1

    # Raises ValueError where `bytes` at `out` are memory of the bound batch's arrays.
    cdef int refuse_result(self, const void *out, size_t bytes, str name) except -1


cdef class FisherOperator(Operator):
    cdef PolicyKernel policy, source    # whose batch is multiplied with; whose next bind outlives this operator
    cdef Py_ssize_t binding             # of `source`
    cdef void *jacobians                # of `policy`'s batch, which products use; NULL: they go through the weights
    cdef const trpo_bfloat16_kernels *narrow    # of products of bf16 numbers; NULL: they are of `dtype`'s
    cdef int require(self) except -1
    cdef int begin(self) except -1 nogil
    cdef int apply_narrow(self, const void *v, void *out) except -1 nogil
