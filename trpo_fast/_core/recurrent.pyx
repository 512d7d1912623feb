"""Recurrent cells over sequences; the mathematics is csrc/kernels/recurrent.h."""

import numpy as np

from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memcpy

from trpo_fast._core.csrc cimport TRPO_GRU, TRPO_LSTM, trpo_cell, trpo_cell_kind, trpo_kernels, trpo_release
from trpo_fast._core.library cimport (
    Memory,
    aligned,
    code_of,
    counter_of,
    data_of,
    flag_of,
    kernels_for,
    take_claim,
    threads as usable_threads,
)

cdef dict kinds = {"gru": TRPO_GRU, "lstm": TRPO_LSTM}


cdef class Cell:
    """What a recurrent cell computes from the parameters that it is given, as torch.nn.GRUCell and LSTMCell have them.

    Arrays over T steps of E sequences are time-major, one row for each step of each sequence: (T E, ...). A sequence may
    hold several episodes: before a step that starts one its state is zero. Nothing of a sequence depends on the others,
    to the bit.

    Parameters
    ----------
    kind : {"gru", "lstm"}
    units : int
        H.
    dtype : float32 or float64
        Of every array.

    Attributes
    ----------
    gates : int
        G, 3 of a GRU (reset, update, new) and 4 of an LSTM (input, forget, cell, output).
    state_items : int
        S, numbers in a state: h, and of an LSTM then c.
    """

    cdef readonly str kind
    cdef readonly object dtype
    cdef readonly Py_ssize_t units, gates, state_items
    cdef const trpo_kernels *kernels
    cdef char code
    cdef trpo_cell plan
    cdef Memory memory, work
    cdef void *known                # the weight and the bias that the packs were made from
    cdef void *forward_pack
    cdef void *backward_pack
    cdef bint is_packed
    cdef int claimed

    def __init__(self, kind, units, dtype):
        if self.memory is not None:
            raise TypeError("Cell: already initialized; make a new one")
        if kind not in kinds:
            raise ValueError(f"kind: wanted one of {', '.join(map(repr, kinds))}, got {kind!r}")
        cdef Py_ssize_t number = <Py_ssize_t>counter_of(units, "units", 2**24)
        if number < 1:
            raise ValueError(f"units: wanted 1 to 2**24, got {number}")
        self.kernels = kernels_for(dtype)
        self.dtype = np.dtype(dtype)
        self.code = code_of(self.dtype)
        self.kernels.cell_plan(<trpo_cell_kind><int>kinds[kind], number, &self.plan)
        self.kind, self.units = kind, number
        self.gates, self.state_items = self.plan.gates, self.plan.state_items
        cdef Memory memory = Memory()
        cdef size_t item = self.kernels.item_size
        cdef size_t known = aligned(self.plan.gates * self.plan.units * (self.plan.units + 1) * item)
        cdef size_t forward = aligned(self.plan.forward_items * item)
        cdef char *base = <char *>memory.reserve(known + forward + self.plan.backward_items * item)
        self.known, self.forward_pack, self.backward_pack = base, base + known, base + known + forward
        self.work = Memory()
        self.memory = memory  # last: a cell that has it is complete

    def forward(self, weight, bias, inputs, starts, first, *, keep=False):
        """States after every step, and with `keep` what the derivatives of :meth:`jvp` and :meth:`vjp` are made of.

        Parameters
        ----------
        weight : ndarray (G H, H)
        bias : ndarray (G H,)
            Of what the state before brings.
        inputs : ndarray (T E, G H)
            What a step's observation brings: W_ih x + b_ih.
        starts : bool ndarray (T E,), or None
            Whether an episode starts with the step.
        first : ndarray (E, S)
            States before the first step; where that starts an episode, they are not read.

        Returns
        -------
        states : ndarray (T E, S)
        kept : ndarray (T E, K), or None
        """
        cdef Py_ssize_t sequences, rows
        self.require()
        cdef const void *before = data_of(first, "first", self.code, 2, -1, self.state_items, False)
        sequences = first.shape[0]
        cdef const void *x = data_of(inputs, "inputs", self.code, 2, -1, self.gates * self.units, False)
        rows = inputs.shape[0]
        cdef size_t steps = self.steps_of(rows, sequences)
        cdef const uint8_t *flags = self.flags_of(starts, rows)
        states = np.empty((rows, self.state_items), self.dtype)
        kept = np.empty((rows, self.plan.kept_items), self.dtype) if flag_of(keep, "keep") else None
        cdef void *out = data_of(states, "states", self.code, 2, -1, -1, True)
        cdef void *more = NULL
        if kept is not None:
            more = data_of(kept, "kept", self.code, 2, -1, -1, True)
        cdef void *scratch = self.begin(weight, bias, sequences)
        with nogil:
            self.kernels.cell_forward(
                &self.plan, steps, sequences, self.forward_pack, x, flags, before, out, more, scratch,
                usable_threads(),
            )
            trpo_release(&self.claimed)
        return states, kept

    def jvp(self, weight, bias, kept, starts, inputs, recurrent, sequences):
        """Tangents of h, (T E, H), at fixed first states.

        Parameters
        ----------
        weight, bias, starts
            As :meth:`forward` was given.
        kept : ndarray (T E, K)
            Of :meth:`forward`.
        inputs : ndarray (T E, G H)
            Tangents of its inputs.
        recurrent : ndarray (T E, G H)
            Tangents of W_hh h + b_hh at a fixed h, the state before the step.
        sequences : int
            E.
        """
        self.require()
        cdef Py_ssize_t count = <Py_ssize_t>counter_of(sequences, "sequences", 2**31)
        cdef const void *known = data_of(kept, "kept", self.code, 2, -1, self.plan.kept_items, False)
        cdef Py_ssize_t rows = kept.shape[0], width = self.gates * self.units
        cdef size_t steps = self.steps_of(rows, count)
        cdef const uint8_t *flags = self.flags_of(starts, rows)
        cdef const void *x = data_of(inputs, "inputs", self.code, 2, rows, width, False)
        cdef const void *u = data_of(recurrent, "recurrent", self.code, 2, rows, width, False)
        tangents = np.empty((rows, self.units), self.dtype)
        cdef void *out = data_of(tangents, "tangents", self.code, 2, -1, -1, True)
        cdef void *scratch = self.begin(weight, bias, count)
        with nogil:
            self.kernels.cell_jvp(
                &self.plan, steps, count, self.forward_pack, known, flags, x, u, out, scratch, usable_threads()
            )
            trpo_release(&self.claimed)
        return tangents

    def vjp(self, weight, bias, kept, starts, cotangents, sequences):
        """Cotangents of the inputs and of W_hh h + b_hh, (T E, G H) each, from those of h, (T E, H).

        Of an LSTM they are the same, one array. Other parameters as for :meth:`jvp`.
        """
        self.require()
        cdef Py_ssize_t count = <Py_ssize_t>counter_of(sequences, "sequences", 2**31)
        cdef const void *known = data_of(kept, "kept", self.code, 2, -1, self.plan.kept_items, False)
        cdef Py_ssize_t rows = kept.shape[0], width = self.gates * self.units
        cdef size_t steps = self.steps_of(rows, count)
        cdef const uint8_t *flags = self.flags_of(starts, rows)
        cdef const void *d = data_of(cotangents, "cotangents", self.code, 2, rows, self.units, False)
        inputs = np.empty((rows, width), self.dtype)
        recurrent = np.empty((rows, width), self.dtype) if self.kind == "gru" else inputs
        cdef void *out = data_of(inputs, "inputs", self.code, 2, -1, -1, True)
        cdef void *more = data_of(recurrent, "recurrent", self.code, 2, -1, -1, True)
        if self.kind != "gru":
            more = NULL
        cdef void *scratch = self.begin(weight, bias, count)
        with nogil:
            self.kernels.cell_vjp(
                &self.plan, steps, count, self.backward_pack, known, flags, d, out, more, scratch, usable_threads()
            )
            trpo_release(&self.claimed)
        return inputs, recurrent

    cdef int require(self) except -1:
        if self.memory is None:
            raise TypeError("Cell: not initialized")
        return 0

    cdef size_t steps_of(self, Py_ssize_t rows, Py_ssize_t sequences) except? 0:
        if sequences < 1 or rows < 1 or rows % sequences:
            raise ValueError(f"rows: wanted the steps of each of {sequences} sequences, got {rows} rows")
        return rows // sequences

    cdef const uint8_t *flags_of(self, object starts, Py_ssize_t rows) except? NULL:
        if starts is None:
            return NULL
        return <const uint8_t *>data_of(starts, "starts", "?", 1, rows, -1, False)

    cdef void *begin(self, object weight, object bias, Py_ssize_t sequences) except NULL:
        # Packs the parameters, unless they are those of the last call; work memory. Until the claim is given back no
        # other thread comes here.
        cdef size_t item = self.kernels.item_size
        cdef size_t square = self.plan.gates * self.plan.units * self.plan.units * item
        cdef size_t line = self.plan.gates * self.plan.units * item
        cdef const void *w = data_of(weight, "weight", self.code, 2, self.gates * self.units, self.units, False)
        cdef const void *b = data_of(bias, "bias", self.code, 1, self.gates * self.units, -1, False)
        if not take_claim(&self.claimed):
            raise RuntimeError("this cell is at work in another thread; want one cell per thread")
        cdef void *scratch
        try:
            scratch = self.work.reserve(sequences * self.plan.scratch_items * item)
        except BaseException:
            trpo_release(&self.claimed)
            raise
        cdef char *known = <char *>self.known
        if not self.is_packed or memcmp(known, w, square) != 0 or memcmp(known + square, b, line) != 0:
            self.is_packed = False
            memcpy(known, w, square)
            memcpy(known + square, b, line)
            self.kernels.cell_pack(&self.plan, known, known + square, self.forward_pack, self.backward_pack)
            self.is_packed = True
        return scratch
