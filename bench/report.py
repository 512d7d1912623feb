"""docs/benchmarks.md and docs/roofline.png from the results in bench/results.

    python -m bench.report              # rewrite the tables and the picture
    python -m bench.report --check      # exit code 1 where the page is not what the results make

Reads what is there of core.json (trpo-fast bench all --json), peers*.json (pytest bench --out) and compare_sb3*.json.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from trpo_fast.benchmarks import duration

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
PICTURE = ROOT / "docs" / "roofline.png"
OURS = "trpo_fast"
MARKS = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def render(page: str, results: Path) -> str:
    """The page with what stands between its marks made again."""
    made = {"core": _core(results), "peers": _peers(results), "training": _training(results)}
    return MARKS.sub(lambda match: match[1] + "\n".join(["", *made[match[2]], ""]) + "\n" + match[3], page)


def _load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of Markdown."""
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


def _origin(result: dict[str, Any], quiet: bool) -> list[str]:
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"`{result['command']}` on {machine['cpu']}, {machine['processors']} processors, {machine['instruction_set']}, "
        f"{machine['system']}, Python {machine['python']}, {versions}.",
    ]
    if not quiet:
        lines += ["", "**The machine was busy: not to be quoted.**"]
    return [*lines, ""]


def _missing(what: str) -> list[str]:
    return [f"No results are committed; `{what}` makes them."]


def _core(results: Path) -> list[str]:
    path = results / "core.json"
    if not path.exists():
        return _missing("trpo-fast bench all --json > bench/results/core.json")
    result = _load(path)
    figures, most = result["figures"], max(limit["threads"] for limit in result["limits"])
    lines = _origin(result, all(figure["quiet"] for figure in figures))
    limits = [
        [str(x["threads"]), x["dtype"], f"{x['gflops']:.0f}", f"{x['gbytes_per_second']:.0f}"] for x in result["limits"]
    ]
    lines += [*table(["threads", "dtype", "multiply-adds, GFLOP/s", "c = a + b, GB/s"], limits), ""]
    if (results / "peers.json").exists():  # which the picture needs, too
        lines += ["![Roofline](roofline.png)", ""]
    keys = dict.fromkeys((f["name"], f["size"], f["batch"], f["dtype"]) for f in figures)
    rows = []
    for name, size, batch, dtype in keys:
        same = [f for f in figures if (f["name"], f["size"], f["batch"], f["dtype"]) == (name, size, batch, dtype)]
        one, all_ = same[0], next((f for f in same if f["threads"] == most > 1), None)
        speeds = [f"{f['rate']:,.4g}" if f["rate"] < 1e4 else f"{f['rate']:,.0f}" for f in same]
        rows.append(
            [
                name,
                f"{size:,}",
                f"{batch:,}" if batch else "",
                dtype,
                f"{speeds[0]} {one['unit']}s/s",
                f"{one['gflops']:.1f}",
                f"{one['fraction_of_peak']:.0%}",
                f"{one['gbytes_per_second']:.1f}",
                f"{all_['gflops']:.1f}" if all_ else "",
                f"{all_['fraction_of_peak']:.0%}" if all_ else "",
                f"{one['seconds'] / all_['seconds']:.2f}" if all_ else "",
            ]
        )
    head = ["case", "n", "B", "dtype", "rate, 1 thread", "GFLOP/s", "of peak", "GB/s"]
    head += [f"GFLOP/s, {most} threads", "of peak", "speed-up"]
    if most == 1:
        head, rows = head[:8], [row[:8] for row in rows]
    return [*lines, *table(head, rows)]


def _peers(results: Path) -> list[str]:
    paths = sorted(results.glob("peers*.json"))
    if not paths:
        return _missing("make bench BENCH_ARGS='--grid --out bench/results/peers.json'")
    lines: list[str] = []
    for path in paths:
        result = _load(path)
        lines += [*_origin(result, result["quiet"]), f"Threads, the same for all: {result['threads']}.", ""]
        rows = []
        for group in dict.fromkeys(figure["group"] for figure in result["figures"]):
            seconds = {f["library"]: f["seconds"] for f in result["figures"] if f["group"] == group}
            if OURS not in seconds:  # several ways of our own
                rows += [[f"{group}, {name}", duration(s), "", "", ""] for name, s in seconds.items()]
                continue
            others = {name: s for name, s in seconds.items() if not name.startswith(OURS)}
            if not others:
                continue
            best = min(others, key=others.__getitem__)
            sb3 = "sb3-contrib"
            rows.append(
                [
                    group,
                    duration(seconds[OURS]),
                    f"{best}: {duration(others[best])}",
                    f"{others[best] / seconds[OURS]:.1f}",
                    f"{duration(others[sb3])} ({others[sb3] / seconds[OURS]:.1f})" if sb3 in others else "",
                ]
            )
        lines += [*table(["case", OURS, "best peer", "ratio", "sb3-contrib (ratio)"], rows), ""]
    return lines[:-1]


