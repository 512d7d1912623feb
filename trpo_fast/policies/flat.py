"""A module's parameters as one contiguous CPU tensor.

On the CPU they are views of that tensor: the compiled core and the solvers read and write it in place, and the module
sees every change without a copy. ``deepcopy``, ``.double()`` or assigning a parameter replace the views silently, hence
`FlatParameters.is_intact` and `FlatParameters.restore`. Parameters on another device are copied back and forth.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trpo_fast._core.library import all_finite, holds
from trpo_fast.solvers.validation import require_kind

_DTYPES = (torch.float32, torch.float64)


def flat_parameters(module: nn.Module) -> FlatBuffer:
    """`FlatParameters` for a module on the CPU, `GatheredParameters` for one on another device."""
    first = next(module.parameters(), None)
    return FlatParameters(module) if first is None or first.device.type == "cpu" else GatheredParameters(module)


class FlatBuffer(ABC):
    """One contiguous CPU tensor with the parameters of a module, in ``named_parameters()`` order.

    A parameter used by two layers (tied weights) has one name and one place.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = require_kind("module", module, nn.Module)
        self._tensor = torch.empty(0, device="cpu")  # whatever torch's default device is
        self._array: NDArray[Any] = self._tensor.numpy()
        self._names: tuple[str, ...] = ()
        self.restore()

    @property
    def tensor(self) -> Tensor:
        """The buffer, shape (n,)."""
        return self._tensor

    @property
    def numpy(self) -> NDArray[Any]:
        """The buffer as an array, shape (n,), without a copy: writing it changes the module.

        Call `bump_versions` after writing.
        """
        return self._array

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters in the order of the buffer."""
        return self._names

    def __len__(self) -> int:
        return self._tensor.numel()

    def is_finite(self) -> bool:
        """Whether all parameters are."""
        return all_finite(self.numpy)

    def require_finite(self, whose: str) -> None:
        """ValueError names the first parameter that is not, of `whose` network."""
        if not self.is_finite():
            index = int(np.flatnonzero(~np.isfinite(self.numpy))[0])
            name, number = self.name_at(index), self.numpy[index]
            raise ValueError(f"{whose}: parameter {name!r} contains {number}; want finite numbers")

    def name_at(self, index: int) -> str:
        """Name of the parameter that item `index` of the buffer belongs to."""
        for name, parameter in self._module.named_parameters():
            index -= parameter.numel()
            if index < 0:
                return name
        raise IndexError(f"index: outside the {len(self)} parameters of the module")

    @abstractmethod
    def is_intact(self) -> bool:
        """Whether the buffer still holds the parameters that the module computes with."""

    @abstractmethod
    def restore(self) -> None:
        """Make it so again, with the values that the module has now.

        The buffer stays the same tensor, unless the parameters' dtype or number changed.
        """

    @abstractmethod
    def bump_versions(self) -> None:
        """Say that the buffer was written, so that a graph recorded before fails loudly."""


class FlatParameters(FlatBuffer):
    """The parameters of `module` as views of one contiguous CPU tensor.

    Parameters that already lie behind one another in one buffer are adopted where they are, so that two users of one
    module share its buffer.

    Parameters
    ----------
    module : torch.nn.Module
        All parameters float32 or all float64, on the CPU. Each parameter's ``.data`` becomes a view; values stay.

    Raises
    ------
    ValueError
        When there is no parameter, or one, which the message names, has another dtype or device, or is a different
        parameter over the same memory (flattening would silently untie the two).
    """

    _address = 0  # of what the array shows
    _parts: list[dict[str, Any]] | None = None  # of all modules: what is in them, and their parameters
    _held: list[Any]  # what these dictionaries held
    _own: list[Tensor]
    _places: list[int]
    _sizes: list[int]

    def is_as_seen(self) -> bool:
        """Whether modules and parameters are those that `is_intact` saw last, and lie there; a tenth of its time.

        False says nothing.
        """
        return (
            self._parts is not None
            and self._tensor.data_ptr() == self._address
            and holds(self._parts, self._held)
            and list(map(Tensor.data_ptr, self._own)) == self._places
            and list(map(Tensor.numel, self._own)) == self._sizes
            and all(map(Tensor.is_contiguous, self._own))
        )

    def _look(self) -> None:
        """Note what `is_as_seen` compares with."""
        self._parts = [held for part in self._module.modules() for held in (part._modules, part._parameters)]
        self._held = list(chain.from_iterable(map(dict.values, self._parts)))
        self._own = list(self._module.parameters())
        self._places = list(map(Tensor.data_ptr, self._own))
        self._sizes = list(map(Tensor.numel, self._own))

    def is_intact(self) -> bool:
        """Whether every parameter of the module still is a view of its place in the buffer, and the array one of it."""
        if self.is_as_seen():
            return True
        named = list(self._module.named_parameters())
        intact = tuple(name for name, _ in named) == self._names and _lies_at(
            [parameter for _, parameter in named], self._address, self._tensor.dtype, len(self)
        )
        if intact:
            self._look()
        return intact

    def restore(self) -> None:
        """Make every parameter a view of the buffer again, with the values that the module has now.

        The buffer stays the same tensor, unless the parameters' dtype or number changed, and the same array, unless
        ``share_memory`` moved what lies below all of them.
        """
        named = list(self._module.named_parameters())
        _check(named, torch.device("cpu"))
        self._names = tuple(name for name, _ in named)
        parameters = [parameter for _, parameter in named]
        first = parameters[0].detach()
        size = sum(parameter.numel() for parameter in parameters)
        if self._tensor.dtype != first.dtype or len(self) != size:
            adoptable = _lies_at(parameters, first.data_ptr(), first.dtype, size)
            self._tensor = first.as_strided((size,), (1,)) if adoptable else first.new_empty(size)
            self._address = 0
        if self._tensor.data_ptr() != self._address:
            self._address = self._tensor.data_ptr()
            self._array = self._tensor.numpy()
        if self.is_intact():
            return
        # All values first: a parameter may lie anywhere in the buffer, after a swap of two of them for instance.
        self._tensor.copy_(_joined(parameters))
        for parameter, part in zip(parameters, self._tensor.split([p.numel() for p in parameters]), strict=True):
            parameter.data = part.view(parameter.shape)

    def bump_versions(self) -> None:
        """Tell autograd that the buffer was written, so that a graph recorded before fails loudly."""
        torch.autograd.graph.increment_version([self._tensor, *self._module.parameters()])


class GatheredParameters(FlatBuffer):
    """A CPU copy of the parameters of a module on another device, a GPU for instance; nothing of the module moves.

    What is written to the buffer reaches the module in `bump_versions`; what is written to the module reaches the
    buffer in `restore`, which `is_intact` asks for. Each is one transfer of n items.

    Parameters
    ----------
    module : torch.nn.Module
        All parameters float32 or all float64, on one device.

    Raises
    ------
    ValueError
        As `FlatParameters`.
    """

    def is_intact(self) -> bool:
        """Whether nothing but `bump_versions` has written the module's parameters."""
        return self._state() == self._seen

    def restore(self) -> None:
        """Copy the parameters into the buffer, which stays the same unless their dtype or number changed."""
        named = list(self._module.named_parameters())
        _check(named, named[0][1].device if named else torch.device("cpu"))
        self._names = tuple(name for name, _ in named)
        values = _joined([parameter for _, parameter in named])
        if self._tensor.dtype != values.dtype or len(self) != len(values):
            self._tensor = torch.empty(len(values), dtype=values.dtype, device="cpu")
            self._array = self._tensor.numpy()
        self._tensor.copy_(values)
        self._seen = self._state()

    def bump_versions(self) -> None:
        """Copy the buffer into the module, whose tensors' versions that increments."""
        parameters = list(self._module.parameters())
        values = self._tensor.to(parameters[0].device)
        with torch.no_grad():
            for parameter, part in zip(parameters, values.split([p.numel() for p in parameters]), strict=True):
                parameter.copy_(part.view(parameter.shape))
        self._seen = self._state()

    def _state(self) -> list[tuple[str, int, int, torch.dtype, torch.Size]]:
        """Changes with every write, cast, move and replacement of a parameter."""
        return [(name, p.data_ptr(), p._version, p.dtype, p.shape) for name, p in self._module.named_parameters()]


