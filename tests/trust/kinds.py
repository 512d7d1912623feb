"""What faults and the soak are told to run, checked in the same words."""

import argparse
from collections.abc import Collection


def require_known(parser: argparse.ArgumentParser, given: argparse.Namespace, known: Collection[str]) -> None:
    """A usage error where ``--only`` fits no kind, or ``--jobs`` has another one or none of it."""
    if not any(given.only in kind for kind in known):
        parser.error(f"--only: {given.only!r} given; want part of one of {', '.join(known)}")
    unknown = [kind for kind, count in (given.jobs or {}).items() if kind not in known or count < 1]
    if unknown:
        parser.error(f"--jobs: {unknown} given; want numbers >= 1 of {', '.join(known)}")