def _training(results: Path) -> list[str]:
    paths = sorted(results.glob("compare_sb3*.json"))
    if not paths:
        return _missing("python -m bench.compare_sb3")
    lines: list[str] = []
    for path in paths:
        result = _load(path)
        rows = []
        for name, median in result["medians"].items():
            still = median.get("still_seconds")
            rows.append(
                [
                    name,
                    duration(median["update_seconds"]),
                    duration(still) if still is not None else "",
                    f"{median['steps_per_second']:,.0f}",
                ]
            )
        still_ratio = f"{result['still_ratio']:.1f}" if "still_ratio" in result else ""
        rows.append(["ratio", f"{result['update_ratio']:.1f}", still_ratio, f"{result['steps_per_second_ratio']:.1f}"])
        head = ["", "update", "simulator stands still", "steps per second"]
        lines += [*_origin(result, result["quiet"]), f"{result['threads'].capitalize()}.", "", *table(head, rows), ""]
    return lines[:-1]


def _points(results: Path) -> Iterator[tuple[str, float, float]]:
    """(who, operations per byte, GFLOP/s) of one thread in float32."""
    for figure in _load(results / "core.json")["figures"]:
        if figure["threads"] == 1 and figure["dtype"] == "float32" and figure["kind"] in ("cg", "fisher"):
            who = f"{OURS}: {'Fisher products' if figure['kind'] == 'fisher' else 'CG on ' + _operand(figure['name'])}"
            yield who, figure["gflops"] * 1e9 * figure["seconds"] / figure["bytes"], figure["gflops"]
    for figure in _load(results / "peers.json")["figures"]:
        if figure["bytes"] and figure["dtype"] == "float32" and figure["library"] != OURS:
            yield figure["library"], figure["flops"] / figure["bytes"], figure["gflops"]


def _operand(name: str) -> str:
    return "a diagonal" if "diagonal" in name else "Fisher matrices"


def draw(results: Path, out: Path) -> None:
    """The roofline of one thread in float32: what memory and multiply-adds allow, and who comes how close."""
    from matplotlib.figure import Figure

    limit = next(x for x in _load(results / "core.json")["limits"] if x["threads"] == 1 and x["dtype"] == "float32")
    points: dict[str, list[tuple[float, float]]] = {}
    for who, intensity, gflops in _points(results):
        points.setdefault(who, []).append((intensity, gflops))
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    axes = figure.add_subplot()
    everything = [x for several in points.values() for x, _ in several]
    low, high = min(everything) / 2, max(everything) * 2
    ridge = limit["gflops"] / limit["gbytes_per_second"]
    roof = [low, ridge, high] if low < ridge < high else [low, high]
    axes.plot(roof, [min(limit["gflops"], limit["gbytes_per_second"] * x) for x in roof], color="black")
    axes.text(high, limit["gflops"] * 1.1, f"{limit['gflops']:.0f} GFLOP/s of multiply-adds", ha="right")
    middle = (low * ridge) ** 0.5
    label = f"{limit['gbytes_per_second']:.0f} GB/s from memory "
    axes.text(middle, limit["gbytes_per_second"] * middle * 1.1, label, ha="right")
    for (who, several), marker in zip(points.items(), cycle("osD^v<>Pp*hX"), strict=False):
        ours = who.startswith(f"{OURS}:")
        axes.plot(
            *zip(*several, strict=True), marker, label=who, ms=7 if ours else 5, alpha=0.9 if ours else 0.6, ls=""
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations per byte that the mathematics needs")
    axes.set_ylabel("GFLOP/s, one thread, float32")
    axes.grid(alpha=0.3, which="both")
    figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(out, format="png", dpi=150, metadata={"Software": None})


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--picture", type=Path, default=PICTURE, metavar="PNG")
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args(argv)
    page = arguments.page.read_text(encoding="utf-8")
    made = render(page, arguments.results)
    if arguments.check:
        return int(page != made)
    arguments.page.write_text(made, encoding="utf-8")
    if all((arguments.results / name).exists() for name in ("core.json", "peers.json")):
        draw(arguments.results, arguments.picture)
        print(arguments.picture)
    print(arguments.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
