"""MLP policies on one flat parameter buffer: acting, gradient, Fisher products, trial evaluation.

The mathematics is csrc/kernels/policy.h and act.h; here arrays are checked and memory is owned.
"""

from operator import index

import numpy as np

from libc.math cimport INFINITY, isfinite
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from trpo_fast._core.csrc cimport (
    TRPO_ACT_BAD_OBSERVATION,
    TRPO_ACT_OK,
    TRPO_BERNOULLI,
    TRPO_CACHE_BYTES,
    TRPO_CATEGORICAL,
    TRPO_GAUSSIAN,
    TRPO_KL_NEW_OLD,
    TRPO_KL_OLD_NEW,
    TRPO_MAX_OUTPUTS,
    TRPO_TILE_ROWS,
    trpo_act_outcome,
    trpo_action_layout,
    trpo_actor,
    trpo_claim,
    trpo_distribution,
    trpo_kernels,
    trpo_kl_direction,
    trpo_policy_place,
    trpo_policy_problem,
    trpo_policy_workspace,
    trpo_policy_workspace_for,
    trpo_release,
)
from trpo_fast._core.library cimport (
    Memory,
    aligned,
    code_of,
    data_of,
    kernels_for,
    kernels_of,
    make_plan,
    refuse_overlap,
    threads,
)
from trpo_fast._core.operator cimport Operator

cdef dict distributions = {
    "gaussian": TRPO_GAUSSIAN,
    "categorical": TRPO_CATEGORICAL,
    "multicategorical": TRPO_CATEGORICAL,
    "bernoulli": TRPO_BERNOULLI,
}
cdef dict kl_directions = {"new_old": TRPO_KL_NEW_OLD, "old_new": TRPO_KL_OLD_NEW}


# Layout of the actions of a network with `outputs` outputs; the sizes of its components lie in `memory`.
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
        raise ValueError(f"nvec: wanted positive sizes that add up to the {outputs} outputs, got {counts}")
    cdef size_t *sizes = <size_t *>memory.reserve(len(counts) * sizeof(size_t))
    cdef Py_ssize_t k
    for k in range(len(counts)):
        sizes[k] = counts[k]
    layout.components = len(counts)
    layout.sizes = sizes
    layout.mask_items = outputs
    return 0


# Data of an action array after checking it; (B,) for a categorical, (B, m) else.
cdef void *actions_of(
    object array, str name, const trpo_action_layout *layout, bint flat, char code, Py_ssize_t rows, bint writable
) except? NULL:
    if layout.distribution != TRPO_GAUSSIAN:
        code = "q"
    return data_of(array, name, code, 1 if flat else 2, rows, -1 if flat else layout.components, writable)


# Data of a mask array after checking it; NULL without one.
cdef const uint8_t *masks_of(object array, const trpo_action_layout *layout, Py_ssize_t rows) except? NULL:
    if array is None:
        return NULL
    if layout.mask_items == 0:
        raise ValueError("action_masks: a gaussian policy takes none")
    return <const uint8_t *>data_of(array, "action_masks", "?", 2, rows, layout.mask_items, False)


# Discrete only: every component of every mask allows something, and every action is in range and allowed. Either may be
# NULL; errors count rows from first_row.
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


# The first item that is out of range, or -1.
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


# Data of an array of rows of a batch, after checking that they are increasing and within `bound`.
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


