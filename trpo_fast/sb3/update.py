"""The policy's half of an update, with the mathematics of sb3-contrib's TRPO."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trpo_fast._core.operator import Operator
from trpo_fast.solvers import Direction, Status, StepSettings, conjugate_gradient, step_length, try_step
from trpo_fast.solvers.trust_region import can_keep

from .networks import CompiledNetworks, Observations

# sb3-contrib's conjugate_gradient_solver: scale of its random start, and what it compares r'r with.
_START_SCALE = 1e-4
_RESIDUAL_TOLERANCE = 1e-10


class Samples(NamedTuple):
    """What a policy is updated with; B rows of each."""

    observations: Observations
    """Tensor (B, ...), or a dict of them, as the rollout buffer gives them."""
    actions: torch.Tensor
    """(B,) or (B, A); int64 where they are choices of a Discrete or MultiDiscrete space."""
    log_probs: torch.Tensor
    """(B,), as written while acting."""
    advantages: torch.Tensor
    """(B,), normalized where that is wanted."""


class PolicyStep(NamedTuple):
    """How one policy update went."""

    status: Status
    """SUCCESS: a step was taken. Otherwise the policy is what it was, bit for bit."""
    improvement: float
    """Mean of A (ratio - 1) after the update; ratios are those to the log-probabilities in the buffer."""
    kl: float
    """Mean KL(new || old) of the accepted step, in the units of its limit; 0 where none was."""


class BoundActor(Protocol):
    """An actor at theta_old with its samples: of `trpo_fast.solvers.engine.Engine`, what an update asks for."""

    averaged_over: int
    """A, by which sb3-contrib divides the joint KL of the distribution."""
    tensors: list[nn.Parameter]
    """The parameters that sb3-contrib steps."""

    def parameters(self) -> NDArray[Any]:
        """The live flat buffer (n,)."""

    def parameters_changed(self) -> None:
        """Says that `parameters()` was written."""

    def surrogate_gradient(self) -> NDArray[Any]:
        """(n,) gradient of mean A ratio at theta_old."""

    def fisher_operator(self) -> Operator:
        """F of the joint action distribution at theta_old, undamped."""

    def evaluate(self) -> tuple[float, float]:
        """``(mean A (ratio - 1), mean KL(new || old) of the joint distribution)`` at the current parameters."""


class CompiledActor:
    """The actor of `networks`, bound to `samples`."""

    def __init__(self, networks: CompiledNetworks, samples: Samples) -> None:
        self.averaged_over = networks.action_dimensions
        self.tensors = networks.actor_tensors
        self._networks = networks
        self._kernel = networks.actor
        self._kernel.bind(
            networks.actor_parameters,
            networks.rows(samples.observations),
            # A buffer has floats for the bits of a MultiBinary, too.
            np.ascontiguousarray(samples.actions, np.float32 if self._kernel.distribution == "gaussian" else np.int64),
            np.ascontiguousarray(samples.advantages),
            np.ascontiguousarray(samples.log_probs),
        )

    def parameters(self) -> NDArray[Any]:
        """The live flat buffer (n,)."""
        return self._networks.actor_parameters

    def parameters_changed(self) -> None:
        """Tell autograd."""
        self._networks.bump_versions()

    def surrogate_gradient(self) -> NDArray[Any]:
        """(n,) gradient of mean A ratio at theta_old."""
        return self._kernel.surrogate_gradient()

    def fisher_operator(self) -> Operator:
        """F at theta_old, undamped."""
        return self._kernel.fisher_operator()

    def evaluate(self) -> tuple[float, float]:
        """``(mean A (ratio - 1), mean KL(new || old))`` at the current parameters."""
        return self._kernel.evaluate(self._networks.actor_parameters)


def update_policy(
    actor: BoundActor,
    *,
    kl_divisor: int,
    max_kl: float,
    damping: float,
    cg_max_steps: int,
    shrinking_factor: float,
    max_trials: int,
    device: torch.device,
) -> PolicyStep:
    """What sb3-contrib's ``train()`` does to the policy.

    With a KL that is the joint one over A = `kl_divisor`: solve (F/A + lambda I) x = g from a random x of scale 1e-4
    until r'r < 1e-10, step by sqrt(2 delta / x'(F/A + lambda I)x) x, take the first of `max_trials` trials with
    KL/A < delta whose objective is above the one at theta_old. What is computed is the same in terms of y = x/A:
    (F + A lambda I) y = g, of the same residual, and KL < A delta.

    Parameters
    ----------
    max_kl, damping : float
        delta and lambda.
    device : torch.device
        The one whose global generator gives the start.
    """
    g = actor.surrogate_gradient()
    # Drawn whatever comes of it, so that the global generator is where sb3-contrib leaves it.
    start = _START_SCALE / kl_divisor * torch.randn(g.size, dtype=torch.from_numpy(g).dtype, device=device)
    before, _ = actor.evaluate()

    def failed(status: Status) -> PolicyStep:
        return PolicyStep(status, before, 0.0)

    if not (np.isfinite(g).all() and math.isfinite(before)):
        return failed(Status.NON_FINITE)
    if not g.any():
        return failed(Status.NO_GRADIENT)
    if max_trials < 1 or not max_kl > 0:
        return failed(Status.KL_VIOLATED)  # sb3-contrib's answer: nothing can be accepted
    joint_kl, damping = float(kl_divisor * max_kl), kl_divisor * damping
    solution = conjugate_gradient(
        actor.fisher_operator(),
        g,
        max_iter=cg_max_steps,
        rtol=0.0,
        atol=math.sqrt(_RESIDUAL_TOLERANCE),
        damping=damping,
        x0=start.cpu().numpy(),
        reorthogonalize=can_keep(g, cg_max_steps),
    )
    direction = Direction.from_solution(solution, g, damping)
    if not direction.usable:
        return failed(direction.status)
    if math.isinf(joint_kl):
        return failed(Status.NON_FINITE)  # as an infinite step is
    settings = StepSettings(
        max_kl=joint_kl,
        step_curvature="damped",
        backtrack_factor=shrinking_factor,
        max_backtracks=max_trials - 1,
    )
    length = step_length(direction, settings)
    if length is None:
        return failed(Status.NO_CURVATURE)
    below = settings.replace(max_kl=math.nextafter(joint_kl, 0.0))  # KL < delta, not <=
    search = try_step(_Gain(actor, before), length * direction.x, below)
    if search.status != Status.SUCCESS:
        return failed(search.status)
    return PolicyStep(search.status, before + search.improvement, search.kl / kl_divisor)


class _Gain:
    """An actor whose improvement is counted from theta_old, where its ratios are those to the buffer, on."""

    def __init__(self, actor: BoundActor, before: float) -> None:
        self.parameters = actor.parameters
        self.parameters_changed = actor.parameters_changed  # what is on a GPU gets them by this
        self._actor, self._before = actor, before

    def evaluate(self, kl_direction: str = "new_old") -> tuple[float, float]:
        """Of the current parameters; the KL is sb3-contrib's, new to old, whatever is asked for."""
        improvement, kl = self._actor.evaluate()
        return improvement - self._before, kl
