"""Torch policies and critics whose parameters are views of one contiguous buffer."""

from .flat import FlatParameters
from .mlp import ACTIVATIONS, MLPCritic, MLPPolicy

__all__ = ["ACTIVATIONS", "FlatParameters", "MLPCritic", "MLPPolicy"]
