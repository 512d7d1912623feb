"""Updates and set-ups by the thousand, and what they leave: memory, descriptors, threads, processes, shared memory.

``python -m tests.trust.soak`` is ``make trust-soak``. Each kind runs in a process of its own. What an allocator keeps
for later is no leak: it is asked to give that back before anybody looks.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import mmap
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.trust.kinds import require_known

ROOT = Path(__file__).parents[2]
SAMPLES = 50
COUNTED = ("descriptors", "threads", "processes", "shared")  # of which there is to be not one more, ever
# A cycle may add so much, by a line through what was seen behind the first fifth; and all of them so much whatever the
# slope, as pages come and go.
MOST_BYTES, MOST_BLOCKS = 256.0, 0.5
SLACK_BYTES, SLACK_BLOCKS = 2**20, 500
# In few cycles caches still fill: then what is found is what grows by far more.
SAMPLE_SLACK_BYTES, SAMPLE_SLACK_BLOCKS = 16 * 2**20, 10_000


class Held(NamedTuple):
    """What this process and its children hold at one moment."""

    cycle: int
    memory: int
    """Resident, in bytes."""
    blocks: int
    """Of Python's allocator, of this process alone."""
    descriptors: int
    threads: int
    processes: int
    shared: int
    """Bytes of mappings that are shared."""


