"""Acting with a policy: what every step of an environment calls, with the parameters as they are at that moment.

The mathematics is csrc/kernels/act.h; here arrays are checked and memory is owned.
"""

import numpy as np

from trpo_fast._core.library import in_words

from libc.math cimport INFINITY, isfinite
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from trpo_fast._core.csrc cimport (
    TRPO_ACT_BAD_OBSERVATION,
    TRPO_ACT_OK,
    TRPO_MAX_OUTPUTS,
    TRPO_MAX_STEP,
    TRPO_TILE_ROWS,
    trpo_act_outcome,
    trpo_action_is_real,
    trpo_actor,
    trpo_kernels,
    trpo_log_std_items,
    trpo_release,
)
from trpo_fast._core.layouts cimport (
    actions_of,
    bad_log_std,
    make_layout,
    masks_of,
    refuse_bad_choices,
    refuse_log_std,
)
from trpo_fast._core.library cimport (
    Extent,
    Memory,
    aligned,
    code_of,
    counter_of,
    data_of,
    first_row_of,
    flag_of,
    kernels_of,
    key_of,
    make_plan,
    number_of,
    refuse_overlap,
    refuse_shared,
    take_claim,
    threads,
)
from trpo_fast._core.policy cimport PolicyKernel


cdef tuple doubles(object array, str name, Py_ssize_t size):
    if array is None:
        return None, 0
    return array, <size_t>data_of(array, name, "d", 1, size, -1, False)


# What `Actor.act` writes, four of them, and what it reads.
cdef tuple act_arrays = (
    "env_actions", "actions", "log_probs", "normalized", "observations", "action_masks", "parameters",
    "observation_mean", "observation_scale", "action_low", "action_high", "action_scale", "action_offset",
    "action_start",
)