def _joined(parameters: list[nn.Parameter]) -> Tensor:
    return torch.cat([parameter.detach().reshape(-1) for parameter in parameters])


def _check(named: list[tuple[str, nn.Parameter]], device: torch.device) -> None:
    if not any(parameter.numel() for _, parameter in named):
        raise ValueError("module: has no parameters")
    first_name, first = named[0]
    for name, parameter in named:
        if parameter.device != device:
            raise ValueError(f"module: parameter {name!r} is on {parameter.device}; want one device, {device}")
        if parameter.dtype not in _DTYPES:
            raise ValueError(f"module: parameter {name!r} is {parameter.dtype}; want torch.float32 or torch.float64")
        if parameter.dtype != first.dtype:
            raise ValueError(
                f"module: parameter {name!r} is {parameter.dtype} but {first_name!r} is {first.dtype}; want one dtype"
            )
    end, owner = -1, ""
    for name, parameter in sorted(named, key=lambda pair: pair[1].data_ptr()):
        if parameter.numel() == 0:
            continue
        if parameter.data_ptr() < end:
            raise ValueError(f"module: parameters {owner!r} and {name!r} share memory; want one parameter used twice")
        end, owner = parameter.data_ptr() + parameter.numel() * parameter.element_size(), name


def _lies_at(parameters: list[nn.Parameter], address: int, dtype: torch.dtype, size: int) -> bool:
    """Whether the parameters lie, contiguous and without gaps, from `address` on in one allocation."""
    storage = parameters[0].untyped_storage().data_ptr() if parameters else 0
    for parameter in parameters:
        if parameter.data_ptr() != address or parameter.dtype != dtype or not parameter.is_contiguous():
            return False
        if parameter.untyped_storage().data_ptr() != storage:
            return False
        address += parameter.numel() * parameter.element_size()
        size -= parameter.numel()
    return size == 0
