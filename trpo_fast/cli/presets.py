"""``trpo-fast presets``."""

from __future__ import annotations

import argparse
import sys
import textwrap

from trpo_fast.algorithm import presets
from trpo_fast.cli import output
from trpo_fast.cli.errors import CommandError, user_errors
from trpo_fast.cli.values import option_of, shown
from trpo_fast.settings import names_near


def run(arguments: argparse.Namespace) -> int:
    """List the presets, or that of one environment, or those of a file."""
    found = presets.all_presets()
    if arguments.env is not None and arguments.env.endswith(presets.SUFFIX):
        with user_errors():
            found = presets.read_presets(arguments.env)
    elif arguments.env is not None:
        plain = presets.plain_id(arguments.env) or ""
        if plain not in found:
            hint = names_near(plain, found, "there are presets for")
            raise CommandError(f"ENV: {arguments.env} given, which has no preset: it takes the defaults; {hint}")
        found = {plain: found[plain]}
    if arguments.json:
        keys = ("name", "actions", "settings", "evidence")
        output.answer([{key: getattr(preset, key) for key in keys} for preset in found.values()])
        return 0
    for preset in found.values():
        output.say(preset.name, sys.stdout)
        if arguments.quiet:
            continue
        options = " ".join(f"{option_of(name)} {shown(value)}" for name, value in preset.settings.items())
        for line in (f"settings: {options}", f"actions:  {preset.actions}", f"evidence: {preset.evidence}"):
            said = textwrap.fill(line, 110, initial_indent="  ", subsequent_indent="            ")
            output.say(said, sys.stdout)
    return 0
