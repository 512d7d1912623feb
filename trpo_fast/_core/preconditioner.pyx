"""Preconditioners for (F + damping I) x = g: Kronecker-factored blocks (K-FAC), and the diagonal.

The arithmetic is csrc/kernels/kfac_*.h; here arrays are checked and memory is owned.

Choices, made on three HalfCheetah-v5 problems of 2,048 samples (17-64-64-6 tanh, damping 0.1), where the aim is the
gain g'x / sqrt(x'Fx) after five products:

- A is cheap and its noise costs most, so it is made from every row up to a few thousand; G, which needs
  backpropagation, from every third of them. Steps are odd, so that no environment is left out where rows are ordered by
  time.
- d is the square root of the output's Fisher information applied to random signs, not the score of a sampled action:
  the same expectation, less variance (at 512 rows about the gain of the exact output Fisher, which costs a pass per
  output).
- Damping both factors adds terms that damping I does not have, so they get a part of it, FACTORED_DAMPING: after 5
  products 0.1 to 0.3 gain the same within 0.02, for damping 0.01 to 1; after 1 to 3 products less gains more.
- The diagonal is that of the factors. F's exact one gains 0.02 more after 5 products and 0.003 after 10, of 0.47 and
  0.73: little, and both are hardly better than no preconditioner.
"""

from collections.abc import Iterable
from numbers import Real
from operator import index as as_integer

import numpy as np

from trpo_fast._core.library import in_words, require_choice

from libc.math cimport INFINITY
from libc.stdint cimport PTRDIFF_MAX, SIZE_MAX, int64_t
from libc.string cimport memcpy, memset

from trpo_fast._core.csrc cimport (
    TRPO_MAX_LAYERS,
    TRPO_NO_BIAS,
    TRPO_TILE_ROWS,
    trpo_kfac_place,
    trpo_kfac_sample,
    trpo_kfac_workspace,
    trpo_kfac_workspace_for,
    trpo_kronecker,
    trpo_kronecker_layer,
    trpo_kronecker_workspace,
    trpo_kronecker_workspace_for,
    trpo_release,
)
from trpo_fast._core.layouts cimport checked_rows
from trpo_fast._core.library cimport Memory, code_of, counter_of, data_of, number_of, take_claim, threads
from trpo_fast._core.operator cimport Operator
from trpo_fast._core.policy cimport PolicyKernel

# Share of the damping that the factors get.
FACTORED_DAMPING = 0.15

cdef enum:
    MOST_ROWS = 4096      # A is made from fewer than twice as many rows
    SCORE_STEP = 3        # of them, G takes every third ...
    FEW_ROWS = 1024       # ... unless there are fewer than these
    MOST_SIGNS = 0x7FFFFFFF
    SIGN_STREAM = 2       # of the counter-based generator (trpo_fast/streams.py)
    THREAD_OPERATIONS = 2000000  # multiply-adds for which waking other threads pays


