"""Faults by the thousand: what fails, is killed, raises, hangs or returns nonsense while agents learn.

``python -m tests.trust.faults`` is ``make trust-faults``. One invariant holds for all kinds: the agent is in the state
after its last complete update, can be saved, and goes on, to the bits of a twin that was not disturbed
(`tests.trust.pairs`). Where an update ended by an exception new episodes begin, for the twin, too.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from tests.trust import failing_calls, trouble
from tests.trust.failing_calls import ALLOCATION, CHANGE, FOR_EVER, FORK, THREAD, Calls
from tests.trust.kinds import require_known
from tests.trust.pairs import BESIDE, NUM_ENVS, STEPS, Broken, Pair
from trpo_fast import model_file
from trpo_fast.algorithm.callbacks import CheckpointCallback
from trpo_fast.environments.processes import WorkerError

ROOT = Path(__file__).parents[2]
Outcomes = collections.Counter[str]
NAMED = (ValueError, TypeError, FloatingPointError)


def named(error: BaseException | None) -> str:
    """How it is counted."""
    return "no error" if error is None else type(error).__name__


def noting(
    failing: AbstractContextManager[list[int]], counted: list[int]
) -> Callable[[], AbstractContextManager[None]]:
    """What enters `failing` and notes, however it is left, how many calls there were."""

    @contextmanager
    def noted() -> Iterator[None]:
        found: list[int] = []
        try:
            with failing as found:
                yield
        finally:
            counted.extend(found)

    return noted


def allocations(agent: str, library: str, *, until_the_end: bool, every: int = 1) -> Outcomes:
    """The k-th allocation of one update fails, for every k, or every so many; alone, or with all behind it."""
    calls, outcomes, pair = Calls.of_this_process(), Outcomes(), Pair(agent)
    calls.of(library)
    number = 1
    while True:
        counted: list[int] = []
        error = pair.disturbed(noting(calls.failing(ALLOCATION, number, FOR_EVER if until_the_end else 1), counted))
        if error is not None and not isinstance(error, MemoryError):
            raise Broken(f"allocation {number} of {library}: {error!r}")
        if isinstance(error, MemoryError) and "given; want less: it does not fit into memory" not in str(error):
            raise Broken(f"allocation {number} of {library}: not named in {error!r}")
        if counted and counted[0] < number:  # there were not so many
            break
        outcomes[named(error)] += 1
        number += every
    pair.close()
    return +outcomes


def threads(trials: int, chance: random.Random) -> Outcomes:
    """The critic's fit gets no thread beside the rollout: it is made here, to the same bits."""
    calls, outcomes, pair = Calls.of_this_process(), Outcomes(), Pair("critic beside the rollout")
    for _ in range(trials):
        first, counted = chance.randrange(1, BESIDE + 1), []
        error = pair.disturbed(noting(calls.failing(THREAD, first, FOR_EVER), counted))
        if error is not None or counted[0] < first:
            raise Broken(f"no thread: {error!r}, {counted[0]} asked for")
        outcomes["no error"] += 1
    pair.close()
    return outcomes


def changes(trials: int, chance: random.Random) -> Outcomes:
    """The disk is full at some change of a file while checkpoints are written and the agent is saved."""
    calls, outcomes, pair = Calls.of_this_process(), Outcomes(), Pair("native")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.trpo")
        pair.agent.save(path)
        while outcomes.total() < trials:
            before, counted = path.read_bytes(), []
            callback = [CheckpointCallback(Path(folder, "checkpoints"), 1, keep=2), lambda agent: agent.save(path)]
            first, count = chance.randrange(1, 14), chance.choice((1, 1, 3, FOR_EVER))
            error = pair.disturbed(noting(calls.failing(CHANGE, first, count), counted), callback)
            if error is not None and not isinstance(error, OSError):
                raise Broken(f"a full disk: {error!r}")
            for file in Path(folder).rglob("*.trpo"):
                model_file.read(file)
            if left := [*Path(folder).rglob("*.new")]:
                raise Broken(f"a full disk: left {left}")
            if error is None and counted[0] < first:
                continue  # there were not so many
            outcomes[f"{named(error)}, {'the file of before' if path.read_bytes() == before else 'a new file'}"] += 1
    pair.close()
    return outcomes


