"""One worker process: steps its copies on command, on arrays that it shares with the process that started it.

Neither torch nor anything above this floor is imported here: a worker costs what its simulator costs.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import cloudpickle
import gymnasium
import numpy as np
from numpy.typing import NDArray

from trpo_fast._core.library import set_floating_mode
from trpo_fast._core.recording import Recorder
from trpo_fast.environments.acting import ActorPlan
from trpo_fast.environments.copies import Copies, seeds_from
from trpo_fast.environments.mujoco_warnings import said, take_as_said, unsaid
from trpo_fast.environments.shared_state import shared_state
from trpo_fast.state import State

# Commands, and answers to them. All but STEP, and what says that one is done, are followed by a pickle.
STEP, RESET, ATTACH, MASKS, SHARED, ROLL_OUT, ASK = b"s", b"r", b"a", b"m", b"h", b"o", b"i"
INEXACT, GET_STATE, SET_STATE = b"x", b"g", b"p"
DONE, DONE_WITH_FINALS, VALUE, ERROR = b"d", b"f", b"v", b"e"
CLOSED = b"c"
"""The last thing that a worker says, where there is something to say of closing its copies."""

Layout = Mapping[str, tuple[tuple[int, ...], str]]
"""Shapes and dtypes of arrays by name."""

WRITTEN = ("rows", "rewards", "terminated", "truncated", "finals")
"""Arrays that a worker's copies write, as `Copies.bind` takes them; others are "actions", "masks" and "infos"."""

RECORDED = ("observations", "actions", "log_probs", "rewards", "terminated", "truncated", "raw")
"""Arrays of a rollout that are written at every step; "masks" besides where the copies have some."""

_LENGTH = 8  # bytes of the number in front of a pickle
_ALIGNMENT = 64


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, in as many pieces as a pipe takes."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def read_exactly(descriptor: int, count: int) -> bytes:
    """`count` bytes; EOFError where the other end is closed before that."""
    pieces = []
    while count:
        piece = os.read(descriptor, min(count, 1 << 20))
        if not piece:
            raise EOFError
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def message(code: bytes, data: bytes) -> bytes:
    """`code` followed by a pickle."""
    return code + len(data).to_bytes(_LENGTH, "little") + data


def read_data(descriptor: int) -> bytes:
    """The pickle that follows a code."""
    return read_exactly(descriptor, int.from_bytes(read_exactly(descriptor, _LENGTH), "little"))


def split_data(data: bytes) -> tuple[bytes, bytes]:
    """The pickle that `data` begins with, after a code, and what follows it; nothing for either where it is cut off."""
    end = _LENGTH + int.from_bytes(data[:_LENGTH], "little")
    return (data[_LENGTH:end], data[end:]) if end <= len(data) else (b"", b"")


def size_of(layout: Layout) -> int:
    """Bytes that the arrays of a layout take together; at least one."""
    return max(1, sum(map(_aligned_bytes, layout.values())))


def arrays_in(memory: mmap.mmap, layout: Layout) -> dict[str, NDArray[Any]]:
    """The arrays of a layout, one after the other in `memory`."""
    arrays, offset = {}, 0
    for name, (shape, dtype) in layout.items():
        arrays[name] = np.ndarray(shape, dtype, memory, offset)
        offset += _aligned_bytes((shape, dtype))
    return arrays


