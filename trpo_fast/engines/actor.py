"""Acting with any torch policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, Normal

from trpo_fast._core.acting import check_arrays, sample
from trpo_fast._core.library import MAX_OUTPUTS, normal, philox
from trpo_fast.policies.distributions import MultiCategorical, Product, base_of, sample_inside, with_masks
from trpo_fast.policies.squashed import SquashedNormal
from trpo_fast.sampling import draw_choices, draw_parts
from trpo_fast.solvers.validation import require_bool, require_count


class TorchActor:
    """Acts as `trpo_fast._core.acting.Actor` does, with a torch network.

    Noise is keyed by (seed, stream, step, row) and the compiled engine's own for Normal, SquashedNormal, Categorical
    and Bernoulli, of one component or several, and for a product of these; other distributions, also in a product, are
    sampled by torch under a generator keyed by (seed, stream, step), so they depend on the number of rows.

    Parameters
    ----------
    distribution : callable
        Flat observations (E, D) to a distribution of batch shape (E,).
    dtype : numpy.dtype
        Of the policy.
    device : torch.device
        Where the policy computes.
    observation_mean, observation_scale : float64, shape (D,), optional
        Read at every call.
    observation_clip : float
        Bound on normalized observations.
    action_low, action_high : float64, shape (A,), optional
        The environment's bounds; None for discrete actions.
    action_scale, action_offset : float64, shape (A,), optional
        An action a goes to the environment as ``action_scale * a + action_offset``, before the bounds; None: as it is.
    action_start : int64, shape (m,), optional
        First action of each component; None for a Box and for a product.
    seed, stream : int
        Key of the noise.
    """

    def __init__(
        self,
        distribution: Callable[[Tensor], Distribution],
        dtype: np.dtype[Any],
        *,
        device: torch.device,
        observation_mean: NDArray[np.float64] | None,
        observation_scale: NDArray[np.float64] | None,
        observation_clip: float,
        action_low: NDArray[np.float64] | None,
        action_high: NDArray[np.float64] | None,
        action_scale: NDArray[np.float64] | None,
        action_offset: NDArray[np.float64] | None,
        action_start: NDArray[np.int64] | None,
        seed: int,
        stream: int,
    ) -> None:
        if (observation_mean is None) != (observation_scale is None):
            raise ValueError("observation_mean and observation_scale: one of them given; want both or neither")
        if (action_scale is None) != (action_offset is None):
            raise ValueError("action_scale and action_offset: one of them given; want both or neither")
        self._distribution = distribution
        self._dtype = dtype
        self._device = device
        self._mean, self._scale, self._clip = observation_mean, observation_scale, observation_clip
        self._low, self._high = action_low, action_high
        self._action_scale, self._action_offset = action_scale, action_offset
        self._start = 0 if action_start is None else action_start
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
        action_masks: NDArray[np.bool_] | None = None,
    ) -> None:
        """Write normalized observations, actions, log-probabilities and what goes to the environment.

        Parameters
        ----------
        observations : float32 or float64, shape (E, D)
            Raw; not modified.
        step : int
            Counter of the noise.
        normalized : OUT, policy's dtype, shape (E, D)
        actions : OUT, policy's dtype, shape (E, A), or int64, shape (E,) or (E, m)
        log_probs : OUT, policy's dtype, shape (E,)
        env_actions : OUT, float32 or float64, shape (E, A), mapped and clipped to the Box, or int64 as `actions`, with
            start added; of a product all in one row, choices from 0 on
        deterministic : bool
            The mode instead of a sample.
        first_row : int
            Global index of the first row, for the noise.
        action_masks : bool, shape (E, K), optional
            True where a choice is allowed; see `trpo_fast.policies.distributions.with_masks`.

        Raises
        ------
        FloatingPointError
            Naming the row where an observation, as it is or as the policy's dtype, the action or its log-probability is
            not finite.
        TypeError, ValueError
            Masks that do not fit the policy's distribution, or forbid everything in a component; an array of another
            dtype or shape, that cannot be written, or that shares memory with another.
        """
        real = self._low is not None
        check_arrays(observations, action_masks, normalized, actions, log_probs, env_actions, self._dtype, real)
        step = require_count("step", step, low=0, most=2**64 - 1)
        first_row = require_count("first_row", first_row, low=0, most=2**32 - 1)
        deterministic = require_bool("deterministic", deterministic)
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
            distribution = self._distribution(torch.from_numpy(normalized.copy()).to(self._device))
            if action_masks is not None:
                distribution = with_masks(distribution, torch.from_numpy(action_masks.copy()).to(self._device))
            chosen = self._choose(distribution, step, deterministic, first_row)
            log_probs[:] = distribution.log_prob(chosen).cpu().numpy()
        if actions.size != chosen.numel():
            raise ValueError(f"actions: shape {actions.shape} given; want {tuple(chosen.shape)}")
        # A mode may be a view of a parameter, for which autograd would answer outside of no_grad.
        actions[...] = chosen.detach().reshape(actions.shape).cpu().numpy()
        _check_rows("action", actions, first_row)
        _check_rows("log-probability of action", log_probs, first_row)
        if self._low is None or self._high is None:
            np.add(actions, self._start, out=env_actions)
        else:
            mapped = actions
            if self._action_scale is not None and self._action_offset is not None:
                with np.errstate(over="ignore"):  # an infinity is clipped like any other number
                    mapped = self._action_scale * actions + self._action_offset
            np.clip(mapped, self._low, self._high, out=env_actions, casting="same_kind")

    def _choose(self, distribution: Distribution, step: int, deterministic: bool, first_row: int) -> Tensor:
        if isinstance(distribution, Product):
            return self._choose_parts(distribution, step, deterministic, first_row)
        base = base_of(distribution)
        discrete = _discrete(distribution)
        if discrete is not None:
            # Deterministically too: torch's mode of a Bernoulli is NaN where both values are as likely.
            logits, nvec = discrete
            choices = np.empty((len(logits), len(nvec or logits[0])), np.int64)
            name = "bernoulli" if nvec is None else "multicategorical"
            rows = np.ascontiguousarray(logits.cpu().numpy(), self._dtype)
            self._sample(name, rows, None, choices, step, first_row, deterministic=deterministic, nvec=nvec)
            chosen = torch.from_numpy(choices).to(self._device).view(len(logits), *distribution.event_shape)
            return chosen.to(logits.dtype) if nvec is None else chosen
        if not deterministic and isinstance(base, Normal | SquashedNormal) and type(base) in (Normal, SquashedNormal):
            # Unit noise from the compiled sampler serves scales that depend on the state, too.
            noise = np.zeros((len(base.loc), base.loc[0].numel()), self._dtype)
            unit = np.zeros(noise.shape[1], self._dtype)
            self._sample("gaussian", np.zeros_like(noise), unit, noise, step, first_row)
            return _moved(base, torch.from_numpy(noise).to(self._device))
        return self._choose_by_torch([distribution], step, deterministic, first_row)[0]

    def _choose_by_torch(
        self, distributions: Sequence[Distribution], step: int, deterministic: bool, first_row: int
    ) -> list[Tensor]:
        """Of distributions that the compiled sampler does not know, one after the other out of one stream of noise."""
        if deterministic:
            return [_mode(distribution) for distribution in distributions]
        key = (self._seed & 0xFFFFFFFF, self._seed >> 32)
        words = philox(key, (step & 0xFFFFFFFF, step >> 32, self._stream, first_row))
        devices = [] if self._device.type == "cpu" else [self._device]
        with torch.random.fork_rng(devices, device_type=self._device.type):
            torch.manual_seed(words[0] | words[1] << 32)
            return [sample_inside(distribution) for distribution in distributions]

    def _choose_parts(self, product: Product, step: int, deterministic: bool, first_row: int) -> Tensor:
        """A row of all parts; those that are known to the compiled sampler share its noise, the others torch's."""
        # Unit noise serves scales that depend on the state, too.
        columns, kinds, sizes, others = [], [], [], []
        rows, means = product.batch_shape[0], 0
        for part, size in zip(product.parts, product.sizes, strict=True):
            discrete = _discrete(part)
            if discrete is not None:
                logits, nvec = discrete
                columns.append(np.ascontiguousarray(logits.cpu().numpy(), self._dtype))
                kinds.append(("bernoulli" if nvec is None else "multicategorical", logits.shape[1], nvec))
            elif type(base_of(part)) in (Normal, SquashedNormal):
                columns.append(np.zeros((rows, size), self._dtype))
                kinds.append(("gaussian", size, None))
                means += size
            else:
                others.append(part)
                continue
            sizes.append(size)
        drawn = np.empty((rows, sum(sizes)), self._dtype)
        if kinds:
            unit = np.zeros(means, self._dtype) if means else None
            more = {"deterministic": deterministic, "parts": kinds}
            self._sample("product", np.hstack(columns), unit, drawn, step, first_row, **more)
        pieces = iter(torch.from_numpy(drawn).to(self._device).split(sizes, 1))
        by_torch = iter(self._choose_by_torch(others, step, deterministic, first_row) if others else ())
        values = []
        for part in product.parts:
            base = base_of(part)
            if _discrete(part) is not None:
                values.append(next(pieces).reshape(rows, *part.event_shape))
            elif isinstance(base, Normal | SquashedNormal) and type(base) in (Normal, SquashedNormal):
                values.append(_moved(base, next(pieces)))
            else:
                values.append(next(by_torch))
        return product.joined(values)

    def _sample(
        self,
        name: str,
        parameters: NDArray[Any],
        log_std: NDArray[Any] | None,
        out: NDArray[Any],
        step: int,
        first_row: int,
        **more: Any,
    ) -> None:
        more |= {"seed": self._seed, "stream": self._stream, "first_row": first_row}
        if parameters.shape[1] > MAX_OUTPUTS:  # longer than the compiled sampler takes
            if name == "product":
                out[...] = draw_parts(parameters, step=step, **more)
            elif log_std is None:
                out[...] = draw_choices(parameters, step=step, **more)
            else:  # unit noise is all that is asked for
                out[...] = normal(*out.shape, step=step, **more)
            return
        log_probs = np.empty(len(parameters), self._dtype)
        sample(name, parameters, log_std, step, out, log_probs, **more)