def signals(trials: int, chance: random.Random) -> Outcomes:
    """Ctrl-C at some moment: the update under way is undone with its episodes; a fit that is lost is said to be."""
    outcomes, pair = Outcomes(), Pair("critic beside the rollout")
    while outcomes.total() < trials:
        took: list[float] = []

        @contextmanager
        def timed(took: list[float] = took) -> Iterator[None]:
            began = time.perf_counter()
            yield
            took.append(time.perf_counter() - began)

        pair.disturbed(timed)
        moment = chance.uniform(0, took[0])
        error = pair.disturbed(lambda moment=moment: interrupted(moment))
        if error is not None:  # else it came too late
            outcomes[named(error)] += 1
    pair.close()
    return outcomes


@contextmanager
def interrupted(seconds: float) -> Iterator[None]:
    """KeyboardInterrupt after a while, wherever that is, as Ctrl-C raises it; none where all has ended before."""
    inside = True

    def interrupt(*_: object) -> None:
        nonlocal inside
        if inside:
            inside = False
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))
    try:
        yield
    finally:
        inside = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def environments(kind: str, trials: int, chance: random.Random, *, agent: str = "native") -> Outcomes:
    """Environments that raise, return what no step returns, end their process or do not come back."""
    outcomes = Outcomes()
    with tempfile.TemporaryDirectory() as folder:
        make, twin = trouble.Maker(folder, "agent"), trouble.Maker(folder, "twin")
        pair = Pair(agent, make, twin)
        for _ in range(trials):
            what = "raise" if kind == "raise" else "garbage" if kind == "garbage" else "end"
            known = {"raise": trouble.ERRORS, "garbage": trouble.GARBAGE, "end": trouble.ENDS}[what]
            which = trouble.ENDS.index("hang") if kind == "hang" else chance.randrange(len(known))
            hangs = what == "end" and trouble.ENDS[which] == "hang"

            @contextmanager
            def disturbance(what: str = what, which: int = which, hangs: bool = hangs) -> Iterator[None]:
                with make.trouble(what, which, NUM_ENVS * STEPS, chance):
                    if hangs:
                        with interrupted(0.1 if agent == "native" else 1.0):
                            yield
                    else:
                        yield

            may_learn = what == "garbage" and trouble.is_taken(trouble.GARBAGE[which])
            error = pair.disturbed(disturbance, may_learn=may_learn)
            require_named(error, what, which, hangs=hangs)
            outcomes[f"{trouble.ENDS[which]}: {named(error)}" if what == "end" else named(error)] += 1
            if error is None:  # it learned from what came: the twin has not seen that
                pair.close()
                pair = Pair(agent, make, twin)
        pair.close()
    return outcomes


def require_named(error: BaseException | None, what: str, which: int, *, hangs: bool) -> None:
    """Broken where this is not what such trouble is to raise."""
    if what == "raise":
        fits = isinstance(error, trouble.ERRORS[which])  # of MemoryError a kind that names the settings
    elif what == "garbage":
        fits = error is None or (isinstance(error, NAMED) and bool(str(error)))  # None where it is taken
    else:
        fits = isinstance(error, KeyboardInterrupt if hangs else WorkerError)
    if not fits:
        shown = repr(trouble.GARBAGE[which]) if what == "garbage" else which
        raise Broken(f"{what} {shown}: {error!r}")


def forks(trials: int, chance: random.Random) -> Outcomes:
    """Worker processes cannot be started, some of the time, where an agent goes on after `close`."""
    subprocess._USE_VFORK = False  # type: ignore[attr-defined]  # a vfork cannot be looked at
    calls, outcomes, pair = Calls.of_this_process(), Outcomes(), Pair("workers")
    for _ in range(trials):
        pair.agent.close()
        error = pair.disturbed(lambda: calls.failing(FORK, 1, chance.choice((1, FOR_EVER))))
        if not isinstance(error, OSError):
            raise Broken(f"no fork: {error!r}")
        outcomes[named(error)] += 1
    pair.close()
    return outcomes


