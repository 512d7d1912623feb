"""Calls of spaces, and of what reads observations, actions and masks by them."""

import numpy as np

from tests.trust.catalogue.declaring import call, target
from trpo_fast import spaces


def space_of(rng):
    """One of trpo_fast.spaces, parts within."""
    leaves = [
        spaces.Box(-np.ones(3), np.ones(3)),
        spaces.Discrete(3, 1, np.dtype("i8")),
        spaces.MultiDiscrete(np.array([2, 3]), np.array([0, 1])),
        spaces.MultiBinary(2),
    ]
    leaf = leaves[rng.integers(4)]
    way = rng.random()
    if way < 0.2:
        return spaces.Dict({"a": leaf, "b": leaves[rng.integers(4)]})
    return spaces.Tuple((leaf, leaves[rng.integers(4)])) if way < 0.4 else leaf


def of_a_space(name, function, **others):
    @target(name, 0.5)
    def _(rng):
        return call(function, {"space": space_of(rng), **others}, kept="space")


of_a_space("action_layout", spaces.action_layout, action_map="clip")
of_a_space("resolved_action_map", spaces.resolved_action_map, action_map="auto")
of_a_space("unreached_sides", spaces.unreached_sides, reach=3.0, action_map="clip")


@target("from_json", 3)
def _(rng):
    space = space_of(rng)

    def check(answer, description, most):
        return None if spaces.to_json(answer)["type"] == description["type"] else repr(answer)

    return call(
        spaces.from_json,
        {"description": spaces.to_json(space), "most": 1000},
        check=check,
        aliases=("description of a space",),
    )


@target("ObservationLayout.finite_rows", 3)
def _(rng):
    space = space_of(rng)
    layout, member = spaces.ObservationLayout(space), sample_of(rng, space)
    return call(layout.finite_rows, {"observation": member}, aliases=("observation",))


@target("ActionStructure.rows", 1)
def _(rng):
    space = spaces.Tuple((spaces.Box(-np.ones(3), np.ones(3)), spaces.Discrete(3, 0, np.dtype("i8"))))
    actions = (rng.normal(size=(2, 3)), rng.integers(3, size=2))
    return call(spaces.ActionStructure(space).rows, {"actions": actions, "count": 2}, aliases=("action",))


@target("MaskFormat.rows_for", 2)
def _(rng):
    space = spaces.Discrete(4, 0, np.dtype("i8")) if rng.random() < 0.5 else spaces.MultiBinary(2)
    arguments = {
        "action_masks": np.ones((3, 4), bool),
        "observation": np.zeros((3, 2)),
        "space": spaces.Box(-np.ones(2), np.ones(2)),
        "count": 3,
        "single": False,
    }
    return call(
        spaces.MaskFormat(space).rows_for,
        arguments,
        kept="observation space count single",
        aliases=("action mask", "action_masks"),
    )


@target("MaskFormat.rows", 2)
def _(rng):
    masks = np.ones((3, 4), bool)
    masks[:, 0] = False
    arguments = {"masks": masks, "present": None, "name": "environment", "when": "", "first": 0}
    return call(
        spaces.MaskFormat(spaces.Discrete(4, 0, np.dtype("i8"))).rows,
        arguments,
        kept="present name when first",
        aliases=("action mask", "action_masks"),
    )


def sample_of(rng, space):
    if isinstance(space, spaces.Dict):
        return {key: sample_of(rng, part) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(sample_of(rng, part) for part in space.spaces)
    if isinstance(space, spaces.Box):
        return rng.normal(size=space.shape)
    if isinstance(space, spaces.Discrete):
        return np.int64(1 + rng.integers(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return space.start + rng.integers(space.nvec)
    return rng.integers(2, size=space.shape).astype(np.int8)
