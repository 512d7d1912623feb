"""A drop-in for sb3-contrib's TRPO: ``from trpo_fast.sb3 import TRPO`` instead of ``from sb3_contrib import TRPO``."""

import re
from importlib.metadata import PackageNotFoundError, version

OLDEST = (2, 7)
"""The oldest versions of stable-baselines3 and sb3-contrib that the tests were run with."""


def _require(package: str) -> None:
    """ImportError unless `package` is installed and at least `OLDEST`."""
    try:
        found = version(package)
    except PackageNotFoundError:
        found = "none"
    numbers = re.match(r"(\d+)\.(\d+)", found)
    if numbers is None or tuple(map(int, numbers.groups())) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise ImportError(
            f"trpo_fast.sb3: {package} {found} found; want >= {wanted}: pip install 'trpo-fast[sb3]'", name=package
        )


_require("stable-baselines3")
_require("sb3-contrib")

from .trpo import TRPO  # noqa: E402 (an installation that cannot do is named first)

__all__ = ["TRPO"]
