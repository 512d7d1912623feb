"""How a call is declared: valid arguments, what is written, what the answer must be."""

import dataclasses
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch

BOX, CHOICES = gym.spaces.Box(-1.0, 1.0, (3,)), gym.spaces.Discrete(2)
IMAGES = gym.spaces.Box(0, 255, (36, 36, 1), np.uint8)


@dataclasses.dataclass
class Call:
    """One call, whose arguments are valid until they are spoiled."""

    function: object
    arguments: dict
    written: frozenset = frozenset()
    """Names of arguments that the documentation says are written."""
    check: object = None
    """``check(answer, **arguments)``: what is wrong with the answer, or nothing."""
    dear: frozenset = frozenset()
    """Counts that are obeyed however large they are."""
    kept: frozenset = frozenset()
    """What is not spoiled."""
    raises: tuple = ()
    warns: tuple = ()
    aliases: tuple = ()
    """What errors call an argument besides."""


class Target(NamedTuple):
    """A public name."""

    make: object
    weight: float


TARGETS = {}


def target(name, weight=1.0):
    def register(make):
        TARGETS[name] = Target(make, weight)
        return make

    return register


def call(function, arguments, written="", check=None, dear="", kept="", **others):
    return Call(
        function,
        arguments,
        frozenset(written.split()),
        check,
        frozenset(dear.split()),
        frozenset(kept.split()),
        **others,
    )


def dtype_of(rng):
    return np.dtype(rng.choice(["f4", "f8"]))


def normal(rng, dtype, *shape):
    return rng.normal(size=shape).astype(dtype)


def far(answer, exact, dtype, scale=None, slack=1e4):
    """What is wrong with `answer`, if anything: its distance, in units of rounding of numbers of size `scale`."""
    answer, exact = np.asarray(answer, np.float64), np.asarray(exact, np.float64)
    if answer.shape != exact.shape:
        return f"shape {answer.shape}; want {exact.shape}"
    if not np.isfinite(exact).all():
        return None
    size = scale if scale is not None and np.isfinite(scale) else np.abs(exact).max(initial=0)
    limit = np.finfo(dtype).max
    if size > np.sqrt(limit) or (0 < size < 1 / np.sqrt(limit)):
        return None
    if not np.allclose(answer, exact, rtol=0, atol=slack * np.finfo(dtype).eps * size, equal_nan=False):
        return f"{answer}; want {exact}"
    return None


def as_array(value):
    return np.asarray(value.detach() if isinstance(value, torch.Tensor) else value, np.float64)
