"""The loop over copies of an environment: one call of Python for each, and everything around it compiled."""

import numpy as np

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBuffer_Release, PyObject_GetBuffer
from libc.string cimport memcpy

from trpo_fast._core.library cimport Extent, data_of, refuse_shared

cdef object ndarray = np.ndarray


cdef class CopyLoop:
    """Steps copies of an environment one after the other into arrays that it keeps.

    What is of the usual form is written here: a tuple of five with an observation of the dtype and shape that the last
    one had, a number as reward, and no episode's end. Anything else goes to `other`, which writes it or raises.

    Parameters
    ----------
    rows : ndarray (n, D), C-contiguous
        Where observations are written. Those whose bytes are not a row's go to `assign`.
    rewards : float64 ndarray (n,)
    terminated, truncated : bool ndarray (n,)
    gather : bool
        Keep the observations in `observations` and write no rows: they have parts, and are put together afterwards.
    other : callable (i, answer) -> None
        For what is not of the usual form; it writes rows, flags, `infos` and `observations` itself.

    Attributes
    ----------
    methods : list of callables
        ``env.step`` of each copy.
    dtype : numpy.dtype or None
        That an observation must have, the very object, to be of the usual form; None: none is. True: any is (`gather`).
    shape : tuple
        Of an observation.
    infos, observations : list
        Of the latest step; `observations` only with `gather`.
    at : int
        The copy that was stepped last, also after an exception.
    """

    cdef public list methods, infos, observations
    cdef public object dtype
    cdef readonly tuple shape
    cdef readonly Py_ssize_t at
    cdef object other, assigned, row_dtype
    cdef bint gather
    cdef char code
    cdef int axes
    cdef Py_ssize_t sizes[32]
    cdef unsigned char[:, ::1] bytes
    cdef double[::1] rewards
    cdef unsigned char[::1] terminated, truncated

    def __init__(self, rows, rewards, terminated, truncated, *, shape, bint gather, other):
        if self.methods is not None:
            raise TypeError("CopyLoop: already initialized; make a new one")
        if not isinstance(rows, ndarray):
            raise TypeError(f"rows: {type(rows).__name__} given; want an ndarray")
        if rows.dtype.kind not in "fiub":
            raise TypeError(f"rows: an array of {rows.dtype} given; want an array of numbers")
        if rows.ndim < 1 or not (rows.flags.c_contiguous and rows.flags.writeable):
            raise ValueError(f"rows: an array of shape {rows.shape} given; want a C-contiguous one that can be written")
        cdef Py_ssize_t n = len(rows)
        if len(shape) > 32:
            raise ValueError(f"shape: {len(shape)} given; want 32 axes at most")
        cdef Extent extents[4]
        extents[0] = Extent(data_of(rewards, "rewards", c"d", 1, n, -1, True), n * sizeof(double))
        extents[1] = Extent(data_of(terminated, "terminated", c"?", 1, n, -1, True), n)
        extents[2] = Extent(data_of(truncated, "truncated", c"?", 1, n, -1, True), n)
        extents[3] = Extent(<const void *><size_t>rows.ctypes.data, rows.nbytes)
        refuse_shared(extents, ("rewards", "terminated", "truncated", "rows"), 4)
        self.assigned = None if gather else rows.reshape(n, *shape)  # ValueError where that is not what rows hold
        self.dtype, self.shape, self.other, self.gather = None, shape, other, gather
        self.row_dtype = rows.dtype
        self.code = ord(rows.dtype.char)
        self.axes = len(shape)
        for axis in range(self.axes):
            self.sizes[axis] = shape[axis]
        self.bytes = rows.view("u1").reshape(n, -1)
        self.rewards, self.terminated, self.truncated = rewards, terminated.view("u1"), truncated.view("u1")
        # last: a loop that has them is complete
        self.methods, self.infos, self.observations = [], [None] * n, [None] * n

    def step(self, actions):
        """Step copy i with ``actions[i]``, for all of them; what a copy raises travels on."""
        if self.methods is None:
            raise TypeError("CopyLoop: not initialized")
        cdef Py_ssize_t i, n = len(self.methods)
        cdef object answer, observation, dtype = self.dtype
        cdef tuple fields
        cdef double reward
        cdef bint usual
        if n != self.rewards.shape[0] or len(actions) != n:
            raise ValueError(f"actions: {len(actions)} given; want one for each of {self.rewards.shape[0]} copies")
        for i in range(n):
            self.at = i
            answer = self.methods[i](actions[i])
            if type(answer) is not tuple or len(<tuple>answer) != 5:
                self.other(i, answer)
                dtype = self.dtype
                continue
            fields = <tuple>answer
            observation = fields[0]
            try:
                if isinstance(fields[1], ndarray):
                    raise TypeError("an array, whose number `other` takes out")
                reward = fields[1]
                usual = dtype is not None and not fields[2] and not fields[3]
                if usual and not self.gather and not (dtype is self.row_dtype and self.copied(i, observation)):
                    usual = observation.dtype is dtype and observation.shape == self.shape
                    if usual:
                        self.assigned[i] = observation
            except (AttributeError, OverflowError, TypeError, ValueError):  # whatever it is, it is not usual
                usual = False
            if not usual:
                self.other(i, answer)
                dtype = self.dtype
                continue
            self.rewards[i] = reward
            self.terminated[i] = self.truncated[i] = 0
            self.infos[i] = fields[4]
            if self.gather:
                self.observations[i] = observation

    cdef bint copied(self, Py_ssize_t i, object observation) except -1:
        """Whether the observation was copied: it is of a row's dtype and of the shape, and lies as a row does."""
        cdef Py_buffer view
        cdef Py_ssize_t axis
        if type(observation) is not ndarray:
            return False
        try:
            PyObject_GetBuffer(observation, &view, PyBUF_ND | PyBUF_FORMAT)
        except (BufferError, ValueError):  # not contiguous, or not of numbers
            return False
        cdef bint fits = view.format[0] == self.code and view.format[1] == 0 and view.ndim == self.axes
        for axis in range(view.ndim if fits else 0):
            fits = fits and view.shape[axis] == self.sizes[axis]
        if fits:
            memcpy(&self.bytes[i, 0], view.buf, view.len)
        PyBuffer_Release(&view)
        return fits
