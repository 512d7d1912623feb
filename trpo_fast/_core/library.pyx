"""The one extension module that owns csrc: its kernel tables, its threads, its random numbers.

Other modules of this floor reach them by cimport, so there is one table and one pool in a process.
"""

import os
from operator import index

from cpython.buffer cimport PyBUF_RECORDS_RO, PyBuffer_IsContiguous, PyBuffer_Release
from cpython.exc cimport PyErr_Clear, PyErr_Occurred
from libc.stdint cimport UINT32_MAX, UINT64_MAX, int64_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc

from trpo_fast._core.csrc cimport (
    TRPO_COSINE_OF_TURNS,
    TRPO_DERIVATIVE,
    TRPO_ELU,
    TRPO_EXP,
    TRPO_EXPM1,
    TRPO_FLOAT32,
    TRPO_FLOAT64,
    TRPO_GELU,
    TRPO_LEAKY_RELU,
    TRPO_LOG,
    TRPO_LOG1P,
    TRPO_MAX_LAYERS,
    TRPO_MAX_OUTPUTS,
    TRPO_MAX_STEP,
    TRPO_MAX_STREAM,
    TRPO_MAX_THREADS,
    TRPO_RELU,
    TRPO_SIGMOID,
    TRPO_SILU,
    TRPO_SINE_OF_TURNS,
    TRPO_SOFTPLUS,
    TRPO_TANH,
    trpo_activation,
    trpo_available_isa,
    trpo_bfloat16_kernels,
    trpo_bfloat16_kernels_for,
    trpo_bfloat16_multiply_adds,
    trpo_bfloat16_name,
    trpo_chosen_threads,
    trpo_claim,
    trpo_dispatch,
    trpo_floating_mode,
    trpo_get_threads,
    trpo_kernels,
    trpo_kernels_for,
    trpo_left_out_isa,
    trpo_mlp,
    trpo_narrow_kernels_for,
    trpo_openmp_limit,
    trpo_philox,
    trpo_random_key,
    trpo_random_normal,
    trpo_random_permutation,
    trpo_random_uniform,
    trpo_set_floating_mode,
    trpo_set_threads,
    trpo_usable_cores,
)


def available_instruction_sets():
    """Instruction sets that are built in and that this CPU runs, lowest first."""
    found = []
    while trpo_available_isa(len(found)) != NULL:
        found.append(trpo_available_isa(len(found)).decode())
    return tuple(found)


def left_out_instruction_sets():
    """Instruction sets that this build is without, as its compiler had no flags for them, lowest first."""
    found = []
    while trpo_left_out_isa(len(found)) != NULL:
        found.append(trpo_left_out_isa(len(found)).decode())
    return tuple(found)


def _choose_instruction_set():
    wanted = os.environ.get("TRPO_FAST_ISA")
    cdef bytes name = wanted.encode() if wanted else b""
    cdef int outcome = trpo_dispatch(<const char *>name if wanted else NULL)
    if outcome == 0:
        return
    available = available_instruction_sets()
    if not available:
        raise ImportError("this CPU is below x86-64-v2 (SSE4.2), the least that trpo_fast has kernels for")
    raise ImportError(f"TRPO_FAST_ISA={wanted!r} is not available here; want one of {', '.join(available)}")


_choose_instruction_set()

import numpy as np  # only now: numpy's own code is above x86-64-v2, too, and may end the process on a lesser CPU

MAX_LAYERS = TRPO_MAX_LAYERS
MAX_OUTPUTS = TRPO_MAX_OUTPUTS
MAX_THREADS = TRPO_MAX_THREADS
LARGEST_LAYER = 2**24

cdef object float32 = np.dtype(np.float32)
cdef object float64 = np.dtype(np.float64)
cdef object ndarray = np.ndarray
cdef dict names = {c"f": "float32", c"d": "float64", c"q": "int64", c"?": "bool", c"B": "uint8"}

