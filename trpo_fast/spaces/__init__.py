"""Observation and action spaces without Gymnasium: what a model file says of them, and how their values become rows.

`trpo_fast.gymnasium_spaces` turns Gymnasium's own into these, so that training and acting without it share every
rule.
"""

from .actions import (
    ACTION_MAPS,
    REACH,
    ActionLayout,
    ActionStructure,
    action_layout,
    resolved_action_map,
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
    named_leaves,
    nested,
    numeric_columns,
    to_json,
)
from .masks import MASK_KEY, MaskFormat, each_of, mask_in
from .observations import ObservationLayout, Part

__all__ = [
    "ACTION_MAPS",
    "MASK_KEY",
    "REACH",
    "ActionLayout",
    "ActionStructure",
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
    "mask_in",
    "named_leaves",
    "nested",
    "numeric_columns",
    "resolved_action_map",
    "to_json",
    "unreached_sides",
]