cdef class PolicyKernel:
    """Mathematics of an MLP policy; holds no parameters.

    The flat buffer is ``[log_std (A,)] W1 (w1, w0) b1 (w1,) W2 b2 ...``, with ``log_std`` for "gaussian" only: the
    ``named_parameters()`` order of MLPPolicy.

    Parameters
    ----------
    widths : sequence of int
        Layer sizes, observations first, outputs (action dimensions, or logits) last.
    activation : {"tanh", "relu", "elu", "leaky_relu", "sigmoid"}
        Follows every layer but the last.
    distribution : {"gaussian", "categorical", "multicategorical", "bernoulli"}
        Diagonal with state-independent log-std; logits of one choice, of several, or of 1 against 0.
    dtype : float32 or float64
    nvec : sequence of int, optional
        Choices of each component, whose logits stand one after the other; "multicategorical" only.
    narrow : bool
        Use vectors of at most 256 bits, for acting between the steps of a simulator: see trpo/kernels.h. In float32
        actions and log-probabilities are the same to the bit.
    """

    def __init__(self, widths, activation, distribution, dtype, nvec=None, *, bint narrow=False):
        if self.work is not None:
            raise TypeError("PolicyKernel: already initialized; make a new one")
        self.kernels = kernels_for(dtype, narrow)
        self.dtype = np.dtype(dtype)
        self.code = code_of(self.dtype)
        self.widths = tuple(int(width) for width in widths)
        self.activation = activation
        make_plan(self.kernels, self.widths, activation, &self.plan)
        self.layout_memory = Memory()
        make_layout(distribution, self.widths[-1], nvec, self.layout_memory, &self.layout)
        self.distribution = distribution
        self.nvec = None if nvec is None else tuple(nvec)
        self.log_std_items = self.widths[-1] if self.layout.distribution == TRPO_GAUSSIAN else 0
        self.size = self.log_std_items + self.plan.parameters
        self.work = Memory()

    def forward(self, parameters, observations):
        """Mean or logits, (B, A), of ``observations`` (B, D); both of this kernel's dtype."""
        cdef const char *p = <const char *>data_of(parameters, "parameters", self.code, 1, self.size, -1, False)
        cdef const void *x = data_of(observations, "observations", self.code, 2, -1, self.widths[0], False)
        cdef size_t rows = observations.shape[0], item = self.kernels.item_size
        outputs = np.empty((rows, self.widths[-1]), self.dtype)
        cdef void *y = data_of(outputs, "outputs", self.code, 2, -1, -1, True)
        cdef int most = threads()
        cdef Memory work = Memory()
        cdef size_t pack = aligned(self.plan.forward_items * item)
        cdef char *base = <char *>work.reserve(pack + most * self.plan.scratch_items * item)
        with nogil:
            self.kernels.mlp_pack_forward(&self.plan, p + self.log_std_items * item, base)
            self.kernels.mlp_outputs(&self.plan, base, rows, x, y, base + pack, most)
        return outputs

    def bind(
        self, parameters, observations, actions, advantages, log_probs=None, total=None, action_masks=None,
        entropy_coefficient=0.0, cache_bytes=None
    ):
        """Cache the forward pass at theta_old = ``parameters`` (n,), which are copied.

        Parameters
        ----------
        observations : ndarray (B, D)
        actions : ndarray (B, A) of this dtype; int64 (B,) for a categorical, (B, m) for the other discrete ones
        advantages : ndarray (B,)
        log_probs : ndarray (B,), optional
            log pi_old(a|s) as written while acting; default: as computed here.
        total : number, optional
            Every mean is a sum over these rows divided by `total` (default B), so that several ranks can add theirs.
        action_masks : bool ndarray (B, K), optional
            False where a choice is forbidden. K is the number of logits; for a Bernoulli twice that, (may be 0, may
            be 1).
        entropy_coefficient : float
            The objective is the surrogate plus this times the mean entropy.
        cache_bytes : int, by default 1 GiB
            Activations kept, at most; those of the rows beyond are computed again wherever they are needed, to the same
            bits.

        A row's activations take ``item * sum of the layer widths after the first``, each width rounded up to a vector
        (16 items of float32 on AVX-512) and the last counted twice where actions are discrete; besides, every row takes
        two items, and 8 bytes per component of a discrete action. 576 + 8 bytes at 17-64-64-6 in float32.

        Outputs or ratios that are not finite make gradient and improvement NaN.

        The arrays are kept, not copied; they must not change while bound.
        """
        cdef Py_ssize_t rows = len(observations)
        cdef size_t item = self.kernels.item_size
        cdef bint discrete = self.layout.distribution != TRPO_GAUSSIAN
        cdef double coefficient = entropy_coefficient
        if rows < 1:
            raise ValueError("observations: wanted at least one row, got none")
        total = rows if total is None else total
        if not total >= rows:
            raise ValueError(f"total: wanted at least the {rows} rows of this batch, got {total}")
        if not -INFINITY < coefficient < INFINITY:
            raise ValueError(f"entropy_coefficient: wanted a finite number, got {entropy_coefficient!r}")
        if cache_bytes is None:
            cache_bytes = TRPO_CACHE_BYTES
        if cache_bytes < 0:
            raise ValueError(f"cache_bytes: wanted >= 0, got {cache_bytes}")
        cdef const void *theta = data_of(parameters, "parameters", self.code, 1, self.size, -1, False)
        cdef const void *x = data_of(observations, "observations", self.code, 2, rows, self.widths[0], False)
        cdef const void *a = actions_of(
            actions, "actions", &self.layout, self.distribution == "categorical", self.code, rows, False
        )
        cdef const uint8_t *masks = masks_of(action_masks, &self.layout, rows)
        if discrete:
            refuse_bad_choices(&self.layout, <const int64_t *>a, masks, rows, 0)
        refuse_log_std(theta, self.log_std_items, self.kernels)
        cdef const void *advantage = data_of(advantages, "advantages", self.code, 1, rows, -1, False)
        cdef const void *behaviour = NULL
        if log_probs is not None:
            behaviour = data_of(log_probs, "log_probs", self.code, 1, rows, -1, False)
        cdef trpo_policy_problem problem
        problem.network, problem.layout = &self.plan, self.layout
        problem.rows, problem.total, problem.entropy_coefficient = rows, total, coefficient
        problem.observations, problem.masks, problem.advantages, problem.behaviour = x, masks, advantage, behaviour
        cdef trpo_policy_workspace parts = trpo_policy_workspace_for(&problem, item, cache_bytes, threads())
        # Behind these lie copies: of theta_old, which its owner may change while it is bound, and of actions that index
        # memory, so that nobody can change them after the check above.
        cdef size_t theta_bytes = self.size * item
        cdef size_t action_bytes = rows * self.layout.components * sizeof(int64_t) if discrete else 0
        cdef char *base
        cdef char *copies
        self.claim()
        try:
            self.bindings += 1  # operators of the last batch are outlived from here on
            self.bound = None
            base = <char *>self.work.reserve(parts.bytes + aligned(theta_bytes) + action_bytes)
            copies = base + parts.bytes
            problem.parameters = memcpy(copies, theta, theta_bytes)
            problem.actions = memcpy(copies + aligned(theta_bytes), a, action_bytes) if discrete else a
            self.batch.problem = problem
            trpo_policy_place(&parts, base, &self.batch)
            with nogil:
                self.kernels.policy_bind(&self.batch)
            self.bound = (observations, actions, advantages, log_probs, action_masks)
        finally:
            trpo_release(&self.claimed)

    cdef int require_batch(self) except -1:
        if self.bound is None:
            raise RuntimeError("no batch is bound; call bind() first")
        return 0

    cdef int claim(self) except -1 nogil:
        # The batch and its work memory serve one thread at a time; trpo_release ends the claim.
        if not trpo_claim(&self.claimed):
            with gil:
                raise RuntimeError("this engine is at work in another thread; want one engine per thread")
        return 0

    @property
    def memory(self):
        """Bytes that this kernel holds: the most that a bound batch needed so far."""
        return self.work.capacity

    def log_probs(self):
        """log pi(a|s) at theta_old of the bound batch, (B,): the denominators of the ratio (a copy)."""
        self.require_batch()
        values = np.empty(self.batch.problem.rows, self.dtype)
        cdef void *out = data_of(values, "values", self.code, 1, -1, -1, True)
        memcpy(out, self.batch.cache.log_probs, self.batch.problem.rows * self.kernels.item_size)
        return values

    def ratios(self):
        """pi_theta_old(a|s) / pi_old(a|s) of the bound batch, (B,) (a copy); exactly 1 where both are the same bits."""
        self.require_batch()
        values = np.empty(self.batch.problem.rows, self.dtype)
        cdef void *out = data_of(values, "values", self.code, 1, -1, -1, True)
        memcpy(out, self.batch.cache.ratios, self.batch.problem.rows * self.kernels.item_size)
        return values

    def surrogate_gradient(self, out=None):
        """Gradient of ``(1/N) sum ratio A``, plus that of the entropy term, at theta_old, (n,), into `out` if given."""
        self.require_batch()
        if out is None:
            out = np.empty(self.size, self.dtype)
        cdef void *result = data_of(out, "out", self.code, 1, self.size, -1, True)
        with nogil:
            self.claim()
            self.kernels.policy_gradient(&self.batch, result)
            trpo_release(&self.claimed)
        return out

    def evaluate(self, parameters, kl_direction="new_old"):
        """``(improvement, kl)`` at trial ``parameters`` (n,).

        That is ``(1/N) sum A expm1(log pi - log pi_old)`` plus the entropy term's change, and the mean joint KL in
        nats; "new_old": KL(pi || pi_old).
        """
        self.require_batch()
        if kl_direction not in kl_directions:
            raise ValueError(f"kl_direction: wanted one of {', '.join(kl_directions)}, got {kl_direction!r}")
        cdef const void *theta = data_of(parameters, "parameters", self.code, 1, self.size, -1, False)
        cdef trpo_kl_direction direction = <trpo_kl_direction><int>kl_directions[kl_direction]
        cdef double improvement = 0, kl = 0
        with nogil:
            self.claim()
            self.kernels.policy_evaluate(&self.batch, theta, direction, &improvement, &kl)
            trpo_release(&self.claimed)
        return improvement, kl

    def entropy(self):
        """Mean entropy at theta_old over the bound batch, in nats."""
        self.require_batch()
        cdef double entropy
        with nogil:
            self.claim()  # rows whose activations were not kept pass through the work memory
            entropy = self.kernels.policy_entropy(&self.batch)
            trpo_release(&self.claimed)
        return entropy

    def subset(self, rows, cache_bytes=None):
        """A new kernel, bound to some rows of this batch at the same theta_old, for its Fisher information.

        Parameters
        ----------
        rows : int64 ndarray (S,)
            Increasing row numbers. A mean over them stands for that over the whole batch: sums are divided by
            ``total * S / B``.
        cache_bytes : int
            As for ``bind``.
        """
        self.require_batch()
        checked_rows(rows, self.batch.problem.rows)
        # Picking rows may let another thread bind: all that is of this batch is taken first.
        cdef double total = len(rows) * (self.batch.problem.total / self.batch.problem.rows)
        log_probs = self.log_probs()
        theta = np.empty(self.size, self.dtype)
        memcpy(data_of(theta, "theta", self.code, 1, -1, -1, True), self.batch.problem.parameters, theta.nbytes)
        observations, actions, advantages, _, masks = self.bound
        cdef PolicyKernel part = PolicyKernel(self.widths, self.activation, self.distribution, self.dtype, self.nvec)
        part.bind(
            theta,
            observations[rows],
            actions[rows],
            advantages[rows],
            log_probs[rows],
            total,
            None if masks is None else masks[rows],
            cache_bytes=cache_bytes,
        )
        return part

    def fisher_operator(self, rows=None):
        """F at theta_old, undamped; raises RuntimeError once ``bind`` ran again.

        With `rows`, as for ``subset``, the mean is over these alone.
        """
        self.require_batch()
        cdef FisherOperator F = FisherOperator.__new__(FisherOperator)
        F.setup(self.size, self.dtype)
        F.policy = self if rows is None else self.subset(rows)
        F.source = self
        F.binding = self.bindings
        return F


