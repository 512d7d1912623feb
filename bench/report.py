"""The tables of docs/benchmarks.md and README.md, and docs/roofline.png, from the results in bench/results.

    python -m bench.report              # rewrite the tables and the picture
    python -m bench.report --check      # exit code 1 where a page is not what the results make

Reads what is there of core*.json (trpo-fast bench all --json), peers*.json (pytest bench --out), compare_sb3*.json,
compare_dropin*.json and side_by_side*.json: one file for each kind of CPU, and as many columns.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from bench.machine import caches_of, core_of, kind_of
from trpo_fast.benchmarks import duration

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PAGES = (ROOT / "docs" / "benchmarks.md", ROOT / "README.md")
PICTURE = ROOT / "docs" / "roofline.png"
OURS, SB3 = "trpo_fast", "sb3-contrib"
OUTCOMES = {True: "holds", False: "falls short", None: "BUSY, not to be quoted"}
MARKS = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)
FAMILIES = {  # what makes the files of a name
    "core": "trpo-fast bench all --json > bench/results/core-CPU.json",
    "peers": "make bench BENCH_ARGS='--out bench/results/peers-CPU.json'",
    "compare_sb3": "python -m bench.compare_sb3",
    "compare_dropin": "python -m bench.compare_dropin",
    "side_by_side": "python -m bench.side_by_side",
}


class Results:
    """Of one folder, by family."""

    def __init__(self, folder: Path) -> None:
        self.files = {family: load(folder, family) for family in FAMILIES}
        machines = [result["machine"] for several in self.files.values() for result in several]
        kinds = dict.fromkeys(kind_of(machine) for machine in machines)
        short = {kind: _short(next(m for m in machines if kind_of(m) == kind)) for kind in kinds}
        shared = Counter(short.values())
        self.headings = {kind: name if shared[name] == 1 else kind for kind, name in short.items()}

    def of(self, family: str, *more: Callable[[dict[str, Any]], Any]) -> dict[tuple[Any, ...], dict[str, Any]]:
        """Results by heading of their CPU and what `more` says of them; ValueError where two would be one column."""
        found: dict[tuple[Any, ...], dict[str, Any]] = {}
        for result in self.files[family]:
            key = (self.heading(result), *(says(result) for says in more))
            if key in found:
                raise ValueError(f"{family}*.json: two files for the column {', '.join(map(str, key))}; want one")
            found[key] = result
        return found

    def heading(self, result: Mapping[str, Any]) -> str:
        """What a column of the result's CPU is called."""
        return self.headings[kind_of(result["machine"])]


def load(folder: Path, family: str) -> list[dict[str, Any]]:
    """The results of a family, one for each kind of CPU."""
    paths = [path for path in folder.glob(f"{family}*.json") if re.fullmatch(rf"{family}(-.*)?", path.stem)]
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(paths, key=lambda path: path.stem)]


def _short(machine: Mapping[str, Any]) -> str:
    core = core_of(machine)
    return core.name if core is not None else str(machine["cpu"])


def render(page: str, results: Path) -> str:
    """The page with what stands between its marks made again."""
    found = Results(results)

    def made(match: re.Match[str]) -> str:
        if match[2] not in SECTIONS:  # another report's
            return match[0]
        return match[1] + "\n".join(["", *SECTIONS[match[2]](found), ""]) + "\n" + match[3]

    return MARKS.sub(made, page)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of Markdown."""
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


def _missing(family: str) -> list[str]:
    return [f"No results are committed; `{FAMILIES[family]}` makes them."]


def _origins(found: Results, family: str) -> list[str]:
    """Where every file's figures were made, and with what."""
    lines = []
    for result in found.files[family]:
        machine = result["machine"]
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        busy = "" if _quiet(result) else " **The machine was busy: not to be quoted.**"
        lines.append(
            f"- {found.heading(result)}: `{result['command']}`, {machine['processors']} processors, "
            f"{machine['instruction_set']}, {machine['system']}, Python {machine['python']}, {versions}.{busy}"
        )
    return lines


