from trpo_fast._core.csrc cimport trpo_kernels


cdef class Operator:
    cdef readonly Py_ssize_t size        # n: operand length
    cdef readonly object dtype           # numpy.dtype of float32 or float64
    cdef const trpo_kernels *kernels     # of dtype
    cdef int setup(self, Py_ssize_t size, object dtype) except -1
    # out = A v; n items each, v not modified, no overlap
    cdef int apply(self, const void *v, void *out) except -1 nogil
    # Raises ValueError where the n items at `out` are memory that a product reads besides its operand.
    cdef int refuse_result(self, const void *out, str name) except -1
