"""An agent's state: taken in memory between two updates, written to a safetensors file, and put back.

Every part says its own (`trpo_fast.state`): `parts_of` an agent are all that training goes on from, and what a file has
to hold follows from what they say. `put_back` undoes an update that was interrupted; `resume` goes on from a file. Both
go on with the episodes under way where the environments can be put back to the bit (`trpo_fast.environments.exact`),
and begin new ones, with seeds that were not used before, where they cannot.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from trpo_fast import model_file
from trpo_fast._core.library import in_words
from trpo_fast.algorithm import hooks
from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.algorithm.critic import PendingFit
from trpo_fast.algorithm.networks import settings_of
from trpo_fast.algorithm.report import UpdateReport
from trpo_fast.environments.recipe import EnvironmentRecipe
from trpo_fast.gymnasium_spaces import (
    space_from_json,
    space_to_json,
)
from trpo_fast.saved_policy import KIND
from trpo_fast.saved_state import check_numbers, check_state, is_cnn, own_networks
from trpo_fast.settings import COUNTER, SEED, checked
from trpo_fast.spaces.descriptions import most_items
from trpo_fast.state import State, Stateful, packed, unpacked

if TYPE_CHECKING:
    from trpo_fast.algorithm.trpo import TRPO

# Counters that older files lack, by their dotted names, and what they were then.
_LATER = {
    **{"num_predictions": 0, "earlier_timesteps": 0, "horizon": 0, "schedules_from": 0},
    **{"adam.failed_fits": 0, "adam.abandoned_fits": 0},
}
_DESCRIPTION: dict[str, tuple[Any, str]] = {
    "config": (dict, "an object with fields of TRPOConfig"),
    "seed": (int, SEED.want),
    "observation_space": (dict, "the description of a space"),
    "action_space": (dict, "the description of a space"),
    "environment": ((dict, type(None)), "an object with id, vectorization and env_kwargs, or null"),
    "counters": (dict, "an object of counters"),
}
_PACKAGES = ("trpo-fast", "torch", "numpy", "gymnasium", "mujoco")


_FEW_LAYERS = 64  # which any file may name
_EPISODES = "episodes_under_way"  # tensors of bytes that `packed` wrote
_CALLBACKS = "callbacks"


@dataclass(frozen=True)
class Snapshot:
    """One consistent moment between two updates."""

    arrays: dict[str, NDArray[Any]]  # copies, by dotted name
    counters: dict[str, Any]  # JSON-able, nested as the parts are
    episodes: State | None = None  # those under way, of the collector
    fit: PendingFit | None = None  # belongs to this moment, but nothing has waited for it
    last_update: UpdateReport | None = None
    callbacks: State = field(default_factory=dict)  # by name; of files, and of what is to become one
    begun_anew: str | None = None  # of the collector

    def with_fit(self, critic: torch.nn.Module) -> Snapshot:
        """The same moment after its fit to `critic`, whose parameters it has the names of; waits until that is done."""
        if self.fit is None:
            return self
        if self.fit.exception() is not None:  # it was abandoned at an interruption, or raised
            adam = self.counters["adam"]
            adam = {**adam, "abandoned_fits": adam["abandoned_fits"] + 1}
            return replace(self, counters={**self.counters, "adam": adam}, fit=None)
        fit, arrays, first = self.fit.result(), dict(self.arrays), 0
        for name, parameter in critic.named_parameters():  # the order of a flat buffer
            last = first + parameter.numel()
            arrays[f"critic.{name}"] = fit.parameters[first:last].reshape(parameter.shape)
            first = last
        arrays |= {"adam.first_moment": fit.first_moment, "adam.second_moment": fit.second_moment}
        adam = self.counters["adam"]
        failed = 0 if fit.error is None else adam["failed_fits"] + 1
        counters = {**self.counters, "adam": {**adam, "adam_step": fit.adam_step, "failed_fits": failed}}
        return replace(self, arrays=arrays, counters=counters, fit=None)

    def of_other_copies(self) -> Snapshot:
        """The same for another number of environments: without what a recurrent critic remembers of each of them."""
        without = {name: np.empty((0, 0), array.dtype) for name, array in self.arrays.items() if name == "adam.state"}
        return replace(self, arrays=self.arrays | without)


class _Networks:
    """Parameters and persistent buffers of a network, as a part."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module

    def get_state(self) -> State:
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in _tensors(self._module).items()}

    def set_state(self, state: State) -> None:
        with torch.no_grad():
            for name, tensor in _tensors(self._module).items():
                tensor.copy_(torch.from_numpy(state[name]))