cdef dict activations = {
    "tanh": TRPO_TANH,
    "relu": TRPO_RELU,
    "elu": TRPO_ELU,
    "leaky_relu": TRPO_LEAKY_RELU,
    "sigmoid": TRPO_SIGMOID,
    "silu": TRPO_SILU,
    "gelu": TRPO_GELU,
    "softplus": TRPO_SOFTPLUS,
}
ACTIVATIONS = tuple(activations)

cdef dict functions = {
    **activations,
    # of a pre-activation; the other activations' derivatives are computed from their values
    **{f"{name}_derivative": TRPO_DERIVATIVE + activations[name] for name in ("silu", "gelu", "softplus")},
    "exp": TRPO_EXP,
    "expm1": TRPO_EXPM1,
    "log": TRPO_LOG,
    "log1p": TRPO_LOG1P,
    "sine_of_turns": TRPO_SINE_OF_TURNS,
    "cosine_of_turns": TRPO_COSINE_OF_TURNS,
}


def in_words(value):
    """``repr(value)`` for an error's text, cut where it is too long to be read."""
    try:
        text = repr(value)
    except ValueError:  # of an integer with more digits than Python shows
        return f"one of type {type(value).__name__} with more digits than can be shown"
    return text if len(text) <= 80 else f"{text[:24]}... ({len(text)} characters)"


def require_choice(name, value, choices):
    """`value` if it is one of `choices`, strings; a ValueError that names it where it is anything else."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: {in_words(value)} given; want one of {', '.join(map(repr, choices))}")
    return value


def instruction_set():
    """Name of the instruction set in use; the environment variable TRPO_FAST_ISA forces another one at import."""
    return trpo_kernels_for(TRPO_FLOAT32).isa.decode()


def bfloat16_products():
    """What products of bf16 numbers are made with: "AVX512_BF16", "BF16", None where there are none."""
    cdef const trpo_bfloat16_kernels *kernels = _chosen_bfloat16()
    return None if kernels == NULL else trpo_bfloat16_name(kernels).decode()


def bfloat16_obstacle():
    """Why there are no products of bf16 numbers here; None where there are."""
    if _chosen_bfloat16() != NULL:
        return None
    for name in left_out_instruction_sets():
        if name in ("AVX512_BF16", "BF16"):
            return f"the compiler of this build has no flags for {name}"
    if instruction_set() != available_instruction_sets()[-1]:
        return f"{instruction_set()} is in use, which has no such instructions"
    return "this CPU has no AVX512_BF16 or BF16 instructions"


def choose_bfloat16(name):
    """Make products of bf16 numbers with "portable", slow plain C that runs everywhere, for tests; None: as usual."""
    global _wanted_bfloat16
    wanted = None if name is None else name.encode()
    if name is not None and trpo_bfloat16_kernels_for(<const char *><bytes>wanted) == NULL:
        raise ValueError(f"name: {in_words(name)} given; want 'portable' or None")
    _wanted_bfloat16 = wanted


cdef object _wanted_bfloat16 = None


cdef const trpo_bfloat16_kernels *_chosen_bfloat16() noexcept:
    cdef const char *wanted = NULL
    if _wanted_bfloat16 is not None:
        wanted = <bytes>_wanted_bfloat16
    return trpo_bfloat16_kernels_for(wanted)


cdef const trpo_bfloat16_kernels *bfloat16_kernels() except NULL:
    cdef const trpo_bfloat16_kernels *kernels = _chosen_bfloat16()
    if kernels == NULL:
        raise ValueError(f"bfloat16: {bfloat16_obstacle()}; want 'float32'")
    return kernels


def set_num_threads(count):
    """Use at most `count` threads, 1 to 256, in sections that start from now on; on batches bound before, too.

    None: as many as `get_num_threads` says where no number is set.
    """
    if count is None:
        trpo_set_threads(0)
        return
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)):
        raise TypeError(f"count: {in_words(count)} given; want an integer or None")
    if not 1 <= count <= TRPO_MAX_THREADS:
        raise ValueError(f"count: {in_words(count)} given; want 1 to {TRPO_MAX_THREADS} threads")
    trpo_set_threads(count)


def get_num_threads():
    """Threads that a parallel section may use.

    Until a number is set: `usable_cores`, at most OMP_NUM_THREADS where that is set. The environment variable
    TRPO_FAST_NUM_THREADS sets another number at import, over both.
    """
    trpo_usable_cores()  # as they are now: by itself trpo_get_threads looks once in a tick of the clock
    return trpo_get_threads()


def chosen_num_threads():
    """What `set_num_threads` or TRPO_FAST_NUM_THREADS set; None where neither did."""
    return trpo_chosen_threads() or None


def openmp_limit():
    """What OMP_NUM_THREADS allows; None where it is not set, or is nothing that limits."""
    cdef int limit = trpo_openmp_limit()
    return limit if limit < TRPO_MAX_THREADS else None


def _take_threads_from_environment():
    wanted = os.environ.get("TRPO_FAST_NUM_THREADS")
    if not wanted:
        return
    try:
        # int() would take 2_5, and the digits of any script
        set_num_threads(int(wanted) if wanted.isascii() and wanted.strip().isdecimal() else 0)
    except ValueError:
        raise ImportError(f"TRPO_FAST_NUM_THREADS={wanted!r} given; want 1 to {TRPO_MAX_THREADS}") from None


_take_threads_from_environment()


def floating_mode():
    """The calling thread's rounding and its treatment of denormal numbers, as a number that another process takes."""
    return trpo_floating_mode()