def _quiet(result: Mapping[str, Any]) -> bool:
    """Whether all of a file's figures may be quoted; those of `trpo-fast bench` are marked one by one."""
    return bool(result.get("quiet", True))


def _machines(found: Results) -> list[str]:
    rows = []
    results = [result for several in found.files.values() for result in several]
    for kind, heading in found.headings.items():
        same = [result for result in results if kind_of(result["machine"]) == kind]
        machine = same[0]["machine"]
        known = [f"{name} {machine[name]}" for name in ("family", "model", "stepping") if machine.get(name) is not None]
        limits = [_limits(result) for result in same]
        best = [_largest(limits, name) for name in ("float32", "float64")]
        narrow = _largest(limits, "bfloat16")
        bf16 = "none" if machine.get("bfloat16") is False else "not recorded" if narrow is None else f"{narrow:.0f}"
        rows.append(
            [
                heading,
                str(machine["cpu"]),
                ", ".join(known) or "not recorded",
                caches_of(machine) or "not recorded",
                *("not recorded" if limit is None else f"{limit:.0f}" for limit in best),
                bf16,
            ]
        )
    head = ["column", "CPU", "numbers", "caches", "GFLOP/s of multiply-adds, one thread: float32", "float64", "bf16"]
    return table(head, rows)


def _largest(limits: Sequence[Mapping[str, float | None]], precision: str) -> float | None:
    return max((x for limit in limits if (x := limit.get(precision)) is not None), default=None)


def _limits(result: Mapping[str, Any]) -> dict[str, float | None]:
    """GFLOP/s of one thread's multiply-adds; results of before machines were described so have them elsewhere."""
    if "multiply_adds" in result["machine"]:
        limits: dict[str, float | None] = result["machine"]["multiply_adds"]
        return limits
    limits_of = result.get("limits", ())
    if isinstance(limits_of, dict):
        return limits_of["fma"] if result["threads"] == 1 else {}
    return {x["dtype"]: x["gflops"] for x in limits_of if x["threads"] == 1}


def _core(found: Results) -> list[str]:
    files = found.of("core")
    if not files:
        return _missing("core")
    head = ["case", "n", "B", "dtype"]
    figures: dict[tuple[Any, ...], dict[str, list[dict[str, Any]]]] = {}
    notes = []
    for (heading,), result in files.items():
        head += [f"{heading}: {_threads(count)}" for count in (1, _most(result))]
        for figure in result["figures"]:
            key = (figure["name"], figure["size"], figure["batch"], figure["dtype"])
            figures.setdefault(key, {}).setdefault(heading, []).append(figure)
        notes += _note_of_shares(heading, result)
    rows = []
    for (name, size, batch, dtype), by_heading in figures.items():
        row = [name, f"{size:,}", f"{batch:,}" if batch else "", dtype]
        for (heading,), result in files.items():
            row += _core_cells(by_heading.get(heading, []), _most(result), _accounted(result))
        rows.append(row)
    lines = [*_origins(found, "core"), ""]
    limits = [
        [heading, str(x["threads"]), x["dtype"], f"{x['gflops']:.0f}", f"{x['gbytes_per_second']:.0f}"]
        for (heading,), result in files.items()
        for x in result["limits"]
    ]
    lines += [*table(["CPU", "threads", "dtype", "multiply-adds, GFLOP/s", "c = a + b, GB/s"], limits), ""]
    if found.of("peers"):  # which the picture needs, too
        lines += ["![Roofline](roofline.png)", ""]
    return [*lines, *table(head, rows), *notes]


def _most(result: Mapping[str, Any]) -> int:
    return max(limit["threads"] for limit in result["limits"])


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _accounted(result: Mapping[str, Any]) -> bool:
    """Whether several threads' share of their cores was measured well, as it is since machines are described so."""
    return "multiply_adds" in result["machine"]


