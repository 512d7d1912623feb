"""Environment packages that others make, from many fields, each in a virtual environment of its own: what works.

    python -m bench.environment_zoo --install          # makes the environments, 2 GB and half an hour
    python -m bench.environment_zoo                    # tries those that have no row yet
    python -m bench.environment_zoo --only minigrid --again
    python -m bench.environment_zoo --only mobile-env --refusals   # what is said to environments that do not fit, alone
    python -m bench.environment_zoo --commands         # what --install would type
    python -m bench.environment_zoo --table            # the committed rows as docs/environments.md shows them

Every package is trained for 4,000 steps, evaluated, saved, loaded (the same predictions, bit for bit, and learning
goes on) and loaded to act without torch (the same actions), in a process with a time limit. Nothing is asked of the
network then. The virtual environments see this Python's own packages, torch for example, and put before them what
their package wants. Rows go to results/environment_zoo.json and .csv as they come, with the commit that they are of; an
interrupted run goes on. Refusals that were asked for again name the commit that said them.
"""

from __future__ import annotations

import argparse
import copy
import csv
import functools
import importlib.metadata
import json
import os
import shlex
import signal
import site
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import data_equivalence

import trpo_fast
from bench.machine import describe, source
from bench.zoo_cases import CASES, NUM_ENVS, Case, FirstCopy
from trpo_fast.deploy import load_actor

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results")
PLACE = ROOT / "build" / "environment_zoo"
TIMESTEPS = 4_000
EVALUATION_EPISODES = 2
EVALUATION_STEPS = 1_000  # of an episode that has no end of its own
TIME_LIMIT = 600  # seconds of one package
OBSERVATIONS = 32  # that predictions are compared on


