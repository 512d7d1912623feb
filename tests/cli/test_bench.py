import json

import pytest

from trpo_fast import benchmarks
from trpo_fast._core import library


@pytest.fixture(autouse=True)
def _threads():
    before = library.get_num_threads()
    yield
    library.set_num_threads(before)


def test_quick_json_has_the_schema_that_the_documentation_states(command):
    result = command("bench", "--quick", "--json")
    assert result.code == 0 and result.err == ""
    found = json.loads(result.out)
    assert found["schema"] == benchmarks.SCHEMA
    assert found["command"] == "trpo-fast bench all --quick --json"
    assert found["machine"]["instruction_set"] == library.instruction_set()
    assert {"family", "model", "stepping", "caches", "bfloat16", "multiply_adds"} <= set(found["machine"])
    assert {figure["kind"] for figure in found["figures"]} == set(benchmarks.KINDS)
    assert {figure["dtype"] for figure in found["figures"]} == set(benchmarks.DTYPES)
    wanted = {field for field in benchmarks.Figure.__dataclass_fields__} | {"quiet"}
    for figure in found["figures"]:
        assert set(figure) == wanted
        assert figure["seconds"] > 0 and figure["rate"] > 0 and figure["error"] < 1e-3
        assert figure["fraction_of_peak"] == pytest.approx(figure["gflops"] / figure["peak_gflops"])
    assert {limit["threads"] for limit in found["limits"]} == {1, library.get_num_threads()}


def test_table_has_aligned_columns_and_every_case(command):
    result = command("bench", "fisher", "--quick", "--dtype", "float32", "--threads", "1")
    assert result.code == 0
    machine, header, limit, line, *_ = result.out.splitlines()
    assert library.instruction_set() in machine and limit.startswith("limit on 1 thread, float32: ")
    assert line.startswith("F v 17-64-64-6") and " 2,048 " in line and " float32 " in line
    assert header.index("GFLOP/s") + len("GFLOP/s") <= len(line)


def test_wrong_answer_is_exit_code_1_and_names_the_case(command, monkeypatch):
    monkeypatch.setattr(benchmarks.cases, "relative_error", lambda x, exact: 0.5)
    result = command("bench", "fisher", "--quick", "--json")
    assert result.code == 1 and result.out == ""
    assert "fisher 17-64-64-6: off by 5.0e-01" in result.err


def test_too_many_threads_are_refused_in_one_line(command):
    result = command("bench", "cg", "--quick", "--threads", "10000")
    assert result.code == 2 and result.out == ""
    (line,) = result.err.splitlines()
    assert "--threads: 10000 given; want 1 to 256 threads" in line


@pytest.mark.parametrize("text", ["1e30", "9" * 30, "1e999999999999"])
def test_a_huge_number_of_threads_is_shown_as_it_was_written(command, text):
    result = command("bench", "cg", "--quick", "--threads", text)
    assert result.code == 2 and result.out == ""
    assert f"argument --threads: '{text}' given; want an integer >= 1, below 2**63" in result.err