def _core_cells(same: Sequence[Mapping[str, Any]], most: int, accounted: bool) -> list[str]:
    """Rate, GFLOP/s and share of the limit on one thread; speed-up and share of the limit on all."""
    one = next((f for f in same if f["threads"] == 1), None)
    all_ = next((f for f in same if f["threads"] == most > 1), None)
    if one is None:
        return ["", ""]
    rate = f"{one['rate']:,.4g}" if one["rate"] < 1e4 else f"{one['rate']:,.0f}"
    first = f"{rate} {_plural(one['unit'])}/s, {one['gflops']:.1f} GFLOP/s, {one['fraction_of_peak']:.0%}"
    first += "" if one["quiet"] else " BUSY"
    if all_ is None:
        return [first, ""]
    second = f"{one['seconds'] / all_['seconds']:.2f} times, {all_['fraction_of_peak']:.0%}"
    return [first, second + ("" if all_["quiet"] or not accounted else " BUSY")]


def _plural(unit: str) -> str:
    return unit + ("es" if unit.endswith("ch") else "s")


def _note_of_shares(heading: str, result: Mapping[str, Any]) -> list[str]:
    most = _most(result)
    if _accounted(result) or most == 1:
        return []
    one, all_ = (
        next(x["gflops"] for x in result["limits"] if x["threads"] == count and x["dtype"] == "float32")
        for count in (1, most)
    )
    return [
        "",
        f"{heading}: the share of their cores that {most} threads got was measured over two milliseconds, where the "
        f"system's account of other threads lags, so that it does not say whether figures on {most} threads had all "
        f"cores. Their multiply-adds reached {all_ / one:.2f} times one thread's.",
    ]


def _peers(found: Results) -> list[str]:
    files = found.of("peers", lambda result: result["threads"])
    if not files:
        return _missing("peers")
    head, groups = ["case"], dict[str, None]()
    for (heading, threads), result in files.items():
        head += [f"{heading}, {_threads(threads)}: {OURS}", "best peer (ratio)", f"{SB3} (ratio)"]
        groups |= dict.fromkeys(figure["group"] for figure in result["figures"])
    rows = []
    for group in groups:
        known = [_seconds(result, group) for result in files.values()]
        names = dict.fromkeys(name for seconds in known for name in seconds)
        if OURS in names:
            if any(_others(seconds) for seconds in known):
                rows.append([group, *(cell for seconds in known for cell in _peer_cells(seconds))])
        else:  # several ways of our own
            rows += [
                [f"{group}, {name}", *(c for s in known for c in (duration(s[name]) if name in s else "", "", ""))]
                for name in names
            ]
    return [*_origins(found, "peers"), "", *table(head, rows)]


def _seconds(result: Mapping[str, Any], group: str) -> dict[str, float]:
    return {f["library"]: f["seconds"] for f in result["figures"] if f["group"] == group}


def _others(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: s for name, s in seconds.items() if not name.startswith(OURS)}


def _peer_cells(seconds: Mapping[str, float]) -> list[str]:
    if OURS not in seconds:
        return ["", "", ""]
    ours, others = seconds[OURS], _others(seconds)
    best = min(others, key=others.__getitem__, default=None)
    return [
        duration(ours),
        "" if best is None else f"{best}: {duration(others[best])} ({others[best] / ours:.1f})",
        f"{duration(others[SB3])} ({others[SB3] / ours:.1f})" if SB3 in others else "",
    ]


def _training(found: Results) -> list[str]:
    files = found.of("compare_sb3", lambda result: result["threads"])
    if not files:
        return _missing("compare_sb3")
    lines = [*_origins(found, "compare_sb3"), ""]
    for threads in dict.fromkeys(threads for _, threads in files):
        same = {heading: result for (heading, one), result in files.items() if one == threads}
        rows = []
        for what, figure, ratio in (
            ("update", "update_seconds", "update_ratio"),
            ("simulator stands still", "still_seconds", "still_ratio"),
            ("steps per second", "steps_per_second", "steps_per_second_ratio"),
        ):
            rows.append([what, *(_pair(result, figure, ratio) for result in same.values())])
        head = [f"{OURS} / {SB3} (ratio)", *same]
        lines += [f"{threads.capitalize()}:", "", *table(head, rows), ""]
    return lines[:-1]


