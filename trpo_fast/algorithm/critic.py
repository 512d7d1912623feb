"""Fitting the value function: mean squared error by Adam, in this thread or beside the next rollout."""

from __future__ import annotations

import atexit
import concurrent.futures
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from trpo_fast import streams
from trpo_fast._core.critic import ValueKernel
from trpo_fast._core.library import usable_cores
from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.engines.binding import changed_call
from trpo_fast.engines.value import FailedFits, SequenceValueKernel, make_value_kernel
from trpo_fast.policies.flat import flat_parameters
from trpo_fast.solvers.fisher_product import bfloat16_obstacle, require_bfloat16
from trpo_fast.state import State

FIT_PATIENCE = 0.3  # seconds that a fit in progress is given where it is not to be waited for


class CriticFit(NamedTuple):
    """What one fit produced; the critic itself changes only when :meth:`CriticTrainer.wait` takes this over.

    Where it would not have stayed finite, `error` says why, and all is what it was before the fit.
    """

    parameters: NDArray[Any]  # (n,) as the critic's flat buffer
    first_moment: NDArray[Any]  # (n,) Adam's m
    second_moment: NDArray[Any]  # (n,) Adam's v
    adam_step: int  # Adam steps taken since the beginning of training
    loss: float  # mean squared error over the last epoch; nan where the fit failed
    seconds: float  # duration of the fit
    error: FloatingPointError | None = None


class FitOutcome(NamedTuple):
    """The numbers of a fit, without what it learned: what may be kept of every update."""

    loss: float
    seconds: float
    error: str | None


class PendingFit(concurrent.futures.Future[CriticFit]):
    """A fit that may still run in a thread of its own, and the way to stop it.

    What computes it is given an array of uint8, shape (1,), and raises RuntimeError soon after that is not zero.

    Attributes
    ----------
    outcome : Future of FitOutcome
        Done when the fit is.
    begun_with : ndarray (P,)
        The critic's parameters at its start.
    """

    def __init__(self, begun_with: NDArray[Any]) -> None:
        super().__init__()
        self.begun_with = begun_with
        self.outcome: concurrent.futures.Future[FitOutcome] = concurrent.futures.Future()
        self.outcome.set_running_or_notify_cancel()
        self._stop = np.zeros(1, np.uint8)
        self._thread: threading.Thread | None = None
        self.set_running_or_notify_cancel()

    def run_here(self, compute: Callable[[NDArray[np.uint8]], CriticFit]) -> None:
        """Compute in the caller's thread, where Ctrl-C interrupts it; errors reach the caller."""
        self._settle(compute(self._stop))

    def run_beside(self, compute: Callable[[NDArray[np.uint8]], CriticFit]) -> None:
        """Compute beside the caller, where there is a thread to be had; errors reach whoever asks for the result."""
        # A daemon, because an ending interpreter waits for all other threads before it calls anything of ours.
        self._thread = threading.Thread(target=self._run, args=(compute,), name="critic-fit", daemon=True)
        _running.add(self)
        # It is born with what is blocked here: a signal that its caller waits for is not for it to take. Blocking lets
        # handlers of signals that came before run, and a Ctrl-C among them raise: what to go back to is known by then.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_FOR_THREADS)
            self._thread.start()
        except RuntimeError:  # the system has no thread left: here it takes longer, to the same numbers
            _running.discard(self)
            self._thread = None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if self._thread is None:
            self.run_here(compute)

    def failed(self) -> bool:
        """Whether the fit, which is done, left the critic as it was."""
        return self.exception() is not None or self.result().error is not None

    def stop(self) -> None:
        """End the fit after its current minibatch, and wait until then; a fit that is done keeps its result."""
        self._stop[0] = 1
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()

    def _run(self, compute: Callable[[NDArray[np.uint8]], CriticFit]) -> None:
        try:
            result = compute(self._stop)
        except BaseException as error:
            self.outcome.set_exception(RuntimeError(str(error)))  # without a traceback, which holds arrays
            self.set_exception(error)
        else:
            self._settle(result)
        finally:
            _running.discard(self)

    def _settle(self, result: CriticFit) -> None:
        # The outcome first: who waited for the fit finds it done.
        error = None if result.error is None else str(result.error)
        self.outcome.set_result(FitOutcome(result.loss, result.seconds, error))
        self.set_result(result)


_running: set[PendingFit] = set()
# All but those that a fault of the thread itself raises: blocked, they would end the process unreported.
_NOT_FOR_THREADS = signal.valid_signals() - {
    *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS)
}


@atexit.register
def _stop_all() -> None:
    """Keep the interpreter from ending under a fit, and a fit from keeping it from ending."""
    for fit in list(_running):
        fit.stop()


