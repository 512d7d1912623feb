"""MuJoCo's warnings: printed once each by all processes of a training together, and written nowhere.

By default MuJoCo prints a warning, a deprecated attribute of a model for example, for every copy that is made, and
writes it to MUJOCO_LOG.TXT in the working folder.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_said: set[str] = set()
_speaks = True


@contextmanager
def printed_once() -> Iterator[None]:
    """Let MuJoCo's warnings be printed once each, and not be written to a file: also where it is imported meanwhile.

    For the whole process, unless its user has set a handler; nothing where MuJoCo is not imported.
    """
    if "mujoco" in sys.modules:
        _set_handler()
        yield
        return
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path[:] = [other for other in sys.meta_path if other is not finder]


@contextmanager
def unsaid() -> Iterator[None]:
    """Take warnings as printed meanwhile: by another process, which does the same."""
    global _speaks
    _speaks = False
    try:
        yield
    finally:
        _speaks = True


def said() -> list[str]:
    """What has been printed, or taken as printed, in this process."""
    return sorted(_said)


def take_as_said(messages: Iterable[str]) -> None:
    """Do not print what another process has printed."""
    _said.update(messages)


class _Finder(MetaPathFinder):
    """Sets the handler right after the import of MuJoCo, before anything is made with it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As the usual finder does for ``mujoco``; None for all others."""
        spec = PathFinder.find_spec(fullname, path, target) if fullname == "mujoco" else None
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_set(module: ModuleType) -> None:
                execute(module)
                _set_handler()

            spec.loader.exec_module = execute_and_set  # type: ignore[method-assign]
        return spec


def _set_handler() -> None:
    mujoco: Any = sys.modules["mujoco"]
    if getattr(mujoco, "get_mju_user_warning", lambda: _say_once)() is None:
        mujoco.set_mju_user_warning(_say_once)


def _say_once(message: str) -> None:
    if message not in _said:
        _said.add(message)
        if _speaks:
            print(f"mujoco: {message.rstrip()}", file=sys.stderr)