class _Counters:
    """What an agent itself counts, as a part; and the latest episodes."""

    names = (
        *("num_timesteps", "earlier_timesteps", "num_updates", "num_episodes", "num_predictions"),
        *("horizon", "schedules_from"),
    )

    def __init__(self, agent: TRPO) -> None:
        self._agent = agent

    def get_state(self) -> State:
        recent = list(self._agent.recent_episodes)
        episodes = {
            "returns": np.array([value for value, _ in recent], np.float64),
            "lengths": np.array([length for _, length in recent], np.int64),
        }
        return {"episodes": episodes, **{name: getattr(self._agent, name) for name in self.names}}

    def set_state(self, state: State) -> None:
        for name in self.names:
            setattr(self._agent, name, state[name])
        episodes = state["episodes"]
        self._agent.recent_episodes.clear()
        pairs = zip(episodes["returns"].tolist(), episodes["lengths"].tolist(), strict=True)
        self._agent.recent_episodes.extend(pairs)


def parts_of(agent: TRPO) -> dict[str, Stateful]:
    """What training goes on from, by name; besides these the collector, which may not be there yet."""
    named: dict[str, Stateful | None] = {
        **network_states(agent),
        "adam": agent.critic_trainer,
        "observation_normalizer": agent.observation_normalizer,
        "reward_scaler": agent.reward_scaler,
        "": _Counters(agent),
    }
    return {name: part for name, part in named.items() if part is not None}


def network_states(agent: TRPO) -> dict[str, Stateful]:
    """Both networks, the critic without waiting for a fit."""
    return {"policy": _Networks(agent.networks.policy), "critic": _Networks(agent.networks.critic)}


def capture(agent: TRPO) -> Snapshot:
    """The agent's state now, without waiting for the critic's fit."""
    make_whole(agent)
    collector = agent.training_environments.get_state()
    state: State = {"collector": {"step": collector["step"], "resets": collector["resets"]}}
    for name, part in parts_of(agent).items():
        own = part.get_state()
        state |= {name: own} if name else own
    arrays, counters = _split(state)
    return Snapshot(
        *(arrays, counters, collector["episodes"], agent.critic_trainer.pending, agent.last_update),
        begun_anew=collector.get("begun_anew"),
    )


def capture_for_file(agent: TRPO) -> Snapshot:
    """The same with what the callbacks go on from, which only a file has."""
    return replace(capture(agent), callbacks=agent.callback_states)


def put_back(agent: TRPO, snapshot: Snapshot, *, new_episodes: bool) -> None:
    """Undo what was done since `snapshot`, of this agent; `new_episodes` where one of the environments has raised.

    What keeps this from its end, as a lack of memory does, leaves the rest to `make_whole`.
    """
    agent.put_back_to = snapshot, new_episodes
    make_whole(agent)


def make_whole(agent: TRPO) -> None:
    """End a `put_back` that something kept from its end; whoever reads the agent's state comes by here first."""
    if agent.put_back_to is None:
        return
    snapshot, new_episodes = agent.put_back_to
    _set_parts(agent, snapshot)
    agent.critic_trainer.put_back(_part(snapshot, "adam"), snapshot.fit)
    agent.last_update = snapshot.last_update
    agent.training_environments.put_back(_collector_state(snapshot), new_episodes=new_episodes)
    agent.put_back_to = None


def resume(agent: TRPO, snapshot: Snapshot) -> None:
    """Go on from `snapshot`, of a file, which has passed :func:`check`."""
    _set_parts(agent, snapshot)
    agent.critic_trainer.set_state(_part(snapshot, "adam"))
    agent.callback_states = snapshot.callbacks
    agent.training_environments.set_state(_collector_state(snapshot))


def _set_parts(agent: TRPO, snapshot: Snapshot) -> None:
    for name, part in parts_of(agent).items():
        if name != "adam":
            part.set_state(_part(snapshot, name))
    agent.engine.adopt_parameters()


def _collector_state(snapshot: Snapshot) -> State:
    state = {**snapshot.counters["collector"], "episodes": snapshot.episodes}
    return state if snapshot.begun_anew is None else {**state, "begun_anew": snapshot.begun_anew}


