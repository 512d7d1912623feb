"""Exporting a policy as an ONNX file, with its actions compared with the compiled actor's."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trpo_fast import model_file, spaces
from trpo_fast.deploy import LoadedActor, obstacle_to_actor
from trpo_fast.onnx_graph import OPSET, named_leaves, onnx_model
from trpo_fast.saved_policy import SavedPolicy, read_policy
from trpo_fast.spaces.descriptions import values_of

_CHECKED_ROWS = 256
_TIES = 0.02  # of the rows: choices that are as likely as each other but for rounding


class Export(NamedTuple):
    """What was written, and whether it was tried."""

    path: Path
    difference: float | None
    """Of onnxruntime's actions to the compiled actor's over 256 random observations: the largest, in units of the
    policy (half the width of a Box under an affine map), relative where an action is above one of them; or the fraction
    of other discrete choices; the largest of these in a Tuple or Dict. None where they were not compared, because
    onnxruntime is not installed or the policy is a CNN."""


def export_onnx(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    precision: str = "float64",
    opset: int = OPSET,
) -> Export:
    """Write the policy of a saved agent as an ONNX file, atomically, and compare it with the compiled actor.

    Parameters
    ----------
    model : path
        A file that ``TRPO.save`` wrote, or the folder of a run.
    out : path, optional
        Beside the model, with the suffix .onnx, by default. An existing file is replaced.
    precision : {"float64", "float32"}
        Of what surrounds the network: normalization, and how its outputs become actions. "float64" is what the agent
        has, and leaves the network its own dtype. With "float32" nothing in the graph is float64, inputs and outputs
        neither, as runtimes for small devices want it.
    opset : int
        Version of ONNX's operators, 12 or newer.

    Raises
    ------
    ImportError
        onnx is not installed; the message says how to.
    FileNotFoundError, ModelFileError, TypeError, ValueError
        As of `trpo_fast.deploy.load_actor`, but that a CNN is exported.
    RuntimeError
        onnxruntime computes other actions than the actor, or does not take the graph: nothing is written.
    """
    saved = read_policy(model, "model")
    target = saved.path.with_suffix(".onnx") if out is None else model_file.checked_path("out", out)
    if target.is_dir():
        raise ValueError(f"out: the folder {target} given; want the name of a file, e.g. model.onnx in it")
    if target.resolve() == saved.path.resolve():
        raise ValueError(f"out: {target} given, the model itself; want another file")
    graph = onnx_model(saved, precision=precision, opset=opset).SerializeToString()
    difference = None
    if obstacle_to_actor(saved) is None and importlib.util.find_spec("onnxruntime") is not None:
        difference = _difference(graph, saved, precision)
    model_file.replace_file(target, graph)
    return Export(target, difference)


def _difference(graph: bytes, saved: SavedPolicy, precision: str) -> float:
    """Of onnxruntime's actions to the actor's; RuntimeError where that is more than rounding can explain.

    With a precision of "float32" both are given observations that float32 has.
    """
    import onnxruntime

    rng, layout = np.random.default_rng(0), spaces.ObservationLayout(saved.observation_space)
    mean, scale = np.zeros(layout.size), np.ones(layout.size)
    if saved.normalizer is not None:
        mean, scale = saved.normalizer.mean, saved.normalizer.scale
    rows = mean + rng.normal(size=(_CHECKED_ROWS, layout.size)) / scale
    named = dict(named_leaves(saved.observation_space, "observation"))
    inputs = {name: _observed(part, rows[:, part.columns], rng) for name, part in zip(named, layout.parts, strict=True)}
    if precision == "float32":
        inputs = {name: _narrowed(array) for name, array in inputs.items()}
    try:
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    except Exception as error:  # classes of its own; of an opset that is too new for it, for instance
        raise RuntimeError(
            f"{saved.path}: onnxruntime {onnxruntime.__version__} does not take the graph; nothing was written: {error}"
        ) from error
    names = [f"action{place}" for place, _ in named_leaves(saved.action_space, "")]
    observation, actor = spaces.nested(saved.observation_space, iter(inputs.values())), LoadedActor(saved, None)
    if actor.recurrent:
        # Two steps, as the first one's state is zeros.
        starts = rng.random(_CHECKED_ROWS) < 0.2
        _, state = actor.predict(observation, deterministic=True)
        state = _narrowed(state) if precision == "float32" else state
        state = np.where(starts[:, None], np.nan, state)  # which counts as zeros there
        states = {"state": state, "episode_start": starts}
        actions, _ = actor.predict(observation, state, starts, deterministic=True)
    else:
        states, actions = {}, actor(observation)
    found = session.run(names, inputs | states)
    whole = spaces.action_layout(saved.action_space, saved.action_map)
    expected = [value for value, _ in values_of(saved.action_space, actions, "actions")]
    worst = 0.0
    for name, leaf, part, ours, theirs in zip(
        names, spaces.leaves(saved.action_space), whole.parts or (whole,), found, expected, strict=True
    ):
        if isinstance(leaf, spaces.Box):
            # The map scales what the network rounds; a box without a width has nothing to round.
            half = part.scale
            unit = np.ones(()) if half is None else np.where(half > 0, half, 1.0).reshape(leaf.shape)
            difference = np.abs(ours - theirs.astype(np.float64)) / np.maximum(unit, np.abs(theirs))
            off, allowed = float(difference.max()), max(1e-5, float(np.finfo(leaf.dtype).eps))
        else:
            off, allowed = float((ours != theirs).reshape(_CHECKED_ROWS, -1).any(axis=1).mean()), _TIES
        if not off <= allowed:
            raise RuntimeError(
                f"{saved.path}: onnxruntime {onnxruntime.__version__} computes other actions than the compiled actor: "
                f"off by {off:g} in {name}, more than {allowed:g}; nothing was written"
            )
        worst = max(worst, off)
    return worst


def _narrowed(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _observed(part: spaces.Part, rows: NDArray[np.float64], rng: np.random.Generator) -> NDArray[Any]:
    """Random observations (N, *shape) of the part's space; those of a Box are `rows`, as far as it allows them."""
    space, shape = part.space, (len(rows), *part.shape)
    if isinstance(space, spaces.Box):
        return np.clip(rows.reshape(shape), space.low, space.high).astype(space.dtype)
    if isinstance(space, spaces.MultiBinary):
        return rng.integers(0, 2, shape).astype(space.dtype)
    return (
        (part.starts + rng.integers(0, part.counts, (len(rows), len(part.starts)))).reshape(shape).astype(space.dtype)
    )
