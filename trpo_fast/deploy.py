"""Acting with a trained agent where neither torch nor Gymnasium is installed: NumPy, safetensors and the compiled core.

```python
actor = load_actor("model.trpo")
action = actor(observation)
```
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpo_fast import model_file, spaces, streams
from trpo_fast._core.acting import Actor
from trpo_fast._core.library import MAX_OUTPUTS
from trpo_fast._core.policy import PolicyKernel
from trpo_fast._core.recurrent import CellActor
from trpo_fast.numpy_actor import NumpyActor
from trpo_fast.recurrence import CELL_PARAMETERS, CELLS, begin_at, checked_episode_starts
from trpo_fast.saved_policy import SavedPolicy, read_policy
from trpo_fast.settings import COUNTER, SEED, checked

"""Of the noise of ``agent.predict``, and of an actor's."""


def load_actor(path: str | os.PathLike[str], *, seed: int | None = None) -> LoadedActor:
    """The policy of a saved agent, ready to act.

    Parameters
    ----------
    path : path
        A file that ``TRPO.save`` wrote, or the folder of a run: its latest model or checkpoint, the one with the most
        timesteps. One that cannot be read is passed over, with a warning.
    seed : int from 0 to 2**32 - 1, optional
        Of stochastic actions. By default noise goes on where the saved agent's ``predict`` stopped: the actor's actions
        are those that the loaded agent would predict, call by call.

    Raises
    ------
    FileNotFoundError, ModelFileError
        No file; or one that is truncated, damaged, foreign, or from a future version.
    TypeError
        No path is given.
    ValueError
        A policy that is a CNN, a torch module of the user's own, or of more than 4,096 outputs and recurrent or over a
        Tuple or Dict: the message says what can act with it.
    """
    saved = read_policy(path)
    obstacle = obstacle_to_actor(saved)
    if obstacle is not None:
        raise ValueError(
            f"{saved.path}: its policy {obstacle}. Act with TRPO.load(path).predict, or anywhere with onnxruntime "
            "after trpo-fast export --format onnx"
        )
    if seed is not None:
        seed = checked("seed", seed, SEED)
    with model_file.damage_named(saved.path):
        return LoadedActor(saved, seed)


def obstacle_to_actor(saved: SavedPolicy) -> str | None:
    """Why nothing but torch and an ONNX runtime can act with a policy, what it is; None where a `LoadedActor` can."""
    if saved.network in ("cnn", "multi-input"):
        return (
            "is a CNN, for which there are no compiled kernels; want an MLP, as policy='mlp' makes it for small boards"
        )
    outputs = spaces.action_layout(saved.action_space).outputs
    if outputs > MAX_OUTPUTS and (saved.network in CELLS or not isinstance(saved.action_space, spaces.Leaf)):
        return (
            f"has {outputs:,} outputs; want at most {MAX_OUTPUTS:,} of a recurrent one, or one over a Tuple or Dict of "
            "actions"
        )
    return None


