"""Runs that are killed, stopped or out of room, at moments that are counted, not timed, and gone on with.

Every run is a child of a fork server, and so is whoever goes on with it. How many there were is said at the end.
"""

from __future__ import annotations

import itertools
import json
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.cli.disturbed import BANDIT, IMPORTS, SMALL, TIMESTEPS, UPDATES
from tests.cli.fork_server import Ended, ForkServer
from tests.cli.moments import counted, workers_of
from tests.environments.pids import gone, wait_until
from trpo_fast import model_file
from trpo_fast.progress import read_progress

# Of each stage, in every way of training; the first update's are calls behind its rollout.
KILLS = {"save": 4, "rollout": 3, "evaluation": 2, "warm-up": 1, "first rollout": 1, "first update": 1}
TO_GO_ON = ("go on:\ntrpo-fast train --resume", "evaluate:\ntrpo-fast eval")
SHIFTED = ("call", "first update")  # which are not the same number in every run: there may be fewer than were counted


class Training(NamedTuple):
    """A way of training."""

    env: str
    vectorization: str = "sync"
    num_workers: int | None = None

    @property
    def is_simulated(self) -> bool:
        """Whether it needs MuJoCo."""
        return self.env.endswith("v5")


TRAININGS = (
    Training("CartPole-v1"),
    Training("CartPole-v1", "vector"),
    Training("Pendulum-v1"),
    Training("Pendulum-v1", "workers", 1),
    Training("Hopper-v5"),
    Training("Hopper-v5", "workers", 2),
    Training("Ant-v5"),
    Training("Ant-v5", "workers", 2),
)
LONG = TRAININGS[3], *TRAININGS[5:]
COMMANDS = {
    Training("CartPole-v1"): {"save": 1, "evaluation": 1},
    Training("Pendulum-v1"): {"save": 1, "warm-up": 1},
    Training("Hopper-v5", "workers", 2): {"rollout": 1},
}
ANYWHERE = {(BANDIT, "file"): 8, (BANDIT, "call"): 6, ("Pendulum-v1", "call"): 4, ("CartPole-v1", "call"): 4}
SIGNALS = {signal.SIGTERM: {BANDIT: 6, "CartPole-v1": 7, "Pendulum-v1": 7}, signal.SIGHUP: {BANDIT: 3}}
SIGNALS[signal.SIGINT] = {BANDIT: 3}
FULL = 20
KWARGS = {"max_episode_steps": 17}  # episodes begin and end within a rollout


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


class Runs:
    """Runs of one kind in one folder, and the undisturbed one that all of them have to end as."""

    def __init__(self, server: ForkServer, folder: Path, training: Training, *, by_command: bool) -> None:
        self.folder, self.training, self.by_command = folder, training, by_command
        self._server = server
        self._numbers = itertools.count()
        self._counted = "CartPole-v1" if training.env == BANDIT else training.env  # the bandit's steps are not
        self.undisturbed = Run(self, {"env": self._counted})
        assert self.undisturbed.ended.code == 0, self.undisturbed.ended.said
        self.counts = counted(self.undisturbed.folder / "moments")
        self.wanted = self.undisturbed.end()
        assert len(self.wanted["rows"]) >= UPDATES  # more where a copy that resets learns from no step

    def draw(self, seed: str, stage: str, number: int) -> list[int]:
        """Moments of a stage, in order."""
        count = self.counts[stage]
        assert count > 2 * number, (stage, self.counts)
        return sorted(random.Random(f"{seed} {self.training} {stage}").sample(range(1, count + 1), number))

    def disturbed(self, stage: str, number: int, act: signal.Signals = signal.SIGKILL) -> Run:
        """One that got a signal at this moment; at an earlier one where it did not come to it."""
        while True:
            run = Run(self, {"env": self._counted, "stage": stage, "number": number, "signal": int(act)})
            if run.ended.code or stage not in SHIFTED or number == 1:
                return run
            number = number * 3 // 4

    def do(self, folder: Path, more: dict[str, Any]) -> Ended:
        """Begin the training in a folder, or go on with it."""
        folder.mkdir(exist_ok=True)
        env, vectorization, num_workers = self.training
        job: dict[str, Any] = {"cwd": str(folder), **more}
        if not self.by_command:
            training = {"env": env, "vectorization": vectorization, "num_workers": num_workers, "kwargs": KWARGS}
            return self._server.run({**job, "train": training, "out": "run"})
        counting = () if env == BANDIT else ("--import", IMPORTS)
        if (folder / "run" / "config.json").exists():
            options = ("--resume", "run")  # which has the others
        else:
            workers = () if num_workers is None else ("--num-workers", str(num_workers))
            kwargs = () if env == BANDIT else ("--env-kwargs", json.dumps(KWARGS))
            options = (env, "--vectorization", vectorization, *workers, *kwargs, "--out", "run", *SMALL)
        return self._server.run({**job, "arguments": ["train", *options, *counting]})

    def evaluated(self, folder: Path) -> str:
        """What the command line finds a run worth."""
        counting = () if self.training.env == BANDIT else ("--import", IMPORTS)
        arguments = ["eval", "run", "--episodes", "2", "--json", *counting]
        ended = self._server.run({"cwd": str(folder), "arguments": arguments})
        assert ended.code == 0, ended.said
        return ended.said.splitlines()[-1]


