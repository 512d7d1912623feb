"""What a model has beside what Stable-Baselines3 knows of."""

from __future__ import annotations

from typing import TypeVar

from stable_baselines3.common.policies import BasePolicy

from trpo_fast.engines.value import FailedFits

from .networks import CompiledActing, CompiledCritic, CompiledNetworks, CompiledTrunk

Kernels = TypeVar("Kernels", bound=CompiledCritic)


class Backend:
    """The kernels of one model and what its last update was done by; neither saved nor copied with the model.

    Attributes
    ----------
    policy_engine, critic_engine : str or None
        What did the halves of the last update: "compiled", "autograd" or "sb3_contrib"; "compiled" or "torch".
    policy_reason, critic_reason : str or None
        Why not the compiled one.
    told : set of str
        What the user has been told, each once.
    failed_fits : FailedFits
        What follows where a fit of the value function was taken back.
    """

    def __init__(self) -> None:
        self.policy_engine: str | None = None
        self.policy_reason: str | None = None
        self.critic_engine: str | None = None
        self.critic_reason: str | None = None
        self.told: set[str] = set()
        self.failed_fits = FailedFits()
        self._networks: CompiledNetworks | str | None = None
        self._critic: CompiledCritic | str | None = None
        self._trunk: CompiledTrunk | str | None = None

    def __reduce__(self) -> tuple[type[Backend], tuple[()]]:
        """A copy, or what a pickle gives, is a new one."""
        return Backend, ()

    def networks(self, policy: BasePolicy) -> CompiledNetworks | str:
        """The kernels of `policy` over the parameters that it has now, or why they cannot serve."""
        self._networks = _refreshed(CompiledNetworks, self._networks, policy)
        return self._networks

    def acting(self, policy: BasePolicy) -> CompiledActing | None:
        """The kernels that `policy` can act with; None where it has to by itself."""
        networks = self.networks(policy)
        if not isinstance(networks, str):
            return networks
        self._trunk = _refreshed(CompiledTrunk, self._trunk, policy)
        return None if isinstance(self._trunk, str) else self._trunk

    def critic(self, policy: BasePolicy) -> CompiledCritic | str:
        """The kernel of the value function alone, for policies whose actor has none, or why it cannot serve."""
        self._critic = _refreshed(CompiledCritic, self._critic, policy)
        return self._critic


def _refreshed(kind: type[Kernels], known: Kernels | str | None, policy: BasePolicy) -> Kernels | str:
    try:
        if not isinstance(known, kind) or known.policy is not policy:
            return kind(policy)
        known.refresh()
    except ValueError as obstacle:
        return str(obstacle)
    return known
