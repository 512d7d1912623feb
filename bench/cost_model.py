"""Seconds of an update on many ranks: what each computes for itself, and what the wire takes.

    python -m bench.cost_model        # the tables of docs/scaling.md, by the figures of bench/results/scaling*.json

Of a collective of k ranks over links of latency a (one way) and bandwidth b, each rank with m bytes (Thakur,
Rabenseifner, Gropp, "Optimization of collective communication operations in MPICH", 2005; that gloo's receivers say
first that they are ready was found by bench.scaling_network):

- reduction in a ring, as gloo does it: 2 (k - 1) (2 a + m / (k b)), as a message goes when its receiver has said that
  it is ready; of one or two numbers, for which receivers wait already: 2 (k - 1) (a + m / (k b));
- gathering in a ring, as gloo does it: (k - 1) (2 a + m / b); "built" is this for the partial sums of up to 16 ranks,
  which have 16 together and add them in one order, and the reduction in a ring for more;
- reduction by halving and doubling, as MPI libraries do it, to receivers that wait: 2 ceil(log2 k) a +
  2 (k - 1) m / (k b).

Additions of a reduction are left out: they are a memory's pace, where the wire is slower. So are ranks that are late:
each collective waits for the slowest.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

from trpo_fast.engines.distributed import MOST_PARTS

REDUCTIONS = ("built", "ring", "halving")
FITS = ("whole", "reduced")
FIXED_VECTORS, FIXED_SCALARS = 1, 2  # the gradient; the entropy, and whether a callback stops
PARTS = MOST_PARTS  # of all ranks, whose sums are added in one order
SCALAR_BYTES = 16  # improvement and KL
FLOAT = 4  # bytes of a number


class Link(NamedTuple):
    """Of each rank to the others, both ways at once."""

    latency: float
    """Seconds that a message is under way, one way."""
    bandwidth: float
    """Bytes per second."""


class Update(NamedTuple):
    """What an update is, and what one rank takes for its own part of it."""

    parameters: int
    """P, of the policy."""
    critic_parameters: int
    products: float
    """Fisher products: iterations of conjugate gradient."""
    trials: float
    """Of the line search."""
    samples: int
    """Of a rank."""
    sample_bytes: float
    """Of the rollout, a sample."""
    rollout: float
    """Seconds a sample: acting and stepping."""
    gradient: float
    """Seconds a sample: gradient, and all else of an update that is neither of the others."""
    product: float
    """Seconds a sample and product."""
    trial: float
    """Seconds a sample and trial."""
    fit: float
    """Seconds a sample: the critic's fit, all epochs."""
    preparation: float
    """Seconds a sample of all ranks: values, advantages, statistics, copying what was gathered."""
    statistics: int = 0
    """Numbers of a preconditioner's statistics, which are one more reduction."""
    fit_steps: int = 20
    """Reductions of a fit by reduced gradients: steps over all samples, as many passes as the epochs of the other."""


class Seconds(NamedTuple):
    """Of one update."""

    rollout: float
    policy: float
    """Gradient, products and trials of the rank's own samples."""
    preparation: float
    critic: float
    gathering: float
    """Of the rollout on the wire."""
    reductions: float
    """Of gradient, products, trials, on the wire."""
    critic_reductions: float

    @property
    def total(self) -> float:
        """One after the other, as on a rank that has one core; with another, the fit is beside the next rollout."""
        return sum(self)

    @property
    def wire(self) -> float:
        """All that is spent in collectives, of ranks that are never late."""
        return self.gathering + self.reductions + self.critic_reductions


def sum_seconds(link: Link, ranks: int, size: float, algorithm: str = "built") -> float:
    """Seconds of one sum over `ranks` of `size` bytes each.

    ValueError where `algorithm` is none of REDUCTIONS, or `ranks` less than 1.
    """
    _check("algorithm", algorithm, REDUCTIONS)
    _check_ranks(ranks)
    if algorithm == "built" and ranks <= PARTS:
        return gathering_seconds(link, ranks, math.ceil(PARTS / ranks) * size)
    carried = 2 * (ranks - 1) / ranks * size / link.bandwidth
    if algorithm == "halving":
        return 2 * math.ceil(math.log2(ranks)) * link.latency + carried
    return 2 * (ranks - 1) * (1 if size <= SCALAR_BYTES else 2) * link.latency + carried


def gathering_seconds(link: Link, ranks: int, size: float) -> float:
    """Seconds until every rank has the `size` bytes of each; ValueError where `ranks` is less than 1."""
    _check_ranks(ranks)
    return (ranks - 1) * (2 * link.latency + size / link.bandwidth)


def update_seconds(update: Update, link: Link, ranks: int, *, fit: str = "whole", algorithm: str = "built") -> Seconds:
    """Seconds of one update on `ranks`, which have `update.samples` each.

    Parameters
    ----------
    update : Update
    link : Link
    ranks : int
        k, at least 1.
    fit : {"whole", "reduced"}
        The rollout of all is gathered, and each rank prepares it and fits the critic to it, as it is built; or each
        rank keeps its own samples, and the critic's gradients are reduced: ``update.fit_steps`` times, beside a round
        of statistics.
    algorithm : {"built", "ring", "halving"}
        Of sums.

    Raises
    ------
    ValueError
        An argument is none of these.
    """
    _check("fit", fit, FITS)

    def reduction(size: float) -> float:
        return sum_seconds(link, ranks, size, algorithm)

    of_all = update.samples * (ranks if fit == "whole" else 1)
    gathering = gathering_seconds(link, ranks, update.sample_bytes * update.samples) + gathering_seconds(link, ranks, 8)
    steps = update.gradient + update.products * update.product + update.trials * update.trial
    return Seconds(
        rollout=update.samples * update.rollout,
        policy=update.samples * steps,
        preparation=of_all * update.preparation,
        critic=of_all * update.fit,
        gathering=gathering if fit == "whole" else reduction(SCALAR_BYTES),
        reductions=(FIXED_VECTORS + update.products) * reduction(FLOAT * update.parameters)
        + (reduction(FLOAT * update.statistics) if update.statistics else 0.0)
        + (FIXED_SCALARS + update.trials) * reduction(SCALAR_BYTES),
        critic_reductions=0.0 if fit == "whole" else update.fit_steps * reduction(FLOAT * update.critic_parameters),
    )


def rounds(update: Update, *, fit: str = "whole") -> float:
    """Collectives of an update."""
    _check("fit", fit, FITS)
    own = FIXED_VECTORS + FIXED_SCALARS + update.products + update.trials + bool(update.statistics)
    return own + (2 if fit == "whole" else 1 + update.fit_steps)


def efficiency(update: Update, link: Link, ranks: int, *, fit: str = "whole", algorithm: str = "built") -> float:
    """Steps per second of `ranks`, as a share of so many that each train alone."""
    alone = update_seconds(update, link, 1).total
    return alone / update_seconds(update, link, ranks, fit=fit, algorithm=algorithm).total


def _check(name: str, value: str, possible: Sequence[str]) -> None:
    if value not in possible:
        raise ValueError(f"{name}: {value!r} given; want {' or '.join(map(repr, possible))}")


def _check_ranks(ranks: int) -> None:
    if ranks < 1:
        raise ValueError(f"ranks: {ranks!r} given; want at least 1")


def main() -> int:
    """Print the tables."""
    from bench.scaling_report import cost_tables

    print("\n".join(cost_tables()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
