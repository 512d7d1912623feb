"""Acting in NumPy with a perceptron of more outputs than the compiled core takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpo_fast._core.library import elementary, normal
from trpo_fast.normalizers import ObservationNormalizer
from trpo_fast.sampling import draw_choices
from trpo_fast.saved_policy import SavedPolicy
from trpo_fast.spaces import ActionLayout


class NumpyActor:
    """Acts as `trpo_fast._core.acting.Actor` does, up to rounding.

    Parameters
    ----------
    saved : SavedPolicy
        An MLP.
    layout : ActionLayout
        Of its actions.
    normalizer : ObservationNormalizer or None
        Read at every call.
    seed, stream : int
        Key of the noise.
    """

    def __init__(
        self,
        saved: SavedPolicy,
        layout: ActionLayout,
        normalizer: ObservationNormalizer | None,
        *,
        seed: int,
        stream: int,
    ) -> None:
        self._layout, self._normalizer, self._activation = layout, normalizer, saved.activation
        self._log_std = saved.parameters.get("log_std")
        self._layers = [
            (np.ascontiguousarray(saved.parameters[f"layers.{i}.weight"].T), saved.parameters[f"layers.{i}.bias"])
            for i in range(len(saved.widths) - 1)
        ]
        self._seed, self._stream = seed, stream

    def act(
        self,
        observations: NDArray[np.float64],
        step: int,
        normalized: NDArray[Any],
        actions: NDArray[Any],
        log_probs: NDArray[Any],
        env_actions: NDArray[Any],
        deterministic: bool = False,
        first_row: int = 0,
        action_masks: NDArray[np.bool_] | None = None,
    ) -> None:
        """As the compiled actor's, but that `log_probs` are left as they are, which nobody asks a loaded actor for.

        FloatingPointError where an observation, as the policy's dtype, or an action that comes of it is not finite.
        """
        layout, dtype = self._layout, normalized.dtype
        with np.errstate(over="ignore", invalid="ignore"):
            if self._normalizer is None:
                normalized[...] = observations
            else:
                normalized[...] = self._normalizer.normalize(observations, dtype)
            x = normalized
            for weight, bias in self._layers[:-1]:
                x = elementary(self._activation, x @ weight + bias)
            weight, bias = self._layers[-1]
            outputs: NDArray[Any] = x @ weight + bias
        if not np.isfinite(normalized).all() or not np.isfinite(outputs).all():
            raise FloatingPointError(f"an observation, or what comes of it, is not finite in {dtype}")
        key = {"seed": self._seed, "stream": self._stream, "step": step, "first_row": first_row}
        if layout.distribution == "gaussian":
            assert self._log_std is not None and layout.low is not None and layout.high is not None
            actions[...] = outputs
            if not deterministic:
                actions += (np.exp(self._log_std.astype(np.float64)) * normal(*outputs.shape, **key)).astype(dtype)
            mapped: NDArray[Any] = actions.astype(np.float64)
            if layout.scale is not None and layout.offset is not None:
                mapped = layout.scale * mapped + layout.offset
            np.clip(mapped, layout.low, layout.high, out=env_actions, casting="same_kind")
            return
        nvec = None if layout.distribution == "bernoulli" else layout.nvec
        if action_masks is not None and nvec is not None:
            outputs = np.where(action_masks, outputs, -np.inf)
        elif action_masks is not None:
            allowed = action_masks.reshape(*outputs.shape, 2)  # (may be 0, may be 1)
            outputs = np.where(allowed.all(-1), outputs, np.where(allowed[..., 1], np.inf, -np.inf))
        choices = draw_choices(outputs, nvec, deterministic=deterministic, **key)
        actions[...] = choices.reshape(actions.shape)
        np.add(actions, layout.start, out=env_actions)
