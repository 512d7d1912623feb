"""Options of every command; each field of TRPOConfig is an option of ``train``, made from its own declaration."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

import trpo_fast
from trpo_fast.algorithm.config import CHECKPOINT_SECONDS, CHECKPOINTS_KEPT, LOG, TRPOConfig

TIMESTEPS = 1_000_000
EVAL_EPISODES = 20
FPS = 25
# Those of EnvironmentRecipe, whose module needs Gymnasium.
VECTORIZATIONS = ("sync", "workers", "async", "vector", "envpool")
SAME_BITS = VECTORIZATIONS[:3]  # copies of one environment each, wherever they step


class _Parser(argparse.ArgumentParser):
    """Answers a mistake with one line, not with the usage of every option; options have their whole names.

    As an abbreviation --steps would mean --steps-per-env, when --timesteps was meant.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "allow_abbrev": False})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does; what no option is called is refused by the names that are near."""
        known, unknown = super().parse_known_args(args, namespace)
        options = [text.partition("=")[0] for text in unknown if text.startswith("--") and text != "--"]
        if options:
            names = [name for name in self._option_string_actions if name.startswith("--")]
            near = difflib.get_close_matches(options[0], names, n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            self.error(f"{options[0]}: no such option{hint}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        """Exit code 2."""
        self.exit(2, f"{self.prog}: error: {message} ({self.prog} --help shows all options)\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser; ``arguments.module`` names the module of :mod:`trpo_fast.cli` whose ``run`` does the work."""
    description = "Trust Region Policy Optimization with a compiled core."
    parser = _Parser(prog="trpo-fast", description=description)
    parser.add_argument("--version", action="version", version=f"trpo-fast {trpo_fast.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_eval(commands)
    _add_plot(commands)
    _add_report(commands)
    _add_record(commands)
    _add_export(commands)
    _add_bench(commands)
    info = commands.add_parser("info", help="versions, instruction set and threads of this installation")
    info.set_defaults(module="info")
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
        type=_text,
        metavar="ENV",
        help="environment id, e.g. CartPole-v1, or ale_py:ALE/Pong-v5 after its module",
    )
    _add_environment(train)
    _add_trust(train)
    train.add_argument(
        "--timesteps", type=_count, metavar="N", help=f"steps of the whole run, resumed or not (default {TIMESTEPS:,})"
    )
    train.add_argument(
        "--seed", type=_seed, metavar="S", help="decides everything random but global generators (default 0)"
    )
    train.add_argument(
        "--out", type=_text, metavar="DIR", help="the run's folder, new or empty (default runs/ENV-seedS-DATE-TIME)"
    )
    train.add_argument("--vectorization", choices=VECTORIZATIONS, help="how environments step together (default sync)")
    train.add_argument(
        "--num-workers", type=_count, metavar="N", help="processes of vectorization workers (default the cores)"
    )
    train.add_argument(
        "--config", type=_text, metavar="FILE", help="JSON file of settings, or a run's config.json; options win"
    )
    train.add_argument(
        "--preset",
        type=_text,
        metavar="NAME",
        help="settings that an environment is known to need: by default those of its id, if there are some; those of "
        "another id; or none, the defaults. Options and settings of --config win; a run's config.json says them all",
    )
    train.add_argument(
        "--resume",
        type=_text,
        metavar="RUN",
        help="go on with this run, from its latest checkpoint, with its options; new ones win",
    )
    train.add_argument("--threads", type=_count, metavar="N", help="threads of the compiled core and of torch")
    train.add_argument(
        "--rank-timeout",
        type=float,
        metavar="SECONDS",
        help="under torchrun: after which a rank that does not answer is given up (default 1800)",
    )
    train.add_argument(
        "--checkpoint-every",
        type=_count,
        metavar="N",
        help=f"steps between checkpoints, besides those that are saved so that a kill costs {CHECKPOINT_SECONDS:g} "
        "seconds at most",
    )
    train.add_argument(
        "--keep-checkpoints",
        type=_count_or_zero,
        metavar="N",
        help=f"the latest that stay, and the best (default {CHECKPOINTS_KEPT}; 0: all)",
    )
    train.add_argument(
        "--eval-episodes",
        type=_count_or_zero,
        metavar="N",
        help=f"played at the end (default {EVAL_EPISODES}; 0: none)",
    )
    train.add_argument(
        "--log",
        type=_sinks,
        metavar="NAMES",
        help=f"where rows of numbers go: {LOG.want}; csv in any case (default csv, and tensorboard where it is "
        "installed)",
    )
    settings = train.add_argument_group("settings", "fields of TRPOConfig, whose documentation gives the reasons")
    for entry in dataclasses.fields(TRPOConfig):
        text = f"{entry.metadata['meaning']} (default {_show(entry.default)})"
        settings.add_argument(
            option_of(entry.name),
            dest=f"config_{entry.name}",
            default=argparse.SUPPRESS,
            type=_field_parser(entry),
            metavar="VALUE",
            help=text.replace("%", "%%"),
        )


