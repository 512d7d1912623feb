"""What is called at random: for every public name valid arguments, what it writes, and what its answer must be."""

from tests.trust.catalogue import agents as agents
from tests.trust.catalogue import core as core
from tests.trust.catalogue import engines as engines
from tests.trust.catalogue import networks as networks
from tests.trust.catalogue import solving as solving
from tests.trust.catalogue import spaces as spaces
from tests.trust.catalogue.declaring import TARGETS as TARGETS

PLAIN = "plain data that this package makes, or an argument of others here"
LEFT_OUT = {
    **dict.fromkeys(
        ["CGResult", "EvaluationResult", "LineSearchResult", "Trial", "TrustRegionReport", "UpdateReport"], PLAIN
    ),
    **dict.fromkeys(
        ["Case", "Figure", "Limit", "Peak", "Report", "Timing", "ActionLayout", "Part", "Leaf", "Space"], PLAIN
    ),
    **dict.fromkeys(["Box", "Dict", "Discrete", "MultiBinary", "MultiDiscrete", "Tuple"], PLAIN),
    **dict.fromkeys(["Callback", "ProgressBar", "instruction_set", "get_num_threads", "header"], "no arguments"),
    **dict.fromkeys(["Ranks", "RankError", "DistributedEngine"], "several processes: tests/distributed"),
    **dict.fromkeys(["Status", "WrongAnswer"], "Python's own enumeration and exception"),
    **dict.fromkeys(
        [
            "ExactPolicy",
            "HardProblem",
            "PolicyProblem",
            "describe_machine",
            "duration",
            "exact_solution",
            "line",
            "make_cases",
            "measure",
            "measure_bandwidth",
            "measure_peak",
            "multiply_add_limits",
            "relative_error",
            "run",
            "timed",
        ],
        "measures for as long as it is told to, on problems that it made itself",
    ),
    **dict.fromkeys(
        ["each_of", "mask_in", "flat_size", "leaves", "named_leaves", "nested", "numeric_columns", "to_json"],
        "takes a space that was checked before",
    ),
}
"""Public names that are not called at random, and why."""