cdef class KroneckerPreconditioner(Operator):
    """M of about ``(F + damping I)^-1``, with F block-diagonal and each block the Kronecker product of two matrices.

    ``M v`` is, for each affine layer, ``G^-1 [W b] A^-1`` of v's part for that layer, and ``v / (diagonal + damping)``
    for every other parameter. Both factors are damped: ``A + pi s I`` and ``G + s / pi I``, s^2 a share of the damping
    and pi^2 the ratio of their mean diagonals ([1]_, sec. 6.3). Symmetric and positive definite. Inverting takes
    ``n^3 / 2`` multiply-adds for each factor of side n, and a product ``a g (a + g)`` for each layer.

    Parameters
    ----------
    blocks : sequence of (A, G, weight, bias)
        One for each affine layer with weight (outputs, inputs) row-major from index `weight` of the vector, and bias
        (outputs,) from index `bias`, which is None for a layer without.
        A: E[a a'] of the layer's inputs with a 1 appended, (inputs + 1, inputs + 1), (inputs, inputs) without bias.
        G: E[d d'] of the derivatives of log pi with respect to the layer's outputs, (outputs, outputs).
        Both are copied; symmetric and positive semi-definite, of `dtype`.
    size : int
        n, length of the vectors.
    dtype : float32 or float64
    damping : float
        ``>= 0``. The shift of a factor is never below sqrt(eps) of its mean diagonal, so that a singular one has an
        inverse without damping too; a layer whose A or G is zero gets ``I / damping``, or I.
    diagonal : ndarray (n,), optional
        F's diagonal for parameters that belong to no layer (other entries are not looked at); zero where not given, and
        ``I`` where it and `damping` are zero.

    Raises
    ------
    ValueError
        Shapes; offsets that do not fit or overlap.
    FloatingPointError
        A factor that is not finite, or not positive semi-definite; an entry of the diagonal that is not, or negative.

    References
    ----------
    .. [1] Martens & Grosse, "Optimizing Neural Networks with Kronecker-factored Approximate Curvature", ICML 2015.
    """

    cdef Memory memory
    cdef trpo_kronecker plan
    cdef void *factors
    cdef void *inverse_diagonal
    cdef void *work
    cdef int claimed
    cdef bint made                       # the factors are the inverses
    # of a policy's bound batch: outlived when it binds another
    cdef PolicyKernel policy
    cdef Py_ssize_t binding

    def __init__(self, blocks, size, dtype, damping, diagonal=None):
        cdef Py_ssize_t n, index
        cdef trpo_kronecker_layer *layer
        if self.made:
            raise TypeError("KroneckerPreconditioner: already initialized; make a new one")
        cdef double shift = checked_damping(damping)
        check_integer(size, "size")
        n = counter_of(size, "size", PTRDIFF_MAX)
        if not isinstance(blocks, Iterable) or (hasattr(blocks, "__array__") and not np.ndim(blocks)):
            raise TypeError(f"blocks: {type(blocks).__name__} given; want a sequence of (A, G, weight, bias)")
        blocks = list(blocks)
        if len(blocks) > TRPO_MAX_LAYERS:
            raise ValueError(f"blocks: {len(blocks)} given; want at most {TRPO_MAX_LAYERS}")
        self.setup(n, dtype)
        cdef char code = code_of(self.dtype)
        used = np.zeros(n, bool)
        for index, block in enumerate(blocks):
            if not isinstance(block, (tuple, list)) or len(block) != 4:
                what = f"{len(block)} items" if isinstance(block, (tuple, list)) else type(block).__name__
                raise TypeError(f"blocks[{index}]: {what} given; want (A, G, weight, bias)")
            A, G, weight, bias = block
            check_integer(weight, f"blocks[{index}]: weight")
            if bias is not None:
                check_integer(bias, f"blocks[{index}]: bias")
            check_square(A, f"blocks[{index}]: A", self.dtype)
            check_square(G, f"blocks[{index}]: G", self.dtype)
            inputs, outputs = len(A) - (bias is not None), len(G)
            for what, at, items in (("weight", weight, inputs * outputs), ("bias", bias, outputs)):
                if at is None:
                    continue
                if not 0 <= at <= n - items:
                    raise ValueError(f"blocks[{index}]: {what} of {items} items at {in_words(at)} is not within {n}")
                if used[at:at + items].any():
                    raise ValueError(f"blocks[{index}]: {what} overlaps another part")
                used[at:at + items] = True
            layer = &self.plan.layer[index]
            layer.inputs, layer.outputs, layer.weight = inputs, outputs, weight
            layer.bias = TRPO_NO_BIAS if bias is None else bias
        self.plan.layers = len(blocks)
        self.reserve()
        for index, (A, G, _, _) in enumerate(blocks):
            layer = &self.plan.layer[index]
            copy_square(A, "A", self.dtype, len(A), self.factors, layer.A, layer.input_pad)
            copy_square(G, "G", self.dtype, len(G), self.factors, layer.G, layer.output_pad)
        memset(self.inverse_diagonal, 0, n * self.kernels.item_size)
        if diagonal is not None:
            data_of(diagonal, "diagonal", code, 1, n, -1, False)
            others = np.where(used, self.dtype.type(0), diagonal)
            memcpy(
                self.inverse_diagonal, data_of(others, "diagonal", code, 1, n, -1, False), n * self.kernels.item_size
            )
        self.finish(shift)

    cdef int reserve(self) except -1:
        # After the layers are known.
        cdef size_t item = self.kernels.item_size
        self.plan.size = self.size
        self.kernels.kronecker_plan(&self.plan)
        self.memory = Memory()
        cdef trpo_kronecker_workspace parts = trpo_kronecker_workspace_for(&self.plan, item)
        cdef char *base = <char *>self.memory.reserve(parts.bytes)
        self.factors, self.inverse_diagonal = base + parts.factors.offset, base + parts.diagonal.offset
        self.work = base + parts.work.offset
        return 0

    cdef int finish(self, double damping) except -1:
        # Factors and inverse_diagonal hold F's; they become inverses.
        cdef double share = FACTORED_DAMPING
        cdef Memory memory = Memory()
        cdef int most = threads() if self.plan.invert_operations > THREAD_OPERATIONS else 1, failed, fine
        cdef void *work = memory.reserve(most * self.plan.invert_items * self.kernels.item_size)
        with nogil:
            fine = self.kernels.shifted_reciprocal(self.size, damping, self.inverse_diagonal)
            failed = self.kernels.kronecker_invert(&self.plan, self.factors, damping, share, work, most)
        if not fine:
            raise FloatingPointError("diagonal: holds a value that is not finite, or negative")
        if failed >= 0:
            raise FloatingPointError(
                f"layer {failed // 2}: the statistic {'AG'[failed % 2]} of its {('inputs', 'outputs')[failed % 2]} "
                "is not finite or not positive semi-definite"
            )
        self.made = True
        return 0

    cdef int apply(self, const void *v, void *out) except -1 nogil:
        if not self.made:
            with gil:
                raise TypeError("KroneckerPreconditioner: not initialized")
        if self.policy is not None and self.binding != self.policy.bindings:
            with gil:
                raise RuntimeError("this preconditioner is outlived: its engine was bound to another batch since")
        if not take_claim(&self.claimed):
            with gil:
                raise RuntimeError("this preconditioner is at work in another thread; want one for each thread")
        cdef int most = threads() if self.plan.apply_operations > THREAD_OPERATIONS else 1
        self.kernels.kronecker_apply(&self.plan, self.factors, self.inverse_diagonal, v, out, self.work, most)
        trpo_release(&self.claimed)
        return 0


