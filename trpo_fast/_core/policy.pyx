"""MLP policies on one flat parameter buffer: a bound batch's gradient, Fisher products and trial evaluation.

The mathematics is csrc/kernels/policy.h; here arrays are checked and memory is owned.
"""

import numpy as np

from trpo_fast._core.library import in_words, require_choice

from libc.math cimport INFINITY
from libc.stdint cimport SIZE_MAX, int64_t, uint8_t
from libc.string cimport memcpy

from trpo_fast._core.csrc cimport (
    TRPO_CACHE_BYTES,
    TRPO_GAUSSIAN,
    TRPO_KL_NEW_OLD,
    TRPO_KL_OLD_NEW,
    trpo_action_is_real,
    trpo_bfloat16_kernels,
    trpo_bfloat16_place,
    trpo_bfloat16_workspace,
    trpo_bfloat16_workspace_for,
    trpo_kl_direction,
    trpo_policy_batch,
    trpo_policy_jacobian_items,
    trpo_policy_parameters,
    trpo_policy_place,
    trpo_policy_problem,
    trpo_policy_workspace,
    trpo_policy_workspace_for,
    trpo_release,
)
from trpo_fast._core.layouts cimport (
    actions_of,
    checked_rows,
    make_layout,
    masks_of,
    refuse_bad_choices,
    refuse_log_std,
)
from trpo_fast._core.library cimport (
    Extent,
    Memory,
    aligned,
    bfloat16_kernels,
    code_of,
    counter_of,
    data_of,
    flag_of,
    integers_of,
    kernels_for,
    make_plan,
    number_of,
    refuse_shared,
    take_claim,
    threads,
)
from trpo_fast._core.operator cimport Operator

# What a result may not share memory with.
cdef tuple bound_arrays = (
    "bound observations", "bound actions", "bound advantages", "bound log_probs", "bound action_masks"
)
cdef dict kl_directions = {"new_old": TRPO_KL_NEW_OLD, "old_new": TRPO_KL_OLD_NEW}


