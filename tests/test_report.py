"""A column for each kind of CPU, from files that say which; no figure of one in the other's."""

import json

import pytest

from bench import report
from bench.report import Results, render

VERSIONS = {"trpo-fast": "0.1.0"}
UNKNOWN = {
    **{"cpu": "AMD EPYC", "processors": 2, "threads": 2, "instruction_set": "x86-64-v4", "system": "Linux x86_64"},
    **{"python": "3.11.7", "versions": VERSIONS},
}
ZEN_4 = {
    **UNKNOWN,
    **{"vendor": "AuthenticAMD", "family": 25, "model": 17, "stepping": 1, "bfloat16": True},
    "caches": [{"level": 1, "type": "Data", "bytes": 32768, "shared_by": "0"}],
    "multiply_adds": {"float32": 118.0, "float64": 59.0, "bfloat16": 236.0},
}
ZEN_4_AGAIN = ZEN_4 | {"stepping": 2}
PAGE = "".join(f"<!-- begin {name} -->\n<!-- end {name} -->\n" for name in report.SECTIONS)


def core_file(machine, quiet=True, two_quiet=True):
    figures = [
        {
            **{"kind": "fisher", "name": "F v", "size": 668, "batch": 2048, "dtype": "float32", "threads": threads},
            **{"seconds": 1e-3 / threads, "unit": "product", "rate": 1000.0 * threads, "gflops": 80.0 * threads},
            **{
                "fraction_of_peak": 0.7,
                "bytes": 4,
                "gbytes_per_second": 1.0,
                "quiet": quiet if threads == 1 else two_quiet,
            },
        }
        for threads in (1, 2)
    ]
    limits = [
        {"threads": threads, "dtype": "float32", "gflops": 100.0 * threads, "gbytes_per_second": 40.0}
        for threads in (1, 2)
    ]
    return {"command": "trpo-fast bench all --json", "machine": machine, "limits": limits, "figures": figures}


def peers_file(machine, ours):
    group = "fisher 17-64-64-6 B=2,048 float32"
    common = {"group": group, "dtype": "float32", "gflops": 50.0, "flops": 1e6, "bytes": 1e4, "fraction_of_peak": 0.5}
    times = {"trpo_fast": ours, "torch-double-vjp": 2e-3, "sb3-contrib": 5e-3}
    return {
        **{"command": "pytest bench", "machine": machine, "threads": 1, "quiet": True},
        "limits": {"fma": {"float32": 99.0, "float64": 49.0}},
        "figures": [common | {"library": name, "seconds": seconds} for name, seconds in times.items()],
    }


def training_file(machine, ratio):
    medians = {
        name: {"update_seconds": update, "still_seconds": update, "steps_per_second": 1 / update}
        for name, update in (("trpo_fast", 0.02), ("sb3-contrib", 0.02 * ratio))
    }
    ratios = dict.fromkeys(("update_ratio", "still_ratio", "steps_per_second_ratio"), ratio)
    command = {"command": "python -m bench.compare_sb3", "threads": "1 thread each", "quiet": True}
    return {**command, "machine": machine, "medians": medians, **ratios}


def side_file(machine, **row):
    head = {"name": "F v", "threads": 1, "against": "the build before", "goal": 1.3}
    builds = {"before": "8f97cf5", "now": "abc"}
    return {"command": "bench", "machine": machine, "builds": builds, "quiet": True, "rows": [head | row]}


@pytest.fixture
def results(tmp_path):
    def add(**files):
        for name, content in files.items():
            (tmp_path / f"{name.replace('__', '-')}.json").write_text(json.dumps(content))
        return tmp_path

    return add


def row_of(page, *starts):
    return next(line for line in page.splitlines() if any(line.startswith(f"| {start} |") for start in starts))