cdef int check_integer(object value, str name) except -1:
    try:
        if not isinstance(value, bool):
            as_integer(value)
            return 0
    except TypeError:
        pass
    raise TypeError(f"{name}: {in_words(value)} given; want an integer")


cdef double checked_damping(object damping) except -1:
    cdef double shift
    if isinstance(damping, bool) or not isinstance(damping, Real):
        raise TypeError(f"damping: {in_words(damping)} given; want a number")
    shift = number_of(damping, "damping")
    if not 0 <= shift < INFINITY:
        raise ValueError(f"damping: {in_words(damping)} given; want a finite number >= 0")
    return shift


cdef int check_square(object matrix, str name, object dtype) except -1:
    if not isinstance(matrix, np.ndarray) or matrix.dtype != dtype or not matrix.flags.c_contiguous:
        what = f"{matrix.dtype} array" if isinstance(matrix, np.ndarray) else type(matrix).__name__
        raise TypeError(f"{name}: {what} given; want a C-contiguous {dtype} array")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] < 1:
        raise ValueError(f"{name}: shape {matrix.shape} given; want a square matrix")
    return 0


cdef int copy_square(
    object matrix, str name, object dtype, size_t n, void *factors, size_t at, size_t pad
) except -1:
    # Into `factors`, whose rows are `pad` apart.
    cdef size_t item = dtype.itemsize, i
    cdef const char *items = <const char *>data_of(matrix, name, code_of(dtype), 2, n, n, False)
    for i in range(n):
        memcpy(<char *>factors + (at + i * pad) * item, items + i * n * item, n * item)
    return 0