def set_floating_mode(mode):
    """Compute as the thread whose `floating_mode` this is."""
    trpo_set_floating_mode(counter_of(mode, "mode", UINT64_MAX))


def usable_cores():
    """Cores that affinity and control groups grant the calling thread now, 1 to 256.

    Two logical processors of one core count once, where Linux says which they are.
    """
    return trpo_usable_cores()


def philox(key, counter):
    """Philox4x32-10: four 32-bit words from a key of two and a counter of four (Salmon et al. 2011)."""
    cdef uint32_t k[2]
    cdef uint32_t c[4]
    cdef uint32_t out[4]
    cdef int i
    if len(key) != 2 or len(counter) != 4:
        raise ValueError(f"key, counter: {len(key)} and {len(counter)} given; want 2 and 4 words")
    for i in range(2):
        k[i] = <uint32_t>counter_of(key[i], "key", UINT32_MAX)
    for i in range(4):
        c[i] = <uint32_t>counter_of(counter[i], "counter", UINT32_MAX)
    trpo_philox(c, k, out)
    return out[0], out[1], out[2], out[3]


def permutation(size, *, seed, stream, step):
    """A uniformly random order of ``range(size)``, int64, determined by (seed, stream, step)."""
    order = np.empty(counter_of(size, "size", UINT32_MAX), np.int64)
    cdef trpo_random_key key = key_of(seed, stream, step)
    cdef int64_t *items = <int64_t *>data_of(order, "order", "q", 1, size, -1, True)
    trpo_random_permutation(&key, size, items)
    return order


def uniform(rows, count, *, seed, stream, step, first_row=0):
    """`count` numbers on (0, 1] for each row, float64 (rows, count), determined by (seed, stream, step) and the row.

    They are what actors draw discrete actions by: one for each component.
    """
    return draws(rows, count, key_of(seed, stream, step), first_row, False)


def normal(rows, count, *, seed, stream, step, first_row=0):
    """As `uniform`, standard normal: the noise of actors' Gaussian actions, one number for each dimension."""
    return draws(rows, count, key_of(seed, stream, step), first_row, True)


cdef object draws(object rows, object count, trpo_random_key key, object first_row, bint is_normal):
    cdef Py_ssize_t n = counter_of(rows, "rows", UINT32_MAX), i
    cdef int items = <int>counter_of(count, "count", 2**30)
    cdef uint32_t first = first_row_of(first_row, n)
    numbers = np.empty((n, items))
    cdef double *out = <double *>data_of(numbers, "numbers", c"d", 2, n, items, True)
    for i in range(n):
        if is_normal:
            trpo_random_normal(&key, first + <uint32_t>i, items, out + i * items)
        else:
            trpo_random_uniform(&key, first + <uint32_t>i, items, out + i * items)
    return numbers


