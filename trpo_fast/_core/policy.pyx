"""MLP policies on one flat parameter buffer: acting, gradient, Fisher products, trial evaluation.

The mathematics is csrc/kernels/policy.h and act.h; here arrays are checked and memory is owned.
"""

import numpy as np

from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from trpo_fast._core.csrc cimport (
    TRPO_ACT_BAD_OBSERVATION,
    TRPO_ACT_OK,
    TRPO_CATEGORICAL,
    TRPO_GAUSSIAN,
    TRPO_KL_NEW_OLD,
    TRPO_KL_OLD_NEW,
    TRPO_MAX_OUTPUTS,
    trpo_act_outcome,
    trpo_actor,
    trpo_block_count,
    trpo_claim,
    trpo_distribution,
    trpo_kernels,
    trpo_kl_direction,
    trpo_policy_batch,
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

cdef dict distributions = {"gaussian": TRPO_GAUSSIAN, "categorical": TRPO_CATEGORICAL}
cdef dict kl_directions = {"new_old": TRPO_KL_NEW_OLD, "old_new": TRPO_KL_OLD_NEW}

cdef int refuse_actions_out_of_range(const int64_t *actions, Py_ssize_t rows, Py_ssize_t count) except -1:
    cdef Py_ssize_t i
    for i in range(rows):
        if not 0 <= actions[i] < count:
            raise ValueError(f"actions: row {i} holds {actions[i]}; wanted 0 to {count - 1}")
    return 0


cdef class PolicyKernel:
    """Mathematics of an MLP policy; holds no parameters.

    The flat buffer is ``[log_std (A,)] W1 (w1, w0) b1 (w1,) W2 b2 ...``, with ``log_std`` for "gaussian" only: the
    ``named_parameters()`` order of MLPPolicy.

    Parameters
    ----------
    widths : sequence of int
        Layer sizes, observations first, outputs (action dimensions, or number of actions) last.
    activation : {"tanh", "relu", "elu", "leaky_relu", "sigmoid"}
        Follows every layer but the last.
    distribution : {"gaussian", "categorical"}
        Diagonal with state-independent log-std, or over logits.
    dtype : float32 or float64
    """

    def __init__(self, widths, activation, distribution, dtype):
        if distribution not in distributions:
            raise ValueError(f"distribution: wanted one of {', '.join(distributions)}, got {distribution!r}")
        if self.memory is not None:
            raise TypeError("PolicyKernel: already initialized; make a new one")
        self.kernels = kernels_for(dtype)
        self.dtype = np.dtype(dtype)
        self.code = code_of(self.dtype)
        self.widths = tuple(int(width) for width in widths)
        self.activation = activation
        self.distribution = distribution
        make_plan(self.kernels, self.widths, activation, &self.plan)
        if self.widths[-1] > TRPO_MAX_OUTPUTS:
            raise ValueError(f"widths: wanted at most {TRPO_MAX_OUTPUTS} outputs, got {self.widths[-1]}")
        self.kind = <trpo_distribution><int>distributions[distribution]
        self.log_std_items = self.widths[-1] if self.kind == TRPO_GAUSSIAN else 0
        self.size = self.log_std_items + self.plan.parameters
        self.memory = Memory()

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

    def bind(self, parameters, observations, actions, advantages, log_probs=None, total=None):
        """Cache the forward pass at theta_old = ``parameters`` (n,), which are copied.

        Parameters
        ----------
        observations : ndarray (B, D)
        actions : ndarray (B, A) of this dtype, or (B,) int64 for a categorical
        advantages : ndarray (B,)
        log_probs : ndarray (B,), optional
            log pi_old(a|s) as written while acting; default: as computed here.
        total : int, optional
            Every mean is a sum over these rows divided by `total` (default B), so that several ranks can add theirs.

        The arrays are kept, not copied; they must not change while bound.
        """
        cdef Py_ssize_t rows = len(observations)
        cdef Py_ssize_t outputs = self.widths[-1]
        cdef size_t item = self.kernels.item_size
        cdef bint categorical = self.kind == TRPO_CATEGORICAL
        cdef trpo_policy_batch *b = &self.batch
        if rows < 1:
            raise ValueError("observations: wanted at least one row, got none")
        total = rows if total is None else int(total)
        if total < rows:
            raise ValueError(f"total: wanted at least the {rows} rows of this batch, got {total}")
        cdef const void *theta = data_of(parameters, "parameters", self.code, 1, self.size, -1, False)
        cdef const void *x = data_of(observations, "observations", self.code, 2, rows, self.widths[0], False)
        cdef const void *a
        if categorical:
            a = data_of(actions, "actions", "q", 1, rows, -1, False)
            refuse_actions_out_of_range(<const int64_t *>a, rows, outputs)
        else:
            a = data_of(actions, "actions", self.code, 2, rows, outputs, False)
        cdef const void *advantage = data_of(advantages, "advantages", self.code, 1, rows, -1, False)
        cdef const void *behaviour = NULL
        if log_probs is not None:
            behaviour = data_of(log_probs, "log_probs", self.code, 1, rows, -1, False)
        cdef int blocks = trpo_block_count(rows, self.plan.parameters)
        cdef int most = min(threads(), blocks)
        cdef char *base

        cdef size_t sizes[12]
        sizes[0] = self.size * item
        sizes[1] = self.plan.forward_items * item
        sizes[2] = self.plan.backward_items * item
        sizes[3] = self.plan.forward_items * item
        sizes[4] = rows * self.plan.activation_items * item
        sizes[5] = rows * self.plan.padded[self.plan.layers] * item if categorical else 0
        sizes[6] = rows * item
        sizes[7] = rows * item
        sizes[8] = blocks * self.plan.sum_items * item
        sizes[9] = blocks * (2 + outputs) * sizeof(double)
        sizes[10] = most * self.plan.scratch_items * item
        # Actions index memory: they are copied, so that nobody can change them after the check above.
        sizes[11] = rows * sizeof(int64_t) if categorical else 0
        cdef size_t offsets[12]
        cdef size_t end = 0
        cdef int i
        for i in range(12):
            offsets[i] = end
            end += aligned(sizes[i])
        self.claim()
        try:
            self.bindings += 1  # operators of the last batch are outlived from here on
            self.bound = None
            base = <char *>self.memory.reserve(end)
            memcpy(base, theta, sizes[0])
            if categorical:
                memcpy(base + offsets[11], a, sizes[11])
                a = base + offsets[11]
            b.network = &self.plan
            b.distribution = self.kind
            b.rows, b.total = rows, total
            b.observations, b.actions, b.advantages, b.behaviour = x, a, advantage, behaviour
            b.parameters = base
            b.forward, b.backward, b.trial = base + offsets[1], base + offsets[2], base + offsets[3]
            b.activations, b.probabilities = base + offsets[4], base + offsets[5]
            b.log_probs, b.ratios = base + offsets[6], base + offsets[7]
            b.sums, b.totals, b.scratch = base + offsets[8], <double *>(base + offsets[9]), base + offsets[10]
            b.blocks, b.threads = blocks, most
            with nogil:
                self.kernels.policy_bind(b)
            self.bound = (observations, actions, advantages, log_probs)
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

    def log_probs(self):
        """log pi(a|s) at theta_old of the bound batch, (B,): the denominators of the ratio (a copy)."""
        self.require_batch()
        values = np.empty(self.batch.rows, self.dtype)
        cdef void *out = data_of(values, "values", self.code, 1, -1, -1, True)
        memcpy(out, self.batch.log_probs, self.batch.rows * self.kernels.item_size)
        return values

    def ratios(self):
        """pi_theta_old(a|s) / pi_old(a|s) of the bound batch, (B,) (a copy); exactly 1 where both are the same bits."""
        self.require_batch()
        values = np.empty(self.batch.rows, self.dtype)
        cdef void *out = data_of(values, "values", self.code, 1, -1, -1, True)
        memcpy(out, self.batch.ratios, self.batch.rows * self.kernels.item_size)
        return values

    def surrogate_gradient(self, out=None):
        """Gradient of ``(1/N) sum ratio A`` at theta_old, (n,), into `out` where given."""
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

        That is ``(1/N) sum A expm1(log pi - log pi_old)`` and the mean joint KL in nats; "new_old": KL(pi || pi_old).
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
        return self.kernels.policy_entropy(&self.batch)

    def fisher_operator(self):
        """F at theta_old, undamped; raises RuntimeError once ``bind`` ran again."""
        self.require_batch()
        cdef FisherOperator F = FisherOperator.__new__(FisherOperator)
        F.setup(self.size, self.dtype)
        F.policy = self
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
        cdef bint outlived = self.binding != self.policy.bindings
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
    action_start : int
        Added to what goes to the environment (categorical).
    seed, stream : int
        Noise is a function of (seed, stream, step, row) alone.
    """

    def __init__(
        self, PolicyKernel kernel not None, parameters, *, observation_mean=None, observation_scale=None,
        observation_clip=INFINITY, action_low=None, action_high=None, action_start=0, seed=0, stream=0
    ):
        cdef size_t item = kernel.kernels.item_size
        cdef Py_ssize_t outputs = kernel.widths[-1]
        if (observation_mean is None) != (observation_scale is None):
            raise ValueError("observation_mean, observation_scale: wanted both or neither")
        if (action_low is None) != (action_high is None):
            raise ValueError("action_low, action_high: wanted both or neither")
        if not observation_clip > 0:
            raise ValueError(f"observation_clip: wanted a positive number, got {observation_clip!r}")
        if self.policy is not None:
            raise TypeError("Actor: already initialized; make a new one")
        self.policy = kernel
        self.parameters = data_of(parameters, "parameters", kernel.code, 1, kernel.size, -1, False)
        mean, mean_data = doubles(observation_mean, "observation_mean", kernel.widths[0])
        scale, scale_data = doubles(observation_scale, "observation_scale", kernel.widths[0])
        low, low_data = doubles(action_low, "action_low", outputs)
        high, high_data = doubles(action_high, "action_high", outputs)
        self.held = (parameters, mean, scale, low, high)
        self.actor.network = &kernel.plan
        self.actor.distribution = kernel.kind
        self.actor.log_std = self.parameters
        self.actor.mean = <const double *><size_t>mean_data
        self.actor.scale = <const double *><size_t>scale_data
        self.actor.clip = observation_clip
        self.actor.low = <const double *><size_t>low_data
        self.actor.high = <const double *><size_t>high_data
        self.actor.start = action_start
        self.actor.key.seed = seed
        self.actor.key.stream = stream
        self.memory = Memory()
        cdef size_t known = aligned(kernel.size * item), packed = aligned(kernel.plan.forward_items * item)
        cdef char *base = <char *>self.memory.reserve(known + packed + kernel.plan.scratch_items * item)
        self.known, self.packed, self.scratch = base, base + known, base + known + packed

    def act(
        self, observations, step, normalized, actions, log_probs, env_actions, deterministic=False, first_row=0
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
        actions : ndarray (E, A), or (E,) int64, written
        log_probs : ndarray (E,), written
        env_actions : ndarray (E, A) float32 or float64, or (E,) int64, written
            Clipped to the bounds, or with the start added.
        deterministic : bool
            Mean or mode instead of a sample.
        first_row : int
            Noise row of the first observation: the global index of its environment.

        Raises
        ------
        FloatingPointError
            An observation, or the action that came of it, is not finite; names the row.
        """
        cdef PolicyKernel kernel = self.policy
        if kernel is None:
            raise TypeError("Actor: not initialized")
        cdef const trpo_kernels *k = kernel.kernels
        cdef Py_ssize_t rows = len(observations), inputs = kernel.plan.widths[0]
        cdef Py_ssize_t outputs = kernel.plan.widths[kernel.plan.layers]
        cdef bint is_double = observations.dtype == np.float64
        cdef bint categorical = kernel.kind == TRPO_CATEGORICAL
        cdef bint env_double = not categorical and env_actions.dtype == np.float64
        cdef const void *x = data_of(observations, "observations", "d" if is_double else "f", 2, rows, inputs, False)
        cdef void *seen = data_of(normalized, "normalized", kernel.code, 2, rows, inputs, True)
        cdef void *lp = data_of(log_probs, "log_probs", kernel.code, 1, rows, -1, True)
        cdef void *a
        cdef void *e
        cdef size_t bad = 0
        cdef uint32_t first = first_row
        cdef trpo_act_outcome outcome
        if categorical:
            a = data_of(actions, "actions", "q", 1, rows, -1, True)
            e = data_of(env_actions, "env_actions", "q", 1, rows, -1, True)
        else:
            a = data_of(actions, "actions", kernel.code, 2, rows, outputs, True)
            e = data_of(env_actions, "env_actions", "d" if env_double else "f", 2, rows, outputs, True)
        refuse_overlap("env_actions", e, env_actions.nbytes, "actions", a, actions.nbytes)
        cdef uint64_t counter = step
        cdef bint mode = deterministic
        if not trpo_claim(&self.claimed):
            raise RuntimeError("this actor is at work in another thread; want one actor per thread")
        self.actor.key.step = counter
        self.actor.deterministic = mode
        with nogil:
            # Comparing is cheaper than packing; the parameters change once per rollout.
            if not self.is_packed or memcmp(self.known, self.parameters, kernel.size * k.item_size) != 0:
                memcpy(self.known, self.parameters, kernel.size * k.item_size)
                k.mlp_pack_forward(
                    &kernel.plan, <const char *>self.known + kernel.log_std_items * k.item_size, self.packed
                )
                self.is_packed = True
            outcome = k.act(
                &self.actor, self.packed, rows, x, is_double, first, seen, a, lp, e, env_double, self.scratch, &bad
            )
            trpo_release(&self.claimed)
        if outcome != TRPO_ACT_OK:
            what = "observation" if outcome == TRPO_ACT_BAD_OBSERVATION else "action"
            raise FloatingPointError(f"{what} of environment {bad + first} is not finite at step {step}")


def sample(
    distribution, distribution_parameters, log_std, step, actions, log_probs, *, seed, stream, deterministic=False,
    first_row=0
):
    """The sampling that Actor does, for networks that are evaluated elsewhere.

    Parameters
    ----------
    distribution : {"gaussian", "categorical"}
    distribution_parameters : ndarray (E, A), float32 or float64
        Means or logits.
    log_std : ndarray (A,) of the same dtype, or None for a categorical
    step, seed, stream, first_row, deterministic
        As for Actor.
    actions : ndarray (E, A) of the same dtype, or (E,) int64, written
    log_probs : ndarray (E,) of the same dtype, written
    """
    if distribution not in distributions:
        raise ValueError(f"distribution: wanted one of {', '.join(distributions)}, got {distribution!r}")
    cdef const trpo_kernels *k = kernels_of(distribution_parameters, "distribution_parameters")
    dtype = distribution_parameters.dtype
    cdef str code = code_of(dtype)
    cdef const void *outputs = data_of(distribution_parameters, "distribution_parameters", code, 2, -1, -1, False)
    cdef size_t rows = distribution_parameters.shape[0], n = distribution_parameters.shape[1]
    if not 1 <= n <= TRPO_MAX_OUTPUTS:
        raise ValueError(f"distribution_parameters: wanted 1 to {TRPO_MAX_OUTPUTS} columns, got {n}")
    cdef trpo_actor actor
    memset(&actor, 0, sizeof(trpo_actor))
    actor.distribution = <trpo_distribution><int>distributions[distribution]
    actor.key.seed, actor.key.stream, actor.key.step = seed, stream, step
    actor.deterministic = deterministic
    cdef void *a
    cdef uint32_t first = first_row
    if actor.distribution == TRPO_GAUSSIAN:
        actor.log_std = data_of(log_std, "log_std", code, 1, n, -1, False)
        a = data_of(actions, "actions", code, 2, rows, n, True)
    else:
        a = data_of(actions, "actions", "q", 1, rows, -1, True)
    cdef void *lp = data_of(log_probs, "log_probs", code, 1, rows, -1, True)
    with nogil:
        k.sample(&actor, n, rows, outputs, first, a, lp)