cdef class FisherFactors:
    """K-FAC statistics of a policy's bound batch; owns the memory that making them takes.

    Parameters
    ----------
    policy : PolicyKernel
    """

    cdef PolicyKernel policy
    cdef trpo_kronecker plan
    cdef Memory memory

    def __init__(self, PolicyKernel policy not None):
        cdef int index
        cdef trpo_kronecker_layer *layer
        policy.require("policy")
        if self.policy is not None:
            raise TypeError("FisherFactors: already initialized; make a new one")
        self.memory = Memory()
        self.plan.layers, self.plan.size = policy.plan.layers, policy.size
        for index in range(policy.plan.layers):
            layer = &self.plan.layer[index]
            layer.inputs, layer.outputs = policy.plan.widths[index], policy.plan.widths[index + 1]
            layer.weight = policy.log_std_items + policy.plan.weight[index]
            layer.bias = policy.log_std_items + policy.plan.bias[index]
        policy.kernels.kronecker_plan(&self.plan)
        self.policy = policy  # last: factors that have one are complete

    cdef int require_batch(self) except -1:
        if self.policy is None:  # made by __new__ alone
            raise TypeError("FisherFactors: not initialized")
        return self.policy.require_batch()

    cdef int compute(self, object rows, void *factors, int64_t signs=0) except -1:
        # factors: plan.factor_items. The caller has claimed the policy.
        cdef trpo_kfac_sample sample
        cdef trpo_kfac_workspace parts
        cdef size_t batch_rows = self.policy.batch.problem.rows
        cdef FisherFactors part
        if self.policy.batch.cache.tiles * TRPO_TILE_ROWS < batch_rows:
            # Not every row's activations were kept: those of the rows to sample are computed again, the same bits.
            rows = np.arange(batch_rows) if rows is None else rows
            checked_rows(rows, batch_rows)
            sampled = np.ascontiguousarray(rows[::len(rows) // MOST_ROWS | 1])
            part = FisherFactors(self.policy.subset(sampled, cache_bytes=SIZE_MAX))
            return part.compute(None, factors, signs)
        memset(&sample, 0, sizeof(sample))
        sample.batch, sample.plan = &self.policy.batch, &self.plan
        sample.count = batch_rows
        if rows is not None:
            sample.rows = checked_rows(rows, batch_rows)
            sample.count = len(rows)
        sample.input_step = sample.count // MOST_ROWS | 1
        sample.score_step = sample.input_step * (SCORE_STEP if sample.count >= FEW_ROWS else 1)
        sample.key.stream, sample.key.step = SIGN_STREAM, signs
        parts = trpo_kfac_workspace_for(&sample, self.policy.kernels.item_size, threads())
        trpo_kfac_place(&parts, self.memory.reserve(parts.bytes), &sample)
        with nogil:
            self.policy.kernels.kfac_statistics(&sample, factors)
        return 0

    def statistics(self, rows=None, signs=0):
        """[(A, G), ...] of every layer, copies; A is (inputs + 1, inputs + 1), G (outputs, outputs).

        Parts of one batch want other `signs`, numbers >= 0, so that the noise of their G is independent.
        """
        self.require_batch()
        cdef int64_t step = counter_of(signs, "signs", MOST_SIGNS)
        cdef Memory memory = Memory()
        cdef char *factors = <char *>memory.reserve(self.plan.factor_items * self.policy.kernels.item_size)
        self.policy.claim()
        try:
            self.compute(rows, factors, step)
        finally:
            trpo_release(&self.policy.claimed)
        cdef int index
        cdef trpo_kronecker_layer *layer
        found = []
        for index in range(self.plan.layers):
            layer = &self.plan.layer[index]
            found.append((
                self.copy_out(factors, layer.A, layer.input_size, layer.input_pad),
                self.copy_out(factors, layer.G, layer.outputs, layer.output_pad),
            ))
        return found

    cdef object copy_out(self, const char *factors, size_t at, size_t n, size_t pad):
        cdef size_t item = self.policy.kernels.item_size, i
        matrix = np.empty((n, n), self.policy.dtype)
        cdef char *items = <char *>data_of(matrix, "matrix", self.policy.code, 2, n, n, True)
        for i in range(n):
            memcpy(items + i * n * item, factors + (at + i * pad) * item, n * item)
        return matrix

    def preconditioner(self, kind, *, damping, rows=None, statistics=None):
        """Of about ``(F + damping I)^-1`` for the bound batch; raises RuntimeError when used after the next bind.

        Parameters
        ----------
        kind : {"kfac", "diagonal"}
            Kronecker-factored blocks, or the diagonal of the same: E[a_i^2] E[d_o^2] for a weight. log_std's part is
            exact.
        damping : float
            ``>= 0``.
        rows : int64 (S,), optional
            Row indices of the bound batch that the statistics are made from, increasing; default: all. Where
            they are more than 4,096, A is from some of them, spread evenly.
        statistics : sequence of (A, G), optional
            As `statistics` returns them, of a batch of which the bound one is a part; they are used in place of its
            own, and log_std's part is that of the whole.
        """
        self.require_batch()
        require_choice("kind", kind, ("kfac", "diagonal"))
        cdef double shift = checked_damping(damping)
        cdef PolicyKernel policy = self.policy
        cdef KroneckerPreconditioner M = KroneckerPreconditioner.__new__(KroneckerPreconditioner)
        cdef Memory memory
        cdef void *factors
        cdef Py_ssize_t i
        cdef double log_std = 2.0
        if statistics is None:
            log_std *= policy.batch.problem.rows / policy.batch.problem.total
        M.setup(policy.size, policy.dtype)
        if kind == "kfac":
            M.plan = self.plan
        M.reserve()
        M.policy, M.binding = policy, policy.bindings
        factors = M.factors
        if kind == "diagonal":
            memory = Memory()
            factors = memory.reserve(self.plan.factor_items * policy.kernels.item_size)
        if statistics is None:
            policy.claim()
            try:
                self.compute(rows, factors)
            finally:
                trpo_release(&policy.claimed)
        else:
            self.take(statistics, factors)
        memset(M.inverse_diagonal, 0, M.size * policy.kernels.item_size)
        if kind == "diagonal":
            policy.kernels.kronecker_diagonal(&self.plan, factors, M.inverse_diagonal)
        for i in range(policy.log_std_items):
            if policy.kernels.item_size == sizeof(float):
                (<float *>M.inverse_diagonal)[i] = <float>log_std
            else:
                (<double *>M.inverse_diagonal)[i] = log_std
        M.finish(shift)
        return M

    cdef int take(self, object statistics, void *factors) except -1:
        # factors: plan.factor_items, written.
        cdef int index
        cdef trpo_kronecker_layer *layer
        if len(statistics) != self.plan.layers:
            raise ValueError(f"statistics: {len(statistics)} given; want (A, G) of each of {self.plan.layers} layers")
        memset(factors, 0, self.plan.factor_items * self.policy.kernels.item_size)
        for index, (A, G) in enumerate(statistics):
            layer = &self.plan.layer[index]
            for what, matrix, n, at, pad in (
                ("A", A, layer.input_size, layer.A, layer.input_pad), ("G", G, layer.outputs, layer.G, layer.output_pad)
            ):
                copy_square(matrix, f"statistics[{index}]: {what}", self.policy.dtype, n, factors, at, pad)
        return 0