def held(cycle: int) -> Held:
    """Look, behind everything that can be given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    blocks, page = sys.getallocatedblocks(), os.sysconf("SC_PAGE_SIZE")
    pids = [os.getpid(), *map(int, Path("/proc/self/task", str(os.getpid()), "children").read_text().split())]
    memory = descriptors = threads = shared = 0
    for pid in pids:
        folder = Path("/proc", str(pid))
        memory += int((folder / "statm").read_text().split()[1]) * page
        descriptors += len(os.listdir(folder / "fd"))
        threads += len(os.listdir(folder / "task"))
        for line in (folder / "maps").read_text().splitlines():
            span, flags = line.split()[:2]
            if flags[3] == "s":
                first, last = (int(part, 16) for part in span.split("-"))
                shared += last - first
    return Held(cycle, memory, blocks, descriptors, threads, len(pids), shared)


class Seen(NamedTuple):
    """What came of one kind."""

    cycles: int
    samples: int
    seconds: float
    memory_mib: float
    """At the end."""
    bytes_per_cycle: float
    grown_bytes: float
    """From the second fifth to the last, by medians of both."""
    blocks_per_cycle: float
    grown_blocks: float
    counted: dict[str, tuple[int, int]]
    """Of what is counted, the least in the first fifth and in the last."""

    def faults(self, slack_bytes: float = SLACK_BYTES, slack_blocks: float = SLACK_BLOCKS) -> list[str]:
        """What grows."""
        found = [
            f"{name}: {first} at first, {last} at last" for name, (first, last) in self.counted.items() if first != last
        ]
        if self.bytes_per_cycle > MOST_BYTES and self.grown_bytes > slack_bytes:
            found.append(f"memory: {self.bytes_per_cycle:.0f} bytes a cycle")
        if self.blocks_per_cycle > MOST_BLOCKS and self.grown_blocks > slack_blocks:
            found.append(f"Python's blocks: {self.blocks_per_cycle:.1f} a cycle")
        return found


def judged(samples: list[Held], seconds: float) -> Seen:
    """Lines through what was held, behind the first fifth of it."""
    fifth = max(1, len(samples) // 5)
    later = np.array(samples[fifth:], np.float64)
    cycles, memory, blocks = later[:, 0], later[:, 1], later[:, 2]

    def grown(of: Any) -> float:
        return float(np.median(of[-fifth:]) - np.median(of[:fifth]))

    counted = {
        name: (min(getattr(one, name) for one in samples[:fifth]), min(getattr(one, name) for one in samples[-fifth:]))
        for name in COUNTED
    }
    return Seen(
        cycles=samples[-1].cycle,
        samples=len(samples),
        seconds=round(seconds, 1),
        memory_mib=round(samples[-1].memory / 2**20, 1),
        bytes_per_cycle=round(float(np.polyfit(cycles, memory, 1)[0]), 2),
        grown_bytes=grown(memory),
        blocks_per_cycle=round(float(np.polyfit(cycles, blocks, 1)[0]), 4),
        grown_blocks=grown(blocks),
        counted=counted,
    )


def soak(kind: str, cycles: int) -> Seen:
    """Run so many cycles of a kind in this process, and say what they leave."""
    every = max(1, cycles // SAMPLES)
    samples = []
    began = time.perf_counter()
    with KINDS[kind].open() as cycle:
        for number in range(1, cycles + 1):
            cycle()
            if number == 1:
                gc.freeze()  # what is there from the start is not looked through again
            if number % every == 0:
                samples.append(held(number))
        # Threads and processes that were told to end are given time to.
        deadline = time.monotonic() + 10
        while not _is_counted_alike(samples) and time.monotonic() < deadline:
            time.sleep(0.1)
            samples[-1] = held(cycles)
    return judged(samples, time.perf_counter() - began)


def _is_counted_alike(samples: list[Held]) -> bool:
    first = samples[: max(1, len(samples) // 5)]
    return all(getattr(samples[-1], name) <= min(getattr(one, name) for one in first) for name in COUNTED)


def small(**settings: Any) -> dict[str, Any]:
    """Settings of an agent whose updates take milliseconds."""
    from tests.trust.pairs import FLAT, SETTINGS

    return {**SETTINGS, **({} if "policy" in settings else FLAT), **settings}


@contextmanager
def saved_agent() -> Iterator[Path]:
    """The file of an agent that has learned once."""
    from trpo_fast import TRPO

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.trpo")
        with TRPO("Pendulum-v1", **small()) as agent:
            agent.learn(1)
            agent.save(path)
        yield path


@contextmanager
def updates(
    env: str = "Pendulum-v1", *, in_a_row: int = 1, overlap_critic: bool = False, **settings: Any
) -> Iterator[Callable[[], None]]:
    """One update after the other of one agent, or some in a row, with fits beside the rollouts between them."""
    from trpo_fast import TRPO

    with TRPO(env, **small(overlap_critic=overlap_critic, **settings)) as agent:
        timesteps = in_a_row * agent.config.num_envs * agent.config.steps_per_env

        def cycle() -> None:
            agent.learn(timesteps, reset_num_timesteps=False)

        yield cycle


@contextmanager
def agents(env: str = "CartPole-v1", **settings: Any) -> Iterator[Callable[[], None]]:
    """Agents that are made, learn once and are closed."""
    from trpo_fast import TRPO

    def cycle() -> None:
        with TRPO(env, **small(**settings)) as agent:
            agent.learn(1)

    yield cycle


@contextmanager
def engines() -> Iterator[Callable[[], None]]:
    """Engines over policies of every kind that are made, bound, asked for a product and dropped."""
    from tests.engines import cases
    from trpo_fast.engines import make_engine

    numbers = iter(range(10**9))

    def cycle() -> None:
        number = next(numbers)
        case = cases.make_case(cases.KINDS[number % len(cases.KINDS)], rows=20, hidden=(4,))
        engine = make_engine(case.policy, ("native", "autograd")[number % 2])
        engine.bind(case.batch())
        engine.fisher_operator().matvec(case.vector())

    yield cycle


@contextmanager
def binds() -> Iterator[Callable[[], None]]:
    """Batches of one size after another, bound by one engine."""
    from tests.engines import cases
    from trpo_fast.engines import make_engine

    case = cases.make_case(rows=500)
    engine, rng = make_engine(case.policy, "native"), np.random.default_rng(0)

    def cycle() -> None:
        size = int(rng.integers(1, 500))
        engine.bind(type(case.batch())(*(array[:size] for array in case.data)))
        engine.fisher_operator().matvec(case.vector())

    yield cycle


@contextmanager
def actors() -> Iterator[Callable[[], None]]:
    """Actors that are loaded from a file, and act once."""
    from trpo_fast.deploy import load_actor

    observation = np.zeros(3, np.float32)
    with saved_agent() as path:
        yield lambda: load_actor(path)(observation)


@contextmanager
def loaded_agents() -> Iterator[Callable[[], None]]:
    """Agents that are loaded from a file, saved and closed."""
    from trpo_fast import TRPO

    def cycle() -> None:
        with TRPO.load(path) as agent:
            agent.save(path)

    with saved_agent() as path:
        yield cycle


@contextmanager
def leaks() -> Iterator[Callable[[], None]]:
    """What each cycle leaves is to be found."""
    left: list[Any] = []

    def cycle() -> None:
        left.append((bytearray(2**20), os.dup(0), [object() for _ in range(1000)]))
        thread = threading.Thread(target=time.sleep, args=(1000,), daemon=True)
        thread.start()
        memory = mmap.mmap(-1, 2**16)
        left.append(memory)

    yield cycle


class Kind(NamedTuple):
    """What is done over and over."""

    open: Callable[[], Any]
    cycles: int
    """Of the full run."""
    sample: int
    """Of the tests."""


KINDS = {
    "updates: native": Kind(updates, 3_500, 100),
    "updates: autograd": Kind(lambda: updates(engine="autograd"), 3_000, 15),
    "updates: recurrent": Kind(lambda: updates(policy="gru"), 2_000, 8),
    "updates: workers": Kind(lambda: updates(vectorization="workers", num_workers=2), 2_500, 30),
    "updates: critic beside the rollout": Kind(lambda: updates(overlap_critic=True, in_a_row=4), 2_500, 15),
    "agents": Kind(agents, 1_500, 15),
    "agents with workers": Kind(lambda: agents(vectorization="workers", num_workers=1), 500, 4),
    "agents loaded and saved": Kind(loaded_agents, 1_000, 15),
    "engines": Kind(engines, 2_350, 30),
    "binds": Kind(binds, 3_000, 100),
    "leaks": Kind(leaks, 0, 40),  # of the tests alone
    "actors": Kind(actors, 2_000, 30),
}


def in_own_process(jobs: Mapping[str, int]) -> dict[str, Seen]:
    """`soak` of each kind, with its cycles, in one process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "TRPO_FAST_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "tests.trust.soak", "--jobs", json.dumps(jobs)]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return {kind: Seen(**json.loads(line)) for kind, line in zip(jobs, done.stdout.splitlines(), strict=True)}


