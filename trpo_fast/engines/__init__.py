"""A policy's mathematics behind one protocol, `trpo_fast.solvers.engine.Engine`, with two implementations."""

from .autograd import AutogradEngine
from .distributed import DistributedEngine
from .factory import make_engine
from .fisher import fisher_matrix
from .native import NativeEngine

__all__ = ["AutogradEngine", "DistributedEngine", "NativeEngine", "fisher_matrix", "make_engine"]
