"""Figures say on which kind of CPU they were made. No figure is asserted."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from bench import machine as bench_machine
from bench.machine import caches_of, core_of, kind_of, share_of_cores
from trpo_fast import benchmarks
from trpo_fast._core import library
from trpo_fast.benchmarks import limits, machine

RESULTS = Path(bench_machine.__file__).with_name("results")
ZEN_4 = {"cpu": "AMD EPYC", "vendor": "AuthenticAMD", "family": 25, "model": 17, "stepping": 1}
ZEN_5 = {"cpu": "AMD EPYC", "vendor": "AuthenticAMD", "family": 26, "model": 2, "stepping": 1}
# Made before machines were described: the name of the CPU is all that they have of it.
NAME_ALONE = {
    *("compare_dropin", "compare_sb3", "compare_sb3-2-threads", "compare_sb3-standstill", "core", "environment_zoo"),
    *("envpool_stepping", "peers", "stepping_glue"),
}

X86 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
stepping\t: 1
flags\t\t: fma avx2 avx512f avx512_bf16

processor\t: 1
model\t\t: 99
"""
ARM = """processor\t: 0
Features\t: fp asimd
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1
"""


def written(folder, caches):
    for index, files in enumerate(caches):
        (folder / f"index{index}").mkdir()
        for name, text in files.items():
            (folder / f"index{index}" / name).write_text(text + "\n")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (X86, ("AuthenticAMD", 25, 17, 1, True)),
        (X86.replace("avx512_bf16", "avx512bw"), ("AuthenticAMD", 25, 17, 1, False)),
        (ARM, (0x41, 8, 0xD0C, 1, False)),
        (ARM.replace("asimd", "bf16"), (0x41, 8, 0xD0C, 1, True)),
        ("", (None, None, None, None, None)),
    ],
)
def test_a_cpu_is_told_by_its_numbers(tmp_path, monkeypatch, text, wanted):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    described = machine.describe_machine(measure=False)
    assert tuple(described[name] for name in ("vendor", "family", "model", "stepping", "bfloat16")) == wanted
    assert described["cpu"]


def test_what_a_system_does_not_say_is_null(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "none")
    monkeypatch.setattr("trpo_fast.caches.CACHES", tmp_path / "none")
    described = machine.describe_machine(measure=False)
    assert [described[name] for name in ("vendor", "family", "model", "stepping", "caches", "bfloat16")] == [None] * 6
    assert caches_of(described) == ""


def test_caches_are_those_of_one_core_and_what_is_unreadable_is_left_out(tmp_path, monkeypatch):
    written(
        tmp_path,
        [
            {"level": "1", "type": "Data", "size": "32K", "shared_cpu_list": "0"},
            {"level": "1", "type": "Instruction", "size": "32K", "shared_cpu_list": "0"},
            {"level": "2", "type": "Unified", "size": "1024K", "shared_cpu_list": "0"},
            {"level": "3", "type": "Unified", "size": "36M", "shared_cpu_list": "0-1"},
            {"level": "4", "type": "Unified"},
        ],
    )
    monkeypatch.setattr("trpo_fast.caches.CACHES", tmp_path)
    described = machine.describe_machine(measure=False)
    assert described["caches"][3] == {"level": 3, "type": "Unified", "bytes": 36 * 2**20, "shared_by": "0-1"}
    assert caches_of(described) == "L1d 32 KiB, L2 1 MiB, L3 36 MiB"


def test_limits_of_one_thread_are_measured_in_every_precision_that_there_is():
    before = library.get_num_threads()
    try:
        library.set_num_threads(2)
        described = bench_machine.describe()
        assert library.get_num_threads() == described["threads"] == 2
    finally:
        library.set_num_threads(before)
    found = described["multiply_adds"]
    assert set(found) == set(limits.PRECISIONS) == {"float32", "float64", "bfloat16"}
    assert found["float32"] > 0 and found["float64"] > 0
    assert found["bfloat16"] is None or described["bfloat16"]
    assert json.loads(json.dumps(described)) == described


def test_a_precision_that_a_build_has_not_has_no_limit(monkeypatch):
    def multiply_adds(dtype, rounds):
        if dtype == "bfloat16":  # which NumPy knows once onnx's ml_dtypes is imported
            raise TypeError(dtype)
        return float(rounds * np.dtype(dtype).itemsize)

    monkeypatch.setattr(library, "multiply_adds", multiply_adds)
    found = benchmarks.multiply_add_limits(repeats=1)
    assert found["bfloat16"] is None and None not in (found["float32"], found["float64"])


def test_two_cpus_of_one_name_are_two_kinds():
    assert (core_of(ZEN_4).name, core_of(ZEN_4).pipes) == ("Zen 4", 1)
    assert (core_of(ZEN_5).name, core_of(ZEN_5).pipes) == ("Zen 5", 2)
    unknown = {"cpu": "AMD EPYC"}
    assert core_of(unknown) is None and core_of({**ZEN_4, "family": 99}) is None
    assert len({kind_of(cpu) for cpu in (ZEN_4, ZEN_5, unknown, {**ZEN_4, "stepping": 2})}) == 4
    assert kind_of(ZEN_4) == "AMD EPYC, Zen 4 (family 25, model 17, stepping 1)"
    assert kind_of(unknown) == "AMD EPYC, family not recorded"


def test_figures_of_another_kind_of_cpu_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_machine, "RESULTS", tmp_path)
    monkeypatch.setattr(benchmarks, "describe_machine", lambda *, measure: ZEN_4)
    assert bench_machine.result_path("rows") == tmp_path / "rows.json"
    (tmp_path / "rows.json").write_text(json.dumps({"machine": ZEN_4}))
    assert bench_machine.result_path("rows") == tmp_path / "rows.json"
    (tmp_path / "rows.json").write_text(json.dumps({"machine": ZEN_5}))
    assert bench_machine.result_path("rows") == tmp_path / "rows-zen-4.json"
    monkeypatch.setattr(benchmarks, "describe_machine", lambda *, measure: ZEN_4 | {"family": 99})
    assert bench_machine.result_path("rows") == tmp_path / "rows-amd-epyc-family-99-model-17-stepping-1.json"


def test_the_share_of_cores_leaves_the_number_of_threads_alone(monkeypatch):
    met = []

    def measure_peak(dtype, rounds):
        met.append(library.get_num_threads())
        return limits.Peak(1.0, 0.5)

    monkeypatch.setattr(benchmarks, "measure_peak", measure_peak)
    before = library.get_num_threads()
    assert share_of_cores(2) == 0.5 and met == [2] and library.get_num_threads() == before


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_every_file_of_figures_says_on_which_cpu_it_was_made(path):
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["command"] and found["machine"]["cpu"]
    assert (path.stem in NAME_ALONE) == ("family" not in found["machine"])
    if path.stem not in NAME_ALONE:
        assert {"model", "stepping", "caches", "bfloat16", "multiply_adds"} <= set(found["machine"])


def test_every_benchmark_that_writes_json_describes_the_machine():
    folder = Path(bench_machine.__file__).parent
    writes = re.compile(r"\.write_text\(json\.dumps|\bwrite_figures\(")
    writing = [path for path in folder.glob("*.py") if writes.search(path.read_text())]
    assert {path.stem for path in writing} >= {"rounds", "stepping", "side_by_side", "conftest"}
    for path in writing:
        if path.stem != "peer_learning":  # a folder's label
            assert re.search(r"\bdescribe\(\)", path.read_text()), path
