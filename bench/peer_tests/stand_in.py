"""A plugin of pytest: ours takes the place of what another library's tests ask for, and only tests of that are run.

``python -m pytest -p bench.peer_tests.stand_in`` with STAND_IN=scipy, sb3-contrib, stable-baselines3 or, to tell whose
failure it is, theirs: sb3-contrib's TRPO in the place of Stable-Baselines3's PPO.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import sb3_contrib
import scipy.sparse.linalg._isolve
import stable_baselines3
from stable_baselines3.common.base_class import BaseAlgorithm

import trpo_fast.sb3
from trpo_fast import conjugate_gradient


def cg(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    M: Any = None,
    callback: Any = None,
) -> tuple[Any, int]:
    """`trpo_fast.conjugate_gradient` with the signature and the `info` of `scipy.sparse.linalg.cg`."""
    b = np.asarray(b)
    if b.dtype.kind in "iu":
        b = b.astype(np.float64)
    if isinstance(x0, str):  # "Mb"
        x0 = b if M is None else M @ b
    found = conjugate_gradient(
        A,
        b,
        max_iter=10 * len(b) if maxiter is None else maxiter,
        rtol=rtol,
        atol=atol,
        preconditioner=M,
        x0=None if x0 is None else np.asarray(x0, b.dtype),
        callback=callback,
    )
    return found.x, 0 if found.status.name == "SUCCESS" else found.iterations


OF_PPO = ("n_epochs", "clip_range", "clip_range_vf", "ent_coef", "vf_coef", "max_grad_norm")
"""Settings that no TRPO has; tests of other things give them in passing."""


def without_ppos(algorithm: Any) -> Any:
    """`algorithm`, to which settings of PPO's are nothing."""

    class Instead(algorithm):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **{name: value for name, value in settings.items() if name not in OF_PPO})

    return Instead


# What is replaced, where, under which name, and by what.
REPLACED: dict[str, tuple[Any, str, Any]] = {
    "scipy": (scipy.sparse.linalg._isolve, "cg", cg),
    "sb3-contrib": (sb3_contrib, "TRPO", trpo_fast.sb3.TRPO),
    "stable-baselines3": (stable_baselines3, "PPO", without_ppos(trpo_fast.sb3.TRPO)),
    "theirs": (stable_baselines3, "PPO", without_ppos(sb3_contrib.TRPO)),
}
MODULE, NAME, OURS = REPLACED[os.environ["STAND_IN"]]


def pytest_configure() -> None:
    """Before the tests are imported."""
    setattr(MODULE, NAME, OURS)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests that ask for it, as a parameter or in their code."""
    asking = [item for item in items if _asks(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in asking])
    items[:] = asking


def _asks(item: Any) -> bool:
    given = list(item.callspec.params.values()) if hasattr(item, "callspec") else []
    solvers = [value if isinstance(value, type) else getattr(value, "solver", value) for value in given]
    if any(value is OURS for value in solvers):
        return True
    others = any(isinstance(value, type) and issubclass(value, BaseAlgorithm) for value in solvers)
    return not others and NAME in item.function.__code__.co_names