cdef const trpo_kernels *kernels_for(object dtype, bint narrow=False) except NULL:
    cdef object wanted = None
    if dtype is not None:  # which NumPy takes for float64
        try:
            wanted = np.dtype(dtype)
        except (TypeError, ValueError, SyntaxError):  # NumPy parses texts with commas as Python
            pass
    if wanted is None or (wanted != float32 and wanted != float64):
        raise TypeError(f"dtype: {in_words(dtype) if wanted is None else wanted} given; want float32 or float64")
    code = TRPO_FLOAT32 if wanted == float32 else TRPO_FLOAT64
    return trpo_narrow_kernels_for(code) if narrow else trpo_kernels_for(code)


cdef const trpo_kernels *kernels_of(object array, str name) except NULL:
    if not isinstance(array, ndarray) or array.dtype not in (float32, float64):
        raise TypeError(f"{name}: {_describe(array)} given; want a float32 or float64 array")
    return kernels_for(array.dtype)


cdef int threads() noexcept nogil:
    return trpo_get_threads()


cdef bint take_claim(int *claim) noexcept nogil:
    return trpo_claim(claim)


cdef void permute(const trpo_random_key *key, int64_t n, int64_t *order) noexcept nogil:
    trpo_random_permutation(key, n, order)


cdef tuple integers_of(object values, str name):
    try:
        if isinstance(values, (list, tuple, ndarray)) and not any([isinstance(value, bool) for value in values]):
            return tuple([index(value) for value in values])
    except TypeError:  # a 0-d array, or what are no integers
        pass
    raise TypeError(f"{name}: {in_words(values)} given; want a sequence of integers")


cdef int make_plan(const trpo_kernels *kernels, tuple widths, object activation, trpo_mlp *plan) except -1:
    cdef size_t sizes[TRPO_MAX_LAYERS + 1]
    cdef Py_ssize_t i
    if not 2 <= len(widths) <= TRPO_MAX_LAYERS + 1:
        raise ValueError(f"widths: {len(widths)} given; want 2 to {TRPO_MAX_LAYERS + 1} layer sizes, inputs first")
    for i in range(len(widths)):
        if not 1 <= widths[i] <= LARGEST_LAYER:
            raise ValueError(f"widths: {in_words(widths)} given; want layer sizes from 1 to 2**24")
        sizes[i] = widths[i]
    require_choice("activation", activation, activations)
    kernels.mlp_plan(<int>len(widths) - 1, sizes, <trpo_activation><int>activations[activation], plan)
    return 0


def elementary(function, x):
    """An activation or another of the kernels' functions on an array of any shape, float32 or float64.

    "sine_of_turns" is sin(2 pi x), for ``|x|`` below 2**19 in float32 and 2**48 in float64.
    """
    require_choice("function", function, functions)
    cdef const trpo_kernels *kernels = kernels_of(x, "x")
    flat, y = np.ascontiguousarray(x).reshape(-1), np.empty(x.size, x.dtype)
    cdef char code = code_of(x.dtype)
    kernels.elementary(
        functions[function],
        flat.size,
        data_of(flat, "x", code, 1, -1, -1, False),
        data_of(y, "y", code, 1, flat.size, -1, True),
    )
    return y.reshape(x.shape)


def all_finite(x):
    """Whether no item of `x`, one-dimensional, contiguous, float32 or float64, is NaN or infinite."""
    cdef bint is_double = isinstance(x, ndarray) and x.itemsize == sizeof(double)
    cdef const void *items = data_of(x, "x", c"d" if is_double else c"f", 1, -1, -1, False)
    return trpo_kernels_for(TRPO_FLOAT64 if is_double else TRPO_FLOAT32).all_finite(len(x), items) != 0


