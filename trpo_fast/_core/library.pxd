from libc.stdint cimport int64_t, uint32_t, uint64_t

from trpo_fast._core.csrc cimport TRPO_ALIGNMENT, trpo_bfloat16_kernels, trpo_kernels, trpo_mlp, trpo_random_key


# `narrow`: of at most 256 bits.
cdef const trpo_kernels *kernels_for(object dtype, bint narrow=*) except NULL
# The kernels for the dtype of `array`, which is checked to be an ndarray; errors say `name`.
cdef const trpo_kernels *kernels_of(object array, str name) except NULL
# Those of this CPU, or what was chosen; ValueError where there are none.
cdef const trpo_bfloat16_kernels *bfloat16_kernels() except NULL
cdef int threads() noexcept nogil
# trpo_claim, which needs what this module alone has: the number of the process.
cdef bint take_claim(int *claim) noexcept nogil
cdef void permute(const trpo_random_key *key, int64_t n, int64_t *order) noexcept nogil

# The data of `array` after checking it: a C-contiguous ndarray of `code` ('f', 'd', 'q' int64, '?' bool, 'B' uint8),
# with `ndim` dimensions of sizes d0, d1 (-1: any), writable where asked. Valid while the caller holds the array.
cdef void *data_of(
    object array, str name, char code, int ndim, Py_ssize_t d0, Py_ssize_t d1, bint writable
) except? NULL

# A list, tuple or array of integers, whose sizes the caller checks.
cdef tuple integers_of(object values, str name)
# Plan of a network for these kernels, after checking widths (inputs first) and the activation's name.
cdef int make_plan(const trpo_kernels *kernels, tuple widths, object activation, trpo_mlp *plan) except -1

# `value` as a C number; errors say `name`, also of integers too large for any.
cdef double number_of(object value, str name) except? -1
cdef uint64_t counter_of(object value, str name, uint64_t most) except? 0
cdef bint flag_of(object value, str name) except? True
cdef trpo_random_key key_of(object seed, object stream, object step) except *
# The number of the first of so many rows that draw, which have to end within 32 bits.
cdef uint32_t first_row_of(object value, uint64_t rows) except? 0

# 'f' or 'd'.
cdef char code_of(object dtype) except 0

# Raises ValueError where the `bytes` at p and the `other_bytes` at q share memory.
cdef int refuse_overlap(
    str name, const void *p, size_t bytes, str other_name, const void *q, size_t other_bytes
) except -1

# Where an array lies; for refuse_shared.
cdef struct Extent:
    const void *data
    size_t bytes

# Raises ValueError where one of the first `written` extents shares memory with any other, by their names.
cdef int refuse_shared(const Extent *extents, tuple names, int written) except -1


# `bytes` up to the next vector boundary: parts of one Memory start there.
cdef inline size_t aligned(size_t bytes) noexcept nogil:
    return (bytes + TRPO_ALIGNMENT - 1) // TRPO_ALIGNMENT * TRPO_ALIGNMENT


cdef class Memory:
    # Uninitialized memory of at least the size last asked for, aligned for any vector load.
    cdef void *block
    cdef size_t capacity
    cdef void *reserve(self, size_t bytes) except NULL
