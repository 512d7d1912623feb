"""A target of a fuzzer: what makes its inputs, which lines it is to reach, and its corpus, a text of one input a line.

A corpus is one file, not hundreds: a line of hexadecimal digits an input, the shortest first, so that a change is read
line by line.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "fuzz"
LIMITS = ("-timeout=60", "-rss_limit_mb=4096", "-len_control=0", "-print_final_stats=1", "-verbosity=1")


class Lines(NamedTuple):
    """Of the files under test: how many lines there are, and how many a corpus reaches."""

    reached: int
    counted: int

    @property
    def percent(self) -> float:
        return 100 * self.reached / self.counted


class Run(NamedTuple):
    """What came of new inputs for some time."""

    seconds: float
    executions: int
    found: dict[str, str] | None
    """Of the input that ended it: its bytes, in hexadecimal digits, and what was said."""


class Target(ABC):
    """One program, or module, that runs an input."""

    tool: ClassVar[str]
    longest: ClassVar[int]
    """In bytes, of an input."""
    few_new: ClassVar[int]
    """How many new inputs take some seconds."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    @abstractmethod
    def corpus(self) -> Path:
        """The file of its corpus."""

    @abstractmethod
    def missing(self) -> str:
        """Why it cannot run here; nothing where it can."""

    @abstractmethod
    def build(self) -> None:
        """Whatever is to be made before it runs."""

    @abstractmethod
    def command(self) -> list[str]:
        """What runs libFuzzer's loop; behind it come its options."""

    @abstractmethod
    def lines(self, inputs: Path) -> Lines:
        """The lines that the inputs of a folder reach; an error where one of them is a fault."""

    @abstractmethod
    def fewest(self, *folders: Path) -> list[bytes]:
        """Of the inputs in folders, few that between them reach as much."""

    @abstractmethod
    def without_a_check(self, folder: Path) -> tuple[Target, str]:
        """The same of a copy of the sources, in a folder, that lacks one check; and what is said once that is found."""

    def environment(self) -> dict[str, str]:
        """For what it runs."""
        return {**os.environ, "OMP_NUM_THREADS": "1"}

    def few(self, folder: Path, inputs: Path) -> Run:
        """As many inputs as `few_new` says beside those of `inputs`, the same ones each time."""
        paths = sorted(inputs.iterdir())  # a folder is read in no order
        runs = len(paths) + self.few_new
        return self.fuzz(3600, folder, seed=1, options=[f"-runs={runs}", f"-seed_inputs={','.join(map(str, paths))}"])

    def fuzz(self, seconds: float, folder: Path, *corpora: Path, seed: int = 0, options: Sequence[str] = ()) -> Run:
        """New inputs, from those of `corpora`, the first of which gets what is new; `folder` what was printed."""
        for path in folder.glob("fault-*"):
            path.unlink()
        limits = [*LIMITS, f"-max_len={self.longest}", f"-max_total_time={max(1, round(seconds))}", f"-seed={seed}"]
        command = [*self.command(), *limits, *options, f"-artifact_prefix={folder}/fault-", *map(str, corpora)]
        started = time.monotonic()
        with (folder / "log").open("wb") as log, tempfile.TemporaryDirectory() as scratch:
            environment = {**self.environment(), "TMPDIR": scratch}
            # As long again for what is imported, and for the corpus.
            status = subprocess.run(
                command, cwd=folder, env=environment, stdout=log, stderr=log, timeout=2 * seconds + 600
            ).returncode
        took = time.monotonic() - started
        printed = (folder / "log").read_text(errors="replace")
        executions = re.findall(r"stat::number_of_executed_units: *(\d+)", printed)
        looped = re.findall(r"^Done \d+ runs in (\d+) second", printed, re.MULTILINE)  # without what is imported
        found = None
        if status:
            inputs = [path for path in folder.glob("fault-*") if "slow-unit" not in path.name]
            found = {"input": inputs[0].read_bytes().hex() if inputs else "", "said": printed[-6000:]}
        return Run(float(looped[-1]) if looped else took, int(executions[-1]) if executions else 0, found)

    def renew_corpus(self, *folders: Path) -> None:
        """Make the corpus of what is in folders: few inputs that reach as much."""
        kept = sorted(self.fewest(*folders), key=lambda content: (len(content), content))
        self.corpus.write_text("".join(f"{content.hex()}\n" for content in kept))

    def unpacked(self, folder: Path) -> Path:
        """The corpus as a folder of files."""
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        put(folder, map(bytes.fromhex, self.corpus.read_text().splitlines()))
        return folder


def put(folder: Path, contents: Iterable[bytes]) -> None:
    """Write each into a file that is called after it."""
    for content in contents:
        (folder / hashlib.sha1(content, usedforsecurity=False).hexdigest()).write_bytes(content)


def cover(reached: Sequence[tuple[bytes, set[object]]]) -> list[bytes]:
    """Few of the inputs that reach between them all that any reaches: each time what adds most, or is shortest."""
    left, kept = list(reached), []
    known: set[object] = set()
    while left:
        left = [(content, found - known) for content, found in left if found - known]
        if left:
            content, found = max(left, key=lambda one: (len(one[1]), -len(one[0]), one[0]))
            kept.append(content)
            known |= found
    return kept


def replaced(path: Path, check: str, instead: str) -> None:
    """Take a check from a file; it is no link afterwards."""
    content = path.read_text()
    assert content.count(check) == 1, f"{path} has no such check: {check}"
    path.unlink()
    path.write_text(content.replace(check, instead))