cdef class Actor:
    """Acts with the parameters in ``parameters`` (n,), which are shared and read at every call.

    Parameters
    ----------
    observation_mean, observation_scale : float64 (D,), optional
        Observations enter as ``clip((s - mean) * scale)``; shared and read at every call. Both or neither.
    observation_clip : float
        Bound on a normalized observation.
    action_low, action_high : float64 (A,), optional
        Bounds applied to what goes to the environment (Gaussian, or a product, whose choices are neither bounded nor
        moved by -inf and inf, 1 and 0); the log-probability is that of the unclipped action.
    action_scale, action_offset : float64 (A,), optional
        An action a goes to the environment as ``action_scale * a + action_offset``, before the bounds (Gaussian). Both
        or neither.
    action_start : int64 (m,), optional
        Added to what goes to the environment, one item per component (discrete).
    seed, stream : int
        Noise is a function of (seed, stream, step, row) alone.
    """

    def __init__(
        self, PolicyKernel kernel not None, parameters, *, observation_mean=None, observation_scale=None,
        observation_clip=INFINITY, action_low=None, action_high=None, action_scale=None, action_offset=None,
        action_start=None, seed=0, stream=0
    ):
        kernel.require("kernel")
        cdef size_t item = kernel.kernels.item_size
        cdef Py_ssize_t components = kernel.layout.components
        if (observation_mean is None) != (observation_scale is None):
            raise ValueError("observation_mean, observation_scale: one of them given; want both or neither")
        if (action_low is None) != (action_high is None):
            raise ValueError("action_low, action_high: one of them given; want both or neither")
        if (action_scale is None) != (action_offset is None):
            raise ValueError("action_scale, action_offset: one of them given; want both or neither")
        cdef double clip = number_of(observation_clip, "observation_clip")
        if not clip > 0:
            raise ValueError(f"observation_clip: {in_words(observation_clip)} given; want a positive number")
        if self.policy is not None:
            raise TypeError("Actor: already initialized; make a new one")
        self.parameters = data_of(parameters, "parameters", kernel.code, 1, kernel.size, -1, False)
        mean, mean_data = doubles(observation_mean, "observation_mean", kernel.widths[0])
        scale, scale_data = doubles(observation_scale, "observation_scale", kernel.widths[0])
        low, low_data = doubles(action_low, "action_low", components)
        high, high_data = doubles(action_high, "action_high", components)
        stretch, stretch_data = doubles(action_scale, "action_scale", components)
        offset, offset_data = doubles(action_offset, "action_offset", components)
        if low is not None and not (low <= high).all():
            first = int(np.argmin(low <= high))
            raise ValueError(f"action_low: {low[first]} given at {first}; want at most {high[first]}")
        for name, numbers in (
            ("observation_mean", mean), ("observation_scale", scale), ("action_scale", stretch),
            ("action_offset", offset),
        ):
            if numbers is not None and not np.isfinite(numbers).all():
                raise ValueError(f"{name}: holds a value that is not finite")
        if action_start is not None:
            self.actor.start = <const int64_t *>data_of(
                action_start, "action_start", "q", 1, kernel.layout.components, -1, False
            )
        self.held = (parameters, mean, scale, low, high, stretch, offset, action_start)
        cdef size_t double_items = kernel.plan.widths[0] * sizeof(double)
        cdef size_t double_components = components * sizeof(double)
        self.reads[0] = Extent(self.parameters, kernel.size * item)
        self.reads[1] = Extent(<const void *><size_t>mean_data, double_items)
        self.reads[2] = Extent(<const void *><size_t>scale_data, double_items)
        self.reads[3] = Extent(<const void *><size_t>low_data, double_components)
        self.reads[4] = Extent(<const void *><size_t>high_data, double_components)
        self.reads[5] = Extent(<const void *><size_t>stretch_data, double_components)
        self.reads[6] = Extent(<const void *><size_t>offset_data, double_components)
        self.reads[7] = Extent(self.actor.start, kernel.layout.components * sizeof(int64_t))
        self.actor.network = &kernel.plan
        self.actor.layout = kernel.layout
        self.actor.log_std = self.parameters
        self.actor.mean = <const double *><size_t>mean_data
        self.actor.scale = <const double *><size_t>scale_data
        self.actor.clip = clip
        self.actor.low = <const double *><size_t>low_data
        self.actor.high = <const double *><size_t>high_data
        self.actor.action_scale = <const double *><size_t>stretch_data
        self.actor.action_offset = <const double *><size_t>offset_data
        self.actor.key = key_of(seed, stream, 0)
        self.memory, self.work = Memory(), Memory()
        cdef size_t known = aligned(kernel.size * item), packed = aligned(kernel.plan.forward_items * item)
        cdef char *base = <char *>self.memory.reserve(known + packed)
        self.known, self.packed = base, base + known
        self.policy = kernel  # last: an actor that has one is complete

    def act(
        self, observations, step, normalized, actions, log_probs, env_actions, deterministic=False, first_row=0,
        action_masks=None
    ):
        """One environment step for E rows.

        Parameters
        ----------
        observations : ndarray (E, D), float32 or float64
            Raw.
        step : int
            Counter of the noise.
        normalized : ndarray (E, D), written
            The observations as the policy saw them, of its dtype; so are `actions` and `log_probs`.
        actions : ndarray (E, A), or int64 (E,) for a categorical, (E, m) for the other discrete ones, written
        log_probs : ndarray (E,), written
        env_actions : ndarray (E, A) float32 or float64, or int64 as `actions`, written
            Scaled, shifted and clipped to the bounds, or with the start added.
        deterministic : bool
            Mean or mode instead of a sample.
        first_row : int
            Noise row of the first observation: the global index of its environment.
        action_masks : bool ndarray (E, K), optional
            As for ``PolicyKernel.bind``.

        Raises
        ------
        FloatingPointError
            An observation, or the action that came of it, is not finite; names the row.
        ValueError
            A mask forbids everything in a component, or log_std is out of range.
        """
        cdef PolicyKernel kernel = self.policy
        if kernel is None:
            raise TypeError("Actor: not initialized")
        cdef Py_ssize_t inputs = kernel.plan.widths[0], rows
        cdef bint is_double = isinstance(observations, np.ndarray) and observations.dtype == np.float64
        cdef bint flat = kernel.distribution == "categorical"
        cdef bint env_double = isinstance(env_actions, np.ndarray) and env_actions.dtype == np.float64
        cdef const void *x = data_of(observations, "observations", "d" if is_double else "f", 2, -1, inputs, False)
        rows = observations.shape[0]
        cdef void *seen = data_of(normalized, "normalized", kernel.code, 2, rows, inputs, True)
        cdef void *lp = data_of(log_probs, "log_probs", kernel.code, 1, rows, -1, True)
        cdef void *a = actions_of(actions, "actions", &kernel.layout, flat, kernel.code, rows, True)
        cdef void *e = actions_of(
            env_actions, "env_actions", &kernel.layout, flat, "d" if env_double else "f", rows, True
        )
        cdef const uint8_t *masks = masks_of(action_masks, &kernel.layout, rows)
        cdef uint32_t first = first_row_of(first_row, rows)
        cdef uint64_t counter = counter_of(step, "step", TRPO_MAX_STEP)
        cdef size_t item = kernel.kernels.item_size, numbers = rows * kernel.layout.components
        cdef bint real = trpo_action_is_real(&kernel.layout)
        cdef Extent extents[14]
        extents[0] = Extent(e, numbers * (sizeof(float) if real and not env_double else sizeof(double)))
        extents[1] = Extent(a, numbers * (item if real else sizeof(int64_t)))
        extents[2] = Extent(lp, rows * item)
        extents[3] = Extent(seen, rows * inputs * item)
        extents[4] = Extent(x, rows * inputs * (sizeof(double) if is_double else sizeof(float)))
        extents[5] = Extent(masks, rows * kernel.layout.mask_items)
        memcpy(&extents[6], self.reads, sizeof(self.reads))
        refuse_shared(extents, act_arrays, 4)
        cdef bint mode = flag_of(deterministic, "deterministic")
        self.run(rows, x, is_double, masks, first, counter, mode, seen, a, lp, e, env_double, False)

    cdef int run(
        self, size_t rows, const void *x, bint x_double, const uint8_t *masks, uint32_t first, uint64_t step,
        bint deterministic, void *seen, void *a, void *lp, void *e, bint e_double, bint unchanged
    ) except -1:
        cdef PolicyKernel kernel = self.policy
        cdef const trpo_kernels *k = kernel.kernels
        cdef size_t bad = 0
        cdef trpo_act_outcome outcome
        refuse_bad_choices(&kernel.layout, NULL, False, masks, rows, first)
        refuse_log_std(self.parameters, kernel.log_std_items, k)
        if not take_claim(&self.claimed):
            raise RuntimeError("this actor is at work in another thread; want one actor per thread")
        self.actor.key.step = step
        self.actor.deterministic = deterministic
        # A tile is one thread's.
        cdef int most = min(threads(), <int>min((rows + TRPO_TILE_ROWS - 1) // TRPO_TILE_ROWS, <size_t>256))
        if most > self.threads:
            self.threads = 0  # until there is room for more
            try:
                self.scratch = self.work.reserve(most * kernel.plan.scratch_items * k.item_size)
            except BaseException:
                trpo_release(&self.claimed)
                raise
            self.threads = most
        with nogil:
            # Comparing is cheaper than packing, and dearer than neither: it goes through all parameters twice.
            if not self.is_packed or (
                not unchanged and memcmp(self.known, self.parameters, kernel.size * k.item_size) != 0
            ):
                self.is_packed = False  # a child that is forked meanwhile packs again
                memcpy(self.known, self.parameters, kernel.size * k.item_size)
                k.mlp_pack_forward(
                    &kernel.plan, <const char *>self.known + kernel.log_std_items * k.item_size, self.packed
                )
                self.is_packed = True
            outcome = k.act(
                &self.actor, self.packed, rows, x, x_double, masks, first, seen, a, lp, e, e_double, self.scratch,
                most, &bad,
            )
            trpo_release(&self.claimed)
        if outcome != TRPO_ACT_OK:
            what = "observation" if outcome == TRPO_ACT_BAD_OBSERVATION else "action"
            raise FloatingPointError(f"{what} of environment {bad + first} is not finite at step {step}")
        return 0


def check_arrays(observations, action_masks, normalized, actions, log_probs, env_actions, dtype, bint real):
    """What `Actor.act` asks of its arrays, for an actor that is not compiled; TypeError or ValueError by their names.

    Observations may be uint8, and `normalized`, too. real: actions are numbers of the policy's `dtype`, not int64.
    """
    cdef char code = code_of(dtype)
    cdef char raw = c"B" if is_of(observations, np.uint8) else c"d" if is_of(observations, np.float64) else c"f"
    cdef char seen = c"B" if is_of(normalized, np.uint8) else code
    cdef char sent = c"q" if not real else c"d" if is_of(env_actions, np.float64) else c"f"
    cdef int axes = 1 if isinstance(actions, np.ndarray) and actions.ndim == 1 else 2
    cdef Py_ssize_t index = 0, rows, inputs, width
    cdef Extent extents[6]
    extents[4].data = data_of(observations, "observations", raw, 2, -1, -1, False)
    rows, inputs = observations.shape
    extents[3].data = data_of(normalized, "normalized", seen, 2, rows, inputs, True)
    extents[2].data = data_of(log_probs, "log_probs", code, 1, rows, -1, True)
    extents[1].data = data_of(actions, "actions", code if real else c"q", axes, rows, -1, True)
    width = actions.shape[1] if axes == 2 else -1
    extents[0].data = data_of(env_actions, "env_actions", sent, axes, rows, width, True)
    extents[5].data = NULL
    if action_masks is not None:
        extents[5].data = data_of(action_masks, "action_masks", c"?", 2, rows, -1, False)
    for array in (env_actions, actions, log_probs, normalized, observations, action_masks):
        extents[index].bytes = 0 if array is None else array.nbytes
        index += 1
    refuse_shared(extents, act_arrays[:6], 4)


cdef bint is_of(object array, object dtype):
    return isinstance(array, np.ndarray) and array.dtype == dtype


def sample(
    distribution, distribution_parameters, log_std, step, actions, log_probs, *, seed, stream, deterministic=False,
    first_row=0, nvec=None, parts=None, action_masks=None
):
    """The sampling that Actor does, for networks that are evaluated elsewhere.

    Parameters
    ----------
    distribution, nvec, parts
        As for PolicyKernel.
    distribution_parameters : ndarray (E, A), float32 or float64
        Means or logits.
    log_std : ndarray of the same dtype, an item for each mean, or None where there are none
    step, seed, stream, first_row, deterministic, action_masks
        As for Actor.
    actions : ndarray (E, A) of the same dtype, a product's, too, or int64 (E,) for a categorical, (E, m) else, written
    log_probs : ndarray (E,) of the same dtype, written
        NaN where the row is no distribution; logits of -inf are choices of probability 0.
    """
    cdef const trpo_kernels *k = kernels_of(distribution_parameters, "distribution_parameters")
    dtype = distribution_parameters.dtype
    cdef char code = code_of(dtype)
    cdef const void *outputs = data_of(distribution_parameters, "distribution_parameters", code, 2, -1, -1, False)
    cdef size_t rows = distribution_parameters.shape[0]
    cdef trpo_actor actor
    cdef Memory memory = Memory()
    memset(&actor, 0, sizeof(trpo_actor))
    make_layout(distribution, distribution_parameters.shape[1], nvec, parts, memory, &actor.layout)
    actor.key = key_of(seed, stream, step)
    actor.deterministic = flag_of(deterministic, "deterministic")
    cdef uint32_t first = first_row_of(first_row, rows)
    cdef size_t log_std_items = trpo_log_std_items(&actor.layout)
    if log_std_items > 0:
        actor.log_std = data_of(log_std, "log_std", code, 1, log_std_items, -1, False)
        refuse_log_std(actor.log_std, log_std_items, k)
    cdef void *a = actions_of(
        actions, "actions", &actor.layout, distribution == "categorical", code, rows, True
    )
    cdef const uint8_t *masks = masks_of(action_masks, &actor.layout, rows)
    refuse_bad_choices(&actor.layout, NULL, False, masks, rows, first)
    cdef void *lp = data_of(log_probs, "log_probs", code, 1, rows, -1, True)
    cdef size_t item = k.item_size, width = actor.layout.outputs
    cdef Extent extents[5]
    cdef size_t action_item = item if trpo_action_is_real(&actor.layout) else sizeof(int64_t)
    extents[0] = Extent(a, rows * actor.layout.components * action_item)
    extents[1] = Extent(lp, rows * item)
    extents[2] = Extent(outputs, rows * width * item)
    extents[3] = Extent(actor.log_std, log_std_items * item)
    extents[4] = Extent(masks, rows * actor.layout.mask_items)
    refuse_shared(extents, ("actions", "log_probs", "distribution_parameters", "log_std", "action_masks"), 2)
    with nogil:
        k.sample(&actor, rows, outputs, masks, first, a, lp)


cdef class ActorCritic:
    """What a policy and a value function give at an environment step, for actions that are drawn elsewhere.

    Parameters
    ----------
    kernel : PolicyKernel
        float32 or float64.
    parameters : ndarray (n,)
        Of the policy; shared and read at every call, as `critic_parameters` are.
    critic : ValueKernel
        Of the same observations and dtype.
    critic_parameters : ndarray (m,)
    """

    def __init__(self, PolicyKernel kernel not None, parameters, critic, critic_parameters):
        kernel.require("kernel")
        cdef const trpo_kernels *k = kernel.kernels
        cdef size_t item = k.item_size
        if self.policy is not None:
            raise TypeError("ActorCritic: already initialized; make a new one")
        if getattr(critic, "widths", None) is None:
            raise TypeError(f"critic: {in_words(critic)} given; want a ValueKernel that is initialized")
        if (critic.widths[0], critic.dtype) != (kernel.widths[0], kernel.dtype):
            raise ValueError(
                f"critic: {critic.widths[0]} inputs in {critic.dtype} given; "
                f"want {kernel.widths[0]} inputs in {kernel.dtype}"
            )
        make_plan(k, critic.widths, critic.activation, &self.critic)
        self.live[0] = data_of(parameters, "parameters", kernel.code, 1, kernel.size, -1, False)
        self.live[1] = data_of(
            critic_parameters, "critic_parameters", kernel.code, 1, self.critic.parameters, -1, False
        )
        self.held = (parameters, critic_parameters)
        self.bytes[0], self.bytes[1] = kernel.size * item, self.critic.parameters * item
        self.plans[0], self.plans[1] = &kernel.plan, &self.critic
        self.memory, self.work = Memory(), Memory()
        cdef size_t sizes[4]
        cdef int i
        for i in range(2):
            sizes[2 * i] = aligned(self.bytes[i])
            sizes[2 * i + 1] = aligned(self.plans[i].forward_items * item)
        cdef char *base = <char *>self.memory.reserve(sizes[0] + sizes[1] + sizes[2] + sizes[3])
        for i in range(2):
            self.known[i], self.packed[i] = base, base + sizes[2 * i]
            base += sizes[2 * i] + sizes[2 * i + 1]
        self.policy = kernel  # last: one that has it is complete

    def forward(self, observations):
        """Means or logits (E, A), and values (E,), of ``observations`` (E, D).

        None where the former are not finite, or log_std is out of range: that is no distribution.
        """
        cdef PolicyKernel kernel = self.policy
        if kernel is None:
            raise TypeError("ActorCritic: not initialized")
        cdef const trpo_kernels *k = kernel.kernels
        cdef const void *x = data_of(observations, "observations", kernel.code, 2, -1, kernel.widths[0], False)
        cdef Py_ssize_t rows = observations.shape[0], n = kernel.widths[-1]
        cdef size_t item = k.item_size, scratch = max(kernel.plan.scratch_items, self.critic.scratch_items)
        cdef int most = threads(), i
        outputs, values = np.empty((rows, n), kernel.dtype), np.empty(rows, kernel.dtype)
        cdef size_t[2] first = [kernel.log_std_items, 0]  # of the weights
        cdef void *out[2]
        out[0] = data_of(outputs, "outputs", kernel.code, 2, rows, n, True)
        out[1] = data_of(values, "values", kernel.code, 1, rows, -1, True)
        # With the GIL, which keeps a second thread away: these are microseconds.
        cdef void *work = self.work.reserve(most * scratch * item)
        for i in range(2):
            # Comparing is cheaper than packing; the parameters change once per rollout.
            if not self.is_packed[i] or memcmp(self.known[i], self.live[i], self.bytes[i]) != 0:
                memcpy(self.known[i], self.live[i], self.bytes[i])
                k.mlp_pack_forward(self.plans[i], <const char *>self.known[i] + first[i] * item, self.packed[i])
                self.is_packed[i] = True
            k.mlp_outputs(self.plans[i], self.packed[i], rows, x, out[i], work, most)
        # In double, the sum is finite for all finite floats, and for doubles of any use.
        if not isfinite(k.dot(rows * n, out[0], out[0])):
            return None
        if bad_log_std(self.live[0], kernel.log_std_items, k) >= 0:
            return None
        return outputs, values


def gaussian_actions(means, log_std, noise):
    """Actions out of unit noise that was drawn elsewhere, and their log-probabilities (E,).

    Parameters
    ----------
    means : ndarray (E, A), float32 or float64
    log_std : ndarray (A,) of the same dtype
    noise : ndarray (E, A) of the same dtype, written
        Becomes the actions, ``mean + noise std``. The log-probabilities are theirs as rounded, with the bits that
        `PolicyKernel.log_probs` has for the same means.

    Raises
    ------
    ValueError
        log_std is out of range.
    """
    cdef const trpo_kernels *k = kernels_of(means, "means")
    cdef char code = code_of(means.dtype)
    cdef const void *mu = data_of(means, "means", code, 2, -1, -1, False)
    cdef Py_ssize_t rows = means.shape[0], n = means.shape[1]
    if not 1 <= n <= TRPO_MAX_OUTPUTS:
        raise ValueError(f"means: {n} given; want 1 to {TRPO_MAX_OUTPUTS} columns")
    cdef const void *scale = data_of(log_std, "log_std", code, 1, n, -1, False)
    cdef void *actions = data_of(noise, "noise", code, 2, rows, n, True)
    refuse_log_std(scale, n, k)
    refuse_overlap("noise", actions, rows * n * k.item_size, "means", mu, rows * n * k.item_size)
    refuse_overlap("noise", actions, rows * n * k.item_size, "log_std", scale, n * k.item_size)
    log_probs = np.empty(rows, means.dtype)
    k.gaussian_actions(rows, n, mu, scale, actions, data_of(log_probs, "log_probs", code, 1, rows, -1, True))
    return log_probs
