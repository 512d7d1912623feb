"""Acting at every step of a rollout, and writing the rollout: what lies between two steps of the environments."""

import numpy as np

from trpo_fast._core.library import in_words

from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from trpo_fast._core.csrc cimport TRPO_MAX_STEP, trpo_action_is_real
from trpo_fast._core.acting cimport Actor
from trpo_fast._core.library cimport Extent, code_of, counter_of, data_of, first_row_of, refuse_overlap, refuse_shared
from trpo_fast._core.policy cimport PolicyKernel

cdef object float64 = np.dtype(np.float64)


# Where the rows of an array (T, E, ...) of `items` items a row begin, after checking it; `dimensions` without them: 2.
cdef char *rows_of(
    object array, str name, char code, Py_ssize_t steps, Py_ssize_t copies, Py_ssize_t items, int dimensions
) except NULL:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: {type(array).__name__} given; want an ndarray")
    shape = (steps, copies, items)[:dimensions]
    if array.shape != shape or not array.flags.c_contiguous:
        raise ValueError(f"{name}: {array.shape} with strides {array.strides} given; want C-contiguous {shape}")
    return <char *>data_of(array.reshape(-1), name, code, 1, -1, -1, True)


# What a recorder writes, eight of them, and what its actor reads.
cdef tuple rollout_arrays = (
    "observations", "actions", "log_probs", "rewards", "terminated", "truncated", "raw", "action_masks",
    "the actor's parameters", "the actor's observation_mean", "the actor's observation_scale", "the actor's action_low",
    "the actor's action_high", "the actor's action_scale", "the actor's action_offset", "the actor's action_start",
)


