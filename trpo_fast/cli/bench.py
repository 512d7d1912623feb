"""``trpo-fast bench``."""

from __future__ import annotations

import argparse
import sys

from trpo_fast import benchmarks
from trpo_fast._core import library
from trpo_fast.cli import output
from trpo_fast.cli.errors import errors_of, user_errors
from trpo_fast.cli.output import say


def run(arguments: argparse.Namespace) -> int:
    """Measure; a table on stdout, or one JSON object. Exit code 1 where an answer is wrong."""
    if arguments.threads is not None:
        with errors_of("--threads"):
            library.set_num_threads(arguments.threads)
    silent = arguments.json or arguments.quiet
    if not silent:
        machine = benchmarks.describe_machine(measure=False)
        say(f"{machine['cpu']}, {machine['instruction_set']}, threads in use: {machine['threads']}")
        say(benchmarks.header())
    with user_errors():
        try:
            report = benchmarks.run(
                arguments.what,
                threads=None if arguments.threads is None else [arguments.threads],
                dtypes=benchmarks.DTYPES if arguments.dtype is None else [arguments.dtype],
                quick=arguments.quick,
                progress=None if silent else lambda one: say(benchmarks.line(one)),
            )
        except benchmarks.WrongAnswer as error:
            say(f"trpo-fast bench: {error}", sys.stderr)
            return 1
    if arguments.json:
        output.answer(report.as_dict() | {"command": _command(arguments)}, indent=2)
    elif not silent and not all(figure.quiet for figure in report.figures):
        say("BUSY: other work had the processor meanwhile; such a figure means little")
    return 0


def _command(arguments: argparse.Namespace) -> str:
    words = ["trpo-fast", "bench", arguments.what]
    for option in ("threads", "dtype"):
        if (value := getattr(arguments, option)) is not None:
            words += [f"--{option}", str(value)]
    return " ".join([*words, *(["--quick"] if arguments.quick else []), "--json"])