def _pair(result: Mapping[str, Any], figure: str, ratio: str) -> str:
    """Ours, theirs, and what lies between."""
    both = [median.get(figure) for median in result["medians"].values()]
    if None in both or ratio not in result:
        return ""
    shown = [f"{x:,.0f}" if figure == "steps_per_second" else duration(x) for x in both]
    return f"{shown[0]} / {shown[1]} ({result[ratio]:.1f})"


def _side_by_side(found: Results) -> list[str]:
    files = found.of("side_by_side", lambda result: result["builds"]["before"])
    if not files:
        return _missing("side_by_side")
    head, rows = ["against", "row", "threads"], dict[tuple[str, int, str], list[str]]()
    for position, ((heading, before), result) in enumerate(files.items()):
        head.append(f"{heading}, against {before}" if len({b for _, b in files}) > 1 else heading)
        for row in result["rows"]:
            key = (row["name"], row["threads"], row["against"])
            cells = rows.setdefault(key, [""] * len(files))
            cells[position] = _ratio_cell(row)
    befores = ", ".join(dict.fromkeys(before for _, before in files))
    lines = [f"The build before is {befores}.", "", *_origins(found, "side_by_side"), ""]
    return [*lines, *table(head, [[a, n, str(t), *cells] for (n, t, a), cells in rows.items()])]


def _ratio_cell(row: Mapping[str, Any]) -> str:
    goal = f"goal {row['goal']:.2f}" + (f" of a {row['goal_of']} core" if row.get("goal_of") else "")
    if "ratio" not in row:
        return f"{row['not_measured']}; {goal}"
    low, high = row["quartiles"]
    return f"{row['ratio']:.2f} [{low:.2f}, {high:.2f}]; {goal}: {OUTCOMES[row['holds']]}"


def _readme_training(found: Results) -> list[str]:
    """Ours / theirs (ratio), a column for each kind of CPU."""
    training = found.of("compare_sb3", lambda result: result["threads"])
    dropin = found.of("compare_dropin", lambda result: result["threads"])
    headings = list(dict.fromkeys(heading for heading, _ in (*training, *dropin)))
    rows: dict[str, dict[str, str]] = {}
    for (heading, threads), result in training.items():
        whole = threads.replace(" each", "")
        if "rollout" in threads:  # what it is for
            shown = [(f"simulator at rest between two rollouts; {whole}", "still_seconds", "still_ratio")]
        else:
            shown = [(f"update: gradient, solve, line search, critic's fit; {whole}", "update_seconds", "update_ratio")]
        if whole == "1 thread":
            shown.append((f"steps per second, all included; {whole}", "steps_per_second", "steps_per_second_ratio"))
        for what, figure, ratio in shown:
            rows.setdefault(what, {})[heading] = _pair(result, figure, ratio)
    for (heading, threads), result in dropin.items():
        whole = threads.removesuffix(" each")
        for what in ("train", "learn"):
            row = rows.setdefault(f"the drop-in's `{what}()`, an update; {whole}", {})
            row[heading] = _pair(result, f"{what}_seconds", f"{what}_ratio")
    head = [f"{OURS} / {SB3} (ratio)", *headings]
    return table(head, [[what, *(cells.get(heading, "") for heading in headings)] for what, cells in rows.items()])


def _readme_kernels(found: Results) -> list[str]:
    """What one thread computes: time, the best peer's and sb3-contrib's, and how near the limit that is."""
    files = {
        heading: result
        for (heading, threads), result in found.of("peers", lambda r: r["threads"]).items()
        if threads == 1
    }
    groups = dict.fromkeys(f["group"] for result in files.values() for f in result["figures"] if f["library"] == OURS)
    wanted = re.compile(r"fisher (17-64-64-6|376-\S+) .*float32|critic .*|act .*, 8 .*")
    rows = [
        [group.replace("fisher", "Fisher product"), *(_kernel_cell(result, group) for result in files.values())]
        for group in groups
        if wanted.match(group)
    ]
    solves = "solve of a mid-training problem: 5 products with K-FAC / 25 plain ones"
    return table(["case", *files], [*rows, [solves, *map(_solves_cell, files.values())]])


