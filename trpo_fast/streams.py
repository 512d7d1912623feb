"""Which stream of a seed draws what: a number each, so that no two things draw the same numbers.

The compiled core's generator is keyed by (seed, stream, step), and `numpy.random.SeedSequence` takes (seed, stream)
with what counts the draws behind it. These numbers are part of what a file of an agent means: with others it goes on
otherwise. K-FAC's signs have stream 2 of the compiled generator (`_core/preconditioner.pyx`), in which the
environments' seeds, NumPy's, are not.
"""

from __future__ import annotations

ACTING = 0
"""Noise of a training's actions."""
MINIBATCHES = 1
"""Order of the critic's samples."""
ENVIRONMENTS = 2
"""Seeds of resets."""
INITIALIZATION = 3
"""Seeds of the initial weights."""
EVALUATION = 4
"""Seeds and noise of `evaluate`."""
PREDICTION = 5
"""Noise of `predict`, and of what acts by a file."""
FISHER_ROWS = 6
"""The part of a batch that F is averaged over."""
GLOBAL_GENERATORS = 7
"""NumPy's and Python's own generators, for environments that draw from them."""
CALLBACK_EVALUATIONS = 8
"""Seeds of a callback's evaluations, one for each update."""
CONSTRUCTION = 8
"""The same generators while an environment is made: keyed by (seed, copy, 8) and spawned from, as no other key is."""