def _aligned_bytes(array: tuple[tuple[int, ...], str]) -> int:
    shape, dtype = array
    count = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    return -(-count // _ALIGNMENT) * _ALIGNMENT


def main(commands: int, answers: int, memory: int, rollouts: int) -> None:
    """Serve until the other end of `commands` is closed; the four are file descriptors."""
    # Ctrl-C reaches every process of the terminal. What happens then the main process decides, which has kept it away
    # until here.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    for descriptor in (commands, answers, memory, rollouts):
        os.set_inheritable(descriptor, False)
    threading.Thread(target=_end_with, args=(os.getppid(),), name="parent-watch", daemon=True).start()
    with contextlib.suppress(EOFError, BrokenPipeError):  # the main process has closed its end, or is gone
        _Worker(commands, answers, memory, rollouts).serve()


def _end_with(parent: int) -> None:
    """End this process, wherever it is, soon after its parent: a pipe tells of that only who reads from it."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


class Share(NamedTuple):
    """What a worker did of a rollout, beside what it wrote into shared memory."""

    steps: int
    finals: list[tuple[int, list[int]]]
    """Steps and copies, counted from the worker's first, that have final observations."""
    words: str | None = None
    """What the actor said of a row that it cannot act on in the step after those."""
    raised: bytes | None = None
    """What a copy raised in that step, pickled."""
    states: list[State] | None = None
    """Of every copy, where all went well and they were asked for."""


class _Worker:
    def __init__(self, commands: int, answers: int, memory: int, rollouts: int) -> None:
        self._commands, self._answers, self._memory, self._rollouts = commands, answers, memory, rollouts
        self._layout: Layout = {}  # of the rollouts' memory

    def serve(self) -> None:
        task = pickle.loads(read_data(self._commands))
        self._index, self._first, self._count = task["index"], task["first"], task["count"]
        sys.argv[:] = task["argv"]
        set_floating_mode(task["floating_mode"])
        _register(task["registry"])
        take_as_said(task["said"])
        try:
            with unsaid() if self._first else contextlib.nullcontext():  # the first worker makes the same and says it
                copies = Copies(pickle.loads(task["makers"]), self._first, own_generators=True, **task["options"])
        except SystemExit:
            raise
        except BaseException as error:  # Ctrl-C is left to the main process: this is the environment's own
            write_all(self._answers, self._failure(error))
            return
        try:
            left_out = copies.left_out, copies.mask_left_out
            about = copies.observation_space, copies.action_space, copies.wrappings, *left_out, said()
            write_all(self._answers, message(VALUE, cloudpickle.dumps(about)))  # spaces may be classes of the user's
            self._serve_copies(copies)
        except BaseException:
            copies.close()
            raise
        said_of_closing = copies.closed()
        if said_of_closing:
            write_all(self._answers, message(CLOSED, pickle.dumps(said_of_closing)))

    def _serve_copies(self, copies: Copies) -> None:
        commands, answers = self._commands, self._answers
        shared: dict[str, NDArray[Any]] = {}
        nothing: NDArray[Any] = np.empty(0)  # until there is shared memory
        actions = masks = nothing
        while code := os.read(commands, 1):
            try:
                if code == STEP:
                    written = copies.step(actions.copy())  # environments may keep their actions
                    if copies.masks is not None:
                        masks[...] = copies.masks
                    shared["infos"][:, : copies.infos.shape[1]] = copies.infos
                    answer = DONE_WITH_FINALS if written else DONE
                else:
                    data = pickle.loads(read_data(commands))
                    value: Any = None
                    if code == RESET:
                        copies.reset(data)
                        value = copies.mask_source
                    elif code == MASKS:  # other copies have some
                        copies.expect_masks()
                    elif code == ASK:
                        copies.ask(data)
                    elif code == GET_STATE:
                        value = copies.get_state()
                    elif code == SET_STATE:
                        copies.set_state(data)
                        value = copies.mask_source
                    elif code == INEXACT:
                        value = copies.inexact
                    elif code == SHARED:
                        value = shared_state(copies.envs, seeds_from(data, self._first, self._count))
                    elif code == ATTACH:
                        own = slice(self._first, self._first + self._count)
                        every = arrays_in(mmap.mmap(self._memory, size_of(data)), data)
                        shared = {name: array[own] for name, array in every.items()}
                        actions, masks = shared["actions"], shared["masks"]
                        copies.bind(*(shared[name] for name in WRITTEN))
                    elif code == ROLL_OUT:
                        value = self._roll_out(copies, shared, *data)
                    if copies.masks is not None:
                        masks[...] = copies.masks
                    answer = message(VALUE, pickle.dumps(value))
            except SystemExit:
                raise
            except BaseException as error:
                answer = self._failure(error)
            if len(answer) == 1:
                os.write(answers, answer)
            else:
                write_all(answers, answer)

    def _roll_out(
        self,
        copies: Copies,
        shared: dict[str, NDArray[Any]],
        plan: ActorPlan,
        layout: Layout,
        first_step: int,
        with_state: bool,
    ) -> Share:
        """Act and step until the number of steps in shared memory is reached."""
        if layout != self._layout:
            self._arrays = arrays_in(mmap.mmap(self._rollouts, size_of(layout)), layout)
            self._layout = layout
        arrays = self._arrays
        steps, rows, finals = arrays["steps"], shared["rows"], shared["finals"]
        outcomes = shared["rewards"], shared["terminated"], shared["truncated"]
        masks = {} if copies.masks is None else {"action_masks": arrays["masks"]}
        own = slice(self._first, self._first + self._count)
        recorded = {name: arrays[name] for name in RECORDED}
        actions = shared["actions"].dtype
        recorder = Recorder(
            plan.make(),
            own,
            first_step=first_step,
            first_row=plan.first_copy + self._first,
            env_action_dtype=actions,
            **recorded,
            **masks,
        )
        kept_finals = arrays["finals"][:, own]
        found: list[tuple[int, list[int]]] = []
        asked = copies.infos.shape[1] > 0
        t = 0
        while t < steps[0]:  # which falls where a rollout is given up
            try:
                env_actions = recorder.act(t, rows, copies.masks)
            except FloatingPointError as error:
                return Share(t, found, words=str(error))
            try:
                written = copies.step(env_actions)
            except SystemExit:
                raise
            except BaseException as error:
                return Share(t, found, raised=self._pickled(error))
            recorder.record(t, *outcomes)
            if asked:
                arrays["infos"][t, own] = copies.infos
            if written:
                kept_finals[t, written] = finals[written]
                found.append((t, written))
            t += 1
        return Share(t, found, states=copies.get_state() if with_state else None)

    def _failure(self, error: BaseException) -> bytes:
        """The answer that brings an exception."""
        return message(ERROR, self._pickled(error))

    def _pickled(self, error: BaseException) -> bytes:
        """An exception that is being handled: as it is, where it can be made again, and in words."""
        text = f"{whose(self._index, os.getpid(), self._first, self._count)}:\n{traceback.format_exc().rstrip()}"
        summary = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        words = summary, list(getattr(error, "__notes__", [])), text
        pickled = None
        if isinstance(error, Exception):  # a KeyboardInterrupt, raised again, would be taken for the user's
            with contextlib.suppress(Exception):
                error.add_note(text)
                pickled = _made_again(cloudpickle.dumps(error))
        return pickle.dumps((pickled, *words))


def _made_again(pickled: bytes) -> bytes:
    """`pickled`, which may have been taken and not be made again: raises then."""
    pickle.loads(pickled)
    return pickled


def whose(index: int, process: int, first: int, count: int) -> str:
    """How errors call a worker."""
    copies = f"copy {first}" if count == 1 else f"copies {first} to {first + count - 1}"
    return f"worker {index} (process {process}, {copies})"


def _register(specs: bytes) -> None:
    """Make known here what the main process has registered."""
    # Loading an environment may import the module that registers it, once more.
    warnings.filterwarnings("ignore", r".*Overriding environment .* already in registry", UserWarning)
    for id, spec in pickle.loads(specs).items():
        if id not in gymnasium.registry:
            try:
                gymnasium.registry[id] = pickle.loads(spec)
            except Exception:  # of another environment's, perhaps
                continue