def holds(list dicts not None, list objects not None):
    """Whether the values of `dicts`, one dictionary after the other, are these very objects, and no others."""
    cdef Py_ssize_t i = 0, n = len(objects)
    for part in dicts:
        if not isinstance(part, dict):
            raise TypeError(f"dicts: {in_words(part)} given; want dictionaries")
        for value in (<dict>part).values():
            if i == n or value is not objects[i]:
                return False
            i += 1
    return i == n


def multiply_adds(dtype, rounds):
    """Do nothing but multiply-adds in registers on every thread; how many operations those were.

    Timed, this is the limit of the instruction set in use: what benchmarks measure kernels against. `rounds` is 1 to
    2**32; a million take a few milliseconds. Besides float32 and float64, `dtype` may be "bfloat16", whose instruction
    does four operations a lane.
    """
    cdef const trpo_bfloat16_kernels *narrow = NULL
    cdef const trpo_kernels *kernels = NULL
    if isinstance(dtype, str) and dtype == "bfloat16":
        narrow = bfloat16_kernels()
    else:
        kernels = kernels_for(dtype)
    cdef size_t count = counter_of(rounds, "rounds", 2**32)
    if count < 1:
        raise ValueError("rounds: 0 given; want 1 to 2**32")
    cdef double operations
    with nogil:
        if narrow != NULL:
            operations = trpo_bfloat16_multiply_adds(narrow, count, trpo_get_threads())
        else:
            operations = kernels.multiply_adds(count, trpo_get_threads())
    return operations


cdef char code_of(object dtype) except 0:
    return c"f" if dtype == float32 else c"d"


cdef bint _is_code(const char *format, Py_ssize_t itemsize, char code) noexcept:
    # numpy says 'l' or 'q' for int64, as the platform has it
    if code == c"q":
        return itemsize == 8 and format[0] in (c"l", c"q")
    return format[0] == code and format[1] == 0


cdef object _describe(object array):
    if not isinstance(array, ndarray):
        return f"{type(array).__name__}"
    layout = "" if array.flags.c_contiguous else " not C-contiguous"
    place = "" if array.flags.aligned else " misaligned in memory"
    access = "" if array.flags.writeable else " read-only"
    return f"{array.dtype} array of shape {array.shape}{layout}{place}{access}"


cdef extern from "Python.h":
    # Its outcome is looked at here: a try block takes longer than the whole call.
    int get_buffer "PyObject_GetBuffer"(object array, Py_buffer *view, int flags) noexcept


cdef void *data_of(
    object array, str name, char code, int ndim, Py_ssize_t d0, Py_ssize_t d1, bint writable
) except? NULL:
    # Every call from Python begins with a handful of these: nothing but the buffer's own description is looked at.
    cdef Py_buffer view
    cdef bint fits = False
    cdef void *data = NULL
    if isinstance(array, ndarray):
        if get_buffer(array, &view, PyBUF_RECORDS_RO) < 0:
            PyErr_Clear()  # of dates, and of whatever else has no code
        else:
            fits = (
                view.ndim == ndim
                and _is_code(view.format, view.itemsize, code)
                and (d0 < 0 or view.shape[0] == d0)
                and (ndim < 2 or d1 < 0 or view.shape[1] == d1)
                and not (writable and view.readonly)
                and PyBuffer_IsContiguous(&view, c"C")
            )
            data = view.buf
            PyBuffer_Release(&view)
    if fits:
        return data
    sizes = ", ".join("any" if d < 0 else str(d) for d in (d0, d1)[:ndim]) + ("," if ndim == 1 else "")
    error = ValueError if isinstance(array, ndarray) and array.dtype == names[code] else TypeError
    raise error(
        f"{name}: {_describe(array)} given; want a "
        f"C-contiguous{' writable' if writable else ''} {names[code]} array of shape ({sizes})"
    )


cdef bint overlap(const void *p, size_t bytes, const void *q, size_t other_bytes) noexcept:
    cdef uintptr_t a = <uintptr_t>p, b = <uintptr_t>q
    return bytes > 0 and other_bytes > 0 and a < b + other_bytes and b < a + bytes


