"""Options that several commands have, and the parser that answers for all of them."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import sys
from typing import Any, NoReturn

from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.cli import other_words, values
from trpo_fast.cli.values import option_of

PROGRAM = "trpo-fast"
_WORN = "atari for ids of ale-py that show images, else none: what everybody has there"


class Parser(argparse.ArgumentParser):
    """Answers a mistake with one line, not with the usage of every option; options have their whole names.

    As an abbreviation --steps would mean --steps-per-env, when --timesteps was meant.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "allow_abbrev": False})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does; what no option is called is refused by what it is called here, or the names near."""
        given = sys.argv[1:] if args is None else list(args)
        of_command = self.prog != PROGRAM
        if not of_command and given and given[0] in other_words.COMMANDS:
            self.error(f"{given[0]}: no such command; want {other_words.COMMANDS[given[0]]}")
        for name, sizes in other_words.separate_sizes(given) if of_command else ():
            self.error(f"{name}: {' '.join(sizes)} given; want them with commas: {name} {','.join(sizes)}")
        known, unknown = super().parse_known_args(args, namespace)
        options = [text.partition("=")[0] for text in unknown if text.startswith("-") and text.strip("-")]
        if options:
            names = [name for name in self._option_string_actions if name.startswith("--")]
            near = difflib.get_close_matches(options[0], names, n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            if options[0] in other_words.OPTIONS:
                hint = f"; want {other_words.OPTIONS[options[0]]}"
            self.error(f"{options[0]}: no such option{hint}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        """Exit code 2."""
        self.exit(2, f"{self.prog}: error: {message} ({self.prog} --help shows all options)\n")


def add_settings(command: argparse.ArgumentParser, what: str = "fields of TRPOConfig") -> None:
    """Every field of TRPOConfig."""
    settings = command.add_argument_group("settings", f"{what}; docs/configuration.md has them, too")
    for entry in dataclasses.fields(TRPOConfig):
        meta = entry.metadata
        text = f"{meta['meaning']} (default {values.shown(entry.default)}: {meta['why']})"
        settings.add_argument(
            option_of(entry.name),
            dest=f"config_{entry.name}",
            default=argparse.SUPPRESS,
            type=values.field_parser(entry),
            metavar="VALUE",
            help=text.replace("%", "%%"),
        )


def add_output(command: argparse.ArgumentParser, *, json: str | None = None, quiet: str | None = None) -> None:
    """Options of what is printed; `json` and `quiet` say what they leave, None for a command that has no use for it."""
    if json is not None:
        command.add_argument(
            "--json", action="store_true", help=f"{json}; stdout has nothing else (default off: lines for people)"
        )
    if quiet is not None:
        command.add_argument("--quiet", action="store_true", help=f"print {quiet} (default off: all that is of use)")
    command.add_argument(
        "--debug",
        action="store_true",
        help="show the traceback of an error, also of an environment's (default off: the rest is of use to who mends "
        "the code alone)",
    )


def add_environment(command: argparse.ArgumentParser, instead: str = "") -> None:
    """How every copy is made; `instead` says of what the options take the place."""
    worn = "the run's: what it was trained in" if instead else _WORN
    usual = "the run's: what it was trained in" if instead else "none: its own defaults"
    command.add_argument(
        "--env-kwargs",
        type=values.json_object,
        metavar="JSON",
        help=f"arguments of the environment{instead}, e.g. '{{\"gravity\": 9.8}}' (default {usual})",
    )
    command.add_argument(
        "--wrapper",
        action="append",
        type=values.text,
        metavar="MODULE:CALLABLE",
        help=f"wrap every environment in it{instead}, again for more, the first innermost; or by name: atari (84 x 84 "
        "gray, four frames), int-actions (Python's integers), mask-in-observation (a Dict's action mask is obeyed, and "
        f"not observed), none (default {worn})",
    )


def add_import(command: argparse.ArgumentParser) -> None:
    """Code that a person names."""
    command.add_argument(
        "--import",
        dest="imports",
        action="append",
        type=values.text,
        default=[],
        metavar="MODULE",
        help="import a module that registers environments, again for more; MODULE:FUNCTION is called, too (default "
        "none: no code runs that nobody named)",
    )


def add_trust(command: argparse.ArgumentParser) -> None:
    """Code that a file names."""
    add_import(command)
    command.add_argument(
        "--trust",
        action="store_true",
        help="import whatever the file names, instead of asking for --import (default off: a file may be anyone's)",
    )


def config_overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """Fields of TRPOConfig that options were given for."""
    given = vars(arguments)
    names = [entry.name for entry in dataclasses.fields(TRPOConfig)]
    return {name: given[f"config_{name}"] for name in names if f"config_{name}" in given}
