"""Torch policies and critics, and their parameters as one contiguous buffer."""

from .cnn import CNNCritic, CNNPolicy
from .distributions import Product
from .flat import FlatParameters
from .mlp import ACTIVATIONS, MLPCritic, MLPPolicy
from .multi_input import MultiInputCritic, MultiInputPolicy
from .recurrent import RecurrentCritic, RecurrentPolicy

__all__ = [
    "ACTIVATIONS",
    "CNNCritic",
    "CNNPolicy",
    "FlatParameters",
    "MLPCritic",
    "MLPPolicy",
    "MultiInputCritic",
    "MultiInputPolicy",
    "Product",
    "RecurrentCritic",
    "RecurrentPolicy",
]
