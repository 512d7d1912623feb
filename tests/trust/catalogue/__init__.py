"""What is called at random: for every public name valid arguments, what it writes, and what its answer must be."""

from tests.trust.catalogue import agents as agents
from tests.trust.catalogue import core as core
from tests.trust.catalogue import engines as engines
from tests.trust.catalogue import networks as networks
from tests.trust.catalogue import solving as solving
from tests.trust.catalogue import spaces as spaces
from tests.trust.catalogue.declaring import TARGETS as TARGETS

NETWORKS = (
    *("MLPPolicy", "MLPCritic", "CNNPolicy", "CNNCritic", "MultiInputPolicy", "MultiInputCritic"),
    *("RecurrentPolicy", "RecurrentCritic"),
)
CALLBACKS = (
    *("Callback", "CheckpointCallback", "EvaluationCallback", "EveryNTimesteps", "ProgressBar", "RunLogger"),
    "StopAtReturn",
)
EVENTS = (
    *("check_training_start", "on_training_start", "on_rollout_end", "on_update", "on_evaluation", "on_new_best"),
    "on_training_end",
)
WITHIN = "a part of what is called here, which gives it what was checked"
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
    **{f"{name}.forward": "torch's own arguments and errors" for name in NETWORKS},
    **{f"Product.{name}": "as torch's distributions" for name in ("sample", "log_prob", "joined", "split")},
    **{f"Part.{name}": WITHIN for name in ("of", "check_kind", "write")},
    **{f"ActionStructure.{name}": WITHIN for name in ("batch", "each")},
    **{f"MaskFormat.{name}": WITHIN for name in ("fits", "apart")},
    **{f"ObservationLayout.{name}": WITHIN for name in ("values", "check")},
    **{f"ObservationLayout.flatten{name}": WITHIN for name in ("", "_each", "_some", "_any")},
    **{f"NativeEngine.{name}": WITHIN for name in ("bind_served", "kronecker_statistics", "actor_plan")},
    **{f"{name}.{event}": "called by learn" for name in CALLBACKS for event in EVENTS},
    **{f"{name}.{state}_state": "files: make fuzz" for name in CALLBACKS for state in ("get", "set")},
    "CheckpointCallback.save": "as TRPO.save",
    "RunLogger.write_waiting": "no arguments",
}
"""Public names that are not called at random, and why."""
