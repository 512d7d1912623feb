"""A module's parameters as views of one contiguous tensor.

The compiled core and the solvers read and write that tensor in place; the module sees every change without a copy.
``deepcopy``, ``.double()`` or assigning a parameter replace the views silently, hence `FlatParameters.is_intact` and
`FlatParameters.restore`.
"""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_DTYPES = (torch.float32, torch.float64)


class FlatParameters:
    """The parameters of `module`, in ``named_parameters()`` order, as views of one contiguous CPU tensor.

    Parameters that already lie behind one another in one buffer are adopted where they are, so that two users of one
    module share its buffer. A parameter used by two layers (tied weights) has one name and one place.

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

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._tensor = torch.empty(0)
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

    def name_at(self, index: int) -> str:
        """Name of the parameter that item `index` of the buffer belongs to."""
        for name, parameter in self._module.named_parameters():
            index -= parameter.numel()
            if index < 0:
                return name
        raise IndexError(f"index: outside the {len(self)} parameters of the module")

    def is_intact(self) -> bool:
        """Whether every parameter of the module still is a view of its place in the buffer."""
        named = list(self._module.named_parameters())
        return tuple(name for name, _ in named) == self._names and _lies_at(
            [parameter for _, parameter in named], self._tensor.data_ptr(), self._tensor.dtype, len(self)
        )

    def restore(self) -> None:
        """Make every parameter a view of the buffer again, with the values that the module has now.

        The buffer stays the same tensor, unless the parameters' dtype or number changed.
        """
        named = list(self._module.named_parameters())
        _check(named)
        self._names = tuple(name for name, _ in named)
        parameters = [parameter for _, parameter in named]
        first = parameters[0].detach()
        size = sum(parameter.numel() for parameter in parameters)
        if self._tensor.dtype != first.dtype or len(self) != size:
            adoptable = _lies_at(parameters, first.data_ptr(), first.dtype, size)
            self._tensor = first.as_strided((size,), (1,)) if adoptable else torch.empty(size, dtype=first.dtype)
            self._array: NDArray[Any] = self._tensor.numpy()
        if self.is_intact():
            return
        # All values first: a parameter may lie anywhere in the buffer, after a swap of two of them for instance.
        self._tensor.copy_(torch.cat([parameter.detach().reshape(-1) for parameter in parameters]))
        offset = 0
        for parameter in parameters:
            parameter.data = self._tensor[offset : offset + parameter.numel()].view(parameter.shape)
            offset += parameter.numel()

    def bump_versions(self) -> None:
        """Tell autograd that the buffer was written, so that a graph recorded before fails loudly."""
        torch.autograd.graph.increment_version([self._tensor, *self._module.parameters()])


def _check(named: list[tuple[str, nn.Parameter]]) -> None:
    if not any(parameter.numel() for _, parameter in named):
        raise ValueError("module: has no parameters")
    first_name, first = named[0]
    for name, parameter in named:
        if parameter.device.type != "cpu":
            raise ValueError(f"module: parameter {name!r} is on {parameter.device}, wanted the CPU")
        if parameter.dtype not in _DTYPES:
            raise ValueError(f"module: parameter {name!r} is {parameter.dtype}, wanted torch.float32 or torch.float64")
        if parameter.dtype != first.dtype:
            raise ValueError(
                f"module: parameter {name!r} is {parameter.dtype} but {first_name!r} is {first.dtype}, wanted one dtype"
            )
    end, owner = -1, ""
    for name, parameter in sorted(named, key=lambda pair: pair[1].data_ptr()):
        if parameter.numel() == 0:
            continue
        if parameter.data_ptr() < end:
            raise ValueError(f"module: parameters {owner!r} and {name!r} share memory, wanted one parameter used twice")
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
