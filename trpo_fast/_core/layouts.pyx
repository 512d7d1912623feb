"""What a row of a policy's outputs means, and checks of the arrays that hold actions, masks, rows and log-std.

A check returns the array's data and raises what the caller of a public function is to read.
"""

from trpo_fast._core.library import in_words, require_choice

from libc.stdint cimport int64_t, uint8_t

from trpo_fast._core.csrc cimport (
    TRPO_BERNOULLI,
    TRPO_CATEGORICAL,
    TRPO_GAUSSIAN,
    TRPO_MAX_OUTPUTS,
    TRPO_PRODUCT,
    trpo_action_is_real,
    trpo_action_layout,
    trpo_distribution,
    trpo_kernels,
)
from trpo_fast._core.library cimport Memory, aligned, counter_of, data_of, integers_of

cdef dict distributions = {
    "gaussian": TRPO_GAUSSIAN,
    "categorical": TRPO_CATEGORICAL,
    "multicategorical": TRPO_CATEGORICAL,
    "bernoulli": TRPO_BERNOULLI,
}


cdef int make_layout(
    object distribution, Py_ssize_t outputs, object nvec, object parts, Memory memory, trpo_action_layout *layout
) except -1:
    require_choice("distribution", distribution, (*distributions, "product"))
    if not 1 <= outputs <= TRPO_MAX_OUTPUTS:
        raise ValueError(f"outputs: {in_words(outputs)} given; want 1 to {TRPO_MAX_OUTPUTS}")
    if (nvec is None) != (distribution != "multicategorical"):
        given = f"{in_words(nvec)} for {distribution!r}"
        raise ValueError(f"nvec: {given} given; want one for 'multicategorical', None for others")
    if (parts is None) != (distribution != "product"):
        given = f"{in_words(parts)} for {distribution!r}"
        raise ValueError(f"parts: {given} given; want them for 'product', None for others")
    cdef list every = [(distribution, outputs, nvec)] if parts is None else parts_of(parts)
    cdef list counts = []
    cdef Py_ssize_t n, at = 0
    for kind, n, choices in every:
        require_choice("parts", kind, distributions)
        if (choices is None) != (kind != "multicategorical") or n < 1:
            raise ValueError(f"parts: {in_words((kind, n, choices))} given; want (distribution, outputs, nvec or None)")
        counts.append(choices_of(kind, n, choices))
    if sum([part[1] for part in every]) != outputs:
        raise ValueError(f"parts: {in_words([part[1] for part in every])} given; want outputs that add up to {outputs}")
    cdef size_t layouts = 0 if parts is None else aligned(len(every) * sizeof(trpo_action_layout))
    cdef char *base = <char *>memory.reserve(layouts + sum(map(len, counts)) * sizeof(size_t))
    cdef trpo_action_layout *single = layout if parts is None else <trpo_action_layout *>base
    cdef size_t *sizes = <size_t *>(base + layouts)
    if parts is not None:
        layout.distribution, layout.outputs, layout.sizes = TRPO_PRODUCT, outputs, NULL
        layout.components = layout.mask_items = 0
        layout.count, layout.parts = len(every), single
    for kind, n, _ in every:
        fill(single, <trpo_distribution><int>distributions[kind], n, counts[at], sizes)
        if parts is not None:
            layout.components += single.components
            layout.mask_items += single.mask_items
        sizes += len(counts[at])
        single += 1
        at += 1
    return 0


# (distribution, outputs, nvec) of each part.
cdef list parts_of(object parts):
    cdef list every = []
    if not isinstance(parts, (list, tuple)):
        raise TypeError(f"parts: {in_words(parts)} given; want a sequence of (distribution, outputs, nvec or None)")
    for part in parts:
        if not isinstance(part, (list, tuple)) or len(part) != 3:
            raise ValueError(f"parts: {in_words(part)} given; want (distribution, outputs, nvec or None)")
        every.append((part[0], counter_of(part[1], "parts", TRPO_MAX_OUTPUTS), part[2]))
    return every


# Choices of each component, () where they are no blocks of logits.
cdef tuple choices_of(str kind, Py_ssize_t outputs, object nvec):
    if <int>distributions[kind] != TRPO_CATEGORICAL:
        return ()
    cdef tuple counts = (outputs,) if nvec is None else integers_of(nvec, "nvec")
    if min(counts, default=0) < 1 or sum(counts) != outputs:
        raise ValueError(f"nvec: {in_words(counts)} given; want positive sizes that add up to the {outputs} outputs")
    return counts


cdef void fill(
    trpo_action_layout *layout, trpo_distribution kind, Py_ssize_t outputs, tuple counts, size_t *sizes
):
    cdef Py_ssize_t k
    layout.distribution = kind
    layout.outputs = layout.components = outputs
    layout.sizes = NULL
    layout.mask_items = 2 * outputs if kind == TRPO_BERNOULLI else 0
    layout.count, layout.parts = 0, NULL
    if kind != TRPO_CATEGORICAL:
        return
    for k in range(len(counts)):
        sizes[k] = counts[k]
    layout.components, layout.sizes, layout.mask_items = len(counts), sizes, outputs