def _split(state: State, prefix: str = "") -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays of a nested state by their dotted names, and the numbers that are left."""
    arrays: dict[str, NDArray[Any]] = {}
    numbers: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(value, dict):
            own, left = _split(value, f"{prefix}{name}.")
            arrays |= own
            numbers |= {name: left} if left else {}
        elif isinstance(value, np.ndarray):
            arrays[prefix + name] = value
        else:
            numbers[name] = value
    return arrays, numbers


def _part(snapshot: Snapshot, name: str) -> State:
    """What `_split` made of the state of one part, together again."""
    if not name:
        return {**snapshot.counters, "episodes": _under(snapshot.arrays, "episodes")}
    return _under(snapshot.arrays, name) | snapshot.counters.get(name, {})


def check(agent: TRPO, snapshot: Snapshot) -> None:
    """ValueError where ``snapshot``, as read from a file, is not the state of an agent built as this one was."""
    like = capture(agent)
    arrays, wanted = snapshot.arrays, like.arrays
    for name, own in wanted.items():
        # Only the latest episodes are kept, so their number is the file's; a critic without a rollout has no state.
        shape: tuple[Any, ...] = ("k",) if name.startswith("episodes.") else own.shape
        if name == "adam.state" and name in arrays and arrays[name].shape in agent.critic_trainer.state_shapes:
            shape = arrays[name].shape
        want = f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''}) of {own.dtype}"
        if name not in arrays:
            raise ValueError(f"{name}: missing; want {want}")
        array = arrays[name]
        if array.dtype != own.dtype or (array.ndim != 1 if shape == ("k",) else array.shape != shape):
            raise ValueError(f"{name}: {array.shape} of {array.dtype} given; want {want}")
    check_numbers({name: arrays[name] for name in wanted}, _buffers(agent))
    _check_counters("counters", snapshot.counters, like.counters)


def _buffers(agent: TRPO) -> list[str]:
    """Names of what networks have that is not trained."""
    return [name for name, tensor in _network_tensors(agent).items() if not isinstance(tensor, torch.nn.Parameter)]


def check_networks(agent: TRPO, snapshot: Snapshot) -> None:
    """ValueError where ``snapshot`` is of other networks than the modules that the user gave to this agent."""
    for prefix, own in agent.networks.own.items():
        if own is None:
            continue
        saved = {name: array for name, array in snapshot.arrays.items() if name.startswith(f"{prefix}.")}
        given = {name: tensor for name, tensor in _network_tensors(agent).items() if name.startswith(f"{prefix}.")}
        for name in sorted(saved.keys() | given.keys()):
            has, wants = given.get(name), saved.get(name)
            if has is None:
                raise ValueError(f"{prefix}: the module given lacks {name!r}; want the parameters of the saved agent's")
            if wants is None:
                raise ValueError(f"{prefix}: the module given has {name!r}; want the parameters of the saved agent's")
            if tuple(has.shape) != wants.shape:
                raise ValueError(
                    f"{prefix}: {name!r} of shape {tuple(has.shape)} given; want {wants.shape}, the saved agent's"
                )


def save(
    agent: TRPO,
    path: str | os.PathLike[str],
    taken: Snapshot | None = None,
    *,
    evaluation: Mapping[str, float] | None = None,
) -> None:
    """Write the agent to ``path``, atomically, after waiting for the critic's fit; or `taken`, whose fit is done.

    `evaluation` is written beside it: what the agent was found to be worth.

    TypeError where that is no path. ValueError for a folder, and where :func:`check` would refuse something of the
    agent in the file.
    """
    path = model_file.checked_path("path", path)
    if path.is_dir():
        raise ValueError(f"path: the folder {path} given; want the name of a file, e.g. model.trpo in it")
    if taken is None:
        agent.critic_trainer.wait()
        agent.engine.refresh()
        snapshot = capture_for_file(agent)
    else:
        snapshot = taken.with_fit(agent.critic_trainer.critic)
    for name, _ in agent.critic_trainer.critic.named_parameters():  # the engine has looked at the policy only
        array = snapshot.arrays[f"critic.{name}"]
        if array.dtype != agent.config.dtype:
            raise ValueError(f"critic.{name}: of {array.dtype}; want finite numbers of {agent.config.dtype}")
    buffers = _buffers(agent)
    check_numbers(snapshot.arrays, buffers)
    arrays = dict(snapshot.arrays)
    if snapshot.episodes is not None:
        arrays[_EPISODES] = packed(snapshot.episodes)
    if snapshot.callbacks:
        arrays[_CALLBACKS] = packed(snapshot.callbacks)
    metadata = {
        "kind": KIND,
        "config": agent.config.to_dict(),
        "seed": agent.seed,
        "observation_space": space_to_json(agent.observation_space),
        "action_space": space_to_json(agent.action_space),
        "environment": None if agent.recipe is None else agent.recipe.to_json(),
        "arguments_not_kept": [] if agent.recipe is None else agent.recipe.not_kept,
        "own_networks": agent.networks.own,
        "own_settings": {
            name: settings_of(getattr(agent.networks, name))
            for name, own in agent.networks.own.items()
            if own is not None
        },
        "buffers": buffers,
        "own_hooks": agent.hooks.names,
        "trained_with_masks": agent.trained_with_masks,
        "counters": snapshot.counters,
        "begun_anew": snapshot.begun_anew,
        "resume": how_it_resumes(agent, snapshot),
        "versions": versions(),
        "evaluation": None if evaluation is None else dict(evaluation),
    }
    try:
        check_state(arrays, json.loads(json.dumps(metadata)))
    except ValueError as error:
        raise ValueError(f"agent: no file could give it back: {error}") from error
    model_file.write(path, arrays, metadata)
    if agent.recipe is not None and isinstance(agent.recipe.source, str) and metadata["environment"] is None:
        _warn_once_of_recipe(agent)


def how_it_resumes(agent: TRPO, snapshot: Snapshot) -> str:
    """What a file of the agent at this moment says of a training that goes on from it."""
    counters = snapshot.counters
    reason = abandoned(counters["adam"]["abandoned_fits"])
    reason = reason or agent.training_environments.inexact_after(counters["num_updates"], snapshot.begun_anew)
    return "exact" if reason is None else f"statistical: {reason}"


def abandoned(fits: int) -> str | None:
    """Why a training is not the one that was not disturbed, where so many of its critic's fits were abandoned."""
    return f"{fits} of its critic's fits were lost, abandoned at an interruption or ended by an error" if fits else None


