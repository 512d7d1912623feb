"""Arrays of other libraries at a solver's door: read where they lie, and answered in kind.

Torch tensors, and what speaks the array API and DLPack, as JAX arrays do. Nothing is imported for them: where there is
an array, its library is loaded.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DLPACK_CPU = 1  # kDLCPU of dlpack.h


def is_tensor(value: Any) -> bool:
    """Whether `value` is a torch tensor."""
    return isinstance(value, getattr(sys.modules.get("torch"), "Tensor", ()))


def as_numpy(value: Any, name: str) -> Any:
    """An ndarray over the memory of `value` if that is another library's array, else `value` itself.

    Of a tensor with an autograd graph the numbers count; what JAX has still to compute is waited for.

    Raises
    ------
    TypeError
        On another device, or of a layout or dtype that NumPy does not have; the message begins with `name`.
    """
    if isinstance(value, np.ndarray):
        return value
    read: Callable[[], NDArray[Any]]
    if is_tensor(value):
        if not value.is_cpu:
            raise TypeError(f"{name}: a tensor on {value.device} given; want one on the CPU, as .cpu() makes one")
        read = (value.detach() if value.requires_grad else value).numpy
    elif hasattr(value, "__dlpack__"):
        if not hasattr(value, "__dlpack_device__"):
            what = type(value).__name__
            raise TypeError(f"{name}: {what} given; want an array that has values, which none has where JAX compiles")
        device, _ = value.__dlpack_device__()
        if device != _DLPACK_CPU:
            raise TypeError(f"{name}: an array on DLPack's device {device} given; want one on the CPU")
        read = partial(np.from_dlpack, value)
    else:
        return value
    try:
        return read()
    except (TypeError, RuntimeError, BufferError) as error:
        raise TypeError(f"{name}: an array of {value.dtype} given; want one that NumPy can read: {error}") from error


def as_array(value: Any, name: str) -> NDArray[Any]:
    """What `as_numpy` or NumPy makes of `value`; a TypeError or ValueError begins with `name` where that is none."""
    try:
        return np.asarray(as_numpy(value, name))
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{name}: no array can be made of it ({error})") from error


def is_sparse(value: Any) -> bool:
    """Whether `value` is a torch tensor that is not dense, of any of its layouts."""
    return is_tensor(value) and value.layout is not sys.modules["torch"].strided


def sparse_as(value: Any, dtype: Any, name: str) -> Any:
    """A sparse tensor with numbers of the NumPy `dtype`, without its graph; the TypeError begins with `name`."""
    if value.is_complex():
        raise TypeError(f"{name}: a sparse tensor of {value.dtype} given; want real numbers")
    return value.detach().to(getattr(sys.modules["torch"], str(dtype)))


def taker(operator: Any, make: Callable[[NDArray[Any]], Any] | None, name: str) -> Callable[[NDArray[Any]], Any] | None:
    """What turns an ndarray into what the object `operator` multiplies; None where it takes it as it is.

    That is a tensor of its dtype where that is torch's; an ndarray where it is NumPy's; and what `make` makes where it
    has none. TypeError, which begins with `name`, where it is not on the CPU, or multiplies integers.
    """
    dtype, torch = getattr(operator, "dtype", None), sys.modules.get("torch")
    if torch is None or not isinstance(dtype, torch.dtype):
        return make if dtype is None else None
    if not dtype.is_floating_point:
        raise TypeError(f"{name}: an operator of {dtype} given; want one of floating numbers")
    device = getattr(operator, "device", None)
    if device is not None and torch.device(device).type != "cpu":
        raise TypeError(f"{name}: one on {device} given; want one on the CPU")
    return lambda v: torch.from_numpy(v).to(dtype)


def maker(like: Any, name: str) -> Callable[[NDArray[Any]], Any] | None:
    """What turns an ndarray into an array of the library of `like`, which `as_numpy` could read; None for NumPy's own.

    The new array may take over the ndarray's memory, which nobody may write from then on unless the library itself
    allows it: JAX takes its arrays for immutable, and reads them later.
    """
    if isinstance(like, np.ndarray):
        return None
    if is_tensor(like):
        from_numpy: Callable[[NDArray[Any]], Any] = sys.modules["torch"].from_numpy
        return from_numpy
    if not hasattr(like, "__array_namespace__"):
        raise TypeError(f"{name}: {type(like).__name__} given; want an array with __array_namespace__")
    from_dlpack: Callable[[NDArray[Any]], Any] = like.__array_namespace__().from_dlpack
    return from_dlpack


def in_kind(
    function: Callable[[Any], Any], make: Callable[[NDArray[Any]], Any] | None, name: str
) -> Callable[[NDArray[Any]], Any]:
    """`function`, which takes what `make` makes and returns arrays of any library, on ndarrays that it may keep."""
    result = f"{name}(v)"

    def product(v: NDArray[Any]) -> Any:
        return as_numpy(function(v if make is None else make(v)), result)

    return product


def without_graph(answer: Any) -> Any:
    """`answer`, a tensor or several, without the autograd graph that would make `float` of it a warning."""
    if is_tensor(answer):
        return answer.detach()
    if isinstance(answer, (tuple, list)):
        return tuple(map(without_graph, answer))
    return answer


def mark_written(tensor: Any) -> None:
    """Say to autograd that the memory of `tensor` was written, so that a graph that needs the old numbers fails."""
    if not tensor.is_inference():  # these are in no graph, and count no versions
        sys.modules["torch"].autograd.graph.increment_version(tensor)
