"""Options of every command; each field of TRPOConfig is an option of ``train`` and ``tune``, made from its declaration.

Every help says the default and the reason for it.
"""

from __future__ import annotations

import argparse
from typing import Any

import trpo_fast
from trpo_fast.algorithm.config import CHECKPOINT_SECONDS, CHECKPOINTS_KEPT, LOG
from trpo_fast.cli import values
from trpo_fast.cli.errors import EXIT_CODES
from trpo_fast.cli.options import PROGRAM, Parser, add_environment, add_import, add_output, add_settings, add_trust

TIMESTEPS = 1_000_000
EVAL_EPISODES = 20
TUNE_TIMESTEPS = 100_000
TUNE_TRIALS = 50
FPS = 25
# Those of EnvironmentRecipe, whose module needs Gymnasium.
VECTORIZATIONS = ("sync", "workers", "async", "vector", "envpool")
SAME_BITS = VECTORIZATIONS[:3]  # copies of one environment each, wherever they step


def make_parser() -> argparse.ArgumentParser:
    """The parser; ``arguments.module`` names the module of :mod:`trpo_fast.cli` whose ``run`` does the work."""
    codes = "; ".join(f"{code}: {meaning}" for code, meaning in EXIT_CODES.items())
    parser = Parser(
        prog=PROGRAM,
        description="Trust Region Policy Optimization with a compiled core.",
        epilog=f"Exit codes: {codes}.",
    )
    parser.add_argument("--version", action="version", version=f"trpo-fast {trpo_fast.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_eval(commands)
    _add_tune(commands)
    _add_plot(commands)
    _add_report(commands)
    _add_record(commands)
    _add_export(commands)
    _add_bench(commands)
    _add_envs(commands)
    _add_presets(commands)
    _add_info(commands)
    return parser


def _add_train(commands: Any) -> None:
    train = commands.add_parser(
        "train",
        help="train an agent, or go on with --resume",
        description="Train an agent. A run is a folder: config.json, progress.csv, TensorBoard events, checkpoints/, "
        "model.trpo and curve.png. Ctrl-C and SIGTERM stop, save, and say how to go on.",
    )
    train.set_defaults(module="train")
    train.add_argument(
        "env",
        nargs="?",
        type=values.text,
        metavar="ENV",
        help="environment id, e.g. CartPole-v1, or ale_py:ALE/Pong-v5 after its module; trpo-fast envs lists them",
    )
    add_environment(train)
    add_trust(train)
    train.add_argument(
        "--timesteps",
        type=values.count,
        metavar="N",
        help=f"steps of the whole run, resumed or not (default {TIMESTEPS:,}: what MuJoCo's tasks are published at)",
    )
    train.add_argument(
        "--seed",
        type=values.seed,
        metavar="S",
        help="decides everything random but global generators (default 0: a command is a result)",
    )
    train.add_argument(
        "--out",
        type=values.text,
        metavar="DIR",
        help="the run's folder, new or empty (default runs/ENV-seedS-DATE-TIME: no run meets another)",
    )
    train.add_argument(
        "--vectorization",
        choices=VECTORIZATIONS,
        help="how environments step together (default sync: it serves every environment)",
    )
    train.add_argument(
        "--num-workers",
        type=values.count,
        metavar="N",
        help="processes of vectorization workers (default the cores: more would share them)",
    )
    train.add_argument(
        "--config",
        type=values.text,
        metavar="FILE",
        help="JSON file of settings, or a run's config.json; options win (default none: what is not given is as below)",
    )
    train.add_argument(
        "--preset",
        type=values.text,
        metavar="NAME",
        help="settings that an environment is known to need: those of another id; a file that trpo-fast tune has "
        "written, *.toml; or none, the defaults. Options and settings of --config win; a run's config.json says them "
        "all (default those of its id, if there are some: the defaults were measured to fall short there)",
    )
    train.add_argument(
        "--resume",
        type=values.text,
        metavar="RUN",
        help="go on with this run, from its latest checkpoint, with its options; new ones win (default none: anew)",
    )
    train.add_argument(
        "--threads",
        type=values.count,
        metavar="N",
        help="threads of the compiled core and of torch (default the cores that this process may use: the bits of the "
        "compiled core are the same with any number)",
    )
    train.add_argument(
        "--rank-timeout",
        type=float,
        metavar="SECONDS",
        help="under torchrun: after which a rank that does not answer is given up (default 1800: longer than "
        "any update should take)",
    )
    train.add_argument(
        "--checkpoint-every",
        type=values.count,
        metavar="N",
        help="steps between checkpoints (default none: there are those that are saved so that a kill "
        f"costs {CHECKPOINT_SECONDS:g} seconds at most)",
    )
    train.add_argument(
        "--keep-checkpoints",
        type=values.count_or_zero,
        metavar="N",
        help=f"the latest that stay, and the best; 0: all (default {CHECKPOINTS_KEPT}: the last may be damaged)",
    )
    train.add_argument(
        "--eval-episodes",
        type=values.count_or_zero,
        metavar="N",
        help=f"played at the end; 0: none (default {EVAL_EPISODES}: their mean is known to a fifth of their spread)",
    )
    train.add_argument(
        "--log",
        type=values.sinks,
        metavar="NAMES",
        help=f"where rows of numbers go: {LOG.want}; csv in any case (default csv, and tensorboard where it is "
        "installed: both cost next to nothing)",
    )
    add_output(train, json="one JSON line at the end: run, timesteps, seconds, return, ...", quiet="nothing but errors")
    add_settings(train)


def _add_eval(commands: Any) -> None:
    evaluate = commands.add_parser("eval", help="play episodes with a trained agent")
    evaluate.set_defaults(module="evaluate")
    evaluate.add_argument("run", type=values.text, metavar="RUN", help="folder of a run, or a model file")
    evaluate.add_argument(
        "--episodes", type=values.count, default=10, metavar="N", help="how many (default 10: a first look)"
    )
    evaluate.add_argument(
        "--seed",
        type=values.seed,
        metavar="S",
        help="of environments and noise (default the agent's: its episodes are others than the training's)",
    )
    evaluate.add_argument(
        "--max-steps",
        type=values.count,
        metavar="N",
        help="leave an episode after N steps (default the agent's evaluation_max_steps: some never end)",
    )
    evaluate.add_argument(
        "--stochastic",
        action="store_true",
        help="sample actions (default off: the likeliest ones score higher in most tasks)",
    )
    add_output(evaluate, json="one JSON line: mean, std, episodes, ...", quiet="the mean alone")
    add_environment(evaluate, " instead of the run's")
    add_trust(evaluate)


def _add_tune(commands: Any) -> None:
    tune = commands.add_parser(
        "tune",
        help="search for better settings",
        description="Search for better settings with Optuna: each trial trains and evaluates agents, those that fall "
        "behind are pruned, and the best becomes a preset, for train --preset FILE. The same command goes on with a "
        "study that was stopped or killed; several commands may work on one study (docs/tuning.md).",
    )
    tune.set_defaults(module="tune")
    tune.add_argument("env", type=values.text, metavar="ENV", help="environment id, as for train")
    add_environment(tune)
    add_import(tune)
    tune.add_argument(
        "--trials",
        type=values.count,
        default=TUNE_TRIALS,
        metavar="N",
        help=f"of the whole study, gone on with or not (default {TUNE_TRIALS}: ten drawn at random, then by what was "
        "found)",
    )
    tune.add_argument(
        "--timesteps",
        type=values.count,
        default=TUNE_TIMESTEPS,
        metavar="T",
        help=f"of each seed of a trial (default {TUNE_TIMESTEPS:,}: whether a setting is good shows early, if not how "
        "good)",
    )
    tune.add_argument(
        "--study",
        type=values.text,
        metavar="FILE",
        help="a sqlite database, new or one to go on with (default runs/tune-ENV-DATE-TIME.db: a new one)",
    )
    tune.add_argument(
        "--seeds",
        type=values.count,
        default=1,
        metavar="K",
        help="trainings of a trial, whose interquartile mean is its score (default 1: the cheapest; 3 are less "
        "led by luck)",
    )
    tune.add_argument(
        "--seed",
        type=values.seed,
        default=0,
        metavar="S",
        help="of the search and of the first training, the others follow (default 0: a command is a result)",
    )
    tune.add_argument(
        "--eval-episodes",
        type=values.count,
        default=EVAL_EPISODES,
        metavar="N",
        help=f"deterministic ones that each final policy plays for its score (default {EVAL_EPISODES}: as of train)",
    )
    tune.add_argument(
        "--search",
        type=values.text,
        metavar="NAMES",
        help="settings to search, with commas, e.g. max_kl,gamma (default all that declare what to try: "
        "those given below are not searched)",
    )
    tune.add_argument(
        "--workers",
        type=values.count,
        default=1,
        metavar="N",
        help="processes that each carry out trials (default 1: its study is the same every time)",
    )
    tune.add_argument(
        "--threads",
        type=values.count,
        metavar="N",
        help="of the compiled core and of torch in each process (default the cores by the workers: none wait)",
    )
    tune.add_argument(
        "--no-pruning",
        action="store_true",
        help="train every trial to its end (default off: those whose training return is below the median of the "
        "others, at the same number of timesteps, end there)",
    )
    tune.add_argument(
        "--out",
        type=values.text,
        metavar="FILE",
        help="the preset, *.toml (default the study's name with that suffix: they stay together)",
    )
    tune.add_argument(
        "--plan-only", action="store_true", help="print what it would cost, and begin nothing (default off: it begins)"
    )
    add_output(tune, json="one JSON line at the end: study, trials, best, preset", quiet="nothing but errors")
    add_settings(tune, "fields of TRPOConfig: a value that is given is that of all trials, and is not searched")


def _add_plot(commands: Any) -> None:
    plot = commands.add_parser("plot", help="draw learning curves")
    plot.set_defaults(module="plot")
    plot.add_argument(
        "runs",
        nargs="+",
        type=values.text,
        metavar="RUN",
        help="folders of runs, one curve each, or folders of such folders",
    )
    plot.add_argument(
        "--group",
        choices=("seed",),
        help="seed: one curve for the runs that differ in nothing but their seed, the interquartile mean with a 95%% "
        "bootstrap interval, and how probably each setting does better than each other "
        "(default none: a curve for each run)",
    )
    plot.add_argument(
        "--out",
        type=values.text,
        metavar="FILE",
        help="picture, .png, .svg or .pdf, or page with tables, .html (default RUN/curve.png; curves.png here for "
        "several runs: they have no folder in common)",
    )
    add_output(plot)


def _add_report(commands: Any) -> None:
    report = commands.add_parser(
        "report",
        help="say how a training went, what looks wrong and what to try",
        description="Say how a training went: return, KL, line search, solve, critic, exploration and times, in a page "
        "and in words; what looks wrong, why that may be, and what to try. docs/report.md explains each.",
    )
    report.set_defaults(module="report")
    report.add_argument("run", type=values.text, metavar="RUN", help="folder of a run, under way or ended")
    report.add_argument(
        "--out", type=values.text, metavar="HTML", help="the page (default RUN/report.html: it stays with the run)"
    )
    report.add_argument(
        "--text",
        action="store_true",
        help="print the words alone (default off: the page has them, and needs matplotlib)",
    )
    add_output(report, json="one JSON line in place of the words")


def _add_record(commands: Any) -> None:
    record = commands.add_parser(
        "record",
        help="film episodes of a trained agent, without a display",
        description="Film episodes, without a display: a GIF, or an MP4 with the record extra. The first is that of "
        "eval --episodes 1; eval plays more of them side by side, which are others.",
    )
    record.set_defaults(module="record")
    record.add_argument("run", type=values.text, metavar="RUN", help="folder of a run, or a model file")
    record.add_argument(
        "--out",
        type=values.text,
        metavar="FILE",
        help="film, .gif or .mp4 (default episode.gif beside the model file: they stay together)",
    )
    record.add_argument(
        "--episodes", type=values.count, default=1, metavar="N", help="one after the other (default 1: a film is large)"
    )
    record.add_argument(
        "--seed", type=values.seed, metavar="S", help="of environment and noise (default the agent's: as eval)"
    )
    record.add_argument(
        "--max-steps",
        type=values.count,
        metavar="N",
        help="leave an episode after N steps (default evaluation_max_steps of the agent: some never end)",
    )
    record.add_argument(
        "--stochastic", action="store_true", help="sample actions (default off: the likeliest, as eval)"
    )
    record.add_argument(
        "--fps",
        type=values.count,
        metavar="N",
        help="pictures a second at most; steps between are left out, so that the film has the task's speed "
        f"(default {FPS}: as films have)",
    )
    add_environment(record, " instead of the run's")
    add_trust(record)
    add_output(record)


def _add_export(commands: Any) -> None:
    export = commands.add_parser("export", help="write a trained policy for other runtimes")
    export.set_defaults(module="export")
    export.add_argument("run", type=values.text, metavar="RUN", help="folder of a run, or a model file")
    export.add_argument(
        "--format",
        choices=("onnx",),
        required=True,
        help="onnx: docs/deployment.md has its contents (default none: others may come)",
    )
    export.add_argument(
        "--out",
        type=values.text,
        metavar="FILE",
        help="(default the model file's name with the suffix .onnx: the two stay together)",
    )
    export.add_argument(
        "--precision",
        choices=("float64", "float32"),
        default="float64",
        help="of what surrounds the network; float32: nothing in the graph is float64, for runtimes of small devices "
        "(default %(default)s: as the agent computes)",
    )
    export.add_argument(
        "--opset",
        type=values.count,
        metavar="N",
        default=13,
        help="version of ONNX's operators, 12 or newer (default %(default)s: every runtime in use knows it)",
    )
    add_output(export)


def _add_bench(commands: Any) -> None:
    bench = commands.add_parser(
        "bench",
        help="measure conjugate gradient, Fisher products, updates and rollouts on this machine",
        description="Measure the compiled core beside the multiply-add limit of this machine, on 1 thread and on all. "
        "Every answer is compared with float64 NumPy first. Minutes; seconds with --quick.",
    )
    bench.set_defaults(module="bench")
    bench.add_argument(
        "what",
        nargs="?",
        choices=("cg", "fisher", "update", "rollout", "all"),
        default="all",
        help="one part (default all)",
    )
    bench.add_argument(
        "--threads",
        type=values.count,
        metavar="N",
        help="measure on N threads alone (default 1 and all: what more threads are of use for)",
    )
    bench.add_argument("--dtype", choices=("float32", "float64"), help="(default both: a policy may be of either)")
    bench.add_argument(
        "--quick",
        action="store_true",
        help="a few small cases: whether it works, not how fast (default off: every case, for its figures)",
    )
    add_output(
        bench,
        json="one JSON object; its fields: docs/benchmarks.md",
        quiet="nothing: the exit code says whether every answer was right",
    )


def _add_envs(commands: Any) -> None:
    envs = commands.add_parser(
        "envs",
        help="what can be trained here, and what is missing for the rest",
        description="List registered environments whose id has WORD in it: what can be trained here, and what has to "
        "be installed for the rest. The list of installed packages is kept until one of them changes.",
    )
    envs.set_defaults(module="envs")
    envs.add_argument(
        "word", nargs="?", type=values.text, metavar="WORD", help="a part of an id, in any case (default all)"
    )
    add_import(envs)
    envs.add_argument(
        "--check",
        action="store_true",
        help="make each one that is listed, say its spaces, and why where it cannot be made or trained (default off: "
        "their registration tells, and hundreds take minutes)",
    )
    envs.add_argument(
        "--refresh",
        action="store_true",
        help="make the list anew (default off: it holds until a package is installed or removed)",
    )
    add_output(envs, json="one JSON list", quiet="the ids alone that can be trained here")


def _add_presets(commands: Any) -> None:
    presets = commands.add_parser(
        "presets",
        help="settings that some environments are trained with in place of the defaults",
        description="List the presets: settings that an environment is trained with in place of the defaults, and "
        "their evidence.",
    )
    presets.set_defaults(module="presets")
    presets.add_argument(
        "env", nargs="?", type=values.text, metavar="ENV", help="an environment's id, or a file *.toml (default all)"
    )
    add_output(presets, json="one JSON list", quiet="their names alone")


def _add_info(commands: Any) -> None:
    info = commands.add_parser("info", help="versions, instruction set and threads of this installation")
    info.set_defaults(module="info")
    add_output(info, json="one JSON object")
