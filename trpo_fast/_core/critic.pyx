"""Value networks on one flat parameter buffer, and their fit: all epochs in one call without the GIL."""

import threading

import numpy as np

from trpo_fast._core.library import in_words

from cpython.exc cimport PyErr_CheckSignals
from libc.math cimport NAN, isfinite
from libc.stdint cimport INT32_MAX, INT64_MAX, int64_t, uint8_t

from trpo_fast._core.csrc cimport (
    TRPO_ADAM_FINITE,
    TRPO_ADAM_SECOND_MOMENT,
    TRPO_MAX_STEP,
    TRPO_MAX_THREADS,
    trpo_adam_outcome,
    trpo_critic_fit,
    trpo_critic_place,
    trpo_critic_workspace,
    trpo_critic_workspace_for,
    trpo_kernels,
    trpo_mlp,
    trpo_random_key,
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
    key_of,
    make_plan,
    number_of,
    permute,
    refuse_overlap,
    refuse_shared,
    threads as usable_threads,
)


cdef struct Fit:
    trpo_critic_fit core
    int64_t *order  # work
    bint narrow
    size_t rows, batch_size
    int64_t adam_step
    trpo_adam_outcome outcome


cdef double fit_epoch(
    const trpo_kernels *k, Fit *f, double *losses, const volatile uint8_t *stop, bint interruptible
) except? -1 nogil:
    # Mean squared error over the epoch's minibatches as they were met, and in losses (OUT, may be NULL) that of each;
    # NaN where f.outcome says that a step came out non-finite.
    cdef size_t start = 0, count
    cdef double squares = 0, minibatch
    while start < f.rows and not stop[0]:
        count = min(f.batch_size, f.rows - start)
        f.adam_step += 1
        if f.narrow:
            f.outcome = k.critic_step_narrow(&f.core, count, f.order + start, f.adam_step, &minibatch)
        else:
            f.outcome = k.critic_step(&f.core, count, f.order + start, f.adam_step, &minibatch)
        squares += minibatch
        if losses != NULL:
            losses[start // f.batch_size] = minibatch / <double>count
        if f.outcome != TRPO_ADAM_FINITE:
            return NAN
        start += count
        if interruptible:
            with gil:
                PyErr_CheckSignals()
    return squares / <double>f.rows


cdef Py_ssize_t copy_order(const int64_t *given, size_t rows, int64_t *order) noexcept nogil:
    # The place of the first row that is none of the `rows`, or -1. What is copied was checked: it indexes memory, and
    # another thread may write to `given`.
    cdef size_t i
    for i in range(rows):
        order[i] = given[i]
        if not 0 <= order[i] < <int64_t>rows:
            return i
    return -1


# What a fit writes, four of them, and what it reads.
cdef tuple fit_arrays = (
    "parameters", "first_moment", "second_moment", "losses", "observations", "returns", "order", "stop"
)


class NonFiniteError(FloatingPointError, ValueError):
    """A training met a number that is not finite: an outcome of arithmetic, and of the values that it was given.

    Searches for settings take a ValueError for a trial that failed, and go on.
    """


def names_given(**arguments):
    """Those that are not None, in words."""
    return " and ".join([name for name, value in arguments.items() if value is not None]) or "none"


def fit_error(returns, learning_rate, *, second_moment):
    """NonFiniteError of a fit that would not have stayed finite.

    `second_moment`: Adam's v is what would not, and not a loss or a parameter.
    """
    largest = f"returns of up to {np.abs(returns).max():g} in size"
    if second_moment:
        return NonFiniteError(
            f"the value fit met a gradient whose square is infinite in {returns.dtype}, and so would be Adam's second "
            f"moment for good ({largest})"
        )
    return NonFiniteError(
        f"the value fit met a loss or a parameter that is not finite (learning_rate={learning_rate}, {largest})"
    )


cdef class ValueKernel:
    """Mathematics of an MLP critic ``W1 b1 W2 b2 ...`` with one output; holds no parameters.

    Parameters
    ----------
    widths : sequence of int
        Layer sizes, observations first, 1 last.
    activation : {"tanh", "relu", "elu", "leaky_relu", "sigmoid", "silu", "gelu", "softplus"}
    dtype : float32 or float64
    """

    cdef readonly object dtype
    cdef readonly tuple widths
    cdef readonly str activation
    cdef readonly Py_ssize_t size
    cdef const trpo_kernels *kernels
    cdef char code
    cdef bint made
    cdef trpo_mlp plan

    def __init__(self, widths, activation, dtype):
        if self.made:
            raise TypeError("ValueKernel: already initialized; make a new one")
        self.kernels = kernels_for(dtype)
        self.dtype = np.dtype(dtype)
        self.code = code_of(self.dtype)
        self.widths = integers_of(widths, "widths")
        make_plan(self.kernels, self.widths, activation, &self.plan)
        self.activation = activation
        if self.widths[-1] != 1:
            raise ValueError(f"widths: {self.widths[-1]} outputs given; want 1, of a critic")
        self.size = self.plan.parameters
        self.made = True

    cdef int require(self) except -1:
        # What __new__ alone made, or a subclass without this __init__, has no tables.
        if not self.made:
            raise TypeError("ValueKernel: not initialized")
        return 0

    def values(self, parameters, observations, out=None):
        """V(s), (B,), of ``observations`` (B, D), into `out` where given; all of this kernel's dtype."""
        self.require()
        cdef const void *p = data_of(parameters, "parameters", self.code, 1, self.size, -1, False)
        cdef const void *x = data_of(observations, "observations", self.code, 2, -1, self.widths[0], False)
        cdef size_t rows = observations.shape[0], item = self.kernels.item_size
        if out is None:
            out = np.empty(rows, self.dtype)
        cdef void *y = data_of(out, "out", self.code, 1, rows, -1, True)
        refuse_overlap("out", y, rows * item, "observations", x, rows * self.plan.widths[0] * item)
        refuse_overlap("out", y, rows * item, "parameters", p, self.size * item)
        cdef int most = usable_threads()
        cdef Memory work = Memory()
        cdef size_t pack = aligned(self.plan.forward_items * item)
        cdef char *base = <char *>work.reserve(pack + most * self.plan.scratch_items * item)
        with nogil:
            self.kernels.mlp_pack_forward(&self.plan, p, base)
            self.kernels.mlp_outputs(&self.plan, base, rows, x, y, base + pack, most)
        return out

    def fit(
        self, parameters, first_moment, second_moment, observations, returns, *, adam_step, epochs, batch_size,
        learning_rate, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0, seed=None, stream=None,
        first_epoch=None, order=None, losses=None, stop=None, threads=None, bfloat16=False
    ):
        """Minibatch Adam on ``mean (V(s) - R)^2``: all epochs, without the GIL.

        Every epoch draws a fresh permutation, a function of (seed, stream, first_epoch + epoch), or takes the rows in
        the `order` given instead; a last minibatch smaller than `batch_size` is used with its own mean.

        Parameters
        ----------
        parameters, first_moment, second_moment : ndarray (n,), updated in place
            phi, and Adam's m and v (Kingma & Ba 2015).
        observations : ndarray (B, D)
        returns : ndarray (B,)
        adam_step : int
            Adam steps taken so far.
        weight_decay : float
            AdamW's (Loshchilov & Hutter 2019): a step begins with phi times ``1 - learning_rate weight_decay``.
        order : ndarray (epochs, B) int64, optional
            The rows that each epoch meets, one after the other; then seed, stream and first_epoch are not wanted.
        losses : ndarray (epochs, ceil(B / batch_size)) float64, optional, written
            Mean squared error of every minibatch as it was met; undefined where the fit raises.
        stop : ndarray (1,) uint8, optional
            Looked at between minibatches: once another thread made it nonzero, the fit ends with a RuntimeError.
        threads : int, optional
            How many may work on it, at most those of ``get_num_threads``, which it is without. The result has the same
            bits.
        bfloat16 : bool
            Round to bf16 what products of hidden layers multiply: weights, activations and what is propagated back.
            Sums, parameters, Adam, biases and the output layer stay float32.

        Returns
        -------
        adam_step : int
        loss : float
            Mean squared error over the last epoch's minibatches as they were met.

        Raises
        ------
        TypeError, ValueError
            `bfloat16` with a kernel of float64, or where this machine has no such products; an argument, by name.
        NonFiniteError
            A parameter, or an item of Adam's v, would have become non-finite: the message says which.
            KeyboardInterrupt lands between minibatches, in the main thread. Either way, and where `stop` ended it, the
            three arrays are as they were before the call.
        """
        self.require()
        cdef const trpo_kernels *k = self.kernels
        cdef size_t n = self.size, item = k.item_size, rows, bytes = self.size * k.item_size
        cdef Fit f
        cdef int epoch, count
        cdef trpo_random_key key
        cdef double loss = 0
        cdef bint interruptible = threading.current_thread() is threading.main_thread()
        count = <int>counter_of(epochs, "epochs", INT32_MAX)
        f.batch_size = counter_of(batch_size, "batch_size", INT64_MAX)
        f.narrow = flag_of(bfloat16, "bfloat16")
        cdef trpo_critic_fit *core = &f.core
        core.bfloat16.kernels = NULL
        if f.narrow:
            if k.critic_step_narrow == NULL:
                raise TypeError(f"bfloat16: a kernel of {self.dtype} given; want float32")
            core.bfloat16.kernels = bfloat16_kernels()
        core.network = &self.plan
        core.learning_rate = number_of(learning_rate, "learning_rate")
        core.beta1, core.beta2 = number_of(beta1, "beta1"), number_of(beta2, "beta2")
        core.epsilon = number_of(epsilon, "epsilon")
        core.weight_decay = number_of(weight_decay, "weight_decay")
        f.adam_step = counter_of(adam_step, "adam_step", INT64_MAX // 2)  # which every minibatch adds one to
        cdef int most = usable_threads()
        if threads is not None:
            most = min(most, <int>counter_of(threads, "threads", TRPO_MAX_THREADS))
            if most < 1:
                raise ValueError("threads: 0 given; want at least 1")
        if count < 1:
            raise ValueError("epochs: 0 given; want at least 1")
        if f.batch_size < 1:
            raise ValueError("batch_size: 0 given; want at least 1")
        if not (core.learning_rate >= 0 and isfinite(core.learning_rate)):
            raise ValueError(f"learning_rate: {in_words(learning_rate)} given; want a finite number >= 0")
        if not (0 <= core.beta1 < 1 and 0 <= core.beta2 < 1):
            raise ValueError(f"beta1, beta2: {in_words(beta1)} and {in_words(beta2)} given; want numbers in [0, 1)")
        if not (core.epsilon > 0 and isfinite(core.epsilon)):
            raise ValueError(f"epsilon: {in_words(epsilon)} given; want a finite number > 0")
        if not (core.weight_decay >= 0 and isfinite(core.weight_decay)):
            raise ValueError(f"weight_decay: {in_words(weight_decay)} given; want a finite number >= 0")
        if [order is None] * 3 != [key_part is not None for key_part in (seed, stream, first_epoch)]:
            named = names_given(order=order, seed=seed, stream=stream, first_epoch=first_epoch)
            raise TypeError(
                f"order, seed, stream, first_epoch: {named} given; want order alone, or the other three"
            )
        core.observations = data_of(observations, "observations", self.code, 2, -1, self.widths[0], False)
        rows = observations.shape[0]
        if rows < 1:
            raise ValueError("observations: none given; want at least one row")
        core.returns = data_of(returns, "returns", self.code, 1, rows, -1, False)
        cdef void *theta = data_of(parameters, "parameters", self.code, 1, n, -1, True)
        cdef void *m = data_of(first_moment, "first_moment", self.code, 1, n, -1, True)
        cdef void *v = data_of(second_moment, "second_moment", self.code, 1, n, -1, True)
        if (second_moment < 0).any():
            raise ValueError(f"second_moment: {float(second_moment.min())} given in it; want numbers >= 0")
        f.rows, f.outcome = rows, TRPO_ADAM_FINITE
        cdef const int64_t *given = NULL
        if order is not None:
            given = <const int64_t *>data_of(order, "order", "q", 2, count, rows, False)
        else:
            counter_of(first_epoch, "first_epoch", TRPO_MAX_STEP // 2)  # which every epoch adds one to
            key = key_of(seed, stream, first_epoch)
        cdef size_t minibatches = (rows + f.batch_size - 1) // f.batch_size
        cdef double *epoch_losses = NULL
        if losses is not None:
            epoch_losses = <double *>data_of(losses, "losses", "d", 2, count, minibatches, True)
        cdef Py_ssize_t misplaced = -1
        cdef uint8_t never = 0
        cdef const volatile uint8_t *stop_flag = &never
        if stop is not None:
            stop_flag = <const volatile uint8_t *>data_of(stop, "stop", "B", 1, 1, -1, False)
        cdef Extent extents[8]
        extents[0], extents[1], extents[2] = Extent(theta, bytes), Extent(m, bytes), Extent(v, bytes)
        extents[3] = Extent(epoch_losses, count * minibatches * sizeof(double))
        extents[4] = Extent(core.observations, rows * self.plan.widths[0] * item)
        extents[5], extents[6] = Extent(core.returns, rows * item), Extent(given, count * rows * sizeof(int64_t))
        extents[7] = Extent(<const void *>stop_flag, 1)
        refuse_shared(extents, fit_arrays, 4)

        cdef trpo_critic_workspace parts = trpo_critic_workspace_for(
            &self.plan, item, min(f.batch_size, rows), most, f.narrow
        )
        cdef Memory work = Memory()
        cdef char *base = <char *>work.reserve(aligned(parts.bytes) + rows * sizeof(int64_t))
        trpo_critic_place(&parts, base, core)
        f.order = <int64_t *>(base + aligned(parts.bytes))
        with nogil:
            k.critic_load(core, theta, m, v)
            for epoch in range(count):
                if given == NULL:
                    permute(&key, rows, f.order)
                    key.step += 1
                else:
                    misplaced = copy_order(given + epoch * rows, rows, f.order)
                    if misplaced >= 0:
                        break
                loss = fit_epoch(k, &f, epoch_losses, stop_flag, interruptible)
                if epoch_losses != NULL:
                    epoch_losses += minibatches
                if stop_flag[0] or not isfinite(loss):
                    break
        if misplaced >= 0:
            raise ValueError(
                f"order: epoch {epoch} holds {f.order[misplaced]} at {misplaced}; want rows 0 to {rows - 1}"
            )
        if stop_flag[0]:
            raise RuntimeError("the value fit was stopped")
        if not isfinite(loss):
            raise fit_error(returns, learning_rate, second_moment=f.outcome == TRPO_ADAM_SECOND_MOMENT)
        k.critic_save(core, theta, m, v)
        return f.adam_step, loss
