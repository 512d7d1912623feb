"""The rollout of all ranks out of what each of them stepped, so that each computes alike what follows from it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpo_fast.ranks import Ranks


def exchange(ranks: Ranks, own: Mapping[str, NDArray[Any]], every: Mapping[str, NDArray[Any]], extra: Any) -> list[Any]:
    """Fill `every` with what each rank has in `own`, in two rounds.

    Parameters
    ----------
    ranks : Ranks
    own : mapping to ndarray (T, E / ranks, ...)
        C-contiguous; the same names, shapes and dtypes on all ranks.
    every : mapping to ndarray (T, E, ...), written
        The copies of rank 0 come first.
    extra : object
        What else a rank has to say, of any size, as pickle takes it.

    Returns
    -------
    list
        What each rank had to say.
    """
    said = pickle.dumps(extra, protocol=5)
    fixed = sum(array.nbytes for array in own.values())
    lengths, sizes = ranks.gather(np.array([len(said), fixed], np.int64)).T
    if (sizes != fixed).any():
        other = int(np.flatnonzero(sizes != fixed)[0])
        raise ValueError(
            f"env: a rollout has {sizes[other]:,} bytes on rank {other}, {fixed:,} on rank {ranks.rank}; want the same "
            "environments on every rank, with action masks on all or on none"
        )
    data = np.empty(fixed + int(lengths.max()), np.uint8)
    start = 0
    for array in own.values():
        data[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)
        start += array.nbytes
    data[fixed : fixed + len(said)] = np.frombuffer(said, np.uint8)
    rows = ranks.gather(data)
    copies = next(iter(own.values())).shape[1]
    start = 0
    for name, array in own.items():
        for rank, row in enumerate(rows):
            theirs = row[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
            every[name][:, rank * copies : (rank + 1) * copies] = theirs
        start += array.nbytes
    return [pickle.loads(row[fixed : fixed + length]) for row, length in zip(rows, lengths, strict=True)]