class Trial:
    """One case in this process, stage after stage: what a user does with an agent, in order."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case = case
        self.file = folder / "agent.trpo"
        self.row: dict[str, Any] = {}

    def run(self, stages: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
        """Every one of `stages` that those before it allow: its outcome is "yes", or the error's words."""
        outcomes: dict[str, str] = {}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for name, needs in stages.items():
                if any(outcomes.get(need) != "yes" for need in needs):
                    continue
                try:
                    getattr(self, name)()
                    outcomes[name] = "yes"
                except Exception as error:
                    traceback.print_exc()
                    outcomes[name] = self._words(error)
        # A warning may point at who called us, which is this file.
        ours = (str(ROOT / "trpo_fast"), __file__)
        self.row["warned"] = sorted({str(w.message) for w in caught if w.filename.startswith(ours)})
        return self.row | {"stages": outcomes}

    def train(self) -> None:
        """TIMESTEPS steps; says what the environment is on the way."""
        settings = {"num_envs": NUM_ENVS, "steps_per_env": 250, **self.case.settings}
        kwargs: Mapping[str, Any] | None = self.case.env_kwargs or None
        if self.case.is_vector:
            kwargs = None
            del settings["num_envs"]
        self.agent = trpo_fast.TRPO(self._env(), env_kwargs=kwargs, seed=0, **settings)
        environments = self.agent.environments
        assert environments is not None
        self.row |= {
            "observation": described(self.agent.observation_space),
            "action": described(self.agent.action_space),
            "policy": f"{type(self.agent.policy).__name__}, {self.agent.engine.name}",
            "dict": isinstance(self.agent.observation_space, gymnasium.spaces.Dict),
            "raw_units": in_raw_units(self.agent.action_space),
        }
        started = time.perf_counter()
        self.agent.learn(TIMESTEPS)
        self.row["steps_per_second"] = round(self.agent.num_timesteps / (time.perf_counter() - started))
        self.row["masks"] = environments.action_masks is not None

    def evaluate(self) -> None:
        """A few episodes, which a limit of the package's or of ours ends."""
        self.first = self._evaluated(self.agent)
        self.row["return"] = float(f"{self.first.mean:.4g}")
        self.row["episodes_finished"] = int(self.first.finished.sum())

    def save(self) -> None:
        """To a file."""
        self.agent.save(self.file)

    def load(self) -> None:
        """From the file, with the environment where it cannot name it."""
        if isinstance(self.case.env, str):
            self.loaded = trpo_fast.TRPO.load(self.file, trust_environment=True)
        else:
            wrappers = self.case.settings.get("wrappers")  # a file of a function's environments names none
            self.loaded = trpo_fast.TRPO.load(self.file, self._env(), wrappers=wrappers)

    def look(self) -> None:
        """The package alone: its speed, whether it is what its spaces say, whether a seed decides what it does."""
        trace, self.seen, seconds = self._played(seed=0)
        again, _, _ = self._played(seed=0)
        self.row["simulator_steps_per_second"] = round(len(trace) / seconds)
        both = min(len(trace), len(again))
        self.row["seed_reproduces"] = data_equivalence(trace[:both], again[:both], exact=True)
        space = self.agent.observation_space
        self.row["as_its_space_says"] = all(space.contains(observation) for observation, _ in self.seen)

    def _played(self, seed: int) -> tuple[list[Any], list[Any], float]:
        """Observations with rewards and flags, the first observations with masks, the seconds of a copy's steps."""
        from trpo_fast.environments.named_wrappers import wrapped  # an ImportError where Gymnasium is too old

        made_by = self.case.alone or self.case.env
        make = functools.partial(gymnasium.make, made_by) if isinstance(made_by, str) else made_by
        env = make(**self.case.env_kwargs)
        env = FirstCopy(env) if self.case.is_vector else wrapped(env, self.case.settings.get("wrappers", ()))
        observation, info = env.reset(seed=seed)
        env.action_space.seed(seed)  # only now: a reset may make new spaces
        trace: list[Any] = []
        seen: list[Any] = []
        seconds = 0.0
        while len(trace) < OBSERVATIONS or (seconds < 1.0 and len(trace) < 500):
            mask = mask_of(env, info)
            if len(seen) < OBSERVATIONS:
                seen.append((kept(observation), kept(mask)))
            has_mask = isinstance(env.action_space, gymnasium.spaces.Discrete) and mask is not None
            action = env.action_space.sample(np.asarray(mask, np.int8) if has_mask else None)
            started = time.perf_counter()
            observation, *rest, info = env.step(action)
            seconds += time.perf_counter() - started
            trace.append((kept(observation), *rest))
            if rest[1] or rest[2]:
                observation, info = env.reset()
        env.close()
        return trace, seen, seconds / (env.environments.num_envs if isinstance(env, FirstCopy) else 1)

    def predict(self) -> None:
        """The loaded agent predicts what the saved one does, the modes and the samples, bit for bit."""
        self.actions = self._actions(self.agent)
        require_same(self.actions, self._actions(self.loaded))

    def act(self) -> None:
        """So does the actor that needs no torch."""
        require_same(self.actions, self._actions(load_actor(self.file)))

    def evaluate_again(self) -> None:
        """The loaded agent has the same returns in environments made again, where the package heeds a seed."""
        again = self._evaluated(self.loaded)
        if not self.row["seed_reproduces"]:
            return
        if again.returns.tobytes() != self.first.returns.tobytes():
            raise AssertionError(f"returns {self.first.returns.tolist()} when saved, {again.returns.tolist()} loaded")

    def learn_on(self) -> None:
        """One update more."""
        self.loaded.learn(1)

    def refuse(self) -> None:
        """What is said to environments of the package that do not fit as they are."""
        for env in self.case.refused:
            name = env if isinstance(env, str) else env.__name__
            try:
                agent = trpo_fast.TRPO(env, num_envs=2, steps_per_env=8, seed=0)
                agent.learn(16)
                agent.close()
                words = "nothing: it works"
            except Exception as error:
                words = self._words(error)
            self.row.setdefault("refused", {})[name] = words

    def close(self) -> None:
        """Both."""
        self.agent.close()
        if hasattr(self, "loaded"):
            self.loaded.close()

    def _evaluated(self, agent: trpo_fast.TRPO) -> Any:
        """In new environments; in a vector environment made for it where one was given."""
        given = self._env() if self.case.is_vector else None
        try:
            return agent.evaluate(EVALUATION_EPISODES, max_steps=EVALUATION_STEPS, env=given)
        finally:
            if given is not None:
                given.close()

    def _words(self, error: Exception) -> str:
        """With notes but for those of where it was, and without the folders of this machine."""
        notes = [note for note in getattr(error, "__notes__", ()) if not note.startswith(("environment ", "worker "))]
        words = "; ".join((f"{type(error).__name__}: {error}", *notes))
        for folder in (self.file.parent, *filter(None, sys.path)):
            words = words.replace(f"{folder}{os.sep}", "")
        return words

    def _env(self) -> Any:
        return self.case.env() if self.case.is_vector and callable(self.case.env) else self.case.env

    def _actions(self, actor: Any) -> list[Any]:
        return [
            np.asarray(actor.predict(observation, deterministic=deterministic, action_masks=mask)[0])
            for observation, mask in self.seen
            for deterministic in (True, False)
        ]


