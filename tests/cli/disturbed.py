"""Trainings that are disturbed, in a child of `tests.cli.fork_server`: at a counted moment, or by a full disk.

A job is a dict:

``arguments``
    Of the command line; or
``train``
    Of a training in Python: ``env``, ``vectorization``, ``num_workers``, in a folder ``out``, which is gone on with
    where it holds a file of the agent.
``env``
    Whose steps are counted.
``stage``, ``number``, ``signal``
    The moment, and what the training gets there; without a stage all moments are counted.
``full``
    (first, count): on a disk that takes nothing from the first-th change on that needs room, until `count` later.
"""

from __future__ import annotations

import errno
import functools
import io
import json
import os
import signal
import stat
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from tests.cli import counted_steps
from tests.cli.moments import VARIABLE, Moments
from trpo_fast._core import library
from trpo_fast.algorithm import checkpoint
from trpo_fast.algorithm.callbacks import CheckpointCallback, EvaluationCallback
from trpo_fast.algorithm.logging import RunLogger
from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.cli import evaluate, export, plot, train
from trpo_fast.cli.main import main
from trpo_fast.rollout.collector import Collector

COMMANDS = (evaluate, export, plot, train)  # imported before a child is made
IMPORTS = "tests.cli.counted_steps"
NUM_ENVS, STEPS, WARM_UP, UPDATES = 2, 16, 4, 5
UPDATE = NUM_ENVS * STEPS
TIMESTEPS = UPDATES * UPDATE
SETTINGS: dict[str, Any] = {
    **{"num_envs": NUM_ENVS, "steps_per_env": STEPS, "warm_up_steps": WARM_UP, "seed": 5, "preset": None},
    **{"hidden_sizes": (4,), "critic_hidden_sizes": (4,), "critic_epochs": 1, "critic_batch_size": 16},
}
SMALL = (
    *("--num-envs", str(NUM_ENVS), "--steps-per-env", str(STEPS), "--warm-up-steps", str(WARM_UP)),
    *("--hidden-sizes", "4", "--critic-hidden-sizes", "4", "--critic-epochs", "1", "--critic-batch-size", "16"),
    *("--eval-episodes", "1", "--checkpoint-every", str(UPDATE), "--timesteps", str(TIMESTEPS)),
)
BANDIT = "SurvivalBandit-v0"


class Bandit(gymnasium.Env[Any, Any]):
    """Episodes of one step without chance: a new one is the one that was cut."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.array([0.5, -0.5], np.float32), {}

    def step(self, action: Any) -> Any:
        return np.array([0.5, -0.5], np.float32), float(action == 1), True, False, {}


gymnasium.register(BANDIT, Bandit)
for name in counted_steps.CLASSES:
    counted_steps.count_steps_of(name)
torch.set_num_threads(1)
# What is imported or looked up when an agent is first made or saved, too.
torch.nn.utils.skip_init(torch.nn.Linear, 1, 1)
checkpoint.versions()


def run(job: Mapping[str, Any]) -> int:
    """The exit code of a job; a child's alone, whose process it changes for good."""
    # Neither curves nor events, whose thread would not be counted.
    for name in ("matplotlib.figure", "tensorboard"):
        sys.modules[name] = None  # type: ignore[assignment]
    library.set_num_threads(1)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if job.get("env"):
        _watch(job)
    if job.get("full"):
        _fill_disk(*job["full"])
    if "train" in job:
        return _train(Path(job["out"]), **job["train"])
    try:
        return main(job["arguments"])
    except SystemExit as end:  # of what cannot be parsed
        return int(end.code or 0)


def _train(out: Path, env: str, vectorization: str, num_workers: int | None, kwargs: Any) -> int:
    """The training in Python: evaluated, logged and saved on the way, saved and evaluated at the end."""
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "evaluate: .* had not ended")
    warnings.filterwarnings("ignore", ".* or of one that left no model")  # killed before its first checkpoint
    out.mkdir(exist_ok=True)
    try:
        agent = TRPO.load(out, imports=[IMPORTS])
    except FileNotFoundError:
        making = {"vectorization": vectorization, "num_workers": num_workers, "env_kwargs": kwargs}
        agent = TRPO(env, imports=[IMPORTS], **making, **SETTINGS)
    evaluation = EvaluationCallback(
        2 * UPDATE, episodes=2, deterministic=False, env=env, max_steps=20, best_path=out / "best.trpo"
    )
    noted = 0

    def note(agent: TRPO) -> None:
        nonlocal noted
        for timesteps, result in evaluation.results[noted:]:
            with (out / "evaluations").open("a") as file:
                file.write(f"{timesteps} {result.returns.tolist()}\n")
        noted = len(evaluation.results)

    callbacks = [RunLogger(out, tensorboard=False), evaluation, note, CheckpointCallback(out / "checkpoints", UPDATE)]
    if agent.num_timesteps < TIMESTEPS:
        agent.learn(TIMESTEPS - agent.num_timesteps, callbacks, reset_num_timesteps=False)
    assert agent.inexact is None, agent.inexact
    agent.save(out / "model.trpo")
    result = agent.evaluate(2, env=env, max_steps=20)
    (out / "end.json").write_text(json.dumps(result.returns.tolist()))
    agent.close()
    return 0


