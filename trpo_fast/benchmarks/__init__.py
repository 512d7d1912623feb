"""How fast the compiled core is here, beside what this machine can do at most: the cases of ``trpo-fast bench``.

Needs numpy alone. A case is timed on every number of threads asked for, in alternating rounds, together with the
multiply-add limit on the same threads; the medians count. Before it is timed its answer is compared with float64 NumPy
that shares nothing with the kernels; a wrong answer has no time.

Operations and bytes are those that the mathematics needs, so that figures of different implementations compare:

- a Fisher product does ``B (8 P - 4 P1)`` operations for P weights, P1 of them in the first layer: J v costs a product
  with the weights and one with their tangents (the first layer's inputs have no tangent), J' the same; and reads or
  writes once each observation, each hidden activation, the parameters, the vector and the result;
- an iteration of CG does one product, and ``10 n`` operations on ``11 n`` items in its three vector updates (p'Ap; x
  and r with r'r; p), ``2 n`` on ``3 n`` more with damping, ``4 n k`` on ``5 n k`` in iteration k with
  reorthogonalization;
- a value fit does ``6 B P - 2 B P1`` operations an epoch; rollout cases count their networks' ``2 B P``.
"""

from .cases import KINDS, Case, make_cases
from .hard_problems import HARD_PROBLEMS, HardProblem
from .limits import QUIET, Peak, Timing, measure_bandwidth, measure_peak, multiply_add_limits, timed
from .machine import describe_machine
from .measuring import SCHEMA, Figure, Limit, Report, measure, run
from .oracle import ExactPolicy, WrongAnswer, exact_solution, relative_error
from .problems import BATCHES, CHEETAH, DTYPES, HUMANOID, WIDTHS, PolicyProblem
from .tables import duration, header, line

__all__ = [
    "BATCHES",
    "CHEETAH",
    "DTYPES",
    "HARD_PROBLEMS",
    "HUMANOID",
    "KINDS",
    "QUIET",
    "SCHEMA",
    "WIDTHS",
    "Case",
    "ExactPolicy",
    "Figure",
    "HardProblem",
    "Limit",
    "Peak",
    "PolicyProblem",
    "Report",
    "Timing",
    "WrongAnswer",
    "describe_machine",
    "duration",
    "exact_solution",
    "header",
    "line",
    "make_cases",
    "measure",
    "measure_bandwidth",
    "measure_peak",
    "multiply_add_limits",
    "relative_error",
    "run",
    "timed",
]