def test_every_kind_of_cpu_has_a_column_of_its_own(results):
    folder = results(
        core=core_file(UNKNOWN),
        core__zen4=core_file(ZEN_4),
        peers=peers_file(UNKNOWN, 0.5e-3),
        peers__zen4=peers_file(ZEN_4, 1e-3),
        compare_sb3=training_file(UNKNOWN, 9.9),
        compare_sb3__zen4=training_file(ZEN_4, 7.1),
    )
    page = render(PAGE, folder)
    assert (
        "| case | n | B | dtype | AMD EPYC: 1 thread | AMD EPYC: 2 threads | Zen 4: 1 thread | Zen 4: 2 threads |"
        in page
    )
    assert "| trpo_fast / sb3-contrib (ratio) | AMD EPYC | Zen 4 |" in page
    assert row_of(page, "update").endswith("| 20 ms / 198 ms (9.9) | 20 ms / 142 ms (7.1) |")
    kernel = row_of(page, "Fisher product 17-64-64-6 B=2,048 float32")
    assert "500 us / torch 2 ms (4.0), sb3-contrib 5 ms (10.0); 50 GFLOP/s, 50% of the limit | 1 ms / torch" in kernel
    assert row_of(page, "AMD EPYC") == "| AMD EPYC | AMD EPYC | not recorded | not recorded | 100 | 49 | not recorded |"
    zen_4 = "| Zen 4 | AMD EPYC | family 25, model 17, stepping 1 | L1d 32 KiB | 118 | 59 | 236 |"
    assert zen_4 in page


def test_a_figure_that_one_cpu_has_not_is_an_empty_cell(results):
    other = core_file(ZEN_4)
    other["figures"] = [figure | {"name": "F v of another"} for figure in other["figures"]]
    page = render(PAGE, results(core=core_file(UNKNOWN), core__zen4=other))
    assert row_of(page, "F v").endswith("| 1,000 products/s, 80.0 GFLOP/s, 70% | 2.00 times, 70% |  |  |")
    assert "| F v of another | 668 | 2,048 | float32 |  |  | 1,000 products/s" in page


def test_two_kinds_with_one_short_name_are_called_by_their_numbers(results):
    folder = results(core=core_file(ZEN_4), core__again=core_file(ZEN_4_AGAIN))
    assert list(Results(folder).headings.values()) == [
        "AMD EPYC, Zen 4 (family 25, model 17, stepping 1)",
        "AMD EPYC, Zen 4 (family 25, model 17, stepping 2)",
    ]


def test_two_files_for_one_column_are_refused(results):
    with pytest.raises(ValueError, match=r"core\*\.json: two files for the column Zen 4; want one"):
        render(PAGE, results(core=core_file(ZEN_4), core__again=core_file(ZEN_4)))


def test_busy_figures_are_marked_one_by_one_and_not_the_table(results):
    page = render(PAGE, results(core=core_file(ZEN_4, two_quiet=False)))
    assert row_of(page, "F v").endswith("70% | 2.00 times, 70% BUSY |")
    assert "not to be quoted" not in page


def test_shares_of_several_threads_from_before_they_were_measured_well_are_explained_and_not_believed(results):
    page = render(PAGE, results(core=core_file(UNKNOWN, two_quiet=False)))
    assert row_of(page, "F v").endswith("70% | 2.00 times, 70% |")
    assert "does not say whether figures on 2 threads had all cores" in page
    assert "Their multiply-adds reached 2.00 times one thread's." in page


def test_a_row_beside_an_earlier_build_says_ratio_goal_and_whether_it_holds(results):
    measured = {"ratio": 1.4, "quartiles": [1.38, 1.43], "holds": True, "quiet": True}
    folder = results(
        side_by_side=side_file(ZEN_4, **measured),
        side_by_side__old=side_file(UNKNOWN, not_measured="this CPU has no bf16"),
    )
    page = render(PAGE, folder)
    cells = "| 1.40 [1.38, 1.43]; goal 1.30: holds | this CPU has no bf16; goal 1.30 |"
    assert row_of(page, "the build before").endswith(f"| F v | 1 {cells}")
    busy = results(side_by_side=side_file(ZEN_4, **measured | {"holds": None, "quiet": False}))
    assert "goal 1.30: BUSY, not to be quoted" in render(PAGE, busy)


def test_what_is_not_measured_yet_says_the_command(results):
    page = render(PAGE, results())
    for command in report.FAMILIES.values():
        assert f"`{command}` makes them" in page or "dropin" in command
