"""What the comparisons beside sb3-contrib share."""

import pytest


@pytest.mark.parametrize(("threads", "name"), [(1, "compare_sb3"), (2, "compare_sb3-2-threads")])
def test_every_number_of_threads_has_a_file_of_its_own(threads, name, monkeypatch, tmp_path):
    pytest.importorskip("sb3_contrib")
    from bench import rounds

    for owner in (rounds.torch, rounds.trpo_fast):
        monkeypatch.setattr(owner, "set_num_threads", lambda count: None)
    monkeypatch.setattr(rounds, "result_path", lambda name: tmp_path / f"{name}.json")
    parser = rounds.parser_for("bench.compare_sb3", "Words.")
    assert rounds.parse(parser, ["--threads", str(threads)]).out == tmp_path / f"{name}.json"
    assert str(rounds.parse(parser, ["--threads", str(threads), "--out", "given.json"]).out) == "given.json"
