"""Write networks.md from the table that the tests run; a test holds the two together.

Run from the repository:  python docs/generate_networks.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = Path(__file__).with_name("networks.md")

HEAD = """\
# Which networks work

Any torch module that returns a distribution, whose every row depends on that row and the parameters alone, and that
torch can differentiate twice, or forwards and backwards. Each policy below is made by `tests/engines/networks.py`,
and `tests/engines/test_networks.py` holds it to what stands here: its Fisher product agrees to 1e-7 with float64
double backward, in every way to compute it that can be had, or it is refused with the words that are quoted. This
page is made from that table by `docs/generate_networks.py`.

`TRPO` looks at a module of your own when the agent is made, on five rows of the observation space as the module will
see them; rows that a module does not take are not held against it.

- A second forward pass gives the same bits. What draws random numbers or keeps a state does not.
- A row alone, and the rows in reverse order, give what they gave together, up to rounding.
- <J'w, v> = <w, J v> for the way to a Fisher product that the engine takes. An engine of your own (`make_engine`)
  checks this much before its first product.
- Where the Fisher information of a distribution is not known in closed form, the Hessian of torch's KL divergence is
  the covariance of the score, as 2,000 samples of each row say.
- Finite differences in float64 agree with the derivatives. Where they do not, because something is detached on
  purpose, a warning says so: steps follow the gradients, and the line search what is computed.
- A Fisher product is finite where the outputs are, for one of the rows at least. With an infinite derivative, or
  0 * inf in what a `torch.where` leaves out, every update would end with NON_FINITE.

That takes 8 to 12 ms for an MLP of 64, 64, 30 to 120 ms for a distribution without a closed form, and 0.15 to 0.2 s for
a Nature CNN of 84 x 84 x 4, on one thread of a machine that was busy; the first check of a process takes half a second
more. Critics are looked at in the same way, as far as it applies: the same bits again, row by row, a finite gradient.
The networks that `TRPO` builds need no check; of [recurrent modules](recurrent.md) sequences are compared with single
steps, and derivatives looked at over a short sequence.

A module that was compiled by `torch.compile`, or has parts that were, is served as the plain one: kernels of the
compiler have no second derivatives. Its files hold the names of the plain module. Attention is recorded by torch's
math kernel, the one that can be differentiated twice; acting and the line search take whichever torch likes.

Closed forms are known for Bernoulli, Beta, Categorical, Cauchy, Dirichlet, Exponential, Gamma, Geometric, Gumbel,
HalfNormal, Laplace, LogNormal, MultiCategorical, Normal, Poisson, SquashedNormal and Weibull, alone or in
Independent.

## A Gaussian that is squashed into a box

`MLPPolicy(observation_space, action_space, squash=True)` returns a `trpo_fast.policies.squashed.SquashedNormal`: the
tanh of a Gaussian, between the sides of the box, which have to be finite, and at least 2^20 roundings of the larger
apart: a box from 1,000 to 1,001 wants `dtype="float64"`. What lies so far out that tanh is 1 becomes the side itself,
with the log-probability of ending there, so that a large standard deviation or a saturated sample ends no training.
It has a mode for `deterministic=True`, and no entropy in closed form: `entropy_coefficient` has to be 0.
In float32 a log_std above 8 puts all samples on the sides, and an update may end with NO_CURVATURE.

```python
from trpo_fast import MLPPolicy, TRPO


def squashed(observation_space, action_space, seed):
    return MLPPolicy(observation_space, action_space, seed=seed, squash=True)


agent = TRPO("Pendulum-v1", policy=squashed)
```

Of other distributions samples are kept inside of the support where rounding would put them on a side, as it does with
`TransformedDistribution(Normal(...), [TanhTransform()])`.
"""


def render() -> str:
    """The whole page."""
    sys.path.insert(0, str(ROOT))
    from tests.engines.networks import TABLES

    parts = [HEAD]
    for group, table in TABLES.items():
        parts.append(f"\n## {group}\n\n| policy | what becomes of it |\n|---|---|\n")
        parts += [f"| {name} | {_outcome(entry)} |\n" for name, entry in table.items()]
    return "".join(parts)


def _outcome(entry: Any) -> str:
    if entry.refused is not None:
        return f'refused: "{entry.refused}"'
    return "right, with a warning" if entry.warned else "right"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