def main() -> None:
    """Some kinds, in this process; or all, each in its own, and a file of what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=json.loads, help="cycles of each kind, a JSON object")
    parser.add_argument("--only", default="", help="kinds with this in their name; the file keeps the others")
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results/trust/soak.json")
    given = parser.parse_args()
    require_known(parser, given, KINDS)
    if given.jobs is not None:
        for kind, cycles in given.jobs.items():
            print(json.dumps(soak(kind, cycles)._asdict()), flush=True)
        return
    from bench import machine

    result: dict[str, Any] = {
        "command": "make trust-soak",
        "machine": machine.describe(),
        "limits": {"bytes_per_cycle": MOST_BYTES, "blocks_per_cycle": MOST_BLOCKS, "counted": "not one more"},
        "kinds": {},
    }
    if given.only and given.out.exists():
        result["kinds"] = json.loads(given.out.read_text(encoding="utf-8"))["kinds"]
    for kind, (_, cycles, _) in KINDS.items():
        if given.only not in kind or cycles == 0:
            continue
        seen = in_own_process({kind: cycles})[kind]
        result["kinds"][kind] = {**seen._asdict(), "faults": seen.faults()}
        print(
            f"{kind}: {cycles:,} cycles in {seen.seconds:.0f} s, {seen.bytes_per_cycle:+.1f} bytes a cycle", flush=True
        )
        write(given.out, result)  # hours of work are not lost by the last of them
    faults = [f"{kind}: {fault}" for kind, one in result["kinds"].items() for fault in one["faults"]]
    if faults:
        raise SystemExit("\n".join(faults))


def write(path: Path, result: dict[str, Any]) -> None:
    """The file, with sums of what there is until now."""
    kinds = result["kinds"]
    updates = sum(one["cycles"] for kind, one in kinds.items() if kind.startswith("updates"))
    sums = {
        "updates": updates,
        "set-ups and tear-downs": sum(one["cycles"] for one in kinds.values()) - updates,
        "seconds": round(sum(one["seconds"] for one in kinds.values())),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**result, **sums}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