cdef int refuse_overlap(
    str name, const void *p, size_t bytes, str other_name, const void *q, size_t other_bytes
) except -1:
    if overlap(p, bytes, q, other_bytes):
        raise ValueError(f"{name}: shares memory with {other_name}; want arrays that do not overlap")
    return 0


cdef int refuse_shared(const Extent *extents, tuple names, int written) except -1:
    # Every step of an environment comes here: a name is looked up only where there is something to say.
    cdef int i, j, count = <int>len(names)
    cdef const Extent *a
    cdef const Extent *b
    for i in range(written):
        a = &extents[i]
        for j in range(i + 1, count):
            b = &extents[j]
            if b.data != NULL and overlap(a.data, a.bytes, b.data, b.bytes):
                refuse_overlap(<str>names[i], a.data, a.bytes, <str>names[j], b.data, b.bytes)
    return 0


cdef extern from "Python.h":
    # As with get_buffer, their outcome is looked at here.
    double get_double "PyFloat_AsDouble"(object number) noexcept
    uint64_t get_unsigned "PyLong_AsUnsignedLongLong"(object number) noexcept


cdef double number_of(object value, str name) except? -1:
    if isinstance(value, ndarray) and value.ndim > 0:  # NumPy before 2.4 takes one of one item for a number, and warns
        raise TypeError(f"{name}: {in_words(value)} given; want a number that a double can hold")
    cdef double number = get_double(value)
    if number == -1 and PyErr_Occurred() != NULL:
        PyErr_Clear()
        # float() of an integer that no double can hold is an OverflowError, which names nothing
        error = ValueError if hasattr(value, "__float__") or hasattr(value, "__index__") else TypeError
        raise error(f"{name}: {in_words(value)} given; want a number that a double can hold")
    return number


def as_double(value, name):
    """`value` as a float; a ValueError names it where there is none of its size, a TypeError where it is none."""
    return number_of(value, name)


cdef uint64_t counter_of(object value, str name, uint64_t most) except? 0:
    cdef uint64_t counter = get_unsigned(value) if isinstance(value, int) else UINT64_MAX
    if counter < UINT64_MAX and counter <= most:
        return counter
    PyErr_Clear()
    try:
        if isinstance(value, np.bool_):  # NumPy 2.0 to 2.2 take it for an integer, and warn
            raise TypeError
        number = index(value)
    except TypeError:
        raise TypeError(f"{name}: {in_words(value)} given; want an integer") from None
    if number < 0:
        raise ValueError(f"{name}: {in_words(value)} given; want >= 0")
    if number > most:
        raise ValueError(f"{name}: {in_words(value)} given; want at most {most}")
    return number


cdef bint flag_of(object value, str name) except? True:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: {in_words(value)} given; want True or False")
    return value


cdef trpo_random_key key_of(object seed, object stream, object step) except *:
    cdef trpo_random_key key
    key.seed = counter_of(seed, "seed", UINT64_MAX)
    key.stream = <uint32_t>counter_of(stream, "stream", TRPO_MAX_STREAM)
    key.step = counter_of(step, "step", TRPO_MAX_STEP)
    return key


cdef uint32_t first_row_of(object value, uint64_t rows) except? 0:
    return <uint32_t>counter_of(value, "first_row", UINT32_MAX - min(rows, <uint64_t>UINT32_MAX))


cdef class Memory:
    def __dealloc__(self):
        free(self.block)

    cdef void *reserve(self, size_t bytes) except NULL:
        if bytes + TRPO_ALIGNMENT > self.capacity or self.block == NULL:
            free(self.block)
            self.capacity = 0
            self.block = malloc(bytes + TRPO_ALIGNMENT)
            if self.block == NULL:
                raise MemoryError(f"{bytes} bytes")
            self.capacity = bytes + TRPO_ALIGNMENT
        return <void *>aligned(<uintptr_t>self.block)
