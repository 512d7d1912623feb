"""Acting with any torch policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import Categorical, Distribution, Normal

from trpo_fast._core.library import philox
from trpo_fast._core.policy import sample
from trpo_fast.policies.distributions import base_of


class TorchActor:
    """Acts as `trpo_fast._core.policy.Actor` does, with a torch network.

    Noise is keyed by (seed, stream, step, row) and the compiled engine's own for Normal and Categorical; for other
    distributions torch samples under a generator keyed by (seed, stream, step), so it depends on the number of rows.

    Parameters
    ----------
    distribution : callable
        Flat observations (E, D) to a distribution of batch shape (E,).
    dtype : numpy.dtype
        Of the policy.
    observation_mean, observation_scale : float64, shape (D,), optional
        Read at every call.
    observation_clip : float
        Bound on normalized observations.
    action_low, action_high : float64, shape (A,), optional
        The environment's bounds; None for discrete actions.
    action_start : int
        First action of a Discrete space.
    seed, stream : int
        Key of the noise.
    """

    def __init__(
        self,
        distribution: Callable[[Tensor], Distribution],
        dtype: np.dtype[Any],
        *,
        observation_mean: NDArray[np.float64] | None,
        observation_scale: NDArray[np.float64] | None,
        observation_clip: float,
        action_low: NDArray[np.float64] | None,
        action_high: NDArray[np.float64] | None,
        action_start: int,
        seed: int,
        stream: int,
    ) -> None:
        if (observation_mean is None) != (observation_scale is None):
            raise ValueError("observation_mean and observation_scale: got one, wanted both or neither")
        self._distribution = distribution
        self._dtype = dtype
        self._mean, self._scale, self._clip = observation_mean, observation_scale, observation_clip
        self._low, self._high, self._start = action_low, action_high, action_start
        self._seed, self._stream = seed, stream

    def act(
        self,
        observations: NDArray[Any],
        step: int,
        normalized: NDArray[Any],
        actions: NDArray[Any],
        log_probs: NDArray[Any],
        env_actions: NDArray[Any],
        deterministic: bool = False,
        first_row: int = 0,
    ) -> None:
        """Write normalized observations, actions, log-probabilities and what goes to the environment.

        Parameters
        ----------
        observations : float32 or float64, shape (E, D)
            Raw; not modified.
        step : int
            Counter of the noise.
        normalized : OUT, policy's dtype, shape (E, D)
        actions : OUT, policy's dtype, shape (E, A), or int64, shape (E,)
        log_probs : OUT, policy's dtype, shape (E,)
        env_actions : OUT, float32 or float64, shape (E, A), clipped to the Box, or int64, shape (E,), with start added
        deterministic : bool
            The mode instead of a sample.
        first_row : int
            Global index of the first row, for the noise.

        Raises
        ------
        FloatingPointError
            Naming the row where an observation, as it is or as the policy's dtype, or the action is not finite.
        """
        _check_rows("observation", observations, first_row)
        with np.errstate(over="ignore"):  # a float64 observation may be too large for a float32 policy
            if self._mean is None or self._scale is None:
                normalized[...] = observations
            else:
                scaled = (observations - self._mean) * self._scale
                np.clip(scaled, -self._clip, self._clip, out=normalized, casting="same_kind")
        _check_rows("observation", normalized, first_row)
        with torch.no_grad():
            # A copy, since a policy may keep what it is given.
            distribution = self._distribution(torch.tensor(normalized))
            chosen = self._choose(distribution, step, deterministic, first_row)
            log_probs[:] = distribution.log_prob(chosen).numpy()
        actions[...] = chosen.reshape(actions.shape).numpy()
        _check_rows("action", actions, first_row)
        if self._low is None or self._high is None:
            np.add(actions, self._start, out=env_actions)
        else:
            np.clip(actions, self._low, self._high, out=env_actions, casting="same_kind")

    def _choose(self, distribution: Distribution, step: int, deterministic: bool, first_row: int) -> Tensor:
        if deterministic:
            return distribution.mode
        base = base_of(distribution)
        if type(base) is Normal:
            # Unit noise from the compiled sampler serves scales that depend on the state, too.
            noise = np.zeros((len(base.loc), base.loc[0].numel()), self._dtype)
            unit = np.zeros(noise.shape[1], self._dtype)
            self._sample("gaussian", np.zeros_like(noise), unit, noise, step, first_row)
            return base.loc + base.scale * torch.from_numpy(noise).view(base.loc.shape)
        if type(base) is Categorical and base.logits.ndim == 2:
            choices = np.zeros(len(base.logits), np.int64)
            logits = np.ascontiguousarray(base.logits.numpy(), self._dtype)
            self._sample("categorical", logits, None, choices, step, first_row)
            return torch.from_numpy(choices)
        key = (self._seed & 0xFFFFFFFF, self._seed >> 32)
        words = philox(key, (step & 0xFFFFFFFF, step >> 32, self._stream, first_row))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(words[0] | words[1] << 32)
            return distribution.sample()

    def _sample(
        self,
        name: str,
        parameters: NDArray[Any],
        log_std: NDArray[Any] | None,
        out: NDArray[Any],
        step: int,
        first_row: int,
    ) -> None:
        log_probs = np.empty(len(parameters), self._dtype)
        sample(
            name, parameters, log_std, step, out, log_probs, seed=self._seed, stream=self._stream, first_row=first_row
        )


def _check_rows(what: str, array: NDArray[Any], first_row: int) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        row = int(np.argwhere(~finite)[0][0])
        raise FloatingPointError(f"{what} {row + first_row} is not finite in {array.dtype}: {array[row]}")
