"""What a model has beside what Stable-Baselines3 knows of."""

from __future__ import annotations

from stable_baselines3.common.policies import BasePolicy

from .networks import CompiledNetworks


class Backend:
    """The kernels of one model and what its last update was done by; neither saved nor copied with the model.

    Attributes
    ----------
    obstacle : str or None
        Why `networks` last gave None.
    policy_engine, critic_engine : str or None
        What did the halves of the last update: "compiled", "autograd" or "sb3_contrib"; "compiled" or "torch".
    policy_reason, critic_reason : str or None
        Why not the compiled one.
    told : set of str
        What the user has been told, each once.
    """

    def __init__(self) -> None:
        self.obstacle: str | None = None
        self.policy_engine: str | None = None
        self.policy_reason: str | None = None
        self.critic_engine: str | None = None
        self.critic_reason: str | None = None
        self.told: set[str] = set()
        self._policy: BasePolicy | None = None
        self._networks: CompiledNetworks | None = None

    def __reduce__(self) -> tuple[type[Backend], tuple[()]]:
        """A copy, or what a pickle gives, is a new one."""
        return Backend, ()

    def networks(self, policy: BasePolicy) -> CompiledNetworks | None:
        """The kernels of `policy` over the parameters that it has now, or None where they cannot serve."""
        try:
            if self._networks is None or self._policy is not policy:
                self._networks, self._policy = CompiledNetworks(policy), policy
            else:
                self._networks.refresh()
            self.obstacle = None
        except ValueError as obstacle:
            self._networks, self.obstacle = None, str(obstacle)
        return self._networks