cdef void *actions_of(
    object array, str name, const trpo_action_layout *layout, bint flat, char code, Py_ssize_t rows, bint writable
) except? NULL:
    if not trpo_action_is_real(layout):
        code = "q"
    return data_of(array, name, code, 1 if flat else 2, rows, -1 if flat else layout.components, writable)


cdef const uint8_t *masks_of(object array, const trpo_action_layout *layout, Py_ssize_t rows) except? NULL:
    if array is None:
        return NULL
    if layout.mask_items == 0:
        raise ValueError("action_masks: a gaussian policy takes none")
    return <const uint8_t *>data_of(array, "action_masks", "?", 2, rows, layout.mask_items, False)


cdef int refuse_bad_choices(
    const trpo_action_layout *layout, const void *actions, bint single, const uint8_t *masks, Py_ssize_t rows,
    Py_ssize_t first_row
) except -1:
    cdef Py_ssize_t i, k, p, column = 0
    cdef const int64_t *row = <const int64_t *>actions
    cdef const trpo_action_layout *part
    cdef Memory memory
    cdef int64_t *choices
    cdef double value
    if (actions == NULL and masks == NULL) or layout.distribution == TRPO_GAUSSIAN:
        return 0
    if layout.distribution != TRPO_PRODUCT:
        for i in range(rows):
            refuse_bad_row(layout, row, masks, i + first_row, -1)
            row = row + layout.components if actions != NULL else NULL
            masks = masks + layout.mask_items if masks != NULL else NULL
        return 0
    memory = Memory()
    choices = <int64_t *>memory.reserve(layout.components * sizeof(int64_t))
    for i in range(rows):
        for p in range(<Py_ssize_t>layout.count):
            part = &layout.parts[p]
            for k in range(<Py_ssize_t>part.components if actions != NULL else 0):
                value = (<const float *>actions)[column] if single else (<const double *>actions)[column]
                column += 1
                if part.distribution == TRPO_GAUSSIAN:
                    continue
                choices[k] = <int64_t>value if 0 <= value < TRPO_MAX_OUTPUTS else -1
                if choices[k] != value:
                    raise ValueError(
                        f"actions: {place(part, i + first_row, p, k)} holds {value}; want 0 to {most(part, k)}"
                    )
            if part.distribution != TRPO_GAUSSIAN:
                refuse_bad_row(part, choices if actions != NULL else NULL, masks, i + first_row, p)
            masks = masks + part.mask_items if masks != NULL else NULL
    return 0


# The largest choice of a component.
cdef Py_ssize_t most(const trpo_action_layout *layout, Py_ssize_t component) noexcept:
    return 1 if layout.distribution == TRPO_BERNOULLI else layout.sizes[component] - 1


# `part`: of a product, for errors; -1: of none.
cdef int refuse_bad_row(
    const trpo_action_layout *layout, const int64_t *actions, const uint8_t *masks, Py_ssize_t row, Py_ssize_t part
) except -1:
    cdef Py_ssize_t k, j, last
    cdef bint stuck
    for k in range(<Py_ssize_t>layout.components):
        last = most(layout, k)
        if actions != NULL and not 0 <= actions[k] <= last:
            raise ValueError(f"actions: {place(layout, row, part, k)} holds {actions[k]}; want 0 to {last}")
        if masks == NULL:
            continue
        if actions == NULL or not masks[actions[k]]:
            stuck = True
            for j in range(last + 1):
                stuck &= not masks[j]
            if stuck:
                raise ValueError(f"action_masks: {place(layout, row, part, k)} forbids every choice")
            if actions != NULL:
                raise ValueError(
                    f"actions: {place(layout, row, part, k)} holds {actions[k]}, which its mask forbids"
                )
        masks += last + 1
    return 0


cdef str place(const trpo_action_layout *layout, Py_ssize_t row, Py_ssize_t part, Py_ssize_t component):
    within = "" if part < 0 else f", part {part}"
    return f"row {row}{within}" if layout.components == 1 else f"row {row}{within}, component {component}"


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
        raise ValueError(f"log_std: item {j} is {value}; want -{limit:g} to {limit:g} in this precision")
    return 0


cdef const int64_t *checked_rows(object rows, Py_ssize_t bound) except NULL:
    cdef const int64_t *items = <const int64_t *>data_of(rows, "rows", "q", 1, -1, -1, False)
    cdef int64_t last = -1
    cdef Py_ssize_t i, count = len(rows)
    if count < 1:
        raise ValueError("rows: none given; want at least one row")
    for i in range(count):
        if not last < items[i] < bound:
            raise ValueError(f"rows: item {i} is {items[i]}; want increasing row numbers from 0 to {bound - 1}")
        last = items[i]
    return items
