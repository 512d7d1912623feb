"""Recurrent cells over sequences; the mathematics is csrc/kernels/recurrent.h."""

import numpy as np

from trpo_fast._core.library import LARGEST_LAYER, in_words, require_choice

from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from trpo_fast._core.acting cimport Actor
from trpo_fast._core.csrc cimport (
    TRPO_GRU,
    TRPO_IDENTITY,
    TRPO_LSTM,
    TRPO_MAX_STEP,
    trpo_action_is_real,
    trpo_cell,
    trpo_cell_kind,
    trpo_kernels,
    trpo_mlp,
    trpo_release,
)
from trpo_fast._core.layouts cimport actions_of, masks_of
from trpo_fast._core.library cimport (
    Extent,
    Memory,
    aligned,
    code_of,
    counter_of,
    data_of,
    first_row_of,
    flag_of,
    kernels_for,
    number_of,
    refuse_shared,
    take_claim,
    threads as usable_threads,
)
from trpo_fast._core.policy cimport PolicyKernel

from trpo_fast._core.acting import Actor as make_actor

cdef dict kinds = {"gru": TRPO_GRU, "lstm": TRPO_LSTM}


cdef class Cell:
    """What a recurrent cell computes from the parameters that it is given, as torch.nn.GRUCell and LSTMCell have them.

    Arrays over T steps of E sequences are time-major, one row for each step of each sequence: (T E, ...). A sequence
    may hold several episodes: before a step that starts one its state is zero. Nothing of a sequence depends on the
    others, to the bit.

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
        require_choice("kind", kind, kinds)
        cdef Py_ssize_t number = <Py_ssize_t>counter_of(units, "units", LARGEST_LAYER)
        if number < 1:
            raise ValueError(f"units: {number} given; want 1 to 2**24")
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
            raise ValueError(f"rows: {rows} rows given; want the steps of each of {sequences} sequences")
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


# What `CellActor.act` writes, four of them, and what it reads.
cdef tuple act_arrays = (
    "env_actions", "actions", "log_probs", "normalized", "observations", "action_masks", "state", "episode_starts"
)


cdef class CellActor:
    """Acts as `trpo_fast._core.acting.Actor` does, with a cell between the normalized observations and its network.

    Parameters
    ----------
    kind : {"gru", "lstm"}
    parameters : sequence of ndarray
        weight_ih (G H, D), weight_hh (G H, H), bias_ih (G H,) and bias_hh (G H,), as torch.nn.GRUCell and LSTMCell have
        them; live, as `head_parameters` are: read at every call.
    head : PolicyKernel
        From the cell's h to the distribution; of its dtype is everything.
    head_parameters : ndarray (n,)
    observation_mean, observation_scale : float64 (D,), optional
        Observations enter as ``clip((s - mean) * scale)``; shared and read at every call. Both or neither.
    observation_clip : float
        Bound on a normalized observation.
    options
        Of `Actor`.

    Attributes
    ----------
    state : ndarray (E, S)
        Of every row, before the next call, which puts another array there.
    episode_starts : bool ndarray (E,)
        Where the next call starts an episode, whose state begins at zero. The caller's to keep.
    """

    cdef public object state, episode_starts
    cdef readonly Py_ssize_t inputs
    cdef Cell cell
    cdef Actor actor
    cdef PolicyKernel head
    cdef tuple held                 # arrays that are read at every call
    cdef double clip
    cdef trpo_mlp plan              # of W_ih x + b_ih
    cdef Memory memory, work
    cdef void *known                # the weight and the bias that `packed` was made from
    cdef void *packed
    cdef bint is_packed

    def __init__(
        self, kind, parameters, PolicyKernel head not None, head_parameters, *, observation_mean=None,
        observation_scale=None, observation_clip=INFINITY, **options
    ):
        if self.memory is not None:
            raise TypeError("CellActor: already initialized; make a new one")
        head.require("head")
        if (observation_mean is None) != (observation_scale is None):
            raise ValueError("observation_mean, observation_scale: one of them given; want both or neither")
        self.clip = number_of(observation_clip, "observation_clip")
        if not self.clip > 0:
            raise ValueError(f"observation_clip: {in_words(observation_clip)} given; want a positive number")
        self.head = head
        self.cell = Cell(kind, head.widths[0], head.dtype)
        self.actor = make_actor(head, head_parameters, **options)
        weight, recurrent, bias, recurrent_bias = parameters
        cdef Py_ssize_t width = self.cell.gates * self.cell.units
        cdef char code = self.cell.code
        data_of(weight, "weight_ih", code, 2, width, -1, False)
        data_of(recurrent, "weight_hh", code, 2, width, self.cell.units, False)
        data_of(bias, "bias_ih", code, 1, width, -1, False)
        data_of(recurrent_bias, "bias_hh", code, 1, width, -1, False)
        self.inputs = weight.shape[1]
        for name, array in (("observation_mean", observation_mean), ("observation_scale", observation_scale)):
            if array is not None:
                data_of(array, name, "d", 1, self.inputs, -1, False)
        self.held = (weight, recurrent, bias, recurrent_bias, observation_mean, observation_scale)
        cdef size_t[2] widths = [self.inputs, width]
        cdef const trpo_kernels *k = self.cell.kernels
        k.mlp_plan(1, widths, TRPO_IDENTITY, &self.plan)
        cdef Memory memory = Memory()
        cdef size_t known = aligned(self.plan.parameters * k.item_size)
        cdef char *base = <char *>memory.reserve(known + self.plan.forward_items * k.item_size)
        self.known, self.packed = base, base + known
        self.work = Memory()
        self.memory = memory  # last: one that has it is complete
        self.begin(1)

    def begin(self, count):
        """Let `count` rows start an episode at the next call."""
        if self.memory is None:
            raise TypeError("CellActor: not initialized")
        self.state = np.zeros((count, self.cell.state_items), self.cell.dtype)
        self.episode_starts = np.ones(count, np.bool_)

    def act(
        self, observations, step, normalized, actions, log_probs, env_actions, deterministic=False, first_row=0,
        action_masks=None
    ):
        """One environment step of E rows, from `state`; parameters and errors as of `Actor.act`."""
        if self.memory is None:
            raise TypeError("CellActor: not initialized")
        cdef const trpo_kernels *k = self.cell.kernels
        cdef PolicyKernel kernel = self.head
        cdef char code = self.cell.code
        cdef bint x_double = isinstance(observations, np.ndarray) and observations.dtype == np.float64
        cdef bint flat = kernel.distribution == "categorical"
        cdef bint env_double = isinstance(env_actions, np.ndarray) and env_actions.dtype == np.float64
        cdef const void *x = data_of(observations, "observations", "d" if x_double else "f", 2, -1, self.inputs, False)
        cdef Py_ssize_t rows = observations.shape[0], units = self.cell.units, i
        cdef void *seen = data_of(normalized, "normalized", code, 2, rows, self.inputs, True)
        cdef void *lp = data_of(log_probs, "log_probs", code, 1, rows, -1, True)
        cdef void *a = actions_of(actions, "actions", &kernel.layout, flat, code, rows, True)
        cdef void *e = actions_of(
            env_actions, "env_actions", &kernel.layout, flat, "d" if env_double else "f", rows, True
        )
        cdef const uint8_t *masks = masks_of(action_masks, &kernel.layout, rows)
        state, flags = self.state, self.episode_starts  # held here, whatever is assigned meanwhile
        cdef const void *before = data_of(state, "state", code, 2, rows, self.cell.state_items, False)
        cdef const uint8_t *starts = <const uint8_t *>data_of(flags, "episode_starts", "?", 1, rows, -1, False)
        cdef uint32_t first = first_row_of(first_row, rows)
        cdef uint64_t counter = counter_of(step, "step", TRPO_MAX_STEP)
        cdef bint mode = flag_of(deterministic, "deterministic")
        cdef size_t size = self.cell.kernels.item_size, numbers = rows * kernel.layout.components
        cdef bint real = trpo_action_is_real(&kernel.layout)
        cdef Extent extents[8]
        extents[0] = Extent(e, numbers * (sizeof(float) if real and not env_double else sizeof(double)))
        extents[1] = Extent(a, numbers * (size if real else sizeof(int64_t)))
        extents[2] = Extent(lp, rows * size)
        extents[3] = Extent(seen, rows * self.inputs * size)
        extents[4] = Extent(x, rows * self.inputs * (sizeof(double) if x_double else sizeof(float)))
        extents[5] = Extent(masks, rows * kernel.layout.mask_items)
        extents[6] = Extent(before, rows * self.cell.state_items * size)
        extents[7] = Extent(starts, rows)
        refuse_shared(extents, act_arrays, 4)
        weight, recurrent, bias, recurrent_bias, mean, scale = self.held
        cdef const double *shift = NULL
        cdef const double *stretch = NULL
        if mean is not None:
            shift = <const double *>data_of(mean, "observation_mean", "d", 1, -1, -1, False)
            stretch = <const double *>data_of(scale, "observation_scale", "d", 1, -1, -1, False)
        cdef size_t bad = k.normalize_rows(self.inputs, 0, rows, x, x_double, shift, stretch, self.clip, seen)
        if bad < <size_t>rows:
            raise FloatingPointError(f"observation of environment {bad + first} is not finite at step {step}")
        cdef const void *w = data_of(weight, "weight_ih", code, 2, -1, -1, False)
        cdef const void *b = data_of(bias, "bias_ih", code, 1, -1, -1, False)
        after = np.empty((rows, self.cell.state_items), self.cell.dtype)
        cdef char *out = <char *>data_of(after, "state", code, 2, -1, -1, True)
        cdef size_t item = k.item_size, square = self.plan.bias[0] * item, line = self.plan.widths[1] * item
        # With the GIL, which keeps a second thread away: what comes before the head takes microseconds. The claim of
        # the cell says so where another thread is inside.
        cdef void *scratch = self.cell.begin(recurrent, recurrent_bias, rows)
        cdef char *base
        cdef size_t inputs_bytes = aligned(rows * line), hidden_bytes = aligned(rows * units * item)
        cdef char *known = <char *>self.known
        try:
            base = <char *>self.work.reserve(inputs_bytes + 2 * hidden_bytes + self.plan.scratch_items * item)
            if not self.is_packed or memcmp(known, w, square) != 0 or memcmp(known + square, b, line) != 0:
                self.is_packed = False
                memcpy(known, w, square)
                memcpy(known + square, b, line)
                k.mlp_pack_forward(&self.plan, known, self.packed)
                self.is_packed = True
            k.mlp_outputs(&self.plan, self.packed, rows, seen, base, base + inputs_bytes + 2 * hidden_bytes, 1)
            k.cell_forward(
                &self.cell.plan, 1, rows, self.cell.forward_pack, base, starts, before, out, NULL, scratch, 1
            )
            for i in range(rows):
                memcpy(
                    base + inputs_bytes + i * units * item, out + i * self.cell.state_items * item, units * item
                )
            self.actor.run(
                rows, base + inputs_bytes, code == c"d", masks, first, counter, mode,
                base + inputs_bytes + hidden_bytes, a, lp, e, env_double, False
            )
        finally:
            trpo_release(&self.cell.claimed)
        self.state = after