cdef class FisherOperator(Operator):
    """F v = J' M J v of the bound batch: jvp, M and vjp fused per tile of samples (Schulman et al. 2015, app. C)."""

    def __init__(self):
        raise TypeError("FisherOperator comes from PolicyKernel.fisher_operator()")

    cdef int apply(self, const void *v, void *out) except -1 nogil:
        if self.policy is None:  # made by __new__ alone
            with gil:
                raise TypeError("FisherOperator comes from PolicyKernel.fisher_operator()")
        self.policy.claim()
        cdef bint outlived = self.binding != self.source.bindings
        if not outlived:
            self.policy.kernels.policy_fisher(&self.policy.batch, v, out)
        trpo_release(&self.policy.claimed)
        if outlived:
            with gil:
                raise RuntimeError("this Fisher operator is outlived: its engine was bound to another batch since")
        return 0


cdef tuple doubles(object array, str name, Py_ssize_t size):
    if array is None:
        return None, 0
    return array, <size_t>data_of(array, name, "d", 1, size, -1, False)


cdef class Actor:
    """Acts with the parameters in ``parameters`` (n,), which are shared and read at every call.

    Parameters
    ----------
    observation_mean, observation_scale : float64 (D,), optional
        Observations enter as ``clip((s - mean) * scale)``; shared and read at every call. Both or neither.
    observation_clip : float
        Bound on a normalized observation.
    action_low, action_high : float64 (A,), optional
        Bounds applied to what goes to the environment (Gaussian); the log-probability is that of the unclipped action.
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
        cdef size_t item = kernel.kernels.item_size
        cdef Py_ssize_t outputs = kernel.widths[-1]
        if (observation_mean is None) != (observation_scale is None):
            raise ValueError("observation_mean, observation_scale: wanted both or neither")
        if (action_low is None) != (action_high is None):
            raise ValueError("action_low, action_high: wanted both or neither")
        if (action_scale is None) != (action_offset is None):
            raise ValueError("action_scale, action_offset: wanted both or neither")
        if not observation_clip > 0:
            raise ValueError(f"observation_clip: wanted a positive number, got {observation_clip!r}")
        if self.policy is not None:
            raise TypeError("Actor: already initialized; make a new one")
        self.parameters = data_of(parameters, "parameters", kernel.code, 1, kernel.size, -1, False)
        mean, mean_data = doubles(observation_mean, "observation_mean", kernel.widths[0])
        scale, scale_data = doubles(observation_scale, "observation_scale", kernel.widths[0])
        low, low_data = doubles(action_low, "action_low", outputs)
        high, high_data = doubles(action_high, "action_high", outputs)
        stretch, stretch_data = doubles(action_scale, "action_scale", outputs)
        offset, offset_data = doubles(action_offset, "action_offset", outputs)
        if action_start is not None:
            self.actor.start = <const int64_t *>data_of(
                action_start, "action_start", "q", 1, kernel.layout.components, -1, False
            )
        self.held = (parameters, mean, scale, low, high, stretch, offset, action_start)
        self.actor.network = &kernel.plan
        self.actor.layout = kernel.layout
        self.actor.log_std = self.parameters
        self.actor.mean = <const double *><size_t>mean_data
        self.actor.scale = <const double *><size_t>scale_data
        self.actor.clip = observation_clip
        self.actor.low = <const double *><size_t>low_data
        self.actor.high = <const double *><size_t>high_data
        self.actor.action_scale = <const double *><size_t>stretch_data
        self.actor.action_offset = <const double *><size_t>offset_data
        self.actor.key.seed = seed
        self.actor.key.stream = stream
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
        cdef Py_ssize_t rows = len(observations), inputs = kernel.plan.widths[0]
        cdef bint is_double = observations.dtype == np.float64
        cdef bint flat = kernel.distribution == "categorical"
        cdef bint env_double = env_actions.dtype == np.float64
        cdef const void *x = data_of(observations, "observations", "d" if is_double else "f", 2, rows, inputs, False)
        cdef void *seen = data_of(normalized, "normalized", kernel.code, 2, rows, inputs, True)
        cdef void *lp = data_of(log_probs, "log_probs", kernel.code, 1, rows, -1, True)
        cdef void *a = actions_of(actions, "actions", &kernel.layout, flat, kernel.code, rows, True)
        cdef void *e = actions_of(
            env_actions, "env_actions", &kernel.layout, flat, "d" if env_double else "f", rows, True
        )
        cdef const uint8_t *masks = masks_of(action_masks, &kernel.layout, rows)
        cdef uint32_t first = first_row
        refuse_overlap("env_actions", e, env_actions.nbytes, "actions", a, actions.nbytes)
        cdef uint64_t counter = step
        cdef bint mode = deterministic
        self.run(rows, x, is_double, masks, first, counter, mode, seen, a, lp, e, env_double, False)

    cdef int run(
        self, size_t rows, const void *x, bint x_double, const uint8_t *masks, uint32_t first, uint64_t step,
        bint deterministic, void *seen, void *a, void *lp, void *e, bint e_double, bint unchanged
    ) except -1:
        cdef PolicyKernel kernel = self.policy
        cdef const trpo_kernels *k = kernel.kernels
        cdef size_t bad = 0
        cdef trpo_act_outcome outcome
        refuse_bad_choices(&kernel.layout, NULL, masks, rows, first)
        refuse_log_std(self.parameters, kernel.log_std_items, k)
        if not trpo_claim(&self.claimed):
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


def sample(
    distribution, distribution_parameters, log_std, step, actions, log_probs, *, seed, stream, deterministic=False,
    first_row=0, nvec=None, action_masks=None
):
    """The sampling that Actor does, for networks that are evaluated elsewhere.

    Parameters
    ----------
    distribution, nvec
        As for PolicyKernel.
    distribution_parameters : ndarray (E, A), float32 or float64
        Means or logits.
    log_std : ndarray (A,) of the same dtype, or None where actions are discrete
    step, seed, stream, first_row, deterministic, action_masks
        As for Actor.
    actions : ndarray (E, A) of the same dtype, or int64 (E,) for a categorical, (E, m) else, written
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
    make_layout(distribution, distribution_parameters.shape[1], nvec, memory, &actor.layout)
    actor.key.seed, actor.key.stream, actor.key.step = seed, stream, step
    actor.deterministic = deterministic
    cdef uint32_t first = first_row
    if actor.layout.distribution == TRPO_GAUSSIAN:
        actor.log_std = data_of(log_std, "log_std", code, 1, actor.layout.outputs, -1, False)
        refuse_log_std(actor.log_std, actor.layout.outputs, k)
    cdef void *a = actions_of(
        actions, "actions", &actor.layout, distribution == "categorical", code, rows, True
    )
    cdef const uint8_t *masks = masks_of(action_masks, &actor.layout, rows)
    refuse_bad_choices(&actor.layout, NULL, masks, rows, first)
    cdef void *lp = data_of(log_probs, "log_probs", code, 1, rows, -1, True)
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
        cdef const trpo_kernels *k = kernel.kernels
        cdef size_t item = k.item_size
        if self.policy is not None:
            raise TypeError("ActorCritic: already initialized; make a new one")
        if (critic.widths[0], critic.dtype) != (kernel.widths[0], kernel.dtype):
            raise ValueError(
                f"critic: wanted {kernel.widths[0]} inputs in {kernel.dtype}, got {critic.widths[0]} in {critic.dtype}"
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
        raise ValueError(f"means: wanted 1 to {TRPO_MAX_OUTPUTS} columns, got {n}")
    cdef const void *scale = data_of(log_std, "log_std", code, 1, n, -1, False)
    cdef void *actions = data_of(noise, "noise", code, 2, rows, n, True)
    refuse_log_std(scale, n, k)
    refuse_overlap("noise", actions, rows * n * k.item_size, "means", mu, rows * n * k.item_size)
    log_probs = np.empty(rows, means.dtype)
    k.gaussian_actions(rows, n, mu, scale, actions, data_of(log_probs, "log_probs", code, 1, rows, -1, True))
    return log_probs