MODES = ("the k-th", "from the k-th on")
SWEPT = ("native", "autograd", "recurrent", "critic beside the rollout")
KINDS: dict[str, Callable[[int, random.Random], Outcomes]] = {
    "environments that raise": lambda trials, chance: environments("raise", trials, chance),
    "environments that return garbage": lambda trials, chance: environments("garbage", trials, chance),
    "environments that hang": lambda trials, chance: environments("hang", trials, chance),
    "no thread": threads,
    "a full disk": changes,
    "Ctrl-C": signals,
    "no fork": forks,
    "workers killed": lambda trials, chance: environments("end", trials, chance, agent="workers"),
}
TRIALS = 1_000
SEED = 16


def run(kind: str, trials: int, seed: int) -> dict[str, Any]:
    """One kind in this process: how many trials ended how."""
    import torch

    torch.set_num_threads(1)  # OpenMP ends the process where it gets no thread
    began = time.perf_counter()
    if kind.startswith("allocations: "):
        _, library, agent, mode = kind.split(": ")
        outcomes = allocations(agent, library, until_the_end=mode == "from the k-th on", every=trials)
    else:
        outcomes = KINDS[kind](trials, random.Random(f"{kind} {seed}"))
    sample = {"every": trials} if kind not in KINDS and trials > 1 else {}
    seconds = round(time.perf_counter() - began, 1)
    return {**sample, "trials": outcomes.total(), "seconds": seconds, "outcomes": dict(outcomes)}


def swept() -> Iterator[str]:
    """Names of the kinds that let allocations fail."""
    for agent in SWEPT:
        for library in failing_calls.LIBRARIES:
            for mode in MODES:
                yield f"allocations: {library}: {agent}: {mode}"


def in_own_process(jobs: Mapping[str, int], folder: Path, seed: int = SEED) -> Iterator[tuple[str, dict[str, Any]]]:
    """`run` of each kind, with its trials, in a process whose calls can fail; of allocations every so many-th."""
    environment = {**failing_calls.preloaded(folder), "PYTHONPATH": str(ROOT)}
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "TRPO_FAST_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "tests.trust.faults", "--jobs", json.dumps(jobs), "--seed", str(seed)]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return zip(jobs, map(json.loads, done.stdout.splitlines()[-len(jobs) :]), strict=True)


def main() -> None:
    """Some kinds, in this process; or all, each in its own, and a file of what came."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=json.loads, help="trials of each kind, a JSON object")
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument(
        "--every",
        type=int,
        default=97,
        help="of torch's allocations for autograd, at some of which it ends the process",
    )
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--only", default="", help="kinds with this in their name; the file keeps the others")
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results/trust/faults.json")
    given = parser.parse_args()
    require_known(parser, given, (*swept(), *KINDS))
    if given.jobs is not None:
        for kind, trials in given.jobs.items():
            print(json.dumps(run(kind, trials, given.seed)), flush=True)
        return
    from bench import machine

    result: dict[str, Any] = {
        "command": "make trust-faults",
        "machine": machine.describe(),
        "seed": given.seed,
        "kinds": {},
    }
    if given.only and given.out.exists():
        result["kinds"] = json.loads(given.out.read_text(encoding="utf-8"))["kinds"]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for kind in (*swept(), *KINDS):
            if given.only not in kind:
                continue
            number = given.trials if kind in KINDS else given.every if ": torch: autograd" in kind else 1
            for _, found in in_own_process({kind: number}, Path(folder), given.seed):
                result["kinds"][kind] = found
                print(
                    f"{kind}: {found['trials']:,} trials in {found['seconds']:.0f} s, {found['outcomes']}", flush=True
                )
            result["trials"] = sum(one["trials"] for one in result["kinds"].values())
            given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