STAGES: dict[str, tuple[str, ...]] = {
    "train": (),
    "evaluate": ("train",),
    "save": ("train",),
    "load": ("save",),
    "look": ("train",),
    "predict": ("load", "look"),
    "act": ("predict",),
    "evaluate_again": ("load", "evaluate", "look"),
    "learn_on": ("load",),
    "refuse": (),
    "close": ("train",),
}
REFUSALS = {"refuse": STAGES["refuse"]}


def require_same(expected: Sequence[Any], actions: Sequence[Any]) -> None:
    """AssertionError where two lists of arrays differ in a bit."""
    for number, (one, other) in enumerate(zip(expected, actions, strict=True)):
        if one.dtype != other.dtype or one.tobytes() != other.tobytes():
            raise AssertionError(f"action {number} is {other!r}, want {one!r}")


def kept(value: Any) -> Any:
    """A copy, of a torch tensor as an array."""
    return np.array(value) if hasattr(value, "numpy") else copy.deepcopy(value)


def mask_of(env: gymnasium.Env[Any, Any], info: Mapping[str, Any]) -> Any:
    """What is allowed now; None where everything is."""
    if env.has_wrapper_attr("action_masks"):
        return env.get_wrapper_attr("action_masks")()
    return info.get("action_mask")


def in_raw_units(space: gymnasium.Space[Any]) -> bool:
    """A Box that is not about [-1, 1]."""
    if not isinstance(space, gymnasium.spaces.Box):
        return False
    low, high = space.low.astype(float), space.high.astype(float)
    return not bool(np.all((low == -high) & (high >= 0.3) & (high <= 3)))