def _discrete(distribution: Distribution) -> tuple[Tensor, tuple[int, ...] | None] | None:
    """Logits (E, K) and choices of each component (None: Bernoulli), for the compiled sampler; None for other kinds."""
    base = base_of(distribution)
    if isinstance(distribution, MultiCategorical):
        return distribution.logits, distribution.nvec
    if type(base) is Categorical:
        return base.logits.flatten(1), (base.logits.shape[-1],) * distribution.event_shape.numel()
    if type(base) is Bernoulli:
        return base.logits.reshape(len(base.logits), -1), None
    return None


def _moved(base: Normal | SquashedNormal, unit: Tensor) -> Tensor:
    """The values that are `unit` noise away from the location."""
    drawn = base.loc + base.scale * unit.view(base.loc.shape)
    return base.squash(drawn) if isinstance(base, SquashedNormal) else drawn


def _mode(distribution: Distribution) -> Tensor:
    try:
        return distribution.mode
    except NotImplementedError:
        name = type(base_of(distribution)).__name__
        raise ValueError(
            f"deterministic: True given; want False for a policy that returns a {name}, whose mode torch does not know"
        ) from None


def _check_rows(what: str, array: NDArray[Any], first_row: int) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        row = int(np.argwhere(~finite)[0][0])
        raise FloatingPointError(f"{what} {row + first_row} is not finite in {array.dtype}: {array[row]}")
