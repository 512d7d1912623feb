"""This build beside an earlier one: the targets of the solver core's second generation, and whether they hold here.

    python -m bench.side_by_side [--against REV_OR_PATH] [--only WORD ...] [--rounds 7] [--starts 3] [--out FILE]

--against names a revision, which is built in a temporary folder, or a checkout that is built already. Each build runs
in processes of its own, on the same cores with the same number of threads, which take turns in short rounds: before,
now, before, now. A row is the median of the ratios of rounds that followed each other, and their quartiles. Processes
are started several times, since where memory lies in one of them is the same for all of its rounds.

What either side computed, before the first round and in the last, is compared with float64 NumPy; a wrong answer is an
error, not a row. Two rows compare this build with itself on one thread; those beside sb3-contrib are made by
`bench.compare_sb3`. Goals hold for the kind of CPU that they name; figures are this CPU's, which the JSON describes.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import trpo_fast
from bench.builds import BEFORE, ROOT, Worker, checkout, revision
from bench.checks import ExactPolicy, critic_loss
from bench.machine import built_from, caches_of, core_of, describe, kind_of, result_path, share_of_cores
from bench.problems import CHEETAH, HUMANOID, ChoiceProblem, PolicyProblem, UpdateSettings
from bench.report import OUTCOMES
from tests import reference
from trpo_fast.benchmarks import QUIET, WrongAnswer, duration, relative_error
from trpo_fast.benchmarks.oracle import exact_fit

SIDE = Path(__file__).with_name("timed_side.py")
SCHEMA = "trpo_fast.side_by_side/1"
ROUND_SECONDS = 0.05
SETTINGS = UpdateSettings()
CRITIC = {
    "critic_epochs": SETTINGS.critic_epochs,
    "critic_batch_size": SETTINGS.critic_batch_size,
    "critic_learning_rate": SETTINGS.critic_learning_rate,
}
PEER_PACKAGES = ("stable_baselines3", "sb3_contrib", "mujoco")
BF16 = ("fisher_precision",)
ALL_BF16 = (*BF16, "critic_precision")
Problem = PolicyProblem | ChoiceProblem
Answer = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Goal:
    """A ratio to reach; the rows of bf16 products have a lower one where float32 has two pipes already."""

    ratio: float
    with_two_pipes: float | None = None

    def on(self, machine: Mapping[str, Any]) -> float:
        """On the kind of CPU that was described; the higher one where that is not known."""
        core = core_of(machine)
        lower = self.with_two_pipes is not None and core is not None and core.pipes == 2
        return self.with_two_pipes if lower and self.with_two_pipes is not None else self.ratio


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    kind: str  # of `bench.timed_side`
    problem: Problem
    goal: Goal
    threads: int = 1
    bf16: tuple[str, ...] = ()  # settings of this build that are "bfloat16"; the other's are float32
    to_itself: bool = False  # on one thread, instead of the build before
    jacobians: bool = False  # this build's products go through cached output Jacobians, which are made before

    @property
    def settings(self) -> dict[str, Any]:
        """What the side is told besides the problem."""
        if self.kind == "solve":
            return {"iterations": SETTINGS.cg_iterations, "damping": SETTINGS.damping}
        if self.kind == "fit":
            return {"critic": CRITIC}
        if self.kind == "update":
            step = {name: getattr(SETTINGS, name) for name in ("max_kl", "damping", "cg_iterations")}
            return {"critic": CRITIC, **step}
        return {"jacobians": True} if self.jacobians else {}


@dataclass(frozen=True)
class PeerRow:
    """A line of whole training beside sb3-contrib, whose goal was set for a core of one kind."""

    name: str
    goal: Goal
    threads: int = 1
    bf16: tuple[str, ...] = ()
    of: str = "Zen 4"


BATCH = PolicyProblem(CHEETAH, 2_048)
_NAME = f"{BATCH.name}, B=2,048"
_EPOCHS = "20 epochs of 128 over 2,048"
ROWS: tuple[Row | PeerRow, ...] = (
    Row(f"F v, {_NAME}", "fisher", BATCH, Goal(1.3)),
    Row(f"F v, {_NAME}, cached Jacobians", "fisher", BATCH, Goal(1.3), jacobians=True),
    Row(f"solve of 25 iterations, set-up included, {_NAME}", "solve", BATCH, Goal(1.25)),
    Row(f"F v, {_NAME}, bf16 products", "fisher", BATCH, Goal(2.0, 1.7), bf16=BF16),
    Row(f"solve of 25 iterations, set-up included, {_NAME}, bf16 products", "solve", BATCH, Goal(1.8, 1.5), 1, BF16),
    Row(f"critic's fit, {_EPOCHS}", "fit", BATCH, Goal(1.3)),
    Row(f"critic's fit, {_EPOCHS}", "fit", BATCH, Goal(1.8), threads=2),
    Row("whole update", "update", BATCH, Goal(1.25)),
    Row("whole update, bf16 products", "update", BATCH, Goal(1.45), bf16=BF16),
    Row("whole update, bf16 products, the critic's as well", "update", BATCH, Goal(1.65), bf16=ALL_BF16),
    Row("whole update", "update", BATCH, Goal(1.5), threads=2),
    *(
        Row(
            f"F v, {problem.name}, B={problem.batch:,}, two threads over one", "fisher", problem, Goal(1.9), 2, (), True
        )
        for hidden in (64, 256)
        for problem in (PolicyProblem((17, hidden, hidden, 6), batch) for batch in (8_192, 50_000))
    ),
    Row("a trial, categorical of 18 logits, 17-64-64-18, B=2,048", "trial", ChoiceProblem((18,)), Goal(2.5)),
    Row("F v, multicategorical of 6 x 6, 17-64-64-36, B=2,048", "fisher", ChoiceProblem((6,) * 6), Goal(1.35)),
    Row("act of one row, 256 steps of a rollout, 376-256-256-17", "act", PolicyProblem(HUMANOID, 1), Goal(2.5)),
    PeerRow("update beside sb3-contrib", Goal(8.8)),
    PeerRow("update beside sb3-contrib", Goal(12.0), threads=2),
    PeerRow("update beside sb3-contrib, bf16 products", Goal(10.0), bf16=BF16),
)


def oracle(problem: Problem) -> reference.Policy:
    """In float64."""
    if isinstance(problem, PolicyProblem):
        return reference.Policy(problem.widths, "tanh", "gaussian")
    several = len(problem.choices) > 1
    return reference.Policy(
        problem.widths, "tanh", "multicategorical" if several else "categorical", problem.choices if several else ()
    )


@cache
def arrays_of(problem: Problem) -> dict[str, NDArray[Any]]:
    """What both sides are given."""
    names = ("parameters", "observations", "actions", "advantages", "direction")
    arrays = {name: getattr(problem, name) for name in names}
    # A step of the length that a line search tries: its KL is some hundredths.
    gradient = oracle(problem).surrogate_gradient(
        problem.parameters, problem.observations, problem.actions, problem.advantages
    )
    arrays["gradient"] = gradient.astype(np.float32)
    # A single row of advantage 0 has no gradient.
    arrays["trial"] = (problem.parameters + 0.1 * gradient / (np.linalg.norm(gradient) or 1)).astype(np.float32)
    if isinstance(problem, PolicyProblem):
        layers = problem.critic_layers
        arrays |= {"critic": np.concatenate([part.ravel() for layer in layers for part in layer])}
        arrays["returns"] = problem.returns
    return arrays


@cache
def _exact_product(problem: Problem) -> NDArray[np.float64]:
    total: Any = 0.0
    exact = oracle(problem)
    for start in range(0, problem.batch, 8_192):  # bounds the memory of the activations
        rows = problem.observations[start : start + 8_192]
        total = total + exact.fisher_product(problem.parameters, rows, problem.direction, total=problem.batch)
    found: NDArray[np.float64] = total
    return found


@cache
def _exact_direction(problem: PolicyProblem) -> NDArray[np.float64]:
    return reference.conjugate_gradient(
        ExactPolicy(problem).fisher_product, arrays_of(problem)["gradient"], SETTINGS.cg_iterations, SETTINGS.damping
    )


@cache
def _exact_step(problem: PolicyProblem) -> float:
    """Improvement of the surrogate."""
    policy = ExactPolicy(problem)
    return policy.evaluate(policy.trust_region_step(SETTINGS))[0]


@cache
def _exact_critic(problem: PolicyProblem) -> NDArray[np.float64]:
    return exact_fit(problem, SETTINGS.critic_epochs, SETTINGS.critic_batch_size, SETTINGS.critic_learning_rate)


def _within(value: float, low: float, high: float, what: str) -> float:
    if not low <= value <= high:  # a NaN is wrong, too
        raise WrongAnswer(f"{what}: {value:.2g}, wanted {low:g} to {high:g}; a wrong answer has no time")
    return value


def _gain(problem: PolicyProblem, x: NDArray[Any]) -> float:
    """g'x / sqrt(x'(F + damping I)x): what a step along x promises."""
    x = x.astype(np.float64)
    curvature = x @ ExactPolicy(problem).fisher_product(x) + SETTINGS.damping * (x @ x)
    return float(arrays_of(problem)["gradient"].astype(np.float64) @ x / np.sqrt(curvature))


def _check_product(row: Row, answer: Answer, narrow: bool) -> float:
    error = relative_error(answer["product"], _exact_product(row.problem))
    # Numbers of eight bits have an error of thousandths; a smaller one is float32's.
    return _within(error, 1e-4 if narrow else 0.0, 2e-2 if narrow else 2e-6, "the product's error")


def _check_solve(row: Row, answer: Answer, narrow: bool) -> float:
    assert isinstance(row.problem, PolicyProblem)
    exact = _exact_direction(row.problem)
    relative = _gain(row.problem, answer["x"]) / _gain(row.problem, exact)
    _within(relative, 0.995 if narrow else 0.9999, 1.0001, "the direction's gain, of the exact one's")
    error = relative_error(answer["x"], exact)
    return _within(error, 1e-4 if narrow else 0.0, 0.2 if narrow else 1e-4, "the direction's error")


def _check_fit(row: Row, answer: Answer, narrow: bool) -> float:
    assert isinstance(row.problem, PolicyProblem)
    exact, start = _exact_critic(row.problem), arrays_of(row.problem)["critic"]
    loss = critic_loss(row.problem, answer["critic"]) / critic_loss(row.problem, exact)
    _within(loss, 0.9 if narrow else 0.999, 1.1 if narrow else 1.001, "the critic's loss, of the exact one's")
    error = relative_error(answer["critic"] - start, exact - start)
    return _within(error, 1e-3 if narrow else 0.0, 0.5 if narrow else 1e-3, "the error of the critic's change")


def _check_update(row: Row, answer: Answer, narrow: bool) -> float:
    assert isinstance(row.problem, PolicyProblem)
    _check_fit(row, answer, narrow and "critic_precision" in row.bf16)
    improvement, kl = ExactPolicy(row.problem).evaluate(answer["parameters"])
    _within(kl, 1e-9, SETTINGS.max_kl * (1 + 1e-4), "the step's KL")
    relative = improvement / _exact_step(row.problem)
    far = 1e-2 if narrow else 1e-4
    return abs(_within(relative, 1 - far, 1 + far, "the step's improvement, of the exact one's") - 1)


def _check_trial(row: Row, answer: Answer, narrow: bool) -> float:
    problem = row.problem
    exact = oracle(problem).evaluate(
        arrays_of(problem)["trial"], problem.parameters, problem.observations, problem.actions, problem.advantages
    )
    improvement, kl = (float(value) for value in answer["evaluation"])
    _within(improvement / exact[0], 1 - 1e-3, 1 + 1e-3, "the trial's improvement, of the exact one's")
    return abs(_within(kl / exact[1], 1 - 1e-3, 1 + 1e-3, "the trial's KL, of the exact one's") - 1)


def _check_act(row: Row, answer: Answer, narrow: bool) -> float:
    assert isinstance(row.problem, PolicyProblem)
    policy, actions = ExactPolicy(row.problem), answer["actions"]
    far = np.abs((actions - policy.mean()) / np.exp(row.problem.log_std)).max()
    _within(float(far), 0.0, 8.0, "an action's distance from the mean, in standard deviations")
    _within(float(np.abs(answer["clipped"] - actions.clip(-1, 1)).max()), 0.0, 0.0, "an action's error as clipped")
    return _within(
        relative_error(answer["log_probs"], policy.log_prob(actions)), 0.0, 1e-5, "the log-probability's error"
    )


CHECKS: dict[str, Callable[[Row, Answer, bool], float]] = {
    "fisher": _check_product,
    "solve": _check_solve,
    "fit": _check_fit,
    "update": _check_update,
    "trial": _check_trial,
    "act": _check_act,
}


def check(row: Row, side: str, answer: Answer) -> float:
    """The error of what a side computed; WrongAnswer naming row and side where it is too large."""
    narrow = side == "now" and bool(row.bf16)
    try:
        return CHECKS[row.kind](row, answer, narrow)
    except WrongAnswer as error:
        raise WrongAnswer(f"{row.name}, on {row.threads}, {side}: {error}") from None


class Side(Worker):
    """One of the two builds on some threads."""

    def __init__(self, stack: ExitStack, build: Path, threads: int, folder: Path) -> None:
        counts = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        super().__init__(stack, SIDE, build, counts)
        # The last ones: the first serve what interrupts the others.
        cores = sorted(os.sched_getaffinity(0))[-threads:]
        self._answer = folder / f"answer-{id(self)}.npz"
        self.ask({"checkout": str(build), "cores": cores, "threads": threads})
        self.instruction_set = self.answer()["instruction_set"]

    def prepare(self, row: Row, problem: Path, bf16: Sequence[str]) -> dict[str, Any]:
        """Make what is timed, and call it once."""
        hidden = row.problem.widths[1:-1]
        choices = row.problem.choices if isinstance(row.problem, ChoiceProblem) else None
        self.ask(
            {
                "kind": row.kind,
                "settings": row.settings,
                "answer": str(self._answer),
                "problem": str(problem),
                "hidden": hidden,
                "choices": choices,
                "precision": dict.fromkeys(bf16, "bfloat16"),
            }
        )
        answer: dict[str, Any] = self.answer()
        return answer

    def round(self, calls: int) -> dict[str, float]:
        """Seconds of a call, and the share of a core that the side got."""
        self.ask({"calls": calls, "answer": str(self._answer)})
        answer: dict[str, float] = self.answer()
        return answer

    def computed(self) -> Answer:
        """What the last call came to."""
        with np.load(self._answer) as data:
            return dict(data)


def alternate(row: Row, sides: Mapping[str, Any], problem: Path, rounds: int) -> dict[str, Any]:
    """`rounds` of each of "before" and "now" in turn, checked before and after; or why there are none."""
    seconds, errors = {}, {}
    for name, side in sides.items():
        made = side.prepare(row, problem, row.bf16 if name == "now" else ())
        if "unsupported" in made:
            return made
        seconds[name] = made["seconds"]
        errors[name] = check(row, name, side.computed())
    calls = {name: max(1, round(ROUND_SECONDS / one)) for name, one in seconds.items()}
    found: dict[str, Any] = {"before": [], "now": [], "cpu_shares": []}
    for _ in range(rounds):
        shares = []
        for name, side in sides.items():
            one = side.round(calls[name])
            found[name].append(one["seconds"])
            shares.append(one["cpu_share"])
        # Threads that sleep while the last one ends leave cores idle: with several it is measured beside the rounds.
        found["cpu_shares"].append(min(shares) if row.threads == 1 else share_of_cores(row.threads))
    for name, side in sides.items():
        errors[name] = max(errors[name], check(row, name, side.computed()))
    return found | {"errors": errors}


def measure(rows: Sequence[Row], before: Path, now: Path, starts: int, rounds: int) -> list[dict[str, Any]]:
    """What `alternate` found for each row, of all starts together."""
    found: list[dict[str, Any]] = [{} for _ in rows]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files: dict[Problem, Path] = {}
        for start in range(starts):
            with ExitStack() as stack:
                running: dict[tuple[Path, int], Side] = {}
                for row, result in zip(rows, found, strict=True):
                    if "unsupported" in result:
                        continue
                    if row.problem not in files:
                        files[row.problem] = folder / f"problem-{len(files)}.npz"
                        _save(files[row.problem], arrays_of(row.problem))
                    wanted = {
                        "before": (now, 1) if row.to_itself else (before, row.threads),
                        "now": (now, row.threads),
                    }
                    for key in wanted.values():
                        if key not in running:
                            running[key] = Side(stack, key[0], key[1], folder)
                    sides = {name: running[key] for name, key in wanted.items()}
                    merge(result, alternate(row, sides, files[row.problem], rounds))
                    print(f"  start {start + 1} of {starts}: {row.name}", file=sys.stderr, flush=True)
    return found


def _save(file: Path, arrays: dict[str, Any]) -> None:
    np.savez(file, **arrays)


def merge(result: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add the rounds of another start."""
    for name, value in more.items():
        if isinstance(value, list):
            result[name] = result.get(name, []) + value
        elif isinstance(value, Mapping):
            known = result.setdefault(name, {})
            for side, error in value.items():
                known[side] = max(known.get(side, 0.0), error)
        else:
            result[name] = value