class LoadedActor:
    """Acts as the agent that was saved does. Made by :func:`load_actor`.

    Deterministic actions are those of ``agent.predict`` with the native engine bit for bit, stochastic ones too where
    no seed was given; with the autograd engine up to rounding.

    Threads may share an actor. They take turns: to act on several cores at once, load one actor for each. Pickles and
    copies of it are by content, need no file, and go on with its noise.

    Attributes
    ----------
    observation_space, action_space : Space of trpo_fast.spaces
        With the names and the attributes of Gymnasium's: ``shape``, ``dtype``, ``low``, ``n``, ``spaces`` ...
    normalizer : trpo_fast.normalizers.ObservationNormalizer or None
        Applied to every observation; ``mean`` and ``scale`` are read at every call.
    seed, num_predictions : int
        Noise is a function of these two and the row. Every call counts; set the counter back to have noise again.
    recurrent : bool
        Whether the policy has a state that goes from call to call, and so :meth:`predict` is what acts.
    metadata : dict
        What the file says: "environment" (with "id"), "versions", "counters" (with "num_timesteps"), "config" ...
    """

    def __init__(self, saved: SavedPolicy, seed: int | None) -> None:
        self._saved = saved  # for pickles; its normalizer is this actor's
        self.observation_space, self.action_space = saved.observation_space, saved.action_space
        self.normalizer, self.metadata = saved.normalizer, saved.metadata
        self.seed = saved.seed if seed is None else seed
        self._num_predictions = saved.num_predictions if seed is None else 0
        self._observations = spaces.ObservationLayout(saved.observation_space)
        self._layout = spaces.action_layout(saved.action_space, saved.action_map)
        self._structure = spaces.ActionStructure(saved.action_space)
        self._masks = spaces.MaskFormat(saved.action_space)
        self._dtype = saved.dtype
        self.recurrent = saved.network in CELLS
        self._actor: Any = self._make_actor(saved)
        # Work arrays are made once, for a single observation that is an array and for the size of the latest batch, so
        # that acting allocates little but its result.
        self._lock = threading.Lock()
        self._plain_shape = self._observations.parts[0].shape if self._observations.is_plain else None
        self._row = np.empty((1, self._observations.size))
        self._arrays, self._several = self._make_arrays(1), self._make_arrays(0)
        self._in_place = self._row.reshape(self._plain_shape or -1)
        self._action = None
        if isinstance(saved.action_space, spaces.Leaf):
            self._action = self._arrays[-1].reshape(saved.action_space.shape)
            self._dtype_of_action = saved.action_space.dtype
        self._is_discrete = isinstance(self.action_space, spaces.Discrete)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._saved, self.seed, self._num_predictions)

    @property
    def num_predictions(self) -> int:
        """Calls so far, those of the saved agent included where no seed was given; can be set, 0 to 2**63 - 1."""
        return self._num_predictions

    @num_predictions.setter
    def num_predictions(self, count: int) -> None:
        self._num_predictions = checked("num_predictions", count, COUNTER)

    def __call__(self, observation: Any, deterministic: bool = True, action_masks: Any = None) -> Any:
        """The action for one observation, or the actions for several: deterministic, unless that is said to be False.

        Parameters
        ----------
        observation : as the environment, or a vector environment with n copies, gives it
            For a Box array_like of shape ``observation_space.shape`` or ``(n, *observation_space.shape)``.
            Normalization is done here.
        deterministic : bool
            The mode of the distribution instead of a sample.
        action_masks : optional
            What is allowed, as the environment's ``action_masks()`` or ``info["action_mask"]`` has it: one mask, or n.
            By default ``observation["action_mask"]``, where the policy obeys that and does not see it.

        Returns
        -------
        ndarray, shape ``action_space.shape`` or ``(n, *action_space.shape)``
            A new array, ready for the environment: inside the bounds of a Box, ``start`` of a discrete space included.
            A single action of a Discrete space is a NumPy integer, which a dict or a list takes as a key. Of a Tuple or
            Dict space a tuple or dict of these, nested as it is; several are arrays in one such structure.

        Raises
        ------
        ValueError, TypeError
            An observation or masks that do not fit the space, or are not finite, named.
        """
        if self.recurrent:
            raise ValueError(
                "actor(observation): this policy is recurrent; want actor.predict(observation, state, episode_start), "
                "which returns the action and the next call's state"
            )
        return self._answer(observation, deterministic, action_masks)[0]

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[Any, Any]:
        """As calling the actor, but a sampled action unless `deterministic` is True, as of ``agent.predict``.

        The signature, and that default, are those of Stable-Baselines3; `state` is handed back. Of a recurrent policy
        it is, (n, S), what the call before returned, None where episodes start, and `episode_start` says for which of
        the n observations one does whatever `state` is.
        """
        if not self.recurrent:
            return self(observation, deterministic, action_masks), state

        def begin(count: int) -> None:
            begin_at(self._actor, count, state, checked_episode_starts(episode_start, count))

        return self._answer(observation, deterministic, action_masks, begin)

    def _answer(
        self,
        observation: Any,
        deterministic: bool,
        action_masks: Any,
        begin: Callable[[int], None] = lambda _: None,
    ) -> tuple[Any, Any]:
        """Actions, and the state of a recurrent policy after them; `begin` lets it start with so many rows."""
        if (
            type(observation) is np.ndarray
            and observation.shape == self._plain_shape
            and observation.dtype.kind in "fiub"
            and action_masks is None
        ):
            with self._lock:
                begin(1)
                self._in_place[...] = observation
                self._act(self._row, observation, self._arrays, deterministic, None)
                after = self._actor.state if self.recurrent else None
                if self._action is None:
                    return self._structure.each(self._arrays[-1])[0], after
                action = self._action.astype(self._dtype_of_action)
                return action[()] if self._is_discrete else action, after
        rows, single = self._observations.finite_rows(observation)
        masks = self._masks.rows_for(action_masks, observation, self._observations.space, len(rows), single)
        with self._lock:
            begin(len(rows))
            if len(self._several[0]) != len(rows):
                self._several = self._make_arrays(len(rows))
            self._act(rows, observation, self._several, deterministic, masks)
            env_actions, after = self._several[-1], self._actor.state if self.recurrent else None
            return (self._structure.each(env_actions)[0] if single else self._structure.batch(env_actions)), after

    def _act(
        self,
        rows: NDArray[np.float64],
        observation: Any,
        arrays: tuple[NDArray[Any], ...],
        deterministic: bool,
        masks: NDArray[np.bool_] | None,
    ) -> None:
        normalized, actions, log_probs, env_actions = arrays
        try:
            self._actor.act(
                rows, self._num_predictions, normalized, actions, log_probs, env_actions, deterministic, 0, masks
            )
        except FloatingPointError as error:
            self._observations.finite_rows(observation)  # names the entry where one is NaN or infinite
            raise ValueError(
                f"observation: it, or the action that comes of it, is beyond {self._dtype}; want smaller numbers"
            ) from error
        self._num_predictions += 1

    def _make_actor(self, saved: SavedPolicy) -> Actor | CellActor | NumpyActor:
        layout = self._layout
        if layout.outputs > MAX_OUTPUTS:
            return NumpyActor(saved, layout, self.normalizer, seed=self.seed, stream=streams.PREDICTION)
        arguments = layout.distribution, saved.dtype, *layout.kernel_arguments
        kernel = PolicyKernel(saved.widths, saved.activation, *arguments)
        cell = [saved.parameters[f"cell.{name}"] for name in CELL_PARAMETERS] if self.recurrent else []
        others = [array.ravel() for name, array in saved.parameters.items() if not name.startswith("cell.")]
        make = partial(CellActor, saved.network, cell) if cell else Actor
        return make(
            kernel,
            np.concatenate(others),
            observation_mean=None if self.normalizer is None else self.normalizer.mean,
            observation_scale=None if self.normalizer is None else self.normalizer.scale,
            observation_clip=np.inf if self.normalizer is None else self.normalizer.clip,
            action_low=layout.low,
            action_high=layout.high,
            action_scale=layout.scale,
            action_offset=layout.offset,
            action_start=layout.start if layout.low is None else None,
            seed=self.seed,
            stream=streams.PREDICTION,
        )

    def _make_arrays(self, rows: int) -> tuple[NDArray[Any], ...]:
        """What acting writes: normalized observations, actions, log-probabilities, and the environment's actions."""
        shape = (rows, *self._layout.shape)
        outer = self._structure.row_dtype
        inner = self._dtype if outer.kind == "f" else outer
        return (
            np.empty((rows, self._observations.size), self._dtype),
            np.empty(shape, inner),
            np.empty(rows, self._dtype),
            np.empty(shape, outer),
        )


def _restored(saved: SavedPolicy, seed: int, num_predictions: int) -> LoadedActor:
    """What a pickle of an actor becomes."""
    actor = LoadedActor(saved, seed)
    actor.num_predictions = num_predictions
    return actor