def _warn_once_of_recipe(agent: TRPO) -> None:
    if not agent.warned_of_recipe:
        agent.warned_of_recipe = True
        recipe = cast(EnvironmentRecipe, agent.recipe)
        warnings.warn(
            f"the file does not say how {recipe.name} is made, as its env_kwargs {dict(recipe.env_kwargs)} or wrappers "
            f"{list(recipe.wrappers or ())} are not the same after JSON: load it with env=..., env_kwargs=..., "
            "wrappers=..., or give arguments of Python's own strings, numbers, lists and dicts with strings as keys",
            stacklevel=4,
        )


@dataclass(frozen=True)
class SavedAgent:
    """What a file holds."""

    config: TRPOConfig
    seed: int
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    own_networks: dict[str, str | None]  # class of "policy" and of "critic" where the user gave them
    own_settings: dict[str, dict[str, Any]]  # of these, where they are networks of this package
    own_hooks: dict[str, str | None]  # names of the functions that the user gave for "advantages" and "step"
    kind: str  # of the policy, "cnn" or "mlp": what "auto" may mean changes from one version to the next
    recipe: EnvironmentRecipe | None  # how the environments were made, where an id was given
    arguments_not_kept: list[str]  # "env_kwargs", "wrappers": what the environments had, and the file does not say
    trained_with_masks: bool
    snapshot: Snapshot


def read(path: str | os.PathLike[str]) -> SavedAgent:
    """Read a file that :func:`save` wrote; FileNotFoundError or ModelFileError says what is wrong with it."""
    arrays, metadata = model_file.read(path)
    if metadata.get("kind") != KIND:
        raise model_file.ModelFileError(
            f"{os.fspath(path)}: holds {metadata.get('kind')!r}; want an agent saved by TRPO.save"
        )
    with model_file.damage_named(path):
        for name, (kinds, want) in _DESCRIPTION.items():
            if name not in metadata:
                raise ValueError(f"{name}: missing; want {want}")
            if not isinstance(metadata[name], kinds):
                raise ValueError(f"{name}: {metadata[name]!r} given; want {want}")
        packs = {name: arrays.pop(name, None) for name in (_EPISODES, _CALLBACKS)}
        episodes, callbacks = (None if pack is None else _unpacked(name, pack) for name, pack in packs.items())
        counters = _with_later(metadata["counters"])
        own = own_networks(metadata)
        most = most_items(arrays, own=own["policy"] is not None)
        _check_layers(metadata["config"], arrays)
        saved = SavedAgent(
            TRPOConfig.from_saved(metadata["config"]),
            checked("seed", metadata["seed"], SEED),
            space_from_json(metadata["observation_space"], most),
            space_from_json(metadata["action_space"], most),
            own,
            _checked_settings(metadata.get("own_settings", {})),  # older files lack it
            _checked_hooks(metadata.get("own_hooks", {})),  # older files lack it
            "cnn" if is_cnn(arrays, metadata["config"]) else "mlp",
            None if metadata["environment"] is None else EnvironmentRecipe.from_json(metadata["environment"]),
            _checked_not_kept(metadata.get("arguments_not_kept", [])),  # older files lack it
            metadata.get("trained_with_masks") is True,  # older files lack it
            Snapshot(
                *(arrays, counters, episodes),
                callbacks=callbacks or {},
                begun_anew=_checked_reason(metadata.get("begun_anew")),  # older files lack it
            ),
        )
        check_state(arrays, metadata)  # last, as it says less of settings
    return saved