cdef class PolicyKernel:
    """Mathematics of an MLP policy; holds no parameters.

    The flat buffer is ``[log_std (A,)] W1 (w1, w0) b1 (w1,) W2 b2 ...``, with an item of ``log_std`` for each mean: the
    ``named_parameters()`` order of MLPPolicy.

    Parameters
    ----------
    widths : sequence of int
        Layer sizes, observations first, outputs (action dimensions, or logits) last.
    activation : {"tanh", "relu", "elu", "leaky_relu", "sigmoid", "silu", "gelu", "softplus"}
        Follows every layer but the last.
    distribution : {"gaussian", "categorical", "multicategorical", "bernoulli", "product"}
        Diagonal with state-independent log-std; logits of one choice, of several, or of 1 against 0; several of these.
    dtype : float32 or float64
    nvec : sequence of int, optional
        Choices of each component, whose logits stand one after the other; "multicategorical" only.
    parts : sequence of (distribution, outputs, nvec or None), optional
        Of a "product" only: independent of each other; outputs, actions and masks stand one after the other.
    narrow : bool
        Use vectors of at most 256 bits, for acting between the steps of a simulator: see trpo/kernels.h. In float32
        actions and log-probabilities are the same to the bit.
    """

    def __init__(self, widths, activation, distribution, dtype, nvec=None, parts=None, *, narrow=False):
        if self.work is not None:
            raise TypeError("PolicyKernel: already initialized; make a new one")
        self.kernels = kernels_for(dtype, flag_of(narrow, "narrow"))
        self.dtype = np.dtype(dtype)
        self.code = code_of(self.dtype)
        self.widths = integers_of(widths, "widths")
        make_plan(self.kernels, self.widths, activation, &self.plan)
        self.activation = activation
        self.layout_memory = Memory()
        make_layout(distribution, self.widths[-1], nvec, parts, self.layout_memory, &self.layout)
        self.distribution = distribution
        self.nvec = None if nvec is None else tuple(nvec)
        self.parts = None if parts is None else tuple(parts)
        self.size = trpo_policy_parameters(&self.plan, &self.layout)
        self.log_std_items = self.size - self.plan.parameters
        self.work = Memory()

    def forward(self, parameters, observations):
        """Mean or logits, (B, A), of ``observations`` (B, D); both of this kernel's dtype."""
        self.require("PolicyKernel")
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
            Of a product of this dtype, too: choices as whole numbers.
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
        (16 items of float32 on AVX-512), the last counted twice where actions are discrete, and hidden ones where the
        activation is silu, gelu or softplus, whose derivatives are kept; besides, every row takes an item and 8 bytes,
        and 8 bytes per component of a discrete action. 576 + 12 bytes at 17-64-64-6 in float32 with tanh.

        Outputs or ratios that are not finite make gradient and improvement NaN.

        The arrays are kept, not copied; they must not change while bound.
        """
        self.require("PolicyKernel")
        cdef const void *x = data_of(observations, "observations", self.code, 2, -1, self.widths[0], False)
        cdef Py_ssize_t rows = observations.shape[0]
        cdef size_t item = self.kernels.item_size
        cdef bint chooses = self.layout.distribution != TRPO_GAUSSIAN
        cdef double coefficient = number_of(entropy_coefficient, "entropy_coefficient")
        cdef double divisor = rows if total is None else number_of(total, "total")
        cdef size_t budget = TRPO_CACHE_BYTES
        if rows < 1:
            raise ValueError("observations: none given; want at least one row")
        if not rows <= divisor < INFINITY:
            raise ValueError(f"total: {in_words(total)} given; want at least the {rows} rows of this batch, and finite")
        if not -INFINITY < coefficient < INFINITY:
            raise ValueError(f"entropy_coefficient: {in_words(entropy_coefficient)} given; want a finite number")
        if cache_bytes is not None:
            budget = counter_of(cache_bytes, "cache_bytes", SIZE_MAX)
        cdef const void *theta = data_of(parameters, "parameters", self.code, 1, self.size, -1, False)
        cdef const void *a = actions_of(
            actions, "actions", &self.layout, self.distribution == "categorical", self.code, rows, False
        )
        cdef const uint8_t *masks = masks_of(action_masks, &self.layout, rows)
        refuse_bad_choices(&self.layout, a, item == sizeof(float), masks, rows, 0)
        refuse_log_std(theta, self.log_std_items, self.kernels)
        cdef const void *advantage = data_of(advantages, "advantages", self.code, 1, rows, -1, False)
        cdef const void *behaviour = NULL
        if log_probs is not None:
            behaviour = data_of(log_probs, "log_probs", self.code, 1, rows, -1, False)
        cdef trpo_policy_problem problem
        problem.network, problem.layout = &self.plan, self.layout
        problem.rows, problem.total, problem.entropy_coefficient = rows, divisor, coefficient
        problem.observations, problem.masks, problem.advantages, problem.behaviour = x, masks, advantage, behaviour
        cdef trpo_policy_workspace parts = trpo_policy_workspace_for(&problem, item, budget, threads())
        # Behind these lie copies: of theta_old, which its owner may change while it is bound, and of actions that index
        # memory, so that nobody can change them after the check above.
        cdef size_t theta_bytes = self.size * item
        cdef size_t action_item = item if trpo_action_is_real(&self.layout) else sizeof(int64_t)
        cdef size_t action_bytes = rows * self.layout.components * action_item if chooses else 0
        cdef char *base
        cdef char *copies
        self.claim()
        try:
            self.bindings += 1  # operators of the last batch are outlived from here on
            self.bound = self.room = None
            self.jacobians_made = False
            self.batch.bfloat16.kernels = NULL
            base = <char *>self.work.reserve(parts.bytes + aligned(theta_bytes) + action_bytes)
            copies = base + parts.bytes
            problem.parameters = memcpy(copies, theta, theta_bytes)
            problem.actions = a
            if chooses:
                problem.actions = memcpy(copies + aligned(theta_bytes), a, action_bytes)
            self.batch.problem = problem
            trpo_policy_place(&parts, base, &self.batch)
            with nogil:
                self.kernels.policy_bind(&self.batch)
            self.bound = (observations, actions, advantages, log_probs, action_masks)
        finally:
            trpo_release(&self.claimed)

    cdef int require(self, str name) except -1:
        # What __new__ alone made, or a subclass without this __init__, has no tables. `work` is made last.
        if self.work is None:
            raise TypeError(f"{name}: not initialized")
        return 0

    cdef int require_batch(self) except -1:
        self.require("PolicyKernel")
        if self.bound is None:
            raise RuntimeError("no batch is bound; call bind() first")
        return 0

    cdef int refuse_result(self, const void *out, size_t bytes, str name) except -1:
        cdef size_t rows = self.batch.problem.rows, item = self.kernels.item_size
        cdef Extent extents[6]
        extents[0] = Extent(out, bytes)
        extents[1] = Extent(self.batch.problem.observations, rows * self.plan.widths[0] * item)
        # Of all but a Gaussian's there is a copy.
        extents[2] = Extent(self.batch.problem.actions, rows * self.layout.components * item)
        extents[3] = Extent(self.batch.problem.advantages, rows * item)
        extents[4] = Extent(self.batch.problem.behaviour, rows * item)
        extents[5] = Extent(self.batch.problem.masks, rows * self.layout.mask_items)
        return refuse_shared(extents, (name, *bound_arrays), 1)

    cdef int claim(self) except -1 nogil:
        # The batch and its work memory serve one thread at a time; trpo_release ends the claim.
        if not take_claim(&self.claimed):
            with gil:
                raise RuntimeError("this engine is at work in another thread; want one engine per thread")
        return 0

    cdef int begin(self) except -1 nogil:
        # Claims the batch, with room for all threads that may take part now: more may be allowed than at bind.
        cdef int most
        self.claim()
        most = min(threads(), self.batch.work.blocks)
        if most > self.batch.work.threads:
            with gil:
                self.make_room(most)
        return 0

    cdef int make_room(self, int most) except -1:
        cdef Memory room
        try:
            room = Memory()
            self.batch.work.scratch = room.reserve(most * self.plan.scratch_items * self.kernels.item_size)
        except MemoryError:
            return 0  # fewer threads serve, too
        self.room, self.batch.work.threads = room, most
        return 0

    cdef int make_narrow(self, const trpo_bfloat16_kernels *kernels) except -1:
        # Packs of theta_old in bf16, and work memory for all threads that may take part now; the batch is claimed.
        cdef trpo_bfloat16_workspace parts
        cdef int most = self.batch.work.threads
        if self.batch.bfloat16.kernels == kernels and self.batch.bfloat16.threads >= most:
            return 0
        parts = trpo_bfloat16_workspace_for(&self.plan, most)
        if self.narrow is None:
            self.narrow = Memory()
        self.batch.bfloat16.kernels = NULL  # until all is there
        trpo_bfloat16_place(&parts, self.narrow.reserve(parts.bytes), &self.batch)
        self.batch.bfloat16.kernels = kernels
        self.kernels.policy_narrow(&self.batch)
        return 0

    @property
    def memory(self):
        """Bytes that this kernel holds: the most that a bound batch needed so far."""
        self.require("PolicyKernel")
        parts = (self.work, self.room, self.jacobians, self.narrow)
        return sum(memory.capacity for memory in parts if memory is not None)

    def log_probs(self):
        """log pi(a|s) at theta_old of the bound batch, (B,): the denominators of the ratio (a copy)."""
        self.require_batch()
        values = np.empty(self.batch.problem.rows)
        cdef void *out = data_of(values, "values", c"d", 1, -1, -1, True)
        memcpy(out, self.batch.cache.log_probs, self.batch.problem.rows * sizeof(double))
        return values.astype(self.dtype, copy=False)

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
        self.refuse_result(result, self.size * self.kernels.item_size, "out")
        with nogil:
            self.begin()
            self.kernels.policy_gradient(&self.batch, result)
            trpo_release(&self.claimed)
        return out

    def evaluate(self, parameters, kl_direction="new_old"):
        """``(improvement, kl)`` at trial ``parameters`` (n,).

        That is ``(1/N) sum A expm1(log pi - log pi_old)`` plus the entropy term's change, and the mean joint KL in
        nats; "new_old": KL(pi || pi_old).
        """
        self.require_batch()
        require_choice("kl_direction", kl_direction, kl_directions)
        cdef const void *theta = data_of(parameters, "parameters", self.code, 1, self.size, -1, False)
        cdef trpo_kl_direction direction = <trpo_kl_direction><int>kl_directions[kl_direction]
        cdef double improvement = 0, kl = 0
        with nogil:
            self.begin()
            self.kernels.policy_evaluate(&self.batch, theta, direction, &improvement, &kl)
            trpo_release(&self.claimed)
        return improvement, kl

    def entropy(self):
        """Mean entropy at theta_old over the bound batch, in nats."""
        self.require_batch()
        cdef double entropy
        with nogil:
            self.begin()  # rows whose activations were not kept pass through the work memory
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
        cdef PolicyKernel part = PolicyKernel(
            self.widths, self.activation, self.distribution, self.dtype, self.nvec, self.parts
        )
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

    @property
    def widths(self):
        """Layer sizes of the network, inputs first."""
        self.require()
        return self.policy.widths

    @property
    def rows(self):
        """Samples that F is a mean over."""
        self.require()
        return self.policy.batch.problem.rows

    @property
    def product(self):
        """How products are computed: "weights", or "jacobians" after `cache_jacobians`."""
        self.require()
        return "weights" if self.jacobians == NULL else "jacobians"

    @property
    def jacobian_bytes(self):
        """Bytes that `cache_jacobians` takes; 0 where there is nothing to cache.

        That is below two hidden layers, where not all activations of the batch are kept or the Jacobians would take
        more than 1 GiB, and in bfloat16, whose products go through the weights.
        """
        self.require()
        if self.narrow != NULL:
            return 0
        cdef size_t bytes = trpo_policy_jacobian_items(&self.policy.batch) * self.kernels.item_size
        return bytes if bytes <= TRPO_CACHE_BYTES else 0

    def cache_jacobians(self):
        """Spend a backward pass for each output now, so that products of this operator need fewer operations.

        They are the same but for rounding: the Jacobians of the outputs with respect to every hidden layer but the last
        take the place of the products with the weights between. Other operators of the batch stay as they are.

        Raises
        ------
        ValueError
            `jacobian_bytes` is 0.
        RuntimeError
            The engine was bound to another batch since.
        """
        self.require()
        cdef PolicyKernel policy = self.policy
        cdef size_t bytes
        with nogil:
            self.begin()
        try:
            bytes = self.jacobian_bytes
            if bytes == 0:
                raise ValueError(
                    f"cache_jacobians: nothing to cache for widths {policy.widths} and {self.rows} rows; want two "
                    "hidden layers or more, no bfloat16, a batch whose activations are all kept, and at most 1 GiB of "
                    "Jacobians"
                )
            if policy.jacobians is None:
                policy.jacobians = Memory()
            if not policy.jacobians_made:
                policy.batch.cache.jacobians = policy.jacobians.reserve(bytes)
                with nogil:
                    policy.kernels.policy_jacobians(&policy.batch)
                policy.jacobians_made = True
            self.jacobians = policy.jacobians.reserve(bytes)
        finally:
            trpo_release(&policy.claimed)

    @property
    def precision(self):
        """Of the numbers that are multiplied: "float32", "float64", or "bfloat16" after `use_bfloat16`."""
        self.require()
        return str(self.dtype) if self.narrow == NULL else "bfloat16"

    def use_bfloat16(self):
        """Round what products of this operator multiply to bf16 from now on; sums stay float32.

        These are theta_old's weights, v, activations and what passes between layers, each to the nearest bf16: a
        product has a relative error of thousandths. It goes through the weights. Other operators of the batch stay as
        they are.

        Raises
        ------
        TypeError
            The dtype is float64.
        ValueError
            There are no such products here, or this operator caches Jacobians.
        RuntimeError
            The engine was bound to another batch since.
        """
        self.require()
        if self.kernels.policy_fisher_narrow == NULL:
            raise TypeError(f"bfloat16: an operator of {self.dtype} given; want float32")
        if self.jacobians != NULL:
            raise ValueError("bfloat16: this operator has cached its Jacobians; want another one of the batch")
        cdef const trpo_bfloat16_kernels *kernels = bfloat16_kernels()
        with nogil:
            self.begin()
        try:
            self.policy.make_narrow(kernels)
        finally:
            trpo_release(&self.policy.claimed)
        self.narrow = kernels

    cdef int require(self) except -1:
        if self.policy is None:  # made by __new__ alone
            raise TypeError("FisherOperator comes from PolicyKernel.fisher_operator()")
        return 0

    cdef int begin(self) except -1 nogil:
        # Claims the batch; what is raised leaves no claim.
        self.policy.begin()
        if self.binding != self.source.bindings:
            trpo_release(&self.policy.claimed)
            with gil:
                raise RuntimeError("this Fisher operator is outlived: its engine was bound to another batch since")
        return 0

    cdef int refuse_result(self, const void *out, str name) except -1:
        if self.policy is None:
            return 0
        return self.policy.refuse_result(out, self.size * self.kernels.item_size, name)

    cdef int apply(self, const void *v, void *out) except -1 nogil:
        if self.policy is None:
            with gil:
                self.require()
        self.begin()
        if self.narrow != NULL:
            return self.apply_narrow(v, out)
        self.policy.batch.cache.jacobians = self.jacobians
        self.policy.kernels.policy_fisher(&self.policy.batch, v, out)
        trpo_release(&self.policy.claimed)
        return 0

    cdef int apply_narrow(self, const void *v, void *out) except -1 nogil:
        # Ends the claim that `begin` took.
        cdef trpo_policy_batch *batch = &self.policy.batch
        if batch.bfloat16.kernels != self.narrow or batch.bfloat16.threads < batch.work.threads:
            with gil:
                try:
                    self.policy.make_narrow(self.narrow)
                except BaseException:
                    trpo_release(&self.policy.claimed)
                    raise
        self.policy.kernels.policy_fisher_narrow(batch, v, out)
        trpo_release(&self.policy.claimed)
        return 0
