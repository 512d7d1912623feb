"""The tables of docs/scaling.md from bench/results: scaling*.json, scaling_network*.json, learning/large_batches.

python -m bench.scaling_report              # rewrite them
python -m bench.scaling_report --check      # exit code 1 where the page is not what the results make
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.cost_model import PARTS, Link, Update, efficiency, rounds, update_seconds
from bench.learning_report import curves_of, seconds_to
from bench.machine import kind_of
from bench.report import MARKS, RESULTS, load, table
from bench.study import RESULTS as LEARNING
from bench.study import Arm, Study
from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.benchmarks import duration

PAGE = RESULTS.parent.parent / "docs" / "scaling.md"
LINKS = {
    "Ethernet, 50 us, 1 Gbit/s": Link(50e-6, 1e9 / 8),
    "Ethernet, 50 us, 10 Gbit/s": Link(50e-6, 10e9 / 8),
    "fabric, 2 us, 100 Gbit/s": Link(2e-6, 100e9 / 8),
}
RANKS = (8, 32, 100, 300, 1000)
MOST = 100_000  # ranks that are looked at
TRIALS = 1.5  # of the line search, for arms whose curves do not say


def render(page: str, results: Path = RESULTS) -> str:
    """The page with what stands between its marks made again."""

    def made(name: str) -> list[str]:
        found = load(results, FAMILIES[name])
        missing = [f"No results are committed; `python -m bench.{FAMILIES[name]}` makes them."]
        return SECTIONS[name](found) if found else missing

    return MARKS.sub(lambda match: match[1] + "\n".join(["", *made(match[2]), ""]) + "\n" + match[3], page)


def origin(result: Mapping[str, Any]) -> str:
    """The line that says where figures are from."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    busy = "" if result["quiet"] else " **The machine was busy: not to be quoted.**"
    return (
        f"{kind_of(machine)}, {machine['processors']} processors: `{result['command']}`, {result['env']}, {versions}, "
        f"commit {machine['commit']}.{busy}"
    )