cdef class Recorder:
    """Lets an actor act for some of the copies of an environment in T steps, and keeps all that a rollout is made of.

    The actor's parameters and its statistics must stay as they are from the first step to the last.

    Parameters
    ----------
    actor : Actor
        Of D observations.
    own : slice
        The copies, of E.
    first_step : int
        Counter of the noise at the first step.
    env_action_dtype : dtype
        Of what goes to the environment: float32 or float64, or int64 where actions are discrete.
    observations : ndarray (T, E, D), of the policy's dtype, written
        As the policy saw them. This and all others are C-contiguous; only what belongs to `own` is written.
    actions : ndarray (T, E, A) of the policy's dtype, or int64 (T, E) for a categorical, (T, E, m) else, written
    log_probs : ndarray (T, E), of the policy's dtype, written
    rewards : float64 ndarray (T, E), written
    terminated, truncated : bool ndarray (T, E), written
    raw : float32 or float64 ndarray (T, E, D), optional, written
        The observations as they came.
    action_masks : bool ndarray (T, E, K), optional, written
        What was allowed.
    first_row : int, optional
        Row of the noise of the first of the copies `own`; by default its number.

    Raises
    ------
    TypeError, ValueError
        An array that does not fit, by name.
    """

    cdef Actor actor
    cdef PolicyKernel policy
    cdef tuple held                      # what the pointers point into; None until all is well
    cdef object rows, reward_row, terminated_row, truncated_row  # of the last call, and their data: often the same ones
    cdef const void *rows_data
    cdef const void *outcome_data[3]
    cdef bint rows_double
    cdef Py_ssize_t steps, copies, first, first_row, count, inputs, components, masks_a_row, first_step
    cdef size_t item, raw_item, action_item
    cdef char *observations
    cdef char *actions
    cdef char *log_probs
    cdef char *raw
    cdef char *masks
    cdef char *rewards
    cdef char *terminated
    cdef char *truncated
    cdef Extent writes[8]
    cdef tuple env_shape
    cdef object env_dtype, raw_dtype
    cdef char env_code
    cdef bint flat, begun

    def __init__(
        self, Actor actor not None, own, *, first_step, env_action_dtype, observations, actions, log_probs, rewards,
        terminated, truncated, raw=None, action_masks=None, first_row=None
    ):
        cdef PolicyKernel policy = actor.policy
        cdef Extent extents[16]
        cdef size_t cells
        if self.held is not None:
            raise TypeError("Recorder: already initialized; make a new one")
        if policy is None:
            raise TypeError("actor: not initialized")
        if not isinstance(own, slice):
            raise TypeError(f"own: {in_words(own)} given; want a slice")
        if not isinstance(rewards, np.ndarray) or rewards.ndim != 2:
            raise ValueError(f"rewards: {getattr(rewards, 'shape', rewards)!r} given; want an ndarray (T, E)")
        self.actor, self.policy = actor, policy
        self.steps, self.copies = rewards.shape
        self.first, end, step = own.indices(self.copies)
        self.count = end - self.first
        if step != 1 or self.count < 1:
            raise ValueError(f"own: {own} given; want some of {self.copies} copies in a row")
        self.first_step = counter_of(first_step, "first_step", TRPO_MAX_STEP // 2)  # which every step adds one to
        self.first_row = self.first if first_row is None else first_row_of(first_row, self.count)
        self.inputs, self.components = policy.plan.widths[0], policy.layout.components
        self.flat = policy.distribution == "categorical"
        self.item = self.action_item = policy.kernels.item_size
        cdef char action_code = policy.code
        self.env_dtype = np.dtype(env_action_dtype)
        wanted = (np.float32, np.float64)
        if not trpo_action_is_real(&policy.layout):
            action_code, self.action_item, wanted = c"q", 8, (np.int64,)
        if self.env_dtype not in wanted:
            raise TypeError(
                f"env_action_dtype: {self.env_dtype} given; want {' or '.join(one.__name__ for one in wanted)}"
            )
        self.env_code = c"q" if action_code == c"q" else code_of(self.env_dtype)
        self.env_shape = (self.count, self.components)[:1 if self.flat else 2]
        self.observations = rows_of(
            observations, "observations", policy.code, self.steps, self.copies, self.inputs, 3
        )
        self.actions = rows_of(
            actions, "actions", action_code, self.steps, self.copies, self.components, 2 if self.flat else 3
        )
        self.log_probs = rows_of(log_probs, "log_probs", policy.code, self.steps, self.copies, 1, 2)
        self.rewards = rows_of(rewards, "rewards", c"d", self.steps, self.copies, 1, 2)
        self.terminated = rows_of(terminated, "terminated", c"?", self.steps, self.copies, 1, 2)
        self.truncated = rows_of(truncated, "truncated", c"?", self.steps, self.copies, 1, 2)
        self.raw = self.masks = NULL
        if raw is not None:
            raw_code = code_of(raw.dtype) if isinstance(raw, np.ndarray) else c"f"
            self.raw = rows_of(raw, "raw", raw_code, self.steps, self.copies, self.inputs, 3)
            self.raw_dtype = raw.dtype
            self.raw_item = raw.dtype.itemsize
        if action_masks is not None:
            self.masks_a_row = policy.layout.mask_items
            if self.masks_a_row == 0:
                raise ValueError("action_masks: a gaussian policy takes none")
            self.masks = rows_of(action_masks, "action_masks", c"?", self.steps, self.copies, self.masks_a_row, 3)
        cells = self.steps * self.copies
        extents[0] = Extent(self.observations, cells * self.inputs * self.item)
        extents[1] = Extent(self.actions, cells * self.components * self.action_item)
        extents[2] = Extent(self.log_probs, cells * self.item)
        extents[3] = Extent(self.rewards, cells * sizeof(double))
        extents[4], extents[5] = Extent(self.terminated, cells), Extent(self.truncated, cells)
        extents[6] = Extent(self.raw, cells * self.inputs * self.raw_item)
        extents[7] = Extent(self.masks, cells * self.masks_a_row)
        memcpy(&extents[8], actor.reads, sizeof(actor.reads))
        refuse_shared(extents, rollout_arrays, 8)
        memcpy(self.writes, extents, sizeof(self.writes))
        self.held = (observations, actions, log_probs, rewards, terminated, truncated, raw, action_masks)

    def act(self, t, observations, action_masks=None):
        """Act in step `t` of the rollout.

        Parameters
        ----------
        t : int
            0 <= t < T.
        observations : ndarray (n, D), float32 or float64, of ``raw``'s dtype
            Of the copies `own`.
        action_masks : bool ndarray (n, K), optional
            Wanted where the rollout has masks.

        Returns
        -------
        ndarray (n, A) or (n,)
            What goes to the environments: new memory, which they may keep.

        Raises
        ------
        FloatingPointError
            Names a row that is not finite, or whose action is not; what came of this step is meaningless.
        ValueError, TypeError
            As for `Actor.act`.
        """
        cdef Py_ssize_t at = self.row_of(t)
        cdef const void *masks = NULL
        if observations is not self.rows:
            self.rows = None
            dtype = observations.dtype if isinstance(observations, np.ndarray) else None
            if self.raw != NULL and dtype != self.raw_dtype:
                raise TypeError(f"observations: {dtype} given; want {self.raw_dtype} as raw has it")
            self.rows_double = dtype == float64
            self.rows_data = data_of(
                observations, "observations", c"d" if self.rows_double else c"f", 2, self.count, self.inputs, False
            )
            self.refuse_own("observations", self.rows_data, observations.nbytes)
            self.rows = observations
        if (action_masks is None) != (self.masks == NULL):
            given, want = ("none", "some") if action_masks is None else ("some", "none")
            raise ValueError(f"action_masks: {given} given; want {want} in this rollout")
        cdef size_t mask_bytes = self.count * self.masks_a_row
        if action_masks is not None:
            masks = data_of(action_masks, "action_masks", c"?", 2, self.count, self.masks_a_row, False)
            self.refuse_own("action_masks", masks, mask_bytes)
            masks = memcpy(self.masks + at * self.masks_a_row, masks, mask_bytes)
        env_actions = np.empty(self.env_shape, self.env_dtype)
        cdef void *e = data_of(
            env_actions, "env_actions", self.env_code, 1 if self.flat else 2, self.count, -1, True
        )
        if self.raw != NULL:
            memcpy(
                self.raw + at * self.inputs * self.raw_item, self.rows_data, self.count * self.inputs * self.raw_item
            )
        self.actor.run(
            self.count, self.rows_data, self.rows_double, <const uint8_t *>masks, self.first_row, self.first_step + t,
            False,
            self.observations + at * self.inputs * self.item,
            self.actions + at * self.components * self.action_item,
            self.log_probs + at * self.item,
            e, self.env_code == c"d", self.begun,
        )
        self.begun = True
        return env_actions

    def record(self, t, rewards, terminated, truncated):
        """Keep what came of step `t`: `rewards` float64, `terminated` and `truncated` bool, each (n,)."""
        cdef Py_ssize_t at = self.row_of(t)
        if rewards is not self.reward_row:
            self.reward_row = None
            self.outcome_data[0] = data_of(rewards, "rewards", c"d", 1, self.count, -1, False)
            self.refuse_own("rewards", self.outcome_data[0], self.count * sizeof(double))
            self.reward_row = rewards
        if terminated is not self.terminated_row:
            self.terminated_row = None
            self.outcome_data[1] = data_of(terminated, "terminated", c"?", 1, self.count, -1, False)
            self.refuse_own("terminated", self.outcome_data[1], self.count)
            self.terminated_row = terminated
        if truncated is not self.truncated_row:
            self.truncated_row = None
            self.outcome_data[2] = data_of(truncated, "truncated", c"?", 1, self.count, -1, False)
            self.refuse_own("truncated", self.outcome_data[2], self.count)
            self.truncated_row = truncated
        memcpy(self.rewards + at * sizeof(double), self.outcome_data[0], self.count * sizeof(double))
        memcpy(self.terminated + at, self.outcome_data[1], self.count)
        memcpy(self.truncated + at, self.outcome_data[2], self.count)

    cdef int refuse_own(self, str name, const void *data, size_t bytes) except -1:
        # What comes must not lie in what is written.
        cdef int i
        for i in range(8):
            refuse_overlap(name, data, bytes, "what the rollout keeps", self.writes[i].data, self.writes[i].bytes)
        return 0

    cdef Py_ssize_t row_of(self, object step) except -1:
        if self.held is None:
            raise TypeError("Recorder: not initialized")
        if not 0 <= step < self.steps:
            raise IndexError(f"t: {step} given; want 0 to {self.steps - 1}")
        cdef Py_ssize_t t = step
        return t * self.copies + self.first
