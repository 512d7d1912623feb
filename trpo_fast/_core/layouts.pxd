from libc.stdint cimport int64_t, uint8_t

from trpo_fast._core.csrc cimport trpo_action_layout, trpo_kernels
from trpo_fast._core.library cimport Memory


# Layout of the actions of a network with `outputs` outputs; the sizes of its components, and the layouts of a product's
# `parts`, each (distribution, outputs, nvec or None), lie in `memory`.
cdef int make_layout(
    object distribution, Py_ssize_t outputs, object nvec, object parts, Memory memory, trpo_action_layout *layout
) except -1

# Data of an action array after checking it; (B,) for a categorical, (B, m) else.
cdef void *actions_of(
    object array, str name, const trpo_action_layout *layout, bint flat, char code, Py_ssize_t rows, bint writable
) except? NULL

# Data of a mask array after checking it; NULL without one.
cdef const uint8_t *masks_of(object array, const trpo_action_layout *layout, Py_ssize_t rows) except? NULL

# Raises ValueError unless every component of every mask allows something, and every action is in range and allowed.
# Nothing is wrong with a Gaussian's. Either array may be NULL; a product's actions are float where `single`, else
# double. Errors count rows from first_row.
cdef int refuse_bad_choices(
    const trpo_action_layout *layout, const void *actions, bint single, const uint8_t *masks, Py_ssize_t rows,
    Py_ssize_t first_row
) except -1

# The first item that is out of range in the precision of these kernels, or -1.
cdef Py_ssize_t bad_log_std(const void *log_std, size_t items, const trpo_kernels *kernels) noexcept

# Raises ValueError where an item is out of range.
cdef int refuse_log_std(const void *log_std, size_t items, const trpo_kernels *kernels) except -1

# Data of an array of rows of a batch, after checking that they are increasing and within `bound`.
cdef const int64_t *checked_rows(object rows, Py_ssize_t bound) except NULL