def measured(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rates beside the plain program's, and what an update exchanges."""
    lines: list[str] = []
    for result in found:
        ranks, agent = result["ranks"], result["agent"]
        each = agent["num_envs"] // ranks
        rows = []
        for name, figures in result["medians"].items():
            ratio = {
                "one rank": f"{result['one_rank_by_plain']:.3f} of the plain program (goal 0.97)",
                f"{ranks} ranks": f"{result['ranks_by_one_rank']:.2f} times one rank" + " (goal 1.6)" * (ranks == 2),
            }.get(name, "")
            copies = agent["num_envs"] if name == f"{ranks} ranks" else each
            rows.append(
                [
                    name,
                    f"{copies}",
                    f"{figures['steps_per_second']:,.0f}",
                    duration(figures["seconds"]),
                    duration(statistics.median(one["cpu"] for one in result["rounds"][name])),
                    ratio,
                ]
            )
        lines += [
            origin(result),
            "",
            *table(["", "copies", "steps/s", "an update", "processor time of a rank", ""], rows),
            "",
        ]
        update = result["medians"][f"{ranks} ranks"]["seconds"]
        phases = {name: one for name, one in result["traffic"].items() if one["rounds"]}
        total = {key: sum(one[key] for one in phases.values()) for key in ("rounds", "bytes", "seconds")}
        rows = [
            [
                name,
                f"{one['rounds']:.3g}",
                f"{one['bytes']:,.0f}",
                duration(one["seconds"]),
                f"{one['seconds'] / update:.1%}",
            ]
            for name, one in {**phases, "all": total}.items()
        ]
        lines += [*table([f"an update of {ranks} ranks", "rounds", "bytes of a rank", "in them", "share"], rows), ""]
        local = update_of(result)
        alone, several = (update_seconds(local, Link(0.0, float("inf")), k) for k in (1, ranks))
        lines += [
            f"Without any wire, {ranks} ranks could be {ranks * alone.total / several.total:.2f} times one: each fits "
            f"the whole batch, {duration(several.critic)} in the place of {duration(alone.critic)}, and prepares it, "
            f"{duration(several.preparation)} in the place of {duration(alone.preparation)}.",
            "",
        ]
    return lines


def same_bits(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the same bits for any number of ranks cost."""
    lines: list[str] = []
    for result in found:
        rows = [
            [
                "-".join(map(str, price["hidden_sizes"])),
                f"{price['parameters']:,}",
                *(
                    " / ".join(duration(price[what][way]) for way in ("in order", "reduced"))
                    for what in ("seconds", "cpu", "solve")
                ),
                " / ".join(f"{price['bytes'][way] / 1e6:.2f} MB" for way in ("in order", "reduced")),
                f"{price['share']:+.1%}",
            ]
            for price in result["same_bits"]
        ]
        head = [
            "hidden units",
            "n",
            "an update: in order / reduced",
            "processor time of a rank",
            "products",
            "bytes of a rank",
            "price, by rounds",
        ]
        lines += [origin(result), "", *table(head, rows), ""]
        update, several = update_of(result), (2, 4, 8, PARTS)
        rows = [[name, *(f"{_added(update, link, k):+.1%}" for k in several)] for name, link in LINKS.items()]
        head = ["the wire's part of it, by the cost model", *(f"{k} ranks" for k in several)]
        lines += [*table(head, rows), ""]
    return lines


def _added(update: Update, link: Link, ranks: int) -> float:
    """What gathering the sums of parts in the place of reducing adds, as a share of an update."""
    ordered, reduced = (update_seconds(update, link, ranks, algorithm=way).total for way in ("built", "ring"))
    return ordered / reduced - 1


def update_of(result: Mapping[str, Any]) -> Update:
    """What the cost model goes by: a rank's update, by the phases of the plain program."""
    figures, ranks, agent = result["medians"]["plain program"], result["ranks"], result["agent"]
    phases, samples = figures["phases"], agent["num_envs"] * agent["steps_per_env"] // ranks
    return Update(
        parameters=agent["parameters"],
        critic_parameters=agent["critic_parameters"],
        products=figures["products"],
        trials=figures["trials"],
        samples=samples,
        sample_bytes=result["traffic"]["rollout"]["bytes"] / samples,
        rollout=phases["rollout"] / samples,
        gradient=phases["gradient"] / samples,
        product=phases["solve"] / figures["products"] / samples,
        trial=phases["line_search"] / figures["trials"] / samples,
        fit=phases["critic_fit"] / samples,
        preparation=phases["advantages"] / samples,
    )


def cost_tables(found: Sequence[Mapping[str, Any]] | None = None) -> list[str]:
    """By what an update costs here: efficiency by ranks and network, where half of it is left, what saves rounds."""
    result = (load(RESULTS, "scaling") if found is None else found)[0]
    update = update_of(result)
    slow = update._replace(rollout=10 * update.rollout)
    ways = {  # fit, reductions
        "as built": (update, "whole", "built"),
        "the critic by reduced gradients": (update, "reduced", "built"),
        "the same, by halving and doubling": (update, "reduced", "halving"),
        "as built, a simulator 10 times as slow": (slow, "whole", "built"),
        "the critic by reduced gradients, that simulator": (slow, "reduced", "built"),
    }
    lines = [
        origin(result),
        "",
        f"A rank takes, a sample, {duration(update.rollout)} for the rollout, {duration(update.product)} for a "
        f"product, {duration(update.fit)} for the fit and {duration(update.preparation)} for the preparation; "
        f"{update.samples:,} samples of {update.sample_bytes:.0f} bytes, P = {update.parameters:,}, "
        f"{update.products:.0f} products.",
        "",
    ]
    for name, link in LINKS.items():
        rows = [
            [way, *(f"{efficiency(what, link, k, fit=fit, algorithm=algorithm):.0%}" for k in RANKS)]
            for way, (what, fit, algorithm) in ways.items()
        ]
        lines += [*table([name, *(f"{ranks:,} ranks" for ranks in RANKS)], rows), ""]
    rows = [
        [way, f"{rounds(what, fit=fit):.3g}", *(_largest(what, link, fit, algorithm) for link in LINKS.values())]
        for way, (what, fit, algorithm) in ways.items()
    ]
    lines += ["The number of ranks up to which each is at least half as fast as one alone:", ""]
    lines += [*table(["", "rounds an update", *LINKS], rows), ""]
    kfac = update._replace(statistics=3 * update.parameters)  # of a layer of a inputs and b outputs, a^2 + b^2
    savings = {
        "10 products": update._replace(products=10.0),
        "2 products with K-FAC": kfac._replace(products=2.0),
        "1 product with K-FAC": kfac._replace(products=1.0),
        "10 products, 8 times the samples": update._replace(products=10.0, samples=8 * update.samples),
    }
    many = 100
    rows = []
    for name, what in savings.items():
        millions = many * what.samples / 1e6
        rows.append([name, f"{rounds(what):.3g}", f"{rounds(what) / millions:.3g}"])
        for link in LINKS.values():
            rows[-1].append(duration(update_seconds(what, link, many).reductions / millions))
    head = [f"as built, {many} ranks", "rounds an update", "rounds a million samples"]
    lines += ["What saves rounds, and seconds in reductions of a million samples of all ranks:", ""]
    lines += [*table([*head, *LINKS], rows), ""]
    seconds = update_seconds(update, LINKS["Ethernet, 50 us, 10 Gbit/s"], many)
    lines += [
        f"As built, {many} ranks on Ethernet of 10 Gbit/s: {duration(seconds.total)} an update, of which rollout "
        f"{duration(seconds.rollout)}, the critic's fit {duration(seconds.critic)}, preparation "
        f"{duration(seconds.preparation)}, gathering {duration(seconds.gathering)}, reductions "
        f"{duration(seconds.reductions)}.",
        "",
    ]
    return lines


def _largest(update: Update, link: Link, fit: str, algorithm: str) -> str:
    """The most ranks of which each is at least half as fast as one alone."""

    def pays(ranks: int) -> bool:
        return efficiency(update, link, ranks, fit=fit, algorithm=algorithm) >= 0.5

    below = 1
    while pays(2 * below):
        below *= 2
        if below > MOST:
            return f"over {MOST:,}"
    above = 2 * below
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (middle, above) if pays(middle) else (below, middle)
    return f"{below:,}"


def network(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Predicted beside measured."""
    lines: list[str] = []
    for result in found:
        rows = []
        for ranks, measured in result["ranks"].items():
            for one in measured["limits"]:
                told, seen = one["predicted"], one["measured"]
                pairs = (
                    (told["reduction"], seen["vector"]["reduction"]),
                    (told["gathering"], seen["vector"]["gathering"]),
                    (told["update"], seen["update"]),
                )
                cells = (f"{duration(a)} / {duration(b)} ({b / a:.2f})" for a, b in pairs)
                rows.append([ranks, one["limit"], *cells])
        n = next(iter(result["ranks"].values()))["agent"]["parameters"]
        head = [
            "ranks",
            "limit of each link",
            f"reduction of {n:,} numbers",
            "gathering of 16 such vectors",
            "an update",
        ]
        lines += [origin(result), "", "Predicted / measured (measured by predicted):", "", *table(head, rows), ""]
    return lines


def batch_of(arm: Arm) -> tuple[int, int, bool]:
    """Samples and products of an update, and whether it has a preconditioner, by an arm's options."""
    options, default = dict(pairwise(arm.options)), TRPOConfig()
    samples = int(options.get("--num-envs", default.num_envs)) * default.steps_per_env
    products = int(options.get("--cg-iterations", default.cg_iterations))
    return samples, products, "--preconditioner" in options


def large_batches(study: Study) -> list[str]:
    """Steps, updates and rounds until the training return, averaged over seeds, passes the plan's goals."""
    rows = []
    for arm in study.arms:
        samples, products, preconditioned = batch_of(arm)
        # Of the update no more than what decides how often ranks meet.
        nothing = Update(0, 0, products, TRIALS, samples, 0, 0, 0, 0, 0, 0, 0, statistics=int(preconditioned))
        cells = []
        for task, goal in study.goals.items():
            curves = curves_of(study, arm, task)
            if not curves:
                cells += ["", "", ""]
                continue
            steps, passed = seconds_to(goal, curves, of="timesteps")
            least = "" if passed else "\u2265 "
            updates = steps / samples
            cells += [f"{least}{steps:,.0f}", f"{least}{updates:,.0f}", f"{least}{updates * rounds(nothing):,.0f}"]
        if any(cells):
            rows.append([arm.name, f"{samples:,}", *cells])
    if not rows:
        return ["No run has ended yet; `python -m bench.learning large_batches` makes them."]
    head = ["arm", "samples an update"]
    for task, goal in study.goals.items():
        head += [f"{task}, {goal:,.0f}: steps", "updates", "rounds"]
    return table(head, rows)


FAMILIES = {
    "scaling": "scaling",
    "same_bits": "scaling",
    "cost_model": "scaling",
    "scaling_network": "scaling_network",
    "large_batches": "scaling",
}
SECTIONS: dict[str, Callable[[Sequence[Mapping[str, Any]]], list[str]]] = {
    "scaling": measured,
    "same_bits": same_bits,
    "cost_model": cost_tables,
    "scaling_network": network,
    "large_batches": lambda _: large_batches(Study(LEARNING / "large_batches")),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling_report", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args(argv)
    page = PAGE.read_text(encoding="utf-8")
    made = render(page)
    if arguments.check:
        return int(page != made)
    PAGE.write_text(made, encoding="utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