def peer_rounds(row: PeerRow, rounds: int) -> dict[str, Any]:
    """Times of updates by `bench.compare_sb3`, which checks them: sb3-contrib's as "before", ours as "now"."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "compare.json"
        command = [sys.executable, "-m", "bench.compare_sb3", "--threads", str(row.threads), "--rounds", str(rounds)]
        for name in row.bf16:
            command += [f"--{name.replace('_', '-')}", "bfloat16"]
        done = subprocess.run([*command, "--out", str(out)], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{row.name}, on {row.threads}: bench.compare_sb3 failed:\n{done.stderr}")
        result = json.loads(out.read_text(encoding="utf-8"))
    updates = {name: [one["update_seconds"] for one in several] for name, several in result["rounds"].items()}
    return {"before": updates["sb3-contrib"], "now": updates["trpo_fast"], "cpu_shares": [result["cpu_share"]]}


def obstacle(row: Row | PeerRow, machine: Mapping[str, Any], cores: int) -> str | None:
    """Why a row cannot be measured here."""
    if row.bf16 and not machine["bfloat16"]:
        return "this CPU has no bf16"
    if row.threads > cores:
        return f"wants {row.threads} cores"
    if isinstance(row, Row):
        return None
    absent = [f"{name} is not installed" for name in PEER_PACKAGES if importlib.util.find_spec(name) is None]
    fields = trpo_fast.TRPOConfig.__dataclass_fields__
    return ", ".join(absent + [f"this build has no {name}" for name in row.bf16 if name not in fields]) or None


def line(row: Row | PeerRow, found: Mapping[str, Any], machine: Mapping[str, Any]) -> dict[str, Any]:
    """One row as JSON has it."""
    goal = row.goal.on(machine)
    made: dict[str, Any] = {
        "name": row.name,
        "threads": row.threads,
        "against": "sb3-contrib" if isinstance(row, PeerRow) else "one thread" if row.to_itself else "the build before",
        "goal": goal,
    }
    if isinstance(row, PeerRow):
        made["goal_of"] = row.of
    if "unsupported" in found:
        return made | {"not_measured": found["unsupported"]}
    ratios = [before / now for before, now in zip(found["before"], found["now"], strict=True)]
    quartiles = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    share = statistics.median(found["cpu_shares"])
    return made | {
        "ratio": quartiles[1],
        "quartiles": [quartiles[0], quartiles[2]],
        "holds": quartiles[1] >= goal if share >= QUIET else None,
        "seconds": {name: statistics.median(found[name]) for name in ("before", "now")},
        "errors": found.get("errors"),
        "cpu_share": share,
        "quiet": share >= QUIET,
        "rounds": {name: [float(f"{one:.5g}") for one in found[name]] for name in ("before", "now")},
    }


def text(made: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    """One row as it is printed."""
    threads = f"{made['threads']} thread{'s' if made['threads'] > 1 else ''}"
    head = f"{made['name']}, {threads}" if made["against"] != "one thread" else made["name"]
    goal = f"goal {made['goal']:.2f}"
    core = core_of(machine)
    if made.get("goal_of") and (core is None or core.name != made["goal_of"]):
        goal += f" (of a {made['goal_of']} core)"
    if "not_measured" in made:
        return f"{head:<88} {made['not_measured']}; {goal}"
    times = f"{duration(made['seconds']['before'])} / {duration(made['seconds']['now'])}"
    low, high = made["quartiles"]
    return f"{head:<88} {times:>21} = {made['ratio']:5.2f} [{low:.2f}, {high:.2f}]  {goal}: {OUTCOMES[made['holds']]}"


def heading(machine: Mapping[str, Any]) -> str:
    """The CPU, as it is printed above the rows."""
    limits = machine["multiply_adds"]
    narrow = limits["bfloat16"]
    bf16 = f"{narrow:.0f} in bf16" if narrow else "no bf16" if not machine["bfloat16"] else "bf16 not in this build"
    return (
        f"{kind_of(machine)}; {caches_of(machine) or 'caches not known'}; one thread's multiply-adds "
        f"{limits['float32']:.0f} GFLOP/s in float32, {bf16}; {machine['instruction_set']}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print every row, with its goal, and write every round as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.side_by_side", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", default=BEFORE, metavar="REV_OR_PATH", help=f"the build before ({BEFORE})")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="rows with one of these in their name")
    parser.add_argument("--rounds", type=int, default=7, help="of each side in a start (7)")
    parser.add_argument("--starts", type=int, default=3, help="of each side's processes (3)")
    parser.add_argument("--peer-rounds", type=int, default=9, help="of each side beside sb3-contrib; 0 leaves it out")
    parser.add_argument("--out", type=Path, default=result_path("side_by_side"), help="JSON file")
    arguments = parser.parse_args(argv)
    if arguments.rounds < 1 or arguments.starts < 1 or arguments.peer_rounds not in (0, *range(7, 10_000)):
        parser.error("want --rounds and --starts of at least 1, and --peer-rounds of 0 or at least 7")
    rows = [row for row in ROWS if not arguments.only or any(word in row.name for word in arguments.only)]
    if not rows:
        parser.error(f"--only: no row has {' or '.join(arguments.only)} in its name")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # folders and sides go, as by Ctrl-C
    machine, cores = describe(), len(os.sched_getaffinity(0))
    commit, changed = built_from(ROOT)
    against = revision(arguments.against)
    words = [against if word == arguments.against else word for word in (sys.argv[1:] if argv is None else argv)]
    print(heading(machine))
    print(f"{commit}{' and changes' if changed else ''} against {against}: before / now, ratio [quartiles]")

    obstacles = {row: obstacle(row, machine, cores) for row in rows}
    if not arguments.peer_rounds:
        obstacles |= {row: "left out" for row in rows if isinstance(row, PeerRow)}
    measured = [row for row in rows if isinstance(row, Row) and obstacles[row] is None]
    with checkout(arguments.against) as before:
        found: dict[Row | PeerRow, dict[str, Any]] = dict(
            zip(measured, measure(measured, before, ROOT, arguments.starts, arguments.rounds), strict=True)
        )
    lines = []
    for row in rows:
        if (reason := obstacles[row]) is not None:
            found[row] = {"unsupported": reason}
        elif isinstance(row, PeerRow):
            found[row] = peer_rounds(row, arguments.peer_rounds)
        lines.append(line(row, found[row], machine))
        print(text(lines[-1], machine), flush=True)
    quiet = all(one["quiet"] for one in lines if "quiet" in one) and not changed
    if not quiet:
        print("NOT TO BE QUOTED: " + ("this checkout has changes that no commit has" if changed else "rows were BUSY"))
    result = {
        "schema": SCHEMA,
        "command": " ".join(["python -m bench.side_by_side", *words]),
        "machine": machine,
        "builds": {"before": against, "now": commit + (" and changes" if changed else "")},
        "starts": arguments.starts,
        "rounds": arguments.rounds,
        "quiet": quiet,
        "rows": lines,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written to {os.path.relpath(arguments.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
