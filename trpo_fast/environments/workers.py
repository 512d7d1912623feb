"""Copies shared out to worker processes, each of which steps its own in a loop of its own.

A worker is a fresh interpreter that runs :mod:`trpo_fast.environments.worker`, started through `subprocess` and not
through `multiprocessing`, whatever start method is set there: a fork would copy torch's threads in the middle of
whatever they do; spawn and forkserver import the main module again, which needs a main guard and does not know what was
registered under it; and none of them starts from a daemonic process. The function that makes an environment travels by
cloudpickle, which takes lambdas, closures and what the main module defines, and with it everything that is registered
with Gymnasium at that time.

Whatever is exchanged lies in memory that all processes share. In training a compiled policy acts in the workers, which
get its parameters and answer once a rollout (`roll_out`): its rows are, to the bit, what they are alone, and nobody
waits for anybody. Where a policy has to act here, a step is one byte to a worker through a pipe and one byte back, and
one part may step while another is acted for. A round trip of one byte, medians on two cores of a Xeon at 2.5 GHz: pipe
7 us, eventfd 6 us, which tells nothing of a process that has died, socket pair 12 us, multiprocessing.Connection 14 us;
with what it does to the caches of both sides it takes 45 us from a worker, a tenth of a step of four HalfCheetahs.
Nobody waits by spinning: on the core that this would take another worker steps.
"""

from __future__ import annotations

import functools
import math
import os
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from trpo_fast._core.library import usable_cores
from trpo_fast.environments.acting import ActorPlan, RolledOut
from trpo_fast.environments.base import Environments, StepResult
from trpo_fast.environments.checks import require_same_spaces
from trpo_fast.environments.copies import copies_in, seeds_from
from trpo_fast.environments.generators import made_with_own
from trpo_fast.environments.infos import MOST
from trpo_fast.environments.mujoco_warnings import take_as_said
from trpo_fast.environments.processes import WorkerProcesses, error_in
from trpo_fast.environments.shared_state import SharedState
from trpo_fast.environments.worker import (
    ASK,
    GET_STATE,
    INEXACT,
    MASKS,
    RESET,
    ROLL_OUT,
    SET_STATE,
    SHARED,
    Share,
    size_of,
)
from trpo_fast.environments.worker_process import PATIENCE, WorkerError
from trpo_fast.environments.wrappers import Wrapping
from trpo_fast.state import State

_MOST_FOR_A_ROLLOUT = 1 << 27  # bytes


class _Copies(NamedTuple):
    """Those of one worker."""

    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]
    wrappings: list[Wrapping]
    left_out: tuple[str, ...]
    mask_left_out: bool
    mujoco_said: list[str]