def _check_layers(config: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """ValueError where there are to be more layers than arrays, of which each has two; those of a user's own have any.

    Before the numbers are looked at one by one, as they are whenever a configuration is made.
    """
    most = max(len(arrays), _FEW_LAYERS)
    for name in ("hidden_sizes", "critic_hidden_sizes"):
        sizes = config.get(name)
        if isinstance(sizes, list) and len(sizes) > most:
            raise ValueError(f"config.{name}: {len(sizes):,} sizes given; want at most {most}, as there are arrays")


def _unpacked(name: str, pack: NDArray[Any]) -> State:
    if pack.dtype != np.uint8 or pack.ndim != 1:
        raise ValueError(f"{name}: {pack.shape} of {pack.dtype} given; want (k,) of uint8")
    try:
        state = unpacked(pack)
    except ValueError as error:
        raise ValueError(f"{name}: damaged, {error}; want what TRPO.save writes") from error
    if not isinstance(state, dict):
        raise ValueError(f"{name}: {type(state).__name__} given; want a dict")
    return state


def _with_later(counters: dict[str, Any]) -> dict[str, Any]:
    """Counters of a file, with those that it lacks as it is older."""
    complete = dict(counters)
    for name, value in _LATER.items():
        part, _, last = name.rpartition(".")
        if not part:
            complete.setdefault(last, value)
        elif isinstance(complete.get(part), dict):
            complete[part] = {last: value, **complete[part]}
    return complete


def versions() -> dict[str, str]:
    """Installed versions of what decides a trajectory; MuJoCo's moves them from one to the next."""
    return dict(_versions())


@functools.cache  # to look them up takes longer than to write a small agent
def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters, tied ones once, and persistent buffers."""
    kept = module.state_dict(keep_vars=True).keys()
    return dict(module.named_parameters()) | {n: b for n, b in module.named_buffers() if n in kept}


def _network_tensors(agent: TRPO) -> dict[str, torch.Tensor]:
    """Those of both networks, without waiting for a fit."""
    modules = {"policy": agent.policy, "critic": agent.critic_trainer.critic}
    return {f"{name}.{key}": tensor for name, module in modules.items() for key, tensor in _tensors(module).items()}


def _under(arrays: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix + "."): array for name, array in arrays.items() if name.startswith(prefix + ".")}


def _check_counters(where: str, counters: Any, wanted: Mapping[str, Any]) -> None:
    """ValueError where `counters` lack one of those `wanted`, nested alike, or have another than a number >= 0."""
    if not isinstance(counters, Mapping):
        raise ValueError(f"{where}: {in_words(counters)} given; want an object with {', '.join(wanted)}")
    for name, own in wanted.items():
        full = f"{where}.{name}"
        if isinstance(own, Mapping):
            _check_counters(full, counters.get(name), own)
        elif name not in counters:
            raise ValueError(f"{full}: missing; want {COUNTER.want}")
        else:
            checked(full, counters[name], COUNTER)


def _checked_not_kept(names: Any) -> list[str]:
    known = ("env_kwargs", "wrappers")
    if isinstance(names, list) and all(name in known for name in names):
        return names
    raise ValueError(f"arguments_not_kept: {in_words(names)} given; want a list of {' and '.join(known)}")


def _checked_reason(begun_anew: Any) -> str | None:
    if isinstance(begun_anew, str | None):
        return begun_anew
    raise ValueError(f"begun_anew: {in_words(begun_anew)} given; want a string, or null")


def _checked_settings(settings: Any) -> dict[str, dict[str, Any]]:
    known = isinstance(settings, dict) and settings.keys() <= {"policy", "critic"}
    if known and all(isinstance(part, dict) for part in settings.values()):
        return cast(dict[str, dict[str, Any]], settings)
    raise ValueError(
        f"own_settings: {in_words(settings)} given; want an object with policy and critic, objects of settings"
    )


def _checked_hooks(own: Any) -> dict[str, str | None]:
    if isinstance(own, Mapping):
        found = {name: own.get(name) for name in hooks.NAMES}
        if all(isinstance(name, (str, type(None))) for name in found.values()):
            return found
    raise ValueError(
        f"own_hooks: {in_words(own)} given; want an object with {' and '.join(hooks.NAMES)}, names or null"
    )