def described(space: gymnasium.Space[Any]) -> str:
    """A space in a few words."""
    spaces = gymnasium.spaces
    if isinstance(space, spaces.Dict):
        return "Dict: " + ", ".join(f"{key} {described(part)}" for key, part in space.spaces.items())
    if isinstance(space, spaces.Tuple):
        return "Tuple: " + ", ".join(map(described, space.spaces))
    if isinstance(space, spaces.Discrete):
        return f"Discrete({space.n})"
    if isinstance(space, spaces.MultiDiscrete):
        counts = space.nvec.ravel().tolist()
        alike = len(counts) > 3 and len(set(counts)) == 1
        return f"MultiDiscrete({len(counts)} x {counts[0]})" if alike else f"MultiDiscrete({counts})"
    if isinstance(space, spaces.Box):
        shape = "x".join(map(str, space.shape))
        return f"Box({shape}) {space.dtype} {space.low.min():g}..{space.high.max():g}"
    return type(space).__name__


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.environment_zoo", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--only", nargs="+", metavar="PACKAGE", help="these, not all")
    parser.add_argument("--again", action="store_true", help="try those that have a row, too")
    parser.add_argument("--refusals", action="store_true", help="only what does not fit, of those that have a row")
    parser.add_argument("--install", action="store_true", help="make the virtual environments that are not there")
    parser.add_argument("--commands", action="store_true", help="print what --install would type, and stop")
    parser.add_argument("--table", action="store_true", help="print the rows as Markdown, and stop")
    parser.add_argument("--place", type=Path, default=PLACE, help="folder of the virtual environments")
    parser.add_argument("--time-limit", type=float, default=TIME_LIMIT, help="seconds for one package")
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "environment_zoo.json", help="rows; a .csv lies beside it"
    )
    parser.add_argument("--trial", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    unknown = set(arguments.only or ()) - {case.package for case in CASES}
    if unknown:
        parser.error(f"--only: no case {', '.join(sorted(unknown))}; there are {', '.join(c.package for c in CASES)}")
    chosen = [case for case in CASES if not arguments.only or case.package in arguments.only]
    if arguments.trial:
        case = next(case for case in CASES if case.package == arguments.trial)
        write_trial(case, arguments.out, REFUSALS if arguments.refusals else STAGES)
    elif arguments.commands:
        for case in chosen:
            make, *pip = (shlex.join(command) for command in install_commands(case, arguments.place))
            beneath = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages/beneath.pth"
            link = f"printf '%s\\n' {shlex.join(site.getsitepackages())} > {arguments.place / case.package / beneath}"
            print("\n".join([make, link, *pip]))
    elif arguments.table:
        print(table(read_rows(arguments.out)))
    elif arguments.refusals:
        refuse_again(chosen, arguments.place, arguments.out, arguments.time_limit)
    elif arguments.install:
        for case in chosen:
            install(case, arguments.place)
    else:
        try_all(chosen, arguments.place, arguments.out, again=arguments.again, time_limit=arguments.time_limit)


def install_commands(case: Case, place: Path) -> list[list[str]]:
    """One virtual environment, with what the package wants in it."""
    folder = place / case.package
    pip = [sys.executable, "-m", "pip", "--python", str(python_of(folder)), "install", "--prefer-binary"]
    commands = [[sys.executable, "-m", "venv", "--without-pip", str(folder)]]
    if case.requires:
        # The torch that trpo_fast runs with here stays.
        commands.append([*pip, *case.requires, f"torch=={importlib.metadata.version('torch').partition('+')[0]}"])
    if case.no_dependencies:
        commands.append([*pip, "--no-deps", *case.no_dependencies])
    return commands


def install(case: Case, place: Path) -> None:
    """Make the virtual environment of a case where there is none; one half made is not taken for one."""
    folder = place / case.package
    done = folder / "installed"
    if done.exists():
        return
    make, *pip = install_commands(case, place)
    subprocess.run(make, check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "beneath.pth").write_text("\n".join(site.getsitepackages()) + "\n", encoding="utf-8")
    for command in pip:
        print(shlex.join(command), flush=True)
        if subprocess.run(command).returncode:
            print(f"{case.package}: not installed", flush=True)
            return
    done.touch()


def python_of(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    return folder / "bin" / "python"


def try_all(cases: Sequence[Case], place: Path, out: Path, *, again: bool, time_limit: float) -> None:
    """A process for each case without a row; every row is written at once."""
    for case in cases:
        if case.package in read_rows(out) and not again:
            continue
        if not (place / case.package / "installed").exists():
            print(f"{case.package}: not installed; --install does it", flush=True)
            continue
        row = {"commit": source(), **run(case, place / case.package, time_limit)}
        write_rows(read_rows(out) | {case.package: row}, out)
        print(f"{case.package}: {result_of(row)}", flush=True)


def refuse_again(cases: Sequence[Case], place: Path, out: Path, time_limit: float) -> None:
    """Put what is said now into the rows of those cases that have refusals; all else in the file stays."""
    document = json.loads(out.read_text(encoding="utf-8"))
    for case in cases:
        row = document["rows"].get(case.package, {})
        if "refused" in row:
            found = run(case, place / case.package, time_limit, "--refusals")
            row |= {"refused": found["refused"], "refused_commit": source()}
            print(f"{case.package}: {row['refused']}", flush=True)
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def run(case: Case, folder: Path, time_limit: float, *options: str) -> dict[str, Any]:
    """One case in a process of its own, started in an empty folder, without a display."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "SDL_VIDEODRIVER": "dummy",
        "MPLBACKEND": "Agg",
    }
    with tempfile.TemporaryDirectory() as work:
        out = Path(work, "row.json")
        command = [str(python_of(folder)), "-m", "bench.environment_zoo", "--trial", case.package, "--out", str(out)]
        command += options
        with (folder / "log.txt").open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                command,
                cwd=work,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                process.wait(time_limit)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # and what the simulator has started
                process.wait()
                return {**named(case), "stages": {"time": f"not done after {time_limit:g} s"}}
        if not out.exists():
            tail = (folder / "log.txt").read_text(encoding="utf-8").strip().splitlines()[-1:]
            return {**named(case), "stages": {"process": f"ended with {process.returncode}: {' '.join(tail)}"}}
        row: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return row


def named(case: Case) -> dict[str, Any]:
    """What a row says of its case even where the trial came to nothing."""
    env = case.env if isinstance(case.env, str) else f"bench.zoo_cases:{case.env.__name__}"
    return {"field": case.field, "environment": env}


def write_trial(case: Case, out: Path, stages: Mapping[str, tuple[str, ...]]) -> None:
    """In the process of one case: try it, and write its row."""
    row = {
        **named(case),
        "env_kwargs": {
            key: value if isinstance(value, int | float | str) else "..." for key, value in case.env_kwargs.items()
        },
        "settings": dict(case.settings),
        "note": case.note,
        "versions": {name: version_of(name) for name in (case.package, *case.beside, "gymnasium", "numpy")},
    }
    with tempfile.TemporaryDirectory() as folder:
        row |= Trial(case, Path(folder)).run(stages)
    out.write_text(json.dumps(row), encoding="utf-8")


def version_of(package: str) -> str:
    """Of an installed distribution."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def read_rows(out: Path) -> dict[str, dict[str, Any]]:
    """Rows by package; none where there is no file."""
    rows: dict[str, dict[str, Any]] = json.loads(out.read_text(encoding="utf-8"))["rows"] if out.exists() else {}
    return rows


def write_rows(rows: Mapping[str, Mapping[str, Any]], out: Path) -> None:
    """The JSON file with everything, the CSV file with what fits in a line; in the order of CASES."""
    ordered = {case.package: rows[case.package] for case in CASES if case.package in rows}
    document = {
        "command": "python -m bench.environment_zoo",
        "timesteps": TIMESTEPS,
        "num_envs": NUM_ENVS,
        "machine": describe(),
        "rows": ordered,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    with out.with_suffix(".csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("package", *COLUMNS, *STAGES, "result"))
        for package, row in ordered.items():
            cells = [row.get(column, "") for column in COLUMNS]
            cells[0] = row.get("versions", {}).get(package, "")
            outcomes = ["" if row["stages"].get(name) is None else row["stages"][name] == "yes" for name in STAGES]
            writer.writerow((package, *cells, *outcomes, result_of(row)))


COLUMNS = (
    "version",
    "commit",
    "field",
    "environment",
    "observation",
    "action",
    "dict",
    "raw_units",
    "masks",
    "policy",
    "steps_per_second",
    "simulator_steps_per_second",
    "seed_reproduces",
    "as_its_space_says",
    "return",
    "episodes_finished",
)


def result_of(row: Mapping[str, Any]) -> str:
    """Works, or the words of what went wrong first."""
    wrong = {name: outcome for name, outcome in row["stages"].items() if outcome != "yes"}
    if list(wrong) == ["act"] and "CNN" in wrong["act"]:
        return "works; `load_actor` is for MLPs, and says what acts with a CNN"
    return "; ".join(shortened(f"{name}: {outcome}") for name, outcome in wrong.items()) or "works"


def shortened(words: str) -> str:
    """On one line."""
    words = " ".join(words.split())
    return words if len(words) <= 300 else f"{words[:297]}..."


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| package | field | environment | observation | action | steps/s (alone) | result |",
        "|---|---|---|---|---|---|---|",
    ]
    for package, row in rows.items():
        versions = dict(row.get("versions", {}))
        beside = ", ".join(f"{name} {version}" for name, version in versions.items() if name not in (package, "numpy"))
        masks = ", masks" if row.get("masks") else ""
        refusals = "; ".join(f"`{name}`: {shortened(words)}" for name, words in row.get("refused", {}).items())
        speed = f"{row.get('steps_per_second', '')} ({row.get('simulator_steps_per_second', '')})"
        cells = (
            f"{package} {versions.get(package, '')} ({beside})",
            row["field"],
            f"`{row.get('environment', '')}`",
            row.get("observation", ""),
            row.get("action", "") + masks,
            speed if "steps_per_second" in row else "",
            "; ".join(filter(None, (result_of(row), row.get("note"), refusals))),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
