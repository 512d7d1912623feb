"""Observation and action spaces without Gymnasium: what a model file says of them, and how their values become rows.

`trpo_fast.environments.spaces` turns Gymnasium's own into these, so that training and acting without it share every
rule.
"""

from .actions import (
    ACTION_MAPS,
    REACH,
    ActionLayout,
    action_layout,
    resolved_action_map,
    single_action,
    unreached_sides,
)
from .descriptions import (
    Box,
    Dict,
    Discrete,
    Leaf,
    MultiBinary,
    MultiDiscrete,
    Space,
    Tuple,
    flat_size,
    from_json,
    leaves,
    numeric_columns,
    to_json,
)
from .masks import MASK_KEY, MaskFormat, each_of
from .observations import ObservationLayout, Part

__all__ = [
    "ACTION_MAPS",
    "MASK_KEY",
    "REACH",
    "ActionLayout",
    "Box",
    "Dict",
    "Discrete",
    "Leaf",
    "MaskFormat",
    "MultiBinary",
    "MultiDiscrete",
    "ObservationLayout",
    "Part",
    "Space",
    "Tuple",
    "action_layout",
    "each_of",
    "flat_size",
    "from_json",
    "leaves",
    "numeric_columns",
    "resolved_action_map",
    "single_action",
    "to_json",
    "unreached_sides",
]