class Run:
    """One run, which has ended; and what became of it."""

    def __init__(self, runs: Runs, disturbance: dict[str, Any]) -> None:
        self._runs = runs
        self.folder = runs.folder / f"{next(runs._numbers)}"
        self.ended = runs.do(self.folder, disturbance)
        assert "Traceback" not in self.ended.said and "Exception ignored" not in self.ended.said, self.ended.said

    @property
    def out(self) -> Path:
        return self.folder / "run"

    def require_no_worker(self) -> None:
        """A training that is gone leaves no process behind."""
        pids = workers_of(self.folder / "moments")
        assert len(pids) >= (self._runs.training.num_workers or 0)
        assert wait_until(lambda: all(map(gone, pids))), pids

    def go_on(self) -> None:
        """Let another process end the training, and require that it ends as the undisturbed one."""
        if not self._has_ended():
            again = self._runs.do(self.folder, {})
            assert again.code == 0, f"{self.ended.said}\n{again.said}"
            assert "Traceback" not in again.said and "Exception ignored" not in again.said, again.said
        for name, found in self.end().items():
            assert found == self._runs.wanted[name], f"{name}: {self.ended.said}"
        # The lock of a process that was killed after the end lies there, and holds nothing.
        left = [path.name for path in self.out.rglob(".*") if path.name != ".lock"]
        assert left == [], "left-overs of the process that was killed are removed"

    def _has_ended(self) -> bool:
        model = self.out / "model.trpo"
        if not self._runs.by_command or not model.exists():
            return False
        return bool(model_file.read_metadata(model)["counters"]["num_timesteps"] == TIMESTEPS)

    def end(self) -> dict[str, Any]:
        """Everything that has to be the same: bits of the models, rows, evaluations."""
        found: dict[str, Any] = {"rows": rows(self.out)}
        for name in ("model.trpo", "best.trpo"):
            if (self.out / name).exists():
                arrays, metadata = model_file.read(self.out / name)
                counters = metadata["counters"]
                if self._runs.training.env == BANDIT:  # an episode that was cut is another one, and has the same bits
                    counters.pop("collector")
                found[name] = {key: array.tobytes() for key, array in arrays.items()} | {"counters": counters}
        if self._runs.by_command:
            found["evaluation"] = self._runs.evaluated(self.folder)
        else:
            lines = (self.out / "evaluations").read_text().splitlines()
            found["evaluations"] = sorted(set(lines))  # one that a killed process had, too, is the same
            found["end"] = json.loads((self.out / "end.json").read_text())
        return found


def rows(folder: Path) -> list[dict[str, str]]:
    timed = ("time/time_elapsed", "time/fps", "timings/")
    return [{k: v for k, v in row.items() if not k.startswith(timed)} for row in read_progress(folder / "progress.csv")]


def named(training: Training) -> str:
    return f"{training.env}-{training.vectorization}"


def require(training: Training) -> None:
    if training.is_simulated:
        pytest.importorskip("mujoco")


@pytest.fixture
def report(record_property) -> Any:
    """``report("killed in: save")``: the summary counts them."""
    return lambda what: record_property(f"survival: {what}", 1)