def _add_environment(command: argparse.ArgumentParser, instead: str = "") -> None:
    """How every copy is made; `instead` says of what the options take the place."""
    command.add_argument(
        "--env-kwargs",
        type=_json_object,
        metavar="JSON",
        help=f"arguments of the environment{instead}, e.g. '{{\"gravity\": 9.8}}'",
    )
    command.add_argument(
        "--wrapper",
        action="append",
        type=_text,
        metavar="MODULE:CALLABLE",
        help=f"wrap every environment in it{instead}, again for more, the first innermost; or by name: atari (84 x 84 "
        "gray, four frames: the default of ids of ale-py that show images), int-actions (Python's integers), "
        "mask-in-observation (a Dict's action mask is obeyed, and not observed), none",
    )


def _add_trust(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--import",
        dest="imports",
        action="append",
        type=_text,
        default=[],
        metavar="MODULE",
        help="import a module that registers environments, again for more; MODULE:FUNCTION is called, too",
    )
    command.add_argument(
        "--trust", action="store_true", help="import whatever the file names, instead of asking for --import"
    )


def _add_eval(commands: Any) -> None:
    evaluate = commands.add_parser("eval", help="play episodes with a trained agent")
    evaluate.set_defaults(module="evaluate")
    evaluate.add_argument("run", type=_text, metavar="RUN", help="folder of a run, or a model file")
    evaluate.add_argument("--episodes", type=_count, default=10, metavar="N", help="(default 10)")
    evaluate.add_argument("--seed", type=_seed, metavar="S", help="of environments and noise (default the agent's)")
    evaluate.add_argument(
        "--max-steps", type=_count, metavar="N", help="leave an episode after N steps (default evaluation_max_steps)"
    )
    evaluate.add_argument("--stochastic", action="store_true", help="sample actions instead of taking the likeliest")
    evaluate.add_argument("--json", action="store_true", help="one JSON line: mean, std, episodes, ...")
    _add_environment(evaluate, " instead of the run's")
    _add_trust(evaluate)


def _add_plot(commands: Any) -> None:
    plot = commands.add_parser("plot", help="draw learning curves")
    plot.set_defaults(module="plot")
    plot.add_argument(
        "runs", nargs="+", type=_text, metavar="RUN", help="folders of runs, one curve each, or folders of such folders"
    )
    plot.add_argument(
        "--group",
        choices=("seed",),
        help="seed: one curve for the runs that differ in nothing but their seed, the interquartile mean with a 95%% "
        "bootstrap interval, and how probably each setting does better than each other",
    )
    plot.add_argument(
        "--out",
        type=_text,
        metavar="FILE",
        help="picture, .png, .svg or .pdf, or page with tables, .html (default RUN/curve.png; curves.png here for "
        "several runs)",
    )


def _add_report(commands: Any) -> None:
    report = commands.add_parser(
        "report",
        help="say how a training went, what looks wrong and what to try",
        description="Say how a training went: return, KL, line search, solve, critic, exploration and times, in a page "
        "and in words; what looks wrong, why that may be, and what to try. docs/report.md explains each.",
    )
    report.set_defaults(module="report")
    report.add_argument("run", type=_text, metavar="RUN", help="folder of a run, under way or ended")
    report.add_argument("--out", type=_text, metavar="HTML", help="the page (default RUN/report.html)")
    report.add_argument("--text", action="store_true", help="print the words alone, without a page (and matplotlib)")
    report.add_argument("--json", action="store_true", help="one JSON line in place of the words")


def _add_record(commands: Any) -> None:
    record = commands.add_parser(
        "record",
        help="film episodes of a trained agent, without a display",
        description="Film episodes that eval would play, without a display: a GIF, or an MP4 with the record extra.",
    )
    record.set_defaults(module="record")
    record.add_argument("run", type=_text, metavar="RUN", help="folder of a run, or a model file")
    record.add_argument(
        "--out", type=_text, metavar="FILE", help="film, .gif or .mp4 (default episode.gif beside the model file)"
    )
    record.add_argument("--episodes", type=_count, default=1, metavar="N", help="one after the other (default 1)")
    record.add_argument("--seed", type=_seed, metavar="S", help="of environment and noise (default the agent's)")
    record.add_argument(
        "--max-steps", type=_count, metavar="N", help="leave an episode after N steps (default evaluation_max_steps)"
    )
    record.add_argument("--stochastic", action="store_true", help="sample actions instead of taking the likeliest")
    record.add_argument(
        "--fps",
        type=_count,
        metavar="N",
        help="pictures a second at most; steps between are left out, so that the film has the task's speed "
        f"(default {FPS})",
    )
    _add_environment(record, " instead of the run's")
    _add_trust(record)


