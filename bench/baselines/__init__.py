"""Who is timed beside whom: every library behind the same few functions.

Each function prepares everything and returns what is timed. A library leaves out what it does not offer.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

from numpy.typing import NDArray

from bench.problems import LinearSystem, PolicyProblem, Updated, UpdateSettings

Solve = Callable[[], NDArray[Any]]
Product = Callable[[NDArray[Any]], NDArray[Any]]
# (actions (B, A), their log-probabilities (B,))
Act = Callable[[], tuple[NDArray[Any], NDArray[Any]]]


class Update(Protocol):
    """A whole update of policy and critic that can be repeated from the same start."""

    def reset(self) -> None:
        """Put policy, critic and optimizer back; not timed."""

    def run(self) -> None:
        """Gradient, solve, line search and critic fit; timed."""

    def result(self) -> Updated:
        """The parameters after `run`."""


class Baseline(Protocol):
    """What a module of this package may define."""

    def solver(self, system: LinearSystem) -> Solve:
        """CG on a linear system, in the library's native arrays."""

    def fisher_solver(self, problem: PolicyProblem, gradient: NDArray[Any], damping: float, iterations: int) -> Solve:
        """CG on the damped Fisher matrix of a policy."""

    def fisher_product(self, problem: PolicyProblem) -> Product:
        """``v -> F v``, without damping, for the joint distribution, in ``named_parameters()`` order."""

    def update(self, problem: PolicyProblem, settings: UpdateSettings) -> Update:
        """One update of policy and critic."""

    def critic_fit(self, problem: PolicyProblem, settings: UpdateSettings) -> Update:
        """The critic's part of it: all epochs of minibatches; `Updated.policy` is empty."""

    def actor(self, problem: PolicyProblem) -> Act:
        """One environment step of the policy for B rows, as the library's own rollout does it."""


TORCH_WAYS = (
    "torch-double-backward",
    "torch-double-vjp",
    "torch-jvp-vjp",
    "torch-linearize-vjp",
    "torch-compile",
)
MODULES = {
    "trpo_fast": "bench.baselines.ours",
    "trpo_fast-autograd": "bench.baselines.ours_autograd",
    "trpo_fast-tensors": "bench.baselines.ours_tensors",
    "trpo_fast-jax": "bench.baselines.ours_jax",
    "scipy": "bench.baselines.scipy_cg",
    "torch": "bench.baselines.plain_torch",
    "sb3-contrib": "bench.baselines.sb3_contrib_trpo",
}
OFFERS = {
    "solver": ("trpo_fast", "trpo_fast-tensors", "trpo_fast-jax", "scipy", "torch", "sb3-contrib"),
    "fisher_solver": ("trpo_fast", "torch", "sb3-contrib"),
    "fisher_product": ("trpo_fast", "trpo_fast-autograd", *TORCH_WAYS, "sb3-contrib"),
    "update": ("trpo_fast", "sb3-contrib"),
    "critic_fit": ("trpo_fast", "sb3-contrib"),
    "actor": ("trpo_fast", "sb3-contrib"),
}
# What has code for float32 only.
SINGLE_PRECISION = ("sb3-contrib",)


def load(name: str) -> Baseline:
    """The module of a library, or one of torch's ways; ImportError where it is not installed."""
    if name in TORCH_WAYS:
        made: Baseline = import_module("bench.baselines.torch_ways").way(name)
        return made
    return import_module(MODULES[name])