def killed_and_gone_on_with(runs: Runs, seed: str, stages: dict[str, int], report: Any) -> None:
    for stage, number in stages.items():
        for moment in runs.draw(seed, stage, number):
            run = runs.disturbed(stage, moment)
            assert run.ended.code == -signal.SIGKILL, f"{stage} {moment} of {runs.counts[stage]}: {run.ended.said}"
            run.go_on()
            run.require_no_worker()
            report(f"killed in: {stage}" + (" (command line)" if runs.by_command else ""))


def test_the_moments_are_as_many_as_promised():
    total: Counter[str] = Counter()
    for _ in TRAININGS:
        total.update(KILLS)
    by_command = sum((Counter(stages) for stages in COMMANDS.values()), Counter())
    assert by_command.total() == 5
    total += by_command
    assert total.total() >= 100
    assert total["save"] >= 20 and total["rollout"] >= 20 and total["evaluation"] >= 10
    assert total["warm-up"] + total["first rollout"] + total["first update"] >= 10
    assert sum(SIGNALS[signal.SIGTERM].values()) == FULL == 20


@pytest.mark.parametrize(
    "training",
    [pytest.param(one, marks=pytest.mark.long if one in LONG else ()) for one in TRAININGS],
    ids=named,
)
def test_a_training_that_is_killed_goes_on_to_the_same_bits_rows_and_evaluations(training, server, tmp_path, report):
    require(training)
    runs = Runs(server, tmp_path, training, by_command=False)
    killed_and_gone_on_with(runs, "training", KILLS, report)


@pytest.mark.parametrize("training", COMMANDS, ids=named)
def test_a_run_of_the_command_line_that_is_killed_goes_on_to_the_same_bits_and_rows(training, server, tmp_path, report):
    require(training)
    runs = Runs(server, tmp_path, training, by_command=True)
    killed_and_gone_on_with(runs, "command", COMMANDS[training], report)


@pytest.mark.parametrize(("env", "stage"), ANYWHERE)
def test_a_run_that_is_killed_anywhere_goes_on_to_the_same_bits_and_rows(env, stage, server, tmp_path, report):
    runs = Runs(server, tmp_path, Training(env), by_command=True)
    assert runs.counts["file"] > 60
    killed_and_gone_on_with(runs, "anywhere", {stage: ANYWHERE[env, stage]}, report)


@pytest.mark.parametrize(
    ("number", "env"), [(number, env) for number, envs in SIGNALS.items() for env in envs], ids=lambda given: str(given)
)
def test_a_signal_anywhere_ends_the_run_in_a_line_saved_and_the_run_goes_on(number, env, server, tmp_path, report):
    runs = Runs(server, tmp_path, Training(env), by_command=True)
    for moment in runs.draw(f"{number}", "call", SIGNALS[number][env]):
        run = runs.disturbed("call", moment, number)
        # A shell reports both as 128 and the number; the second is of before the command looks at signals.
        assert run.ended.code in (128 + number, -number), run.ended
        if (run.out / "config.json").exists():
            stopped = any(f"saved; to {command} run" in run.ended.said for command in TO_GO_ON)
            assert stopped or "model    run/model.trpo" in run.ended.said, run.ended.said
        run.go_on()
        report(f"stopped by {signal.Signals(number).name}")


def test_a_full_disk_is_said_the_run_goes_on_and_what_was_saved_stays(server, tmp_path, report):
    runs = Runs(server, tmp_path, Training("CartPole-v1"), by_command=True)
    never = Run(runs, {"full": [0, 0]})
    total = int((never.folder / "changes").read_text())
    assert total > 30
    chance = random.Random("full")
    survived = 0
    for index, first in enumerate(sorted(chance.sample(range(1, total + 1), FULL))):
        # Until something is deleted somewhere, or to the end.
        count = chance.randrange(1, 6) if index % 3 else 2**31
        run = Run(runs, {"full": [first, count]})
        assert run.ended.code in (0, 1, 2), run.ended
        assert (run.ended.code == 1) == ("trpo-fast train --resume run" in run.ended.said), run.ended
        assert "No space left on device" in run.ended.said
        if run.ended.code == 0:
            survived += 1
            assert "the training goes on" in run.ended.said or "curve" in run.ended.said
        models = [*run.out.rglob("*.trpo")]
        for path in models:
            model_file.read(path)
        assert [*run.folder.rglob("*.new")] == [], "nothing half-written is left"
        assert models or not (run.out / "config.json").exists(), "a run that began has a file to go on with"
        run.go_on()
        report("found the disk full")
    assert survived >= FULL // 4