def _watch(job: Mapping[str, Any]) -> None:
    """Let the moments of this process, and of workers that it starts, be counted, and its one come."""
    path = Path("moments").resolve()
    stage, number = job.get("stage"), job.get("number", 0)
    moments = Moments.make(path, stage, number, job.get("signal", signal.SIGKILL))
    os.environ[VARIABLE] = f"{path}:{job['env']}"
    counted_steps.moments = moments
    calls = _Calls(moments)

    @contextmanager
    def at(stage: str) -> Iterator[None]:
        calls.of_first_update = False
        moments.stage = stage
        try:
            yield
        finally:
            moments.stage = None

    warm_up, collect, evaluated = Collector.warm_up, Collector.collect, TRPO.evaluate

    def warm_up_counted(self: Collector, steps: int) -> None:
        with at("warm-up"):
            warm_up(self, steps)

    def collect_counted(self: Collector) -> Any:
        is_first = self.get_state()["step"] <= WARM_UP
        with at("first rollout" if is_first else "rollout"):
            rollout = collect(self)
        calls.of_first_update = is_first
        return rollout

    def evaluate_counted(self: TRPO, *arguments: Any, **named: Any) -> Any:
        with at("evaluation"):
            return evaluated(self, *arguments, **named)

    Collector.warm_up = warm_up_counted  # type: ignore[method-assign]
    Collector.collect = collect_counted  # type: ignore[method-assign]
    TRPO.evaluate = evaluate_counted  # type: ignore[method-assign]
    _watch_saves(lambda: moments.reach("save"))
    if stage in (None, "first update", "file", "call"):
        sys.setprofile(calls)


class _Calls:
    """Counts calls of the main thread: all, those of the first update behind its rollout, those that change files."""

    CHANGES = frozenset({"open", "fsync", "replace", "link", "unlink", "mkdir", "rmdir", "ftruncate", "flock"})

    def __init__(self, moments: Moments) -> None:
        self.of_first_update = False
        self._moments = moments
        self._all = moments.wanted in (None, "call")
        self._files = moments.wanted in (None, "file")

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        if event not in ("call", "c_call"):
            return
        if self._files and event == "c_call" and self._changes_a_file(argument):
            self._moments.reach("file")
        if frame.f_code.co_filename == __file__:
            return
        if self._all:
            self._moments.reach("call")
        if self.of_first_update:
            self._moments.reach("first update")

    def _changes_a_file(self, function: Any) -> bool:
        if function.__name__ == "write":
            return isinstance(function.__self__, io.FileIO | io.BufferedWriter)
        return function.__name__ in self.CHANGES and function.__module__ in ("posix", "fcntl")


class _File:
    """A file whose writes are looked at half-way, too."""

    def __init__(self, file: Any, before: Callable[[], None], half_way: Callable[[], None]) -> None:
        self._file, self._before, self._half_way = file, before, half_way

    def write(self, data: Any) -> int:
        self._before()
        half = len(data) // 2
        self._file.write(data[:half])
        self._file.flush()
        self._half_way()
        self._file.write(data[half:])
        self._file.flush()
        return len(data)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _watch_saves(reach: Callable[[], None]) -> None:
    """Reach a moment before and after each change of a model's file and of the folder that it lies in."""
    handles: set[int] = set()

    def concerns(arguments: Any) -> bool:
        return any(
            argument in handles
            if isinstance(argument, int)
            else str(argument).endswith((".trpo", ".new", "checkpoints"))
            for argument in arguments[:2]
        )

    def watched(name: str) -> None:
        real = getattr(os, name)

        @functools.wraps(real)
        def function(*arguments: Any, **named: Any) -> Any:
            if not concerns(arguments):
                return real(*arguments, **named)
            reach()
            answer = real(*arguments, **named)
            if name == "open":
                handles.add(answer)
            elif name == "fsync":
                handles.discard(arguments[0])
            reach()
            return answer

        setattr(os, name, function)

    for name in ("open", "fsync", "replace", "link", "unlink"):
        watched(name)
    fdopen = os.fdopen

    def opened(handle: int, *arguments: Any, **named: Any) -> Any:
        file = fdopen(handle, *arguments, **named)
        return _File(file, reach, reach) if handle in handles else file

    os.fdopen = opened


def _fill_disk(first: int, count: int) -> None:
    """Let `count` changes that need room fail from the first-th on, and say at the end how many there were."""
    changes = 0

    def take_room() -> None:
        nonlocal changes
        changes += 1
        Path("changes").write_text(str(changes))
        if first <= changes < first + count:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def taking(name: str, when: Callable[..., bool]) -> None:
        real = getattr(os, name)

        @functools.wraps(real)
        def function(*arguments: Any, **named: Any) -> Any:
            if when(*arguments, **named):
                take_room()
            return real(*arguments, **named)

        setattr(os, name, function)

    taking("open", lambda path, flags, *_, **__: bool(flags & os.O_CREAT) and not str(path).endswith(".lock"))
    taking("fsync", lambda handle: stat.S_ISREG(os.fstat(handle).st_mode))
    for name in ("link", "mkdir"):
        taking(name, lambda *_, **__: True)
    fdopen, opened = os.fdopen, io.open
    os.fdopen = lambda *arguments, **named: _File(fdopen(*arguments, **named), lambda: None, take_room)

    def open_rows(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        made = opened(file, mode, *arguments, **named)
        return _File(made, lambda: None, take_room) if "a" in mode else made

    io.open = open_rows  # type: ignore[assignment]