class WorkerEnvironments(Environments):
    """Copies stepped by worker processes, with the bits of `InProcessEnvironments` for any number of workers.

    Workers import no torch, run one thread each, leave Ctrl-C to this process, and end with it. Where one is killed or
    exits, the next call that waits for it raises WorkerError, which names it; after that, and after a call that was
    interrupted, `reset` makes new ones where they are needed. What an environment raises arrives with its type, and
    with notes that name environment, step and worker and hold the worker's traceback.

    Copies that draw from Python's or NumPy's global generator draw from one of their own there, seeded as they are, and
    from `seed` while they are made.

    Parameters
    ----------
    makers : sequence of callables
        Each makes one environment; cloudpickle has to take them.
    num_workers : int, optional
        Processes, as many as copies at most; by default the cores that affinity and control groups grant, shared
        out among the ranks of one machine.
    seed : int, optional
        Of the generators that a constructor which draws from global ones finds there.
    obeys_masks : bool
        As of :class:`Environments`.
    first : int
        Number, among all of a training, of the first copy, for those generators.

    Raises
    ------
    TypeError
        What makes an environment cannot be pickled.
    WorkerError
        A worker ended while its copies were made. What an environment's constructor raises travels as it is.
    """

    narrow_acting = True

    def __init__(
        self,
        makers: Sequence[Callable[[], Any]],
        num_workers: int | None = None,
        seed: int | None = None,
        *,
        obeys_masks: bool = False,
        first: int = 0,
    ) -> None:
        if num_workers is not None and num_workers < 1:
            raise ValueError(f"num_workers: {num_workers} given; want at least 1")
        workers = min(len(makers), _cores_of_this_rank() if num_workers is None else num_workers)
        bounds = [len(makers) * i // workers for i in range(workers + 1)]
        parts = tuple(map(slice, bounds[:-1], bounds[1:]))
        numbered = enumerate(makers, first)
        self._makers = [functools.partial(made_with_own, make_one, seed, i) for i, make_one in numbered]
        self._obeys_masks = obeys_masks
        self._processes = WorkerProcesses(parts)
        self._dispose = weakref.finalize(self, self._processes.dispose)  # called at the interpreter's end, too
        try:
            copies = self._start(parts)
            super().__init__(copies[0].observation_space, copies[0].action_space, len(makers))
            self.parts = parts
            self.left_out, self.mask_left_out = copies[0].left_out, copies[0].mask_left_out
            self.wrappings = [wrapping for own in copies for wrapping in own.wrappings]
            self._shared_state: SharedState | None = None
            self._layout_of_memory = self._lay_out()
            arrays = self._processes.share(self._layout_of_memory)
            self._processes.attach(self._layout_of_memory)
        except BaseException:
            self._dispose()
            raise
        self._rows, self._finals, self._rewards = arrays["rows"], arrays["finals"], arrays["rewards"]
        self._terminated, self._truncated, self._masks = arrays["terminated"], arrays["truncated"], arrays["masks"]
        self._infos, self._told = arrays["infos"], self.asked
        self._rollout_layout: dict[str, tuple[tuple[int, ...], str]] = {}
        self._rollout: dict[str, NDArray[Any]] = {}
        self._actions = [arrays["actions"][own] for own in parts]
        self._results = [
            StepResult(self._rows[own], self._rewards[own], self._terminated[own], self._truncated[own], None)
            for own in parts
        ]

    @property
    def num_workers(self) -> int:
        """Processes among which the copies are shared out."""
        return len(self.parts)

    @property
    def processes(self) -> tuple[int, ...]:
        """Ids of the processes; empty after `close`."""
        return self._processes.ids

    def reset(self, seed: int | None = None) -> NDArray[Any]:
        """Start new episodes everywhere; observations ``(E, D)``. Copy i is seeded with ``seed + i``.

        Workers are made anew after `close`, where one has died, and where one does not come back within a second from a
        step that nobody waits for any more.
        """
        processes = self._settled()
        seeds = {i: seeds_from(seed, own.start, own.stop - own.start) for i, own in enumerate(self.parts)}
        sources = processes.ask(RESET, seeds)
        without = [part for part, source in sources.items() if source is None]
        if without and "method" in sources.values():
            raise ValueError(
                f"action_masks: environment {self.parts[without[0]].start} has no such method, others have"
            )
        has_masks = len(without) < len(self.parts)
        if has_masks:
            processes.ask(MASKS, dict.fromkeys(without))
        self.action_masks = self._masks if has_masks else None
        return self._rows

    def expect_masks(self) -> None:
        """See :class:`Environments`."""
        self._processes.ask(MASKS, dict.fromkeys(range(len(self.parts))))
        self.action_masks = self._masks

    @property
    def infos(self) -> NDArray[np.float64]:
        """See :class:`Environments`."""
        return self._infos[:, : len(self.asked)]

    def _tell_names(self) -> None:
        """Let the workers know what infos are asked for, between two steps of all."""
        if self._told != self.asked:
            self._processes.ask(ASK, dict.fromkeys(range(len(self.parts)), self.asked))
            self._told = self.asked

    @property
    def inexact(self) -> str | None:
        """Why the copies cannot be put back to the bit."""
        return next(filter(None, self._processes.ask(INEXACT, dict.fromkeys(range(len(self.parts)))).values()), None)

    def get_state(self) -> State | None:
        """State of every copy, whichever worker has it; see :class:`Environments`."""
        states = self._processes.ask(GET_STATE, dict.fromkeys(range(len(self.parts))))
        return _in_one([states[part] for part in range(len(self.parts))])

    def set_state(self, state: State, observations: NDArray[Any]) -> None:
        """Put every copy back; workers are made anew as by `reset`. See :class:`Environments`."""
        states = copies_in(state, self.num_envs)
        processes = self._settled()
        sources = processes.ask(SET_STATE, {part: states[own] for part, own in enumerate(self.parts)})
        self._rows[...] = observations
        self.action_masks = self._masks if set(sources.values()) != {None} else None

    def _settled(self) -> WorkerProcesses:
        """Workers that wait for a command: new ones where these do not, or are closed."""
        processes = self._processes
        self._shared_state = self._shared_state or SharedState(None, "not looked at before the first reset")
        if not processes.settle():
            processes.end()
            require_same_spaces(self._start(self.parts)[0], self, whose="env", wanted_by="as at first")
            processes.attach(self._layout_of_memory)
            self._told = ()
        return processes

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Step every copy, all workers at the same time; see :class:`Environments`."""
        for part, own in enumerate(self.parts):
            self.send(part, actions[own])
        has_finals = [self._processes.await_step(part) for part in range(len(self.parts))]
        final = _final_rows(self._finals, self._terminated, self._truncated, 0) if any(has_finals) else None
        return StepResult(self._rows, self._rewards, self._terminated, self._truncated, final)

    def send(self, part: int, actions: NDArray[Any]) -> None:
        """Let a worker begin a step of its copies with `actions`, their rows, which are copied."""
        self._tell_names()
        self._actions[part][...] = actions
        self._processes.begin_step(part)

    def receive(self, part: int) -> StepResult:
        """The result of the step that `send` began in this part; its arrays are valid until the next `send` to it."""
        has_finals = self._processes.await_step(part)
        result = self._results[part]
        if not has_finals:
            return result
        own = self.parts[part]
        final = _final_rows(self._finals[own], result.terminated, result.truncated, own.start)
        return result._replace(final_observations=final)

    def roll_out(self, plan: ActorPlan, first_step: int, steps: int, *, with_state: bool = False) -> RolledOut | None:
        """Let every worker act for its copies and step them `steps` times without a word in between.

        None where that would take too much memory beside the rollout that it is for; see :class:`Environments`.
        """
        layout = self._lay_out_rollout(plan, steps)
        if size_of({name: array for name, array in layout.items() if name != "finals"}) > _MOST_FOR_A_ROLLOUT:
            return None
        if layout != self._rollout_layout:
            self._rollout_layout, self._rollout = layout, self._processes.share_rollouts(layout)
        self._tell_names()
        arrays, processes = self._rollout, self._processes
        arrays["steps"][0] = steps
        done: dict[int, Share] = {}
        complete = False
        deadline = math.inf
        try:
            processes.tell(ROLL_OUT, dict.fromkeys(range(len(self.parts)), (plan, layout, first_step, with_state)))
            while len(done) < len(self.parts):
                try:
                    part = processes.next_part_until(deadline)
                    if part is None:
                        break
                    done[part] = share = processes.value_of(part)
                except WorkerError:
                    if deadline == math.inf:
                        raise
                    break  # what a copy raised is known already, and tells more
                if share.words is not None or share.raised is not None:
                    # The others go on to that step, of which one may be the first to fail: who is first does not depend
                    # on time, unless one of them takes too long for what there is to say already.
                    arrays["steps"][0] = min(arrays["steps"][0], share.steps + 1)
                if share.raised is not None:
                    deadline = min(deadline, time.monotonic() + PATIENCE)
            # As in one process, all act before any of them steps.
            raised_at = [(one.steps, 1, part, one.raised) for part, one in done.items() if one.raised is not None]
            said_at = [(one.steps, 0, part, one.words) for part, one in done.items() if one.words is not None]
            first = min([*raised_at, *said_at], key=lambda at: at[:3], default=None)
            if raised_at and (len(done) < len(self.parts) or first in raised_at):
                raise error_in(min(raised_at)[3])
            complete = True
        finally:
            if not complete:
                arrays["steps"][0] = 0
        shares = [done[part] for part in range(len(self.parts))]
        copies = [
            (t, own.start + np.array(written, np.int64))
            for own, share in zip(self.parts, shares, strict=True)
            for t, written in share.finals
        ]
        failure = min(said_at, default=None)
        return RolledOut(
            raw=arrays["raw"],
            observations=arrays["observations"],
            actions=arrays["actions"],
            log_probs=arrays["log_probs"],
            rewards=arrays["rewards"],
            terminated=arrays["terminated"],
            truncated=arrays["truncated"],
            action_masks=None if self.action_masks is None else arrays["masks"],
            last=self._rows,
            finals=[(t, arrays["finals"][t, indices], indices) for t, indices in copies],
            infos=arrays["infos"],
            state=_in_one([share.states for share in shares]),
            failure=None if failure is None else (failure[0], self.parts[failure[2]], failure[3]),
        )

    def next_part(self) -> int:
        """A part whose step has ended, of those that were sent actions; waits until there is one."""
        return self._processes.next_part()

    def shared_state(self, seed: int) -> SharedState:
        """Steps two copies of one worker, once, and only before their first reset; see `shared_state`."""
        if self._shared_state is None:
            several = [part for part, own in enumerate(self.parts) if own.stop - own.start > 1]
            if several:
                self._shared_state = self._processes.ask(SHARED, {several[0]: seed})[several[0]]
            else:
                self._shared_state = SharedState(False, "one copy in every process")
        assert self._shared_state is not None
        return self._shared_state

    def close(self) -> None:
        """Close the environments and end the workers, within 5 seconds; who does not obey is killed."""
        self._processes.end()

    def _start(self, parts: Sequence[slice]) -> list[_Copies]:
        copies = [_Copies(*about) for about in self._processes.start(self._makers, obeys_masks=self._obeys_masks)]
        for own, theirs in zip(parts, copies, strict=True):
            take_as_said(theirs.mujoco_said)
            require_same_spaces(
                theirs, copies[0], whose=f"env: environment {own.start}", wanted_by="as environment 0 has it"
            )
        return copies

    def _lay_out_rollout(self, plan: ActorPlan, steps: int) -> dict[str, tuple[tuple[int, ...], str]]:
        dtype = plan.parameters.dtype.str
        each = steps, self.num_envs
        rows = *each, self.observation_size
        masks = 0 if self.action_masks is None else self._masks.shape[1]
        return {
            "raw": (rows, self.observation_dtype.str),
            "observations": (rows, dtype),
            "actions": ((steps, *self.action_shape), dtype if self.action_dtype.kind == "f" else "q"),
            "log_probs": (each, dtype),
            "rewards": (each, "d"),
            "terminated": (each, "?"),
            "truncated": (each, "?"),
            "infos": ((*each, len(self.asked)), "d"),
            "masks": ((*each, masks), "?"),
            "finals": (rows, self.observation_dtype.str),  # memory that is never written is never really allocated
            "steps": ((1,), "q"),
        }

    def _lay_out(self) -> dict[str, tuple[tuple[int, ...], str]]:
        rows = (self.num_envs, self.observation_size), self.observation_dtype.str
        flags = (self.num_envs,), "?"
        masks = 0 if self._mask_format is None else self._mask_format.size
        return {
            "rows": rows,
            "finals": rows,
            "rewards": ((self.num_envs,), "d"),
            "terminated": flags,
            "truncated": flags,
            "actions": (self.action_shape, self.action_dtype.str),
            "masks": ((self.num_envs, masks), "?"),
            "infos": ((self.num_envs, MOST), "d"),
        }


def _cores_of_this_rank() -> int:
    """Cores that affinity and control groups grant, shared out among the ranks that torchrun started here."""
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, usable_cores() // max(1, int(ranks) if ranks.isdecimal() else 1))


def _in_one(states: Sequence[list[State] | None]) -> State | None:
    """State of all copies from those of each worker's; None where one has none."""
    every: list[State] = []
    for own in states:
        if own is None:
            return None
        every += own
    return {"copies": every}


def _final_rows(
    finals: NDArray[Any], terminated: NDArray[np.bool_], truncated: NDArray[np.bool_], first: int
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Rows of `finals` (n, D), copied, where an episode was truncated and not terminated, and the copies' indices."""
    cut = np.flatnonzero(truncated & ~terminated)
    return finals[cut], cut + first
