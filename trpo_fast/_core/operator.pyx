"""Symmetric linear operators that the compiled loops call without Python."""

import numpy as np

from trpo_fast._core.library import in_words

from libc.stdint cimport PTRDIFF_MAX
from libc.string cimport memcpy

from trpo_fast._core.library cimport code_of, counter_of, data_of, kernels_for, kernels_of, refuse_overlap


cdef class Operator:
    """A symmetric ``(n, n)`` linear operator; ``A @ v`` and scipy's ``aslinearoperator`` accept it.

    Attributes
    ----------
    size : int
        n.
    dtype : numpy.dtype
        float32 or float64: of operand and result.
    """

    def __cinit__(self):
        self.setup(0, np.float64)  # what is never set up, as Operator() itself, has no size

    cdef int setup(self, Py_ssize_t size, object dtype) except -1:
        self.kernels = kernels_for(dtype)
        self.dtype = np.dtype(dtype)
        self.size = size
        return 0

    cdef int apply(self, const void *v, void *out) except -1 nogil:
        with gil:
            raise TypeError("Operator is abstract; want CallableOperator, DenseOperator or engine.fisher_operator()")

    cdef int refuse_result(self, const void *out, str name) except -1:
        return 0

    @property
    def shape(self):
        return (self.size, self.size)

    @property
    def T(self):
        """The operator itself: it is symmetric."""
        return self

    @property
    def H(self):
        """The operator itself: it is real and symmetric."""
        return self

    def matvec(self, v, out=None):
        """``A v``, (n,), for any real ``v`` of shape (n,) or (n, 1), in this dtype.

        With `out`, an (n,) of this dtype that shares no memory with `v`, nothing is allocated or converted: `v` is to
        be a C-contiguous (n,) of this dtype, too.
        """
        if out is None:
            v = as_real(v, "v", self.dtype)
            if v.ndim == 2 and v.shape[1] == 1:
                v = v[:, 0]
            v, out = np.ascontiguousarray(v), np.empty(self.size, self.dtype)
        cdef char code = code_of(self.dtype)
        cdef size_t bytes = self.size * self.kernels.item_size
        cdef const void *operand = data_of(v, "v", code, 1, self.size, -1, False)
        cdef void *result = data_of(out, "out", code, 1, self.size, -1, True)
        refuse_overlap("out", result, bytes, "v", operand, bytes)
        self.refuse_result(result, "out")
        with nogil:
            self.apply(operand, result)
        return out

    def rmatvec(self, v):
        """``A' v``, which is ``A v``."""
        return self.matvec(v)

    def matmat(self, V):
        """``A V`` for any real ``V`` of shape (n, k), column by column."""
        V = as_real(V, "V", self.dtype)
        if V.ndim != 2 or V.shape[0] != self.size:
            raise ValueError(f"V: shape {V.shape} given; want ({self.size}, k)")
        columns, out = np.ascontiguousarray(V.T), np.empty((V.shape[1], self.size), self.dtype)
        for column, product in zip(columns, out):
            self.matvec(column, product)
        return out.T

    def rmatmat(self, V):
        """``A' V``, which is ``A V``."""
        return self.matmat(V)

    def __matmul__(self, v):
        return self.matmat(v) if np.ndim(v) == 2 else self.matvec(v)


cdef object as_real(object array, str name, object dtype):
    try:
        array = np.asarray(array)
    except (RuntimeError, TypeError, ValueError) as error:  # a tensor with a graph; rows of different lengths
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{name}: {type(array).__name__} given; want an array of real numbers: {error}") from error
    if array.dtype != dtype and not np.can_cast(array.dtype, dtype, "same_kind"):
        raise TypeError(f"{name}: {array.dtype} given; want real numbers")
    return array.astype(dtype, copy=not array.flags.aligned)


cdef class CallableOperator(Operator):
    """Adapts a Python function ``v -> A v`` on arrays of shape (n,); its exceptions travel to the caller."""

    cdef object function
    cdef str name

    def __init__(self, function, size, dtype, name="A"):
        if self.function is not None:
            raise TypeError("CallableOperator: already initialized; make a new one")
        if not callable(function):
            raise TypeError(f"function: {type(function).__name__} given; want a callable v -> A v")
        if isinstance(size, bool) or not hasattr(size, "__index__"):
            raise TypeError(f"size: {in_words(size)} given; want an integer")
        if not isinstance(name, str):
            raise TypeError(f"name: {in_words(name)} given; want a string")
        self.setup(counter_of(size, "size", PTRDIFF_MAX), dtype)
        self.function = function
        self.name = name

    cdef int apply(self, const void *v, void *out) except -1 nogil:
        with gil:
            self.call(v, out)
        return 0

    cdef int call(self, const void *v, void *out) except -1:
        if self.function is None:
            raise TypeError("CallableOperator: not initialized")
        # A fresh array: what the function keeps or changes cannot reach the loop's own vectors.
        operand = np.empty(self.size, self.dtype)
        cdef char code = code_of(self.dtype)
        cdef size_t bytes = self.size * self.kernels.item_size
        memcpy(data_of(operand, "v", code, 1, self.size, -1, True), v, bytes)
        result = np.asarray(self.function(operand))
        if result.shape != (self.size,):
            raise ValueError(f"{self.name}: the operator returned shape {result.shape}; want ({self.size},)")
        if not np.can_cast(result.dtype, self.dtype, "same_kind"):
            raise TypeError(f"{self.name}: the operator returned dtype {result.dtype}; want {self.dtype}")
        if result.dtype != self.dtype:
            with np.errstate(over="ignore"):  # what becomes infinite is an outcome of the loop
                result = result.astype(self.dtype)
        result = np.ascontiguousarray(result)
        memcpy(out, data_of(result, "A v", code, 1, self.size, -1, False), bytes)
        return 0


cdef class DenseOperator(Operator):
    """A dense symmetric matrix: C-contiguous (n, n), float32 or float64; not copied."""

    cdef object matrix
    cdef const void *items

    def __init__(self, matrix):
        if self.matrix is not None:
            raise TypeError("DenseOperator: already initialized; make a new one")
        if not isinstance(matrix, np.ndarray):
            raise TypeError(f"matrix: {type(matrix).__name__} given; want an ndarray")
        kernels_of(matrix, "matrix")
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"matrix: shape {matrix.shape} given; want (n, n)")
        self.setup(matrix.shape[0], matrix.dtype)
        self.items = data_of(matrix, "matrix", code_of(self.dtype), 2, self.size, self.size, False)
        self.matrix = matrix

    cdef int refuse_result(self, const void *out, str name) except -1:
        cdef size_t bytes = self.size * self.kernels.item_size
        return refuse_overlap(name, out, bytes, "the operator's matrix", self.items, self.size * bytes)

    cdef int apply(self, const void *v, void *out) except -1 nogil:
        cdef size_t n = self.size, i, row = self.size * self.kernels.item_size
        cdef const char *items = <const char *>self.items
        cdef double value
        if self.matrix is None:
            with gil:
                raise TypeError("DenseOperator: not initialized")
        for i in range(n):
            value = self.kernels.dot(n, items + i * row, v)
            if self.kernels.item_size == sizeof(float):
                (<float *>out)[i] = <float>value
            else:
                (<double *>out)[i] = value
        return 0