def _add_export(commands: Any) -> None:
    export = commands.add_parser("export", help="write a trained policy for other runtimes")
    export.set_defaults(module="export")
    export.add_argument("run", type=_text, metavar="RUN", help="folder of a run, or a model file")
    export.add_argument("--format", choices=("onnx",), required=True, help="onnx: docs/deployment.md has its contents")
    export.add_argument(
        "--out", type=_text, metavar="FILE", help="(default the model file's name with the suffix .onnx)"
    )


def _add_bench(commands: Any) -> None:
    bench = commands.add_parser(
        "bench",
        help="measure conjugate gradient, Fisher products, updates and rollouts on this machine",
        description="Measure the compiled core beside the multiply-add limit of this machine, on 1 thread and on all. "
        "Every answer is compared with float64 NumPy first. Minutes; seconds with --quick.",
    )
    bench.set_defaults(module="bench")
    bench.add_argument("what", nargs="?", choices=("cg", "fisher", "update", "rollout", "all"), default="all")
    bench.add_argument("--threads", type=_count, metavar="N", help="measure on N threads alone (default 1 and all)")
    bench.add_argument("--dtype", choices=("float32", "float64"), help="(default both)")
    bench.add_argument("--quick", action="store_true", help="a few small cases: whether it works, not how fast")
    bench.add_argument("--json", action="store_true", help="one JSON object; its fields: docs/benchmarks.md")


def option_of(field_name: str) -> str:
    """The option of ``train`` that sets a field of TRPOConfig."""
    return "--" + field_name.replace("_", "-")


def config_overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """Fields of TRPOConfig that options were given for."""
    given = vars(arguments)
    names = [entry.name for entry in dataclasses.fields(TRPOConfig)]
    return {name: given[f"config_{name}"] for name in names if f"config_{name}" in given}


def _field_parser(entry: dataclasses.Field[Any]) -> Callable[[str], Any]:
    rule = entry.metadata["rule"]

    def parse(text: str) -> Any:
        try:
            return rule.convert(_from_text(text, entry))
        except (TypeError, ValueError):
            raise argparse.ArgumentTypeError(f"{text!r} given; want {_want(entry)}") from None

    return parse


def _from_text(text: str, entry: dataclasses.Field[Any]) -> Any:
    default: Any = entry.default
    if text.lower() == "none" and ("None" in str(entry.type) or "like" in entry.metadata):
        return None
    if "like" in entry.metadata:
        default = entry.metadata["like"]
    if isinstance(default, bool):
        return {"true": True, "false": False}[text.lower()] if text.lower() in ("true", "false") else text
    if isinstance(default, tuple):
        return tuple(int(size) for size in text.split(",") if size.strip())
    return text if default is None else type(default)(text)


def _want(entry: dataclasses.Field[Any]) -> str:
    if isinstance(entry.default, bool):
        return "true or false"
    if isinstance(entry.default, tuple):
        return "integers >= 1 with commas between them, at most 2**24 each, e.g. 64,64"
    return str(entry.metadata["rule"].want)


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} given; want a JSON object, e.g. '{{\"gravity\": 9.8}}'")
    return value


def _show(default: Any) -> str:
    if default is None or isinstance(default, bool):
        return str(default).lower()
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _text(text: str) -> str:
    """A name or path; an empty one, of a variable that is not set, would be taken for none given."""
    if not text:
        raise argparse.ArgumentTypeError("'' given; want it with a value, or left out")
    return text


def _sinks(text: str) -> Any:
    try:
        return LOG.convert(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} given; want {LOG.want}") from None


def _whole_number(text: str, least: int) -> int:
    try:
        value = Decimal(text)  # so that 1e6 is understood, and 1e30 is what it says
    except InvalidOperation:
        value = Decimal("nan")
    if not (value.is_finite() and least <= value < 2**63 and value == int(value)):
        raise argparse.ArgumentTypeError(f"{text!r} given; want an integer >= {least}, below 2**63")
    return int(value)


def _count(text: str) -> int:
    return _whole_number(text, 1)


def _count_or_zero(text: str) -> int:
    return _whole_number(text, 0)


def _seed(text: str) -> int:
    value = _whole_number(text, 0)
    if value >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} given; want an integer from 0 to 2**32 - 1")
    return value