class CriticTrainer:
    """Owns what fitting the critic needs beyond its parameters: Adam's moments, counters and the fit in progress.

    A fit works on copies and is taken over in :meth:`wait`, so until then the critic is the one before the fit, whether
    or not it runs beside a rollout: the same numbers either way, and an interrupted update has one state to return to.

    Parameters
    ----------
    critic : torch.nn.Module
        ``forward(observations)`` returns values (B,). An MLPCritic on the CPU is fitted by the compiled core, every
        other module by torch.
    config : TRPOConfig
        ``critic_epochs``, ``critic_batch_size``, ``critic_learning_rate``, ``critic_precision`` and ``overlap_critic``
        are used.
    seed : int
        Key of the minibatch permutations (stream 1, one counter for every epoch of the training).
    observation_shape : sequence of int, optional
        Shape of one observation as a module that torch fits wants it; flat rows otherwise.

    Raises
    ------
    ValueError
        ``critic_precision`` is "bfloat16", which this critic or this machine has no products of. `start` raises it
        where a part of the critic was frozen meanwhile.

    Attributes
    ----------
    critic : torch.nn.Module
        Without waiting for a fit: the parameters of the last :meth:`wait`.
    """

    def __init__(
        self,
        critic: nn.Module,
        config: TRPOConfig,
        seed: int,
        *,
        observation_shape: Sequence[int] | None = None,
    ) -> None:
        self.critic = critic
        self._config = config
        self._seed = seed
        self._flat = flat_parameters(critic)
        parameters = self._flat.numpy
        self._observation_shape = observation_shape
        self._make_kernel()
        self._first_moment = np.zeros_like(parameters)
        self._second_moment = np.zeros_like(parameters)
        self._adam_step = 0
        self._epochs = 0
        self._pending: PendingFit | None = None
        self._failed = FailedFits()
        self.abandoned_fits = 0

    @property
    def recurrent(self) -> bool:
        """Whether the critic is, so that its observations are `CriticSequences`."""
        return isinstance(self._kernel, SequenceValueKernel)

    def values(self, observations: Any) -> NDArray[Any]:
        """V of each row of ``observations`` (N, D), in the critic's dtype, shape (N,); waits for a fit in progress.

        Of a recurrent critic ``observations`` are those of the rollout that follows the one before.
        """
        self.wait()
        parameters = self.parameters()
        self._flat.require_finite("critic")
        return self._kernel.values(parameters, self._readable(observations))

    def start(self, observations: Any, returns: NDArray[Any], learning_rate: float | None = None) -> PendingFit:
        """Begin one fit to ``returns`` (B,) at ``observations``, (B, D) or sequences.

        Both arrays must stay as they are until the fit is done, which without overlap, or on one core, it is on return.
        `learning_rate` is the config's where it is not given.
        """
        self.wait()
        if self._served != _kernel_of(self.critic):
            self._make_kernel()
        observations = self._readable(observations)
        parameters = self.parameters().copy()
        first_moment, second_moment = self._first_moment.copy(), self._second_moment.copy()
        adam_step, first_epoch = self._adam_step, self._epochs
        config, kernel, seed = self._config, self._kernel, self._seed
        rate = config.critic_learning_rate if learning_rate is None else learning_rate
        # Torch's kernel has no such argument.
        precision: dict[str, Any] = {"bfloat16": True} if config.critic_precision == "bfloat16" else {}

        def compute(stop: NDArray[np.uint8]) -> CriticFit:
            began = time.perf_counter()
            step, loss, error = adam_step, math.nan, None
            try:
                step, loss = kernel.fit(
                    parameters,
                    first_moment,
                    second_moment,
                    observations,
                    returns,
                    adam_step=adam_step,
                    epochs=config.critic_epochs,
                    batch_size=config.critic_batch_size,
                    learning_rate=rate,
                    seed=seed,
                    stream=streams.MINIBATCHES,
                    first_epoch=first_epoch,
                    stop=stop,
                    threads=1 if config.overlap_critic else None,  # the other cores step environments
                    **precision,
                )
            except FloatingPointError as caught:
                error = caught
            return CriticFit(parameters, first_moment, second_moment, step, loss, time.perf_counter() - began, error)

        fit = PendingFit(parameters.copy())
        # On one core a thread beside takes turns with the rollout, which costs a twentieth of both.
        if config.overlap_critic and usable_cores() > 1:
            self._pending = fit  # before it runs: whatever interrupts this finds something to stop
            fit.run_beside(compute)
        else:
            fit.run_here(compute)
            self._pending = fit
        self._epochs += config.critic_epochs
        return fit

    def wait(self) -> float:
        """Finish the fit in progress, if any, and take it over; the seconds spent waiting.

        A fit that would have made a parameter or Adam's second moment non-finite leaves both as they were, with a
        RuntimeWarning; the third of such fits in a row raises FloatingPointError. What a fit beside the rollout raised
        is raised here; the critic is what it was before that fit, which counts as abandoned.
        """
        if self._pending is None:
            return 0.0
        began = time.perf_counter()
        pending = self._pending
        try:
            fit = pending.result()
        except Exception:
            self._pending = None
            self.abandoned_fits += 1
            raise
        if not np.array_equal(self.parameters(), pending.begun_with):
            warnings.warn(
                "critic: its parameters were changed while a fit of it was in progress, whose result takes their "
                "place; want the changes made through agent.critic, which waits for the fit",
                RuntimeWarning,
                stacklevel=2,
            )
        self.parameters()[:] = fit.parameters
        self._flat.bump_versions()
        self._first_moment, self._second_moment = fit.first_moment, fit.second_moment
        self._adam_step = fit.adam_step
        self._pending = None
        self._failed.settle(fit.error)
        return time.perf_counter() - began

    def finish_within(self, seconds: float) -> None:
        """Give the fit in progress, if any, this long, then stop it; a stopped fit leaves no trace in the critic.

        It is counted in `abandoned_fits`: from then on the training is not the one that was not interrupted.
        """
        fit = self._pending
        if fit is None:
            return
        try:
            concurrent.futures.wait([fit], seconds)
        finally:  # whoever presses Ctrl-C once more has waited long enough
            if not fit.done():
                fit.stop()
            if fit.exception() is not None:
                self._pending = None
                self.abandoned_fits += 1

    def get_state(self) -> State:
        """Adam's moments (not copied: every fit makes new ones) and the counters, without waiting for a fit."""
        return {
            "first_moment": self._first_moment,
            "second_moment": self._second_moment,
            "adam_step": self._adam_step,
            "epochs": self._epochs,
            "failed_fits": self._failed.in_a_row,
            "abandoned_fits": self.abandoned_fits,
            **self._recurrent_state(),
        }

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        """What a recurrent critic's state may be: that of all environments, or none before the first rollout."""
        if not isinstance(self._kernel, SequenceValueKernel):
            return ()
        return (0, 0), (self._config.num_envs, self._kernel.state_items)

    def _recurrent_state(self) -> State:
        if not isinstance(self._kernel, SequenceValueKernel):
            return {}
        state = self._kernel.state
        return {"state": np.zeros((0, 0), self._flat.numpy.dtype) if state is None else state}

    def set_state(self, state: State) -> None:
        """Go on from what :meth:`get_state` gave; a fit in progress is stopped, and leaves no trace."""
        self.put_back(state, None)

    def put_back(self, state: State, pending: PendingFit | None) -> None:
        """:meth:`set_state`, and the fit goes on, or waits to be taken over, that was pending then."""
        if self._pending is not None and self._pending is not pending:
            self._pending.stop()
        failed = pending is not None and pending.done() and pending.failed()
        lost = failed and pending is not None and pending.exception() is not None
        self._pending = None if failed else pending
        self._first_moment = np.array(state["first_moment"])
        self._second_moment = np.array(state["second_moment"])
        self._adam_step, self._epochs = state["adam_step"], state["epochs"]
        self._failed.in_a_row = state["failed_fits"]
        self.abandoned_fits = state["abandoned_fits"] + lost
        if isinstance(self._kernel, SequenceValueKernel):
            self._kernel.state = np.array(state["state"]) if state["state"].size else None

    def _make_kernel(self) -> None:
        # A kernel is for what the critic was when it was made.
        served, before = _kernel_of(self.critic), getattr(self, "_kernel", None)
        kernel = make_value_kernel(self.critic, observation_shape=self._observation_shape)
        if self._config.critic_precision == "bfloat16":
            obstacle: str | None = "torch fits this critic, which is no MLPCritic on the CPU that is trained whole"
            if isinstance(kernel, ValueKernel):
                obstacle = bfloat16_obstacle(dtype=kernel.dtype)
            require_bfloat16("critic_precision", obstacle)
        if isinstance(kernel, SequenceValueKernel) and isinstance(before, SequenceValueKernel):
            kernel.take_over(before)
        self._served, self._kernel = served, kernel

    def _readable(self, observations: Any) -> Any:
        """The bytes of images, which torch converts as it goes, as floats for compiled kernels."""
        if isinstance(self._kernel, ValueKernel) and observations.dtype == np.uint8:
            return observations.astype(self.parameters().dtype)
        return observations

    def parameters(self) -> NDArray[Any]:
        """The critic's live flat buffer, after looking for what was written to the module behind it.

        ValueError where that has parameters of another size or dtype by now.
        """
        if not self._flat.is_intact():
            self._flat.restore()
        found, began = self._flat.numpy, self._first_moment
        if (found.shape, found.dtype) != (began.shape, began.dtype):
            raise ValueError(
                f"critic: {found.size:,} parameters of {found.dtype} given; want {began.size:,} of {began.dtype}, as "
                "when the agent was made; make another agent"
            )
        return found

    @property
    def pending(self) -> PendingFit | None:
        """The fit that nothing has waited for yet."""
        return self._pending


def _kernel_of(critic: nn.Module) -> tuple[Any, ...]:
    """What decides which kernel serves it, and how: what is frozen, what has a call of its own, and the activation."""
    frozen = [parameter.requires_grad for parameter in critic.parameters()]
    return frozen, [changed_call(part) for part in critic.modules()], getattr(critic, "activation", None)
