"""Which settings to lower where memory runs out."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from trpo_fast.algorithm.config import TRPOConfig

_SIZES = ("num_envs", "steps_per_env", "hidden_sizes", "critic_hidden_sizes")
# Torch has no exception of its own for the processor's memory, only these words; and one for a GPU's, with these.
_TORCH = re.compile(
    "DefaultCPUAllocator|can't allocate memory|out of memory|Storage size calculation overflowed|std::bad_alloc"
)


class LackOfMemory(MemoryError):
    """An agent or its update does not fit into memory.

    Attributes
    ----------
    names : tuple of str
        Fields of the configuration that decide about it: those that are not their defaults, or else all.
    """

    def __init__(self, config: TRPOConfig, cause: BaseException) -> None:
        self.names = tuple(name for name in _SIZES if getattr(config, name) != getattr(TRPOConfig, name)) or _SIZES
        sizes = ", ".join(f"{name} {getattr(config, name)}" for name in self.names)
        super().__init__(f"{sizes} given; want less: it does not fit into memory ({' '.join(str(cause).split())})")


@contextlib.contextmanager
def lack_of_memory_named(config: TRPOConfig) -> Iterator[None]:
    """Turn what NumPy and torch raise where memory runs out into `LackOfMemory`."""
    try:
        yield
    except LackOfMemory:
        raise
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _TORCH.search(str(error)):
            raise
        raise LackOfMemory(config, error) from error
