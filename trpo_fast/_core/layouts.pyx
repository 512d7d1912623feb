"""What a row of a policy's outputs means, and checks of the arrays that hold actions, masks, rows and log-std.

A check returns the array's data and raises what the caller of a public function is to read.
"""

from operator import index

from trpo_fast._core.library import in_words

from libc.stdint cimport int64_t, uint8_t

from trpo_fast._core.csrc cimport (
    TRPO_BERNOULLI,
    TRPO_CATEGORICAL,
    TRPO_GAUSSIAN,
    TRPO_MAX_OUTPUTS,
    trpo_action_layout,
    trpo_distribution,
    trpo_kernels,
)
from trpo_fast._core.library cimport Memory, data_of

cdef dict distributions = {
    "gaussian": TRPO_GAUSSIAN,
    "categorical": TRPO_CATEGORICAL,
    "multicategorical": TRPO_CATEGORICAL,
    "bernoulli": TRPO_BERNOULLI,
}


cdef int make_layout(
    object distribution, Py_ssize_t outputs, object nvec, Memory memory, trpo_action_layout *layout
) except -1:
    if distribution not in distributions:
        raise ValueError(f"distribution: wanted one of {', '.join(distributions)}, got {distribution!r}")
    if not 1 <= outputs <= TRPO_MAX_OUTPUTS:
        raise ValueError(f"outputs: wanted 1 to {TRPO_MAX_OUTPUTS}, got {outputs}")
    if (nvec is None) != (distribution != "multicategorical"):
        raise ValueError(f"nvec: wanted for 'multicategorical' and for no other, got {nvec!r} for {distribution!r}")
    layout.distribution = <trpo_distribution><int>distributions[distribution]
    layout.outputs = layout.components = outputs
    layout.sizes = NULL
    layout.mask_items = 0
    if layout.distribution == TRPO_BERNOULLI:
        layout.mask_items = 2 * outputs
    if layout.distribution != TRPO_CATEGORICAL:
        return 0
    cdef tuple counts = (outputs,) if nvec is None else tuple(index(n) for n in nvec)
    if min(counts, default=0) < 1 or sum(counts) != outputs:
        raise ValueError(f"nvec: wanted positive sizes that add up to the {outputs} outputs, got {in_words(counts)}")
    cdef size_t *sizes = <size_t *>memory.reserve(len(counts) * sizeof(size_t))
    cdef Py_ssize_t k
    for k in range(len(counts)):
        sizes[k] = counts[k]
    layout.components = len(counts)
    layout.sizes = sizes
    layout.mask_items = outputs
    return 0


cdef void *actions_of(
    object array, str name, const trpo_action_layout *layout, bint flat, char code, Py_ssize_t rows, bint writable
) except? NULL:
    if layout.distribution != TRPO_GAUSSIAN:
        code = "q"
    return data_of(array, name, code, 1 if flat else 2, rows, -1 if flat else layout.components, writable)


cdef const uint8_t *masks_of(object array, const trpo_action_layout *layout, Py_ssize_t rows) except? NULL:
    if array is None:
        return NULL
    if layout.mask_items == 0:
        raise ValueError("action_masks: a gaussian policy takes none")
    return <const uint8_t *>data_of(array, "action_masks", "?", 2, rows, layout.mask_items, False)


cdef int refuse_bad_choices(
    const trpo_action_layout *layout, const int64_t *actions, const uint8_t *masks, Py_ssize_t rows,
    Py_ssize_t first_row
) except -1:
    cdef Py_ssize_t i, k, j, count
    cdef bint stuck
    if actions == NULL and masks == NULL:
        return 0
    for i in range(rows):
        for k in range(<Py_ssize_t>layout.components):
            count = 2 if layout.distribution == TRPO_BERNOULLI else layout.sizes[k]
            if actions != NULL and not 0 <= actions[k] < count:
                raise ValueError(
                    f"actions: {place(layout, i + first_row, k)} holds {actions[k]}; wanted 0 to {count - 1}"
                )
            if masks != NULL:
                if actions == NULL or not masks[actions[k]]:
                    stuck = True
                    for j in range(count):
                        stuck &= not masks[j]
                    if stuck:
                        raise ValueError(f"action_masks: {place(layout, i + first_row, k)} forbids every choice")
                    if actions != NULL:
                        raise ValueError(
                            f"actions: {place(layout, i + first_row, k)} holds {actions[k]}, which its mask forbids"
                        )
                masks += count
        if actions != NULL:
            actions += layout.components
    return 0


cdef str place(const trpo_action_layout *layout, Py_ssize_t row, Py_ssize_t component):
    return f"row {row}" if layout.components == 1 else f"row {row}, component {component}"


# The squares of standard deviation and its inverse must be normal numbers, or curvature turns into 0 and infinity: half
# the logarithm of the least normal number.
cdef double log_std_limit(const trpo_kernels *kernels) noexcept:
    return 43 if kernels.item_size == sizeof(float) else 354


cdef Py_ssize_t bad_log_std(const void *log_std, size_t items, const trpo_kernels *kernels) noexcept:
    cdef bint single = kernels.item_size == sizeof(float)
    cdef double limit = log_std_limit(kernels), value
    cdef size_t j
    for j in range(items):
        value = (<const float *>log_std)[j] if single else (<const double *>log_std)[j]
        if not -limit <= value <= limit:
            return j
    return -1


cdef int refuse_log_std(const void *log_std, size_t items, const trpo_kernels *kernels) except -1:
    cdef Py_ssize_t j = bad_log_std(log_std, items, kernels)
    if j >= 0:
        value = (<const float *>log_std)[j] if kernels.item_size == sizeof(float) else (<const double *>log_std)[j]
        limit = log_std_limit(kernels)
        raise ValueError(f"log_std: item {j} is {value}; wanted -{limit:g} to {limit:g} in this precision")
    return 0


cdef const int64_t *checked_rows(object rows, Py_ssize_t bound) except NULL:
    cdef const int64_t *items = <const int64_t *>data_of(rows, "rows", "q", 1, -1, -1, False)
    cdef int64_t last = -1
    cdef Py_ssize_t i, count = len(rows)
    if count < 1:
        raise ValueError("rows: wanted at least one row, got none")
    for i in range(count):
        if not last < items[i] < bound:
            raise ValueError(f"rows: item {i} is {items[i]}; wanted increasing row numbers from 0 to {bound - 1}")
        last = items[i]
    return items
