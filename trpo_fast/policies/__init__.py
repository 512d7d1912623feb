"""Torch policies and critics, and their parameters as one contiguous buffer."""

from .cnn import CNNCritic, CNNPolicy
from .distributions import Product
from .flat import FlatParameters
from .mlp import ACTIVATIONS, MLPCritic, MLPPolicy

__all__ = ["ACTIVATIONS", "CNNCritic", "CNNPolicy", "FlatParameters", "MLPCritic", "MLPPolicy", "Product"]
