"""``python -m trpo_fast.sb3``: the comparison for who has the wheel and nothing else."""

import re

import pytest

pytest.importorskip("sb3_contrib")

from trpo_fast import get_num_threads, set_num_threads
from trpo_fast.sb3.__main__ import main


def test_it_trains_with_both_and_prints_the_ratio(capsys):
    threads = get_num_threads()
    assert main(["--env", "CartPole-v1", "--rounds", "1", "--updates", "1"]) == 0
    set_num_threads(threads)
    printed = capsys.readouterr().out
    theirs, ours = (int(speed.replace(",", "")) for speed in re.findall(r"TRPO\s+([\d,]+) steps/s", printed))
    ratio = float(re.search(r"ratio\s+([\d.]+)", printed)[1])
    assert ratio == pytest.approx(ours / theirs, abs=0.02)  # all three are rounded


@pytest.mark.parametrize("option", ["--rounds", "--updates"])
def test_it_names_a_bad_number(option, capsys):
    with pytest.raises(SystemExit):
        main([option, "0"])
    assert f"{option}: 0 given; want at least 1" in capsys.readouterr().err