def _solves_cell(result: Mapping[str, Any]) -> str:
    seconds = {
        kind: [f["seconds"] for f in result["figures"] if f["library"].startswith(kind)]
        for kind in ("kfac-5", "plain-25")
    }
    if not all(seconds.values()):
        return ""
    kfac, plain = (statistics.median(several) for several in seconds.values())
    return f"{duration(kfac)} / {duration(plain)} ({plain / kfac:.1f})"


def _kernel_cell(result: Mapping[str, Any], group: str) -> str:
    seconds = _seconds(result, group)
    if OURS not in seconds:
        return ""
    ours, others = seconds[OURS], _others(seconds)
    best = min(others, key=others.__getitem__)
    named = {best.partition("-")[0] if best.startswith("torch") else best: others[best]}
    if SB3 in others:
        named[SB3] = others[SB3]
    beside = ", ".join(f"{name} {duration(other)} ({other / ours:.1f})" for name, other in named.items())
    figure = next(f for f in result["figures"] if (f["group"], f["library"]) == (group, OURS))
    if group.startswith("act") or not figure["fraction_of_peak"]:
        return f"{duration(ours)} / {beside}"
    limit = f"{figure['gflops']:.0f} GFLOP/s, {figure['fraction_of_peak']:.0%} of the limit"
    return f"{duration(ours)} / {beside}; {limit}"


SECTIONS = {  # by the name in the marks of a page
    "machines": _machines,
    "core": _core,
    "peers": _peers,
    "training": _training,
    "side_by_side": _side_by_side,
    "readme_training": _readme_training,
    "readme_kernels": _readme_kernels,
}


def _points(core: Mapping[str, Any], peers: Mapping[str, Any]) -> Iterator[tuple[str, float, float]]:
    """(who, operations per byte, GFLOP/s) of one thread in float32."""
    for figure in core["figures"]:
        if figure["threads"] == 1 and figure["dtype"] == "float32" and figure["kind"] in ("cg", "fisher"):
            who = f"{OURS}: {'Fisher products' if figure['kind'] == 'fisher' else 'CG on ' + _operand(figure['name'])}"
            yield who, figure["gflops"] * 1e9 * figure["seconds"] / figure["bytes"], figure["gflops"]
    for figure in peers["figures"]:
        if figure["bytes"] and figure["dtype"] == "float32" and figure["library"] != OURS:
            yield figure["library"], figure["flops"] / figure["bytes"], figure["gflops"]


def _operand(name: str) -> str:
    return "a diagonal" if "diagonal" in name else "Fisher matrices"


def draw(results: Path, out: Path) -> None:
    """The roofline of one thread in float32: what memory and multiply-adds allow, and who comes how close."""
    from matplotlib.figure import Figure

    found = Results(results)
    core, peers = found.of("core"), found.of("peers", lambda result: result["threads"])
    heading = next(heading for heading, threads in peers if threads == 1 and (heading,) in core)
    limit = next(x for x in core[heading,]["limits"] if x["threads"] == 1 and x["dtype"] == "float32")
    points: dict[str, list[tuple[float, float]]] = {}
    for who, intensity, gflops in _points(core[heading,], peers[heading, 1]):
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
    axes.set_title(heading)
    axes.grid(alpha=0.3, which="both")
    figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(out, format="png", dpi=150, metadata={"Software": None})


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--picture", type=Path, default=PICTURE, metavar="PNG")
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args(argv)
    pages = {page: page.read_text(encoding="utf-8") for page in PAGES}
    made = {page: render(text, arguments.results) for page, text in pages.items()}
    if arguments.check:
        return int(pages != made)
    for page, text in made.items():
        page.write_text(text, encoding="utf-8")
        print(page)
    if any(arguments.results.glob("core*.json")) and any(arguments.results.glob("peers*.json")):
        draw(arguments.results, arguments.picture)
        print(arguments.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
