"""Benchmarks of several ranks: the cost model, its tables, the page made of them, and the batch file for SLURM."""

from __future__ import annotations

import json
import math
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bench import scaling_network, scaling_report
from bench.cost_model import (
    Link,
    Update,
    efficiency,
    gathering_seconds,
    rounds,
    sum_seconds,
    update_seconds,
)
from bench.study import Study
from tests.distributed.launcher import free_port

ROOT = Path(__file__).resolve().parent.parent
FREE = Link(0.0, math.inf)
UPDATE = Update(
    parameters=1000,
    critic_parameters=500,
    products=10,
    trials=2,
    samples=2048,
    sample_bytes=200,
    rollout=1e-4,
    gradient=1e-6,
    product=2e-6,
    trial=1e-6,
    fit=1e-5,
    preparation=1e-6,
)


def ring(ranks: int, latency: float, seconds_a_part: float) -> float:
    """When the last rank has all parts summed: every hop of a ring; a receiver says first that it is ready."""
    done = [0.0] * ranks
    for _ in range(2 * (ranks - 1)):
        # A rank asks its predecessor, which sends once it has its own part of the hop before.
        done = [
            max(done[rank], max(done[rank - 1], done[rank] + latency) + latency + seconds_a_part)
            for rank in range(ranks)
        ]
    return max(done)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 16])
def test_a_reduction_takes_what_its_hops_take(ranks):
    link, size = Link(3e-3, 1e6), 4800.0
    expected = ring(ranks, link.latency, size / ranks / link.bandwidth)
    assert sum_seconds(link, ranks, size, "ring") == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("ranks", "hops"), [(1, 0), (2, 1), (3, 2), (4, 2), (1000, 10)])
def test_halving_takes_a_logarithm_of_latencies_each_way(ranks, hops):
    assert sum_seconds(Link(1.0, math.inf), ranks, 4800, "halving") == 2 * hops


def test_bandwidth_costs_both_ways_of_reducing_the_same():
    link = Link(0.0, 1e6)
    assert sum_seconds(link, 8, 4800, "ring") == sum_seconds(link, 8, 4800, "halving")


@pytest.mark.parametrize("ranks", [2, 4, 16])
def test_up_to_sixteen_ranks_the_sums_of_sixteen_parts_are_gathered(ranks):
    link = Link(0.0, 1e6)
    assert sum_seconds(link, ranks, 4800) == pytest.approx((16 - 16 / ranks) * 4800 / 1e6)
    assert sum_seconds(link, 17, 4800) == sum_seconds(link, 17, 4800, "ring")


def test_a_gathering_brings_every_rank_what_the_others_have():
    assert gathering_seconds(Link(0.0, 1e6), 5, 1000) == pytest.approx(4 * 1000 / 1e6)
    assert gathering_seconds(Link(1.0, math.inf), 5, 1000) == 8


def test_one_rank_has_no_wire_and_full_efficiency():
    for fit in ("whole", "reduced"):
        seconds = update_seconds(UPDATE, Link(1.0, 1.0), 1, fit=fit)
        assert seconds.wire == 0
        assert seconds.total == pytest.approx(2048 * (1e-4 + 1e-6 + 10 * 2e-6 + 2 * 1e-6 + 1e-5 + 1e-6))
    assert efficiency(UPDATE, Link(1.0, 1.0), 1) == 1


def test_a_whole_fit_grows_with_the_ranks_and_a_reduced_one_does_not():
    alone, whole, reduced = (
        update_seconds(UPDATE, FREE, 1),
        update_seconds(UPDATE, FREE, 10, fit="whole"),
        update_seconds(UPDATE, FREE, 10, fit="reduced"),
    )
    assert whole.critic == pytest.approx(10 * alone.critic)
    assert whole.preparation == pytest.approx(10 * alone.preparation)
    assert reduced.total == pytest.approx(alone.total)


@pytest.mark.parametrize("fit", ["whole", "reduced"])
def test_rounds_are_those_that_the_seconds_are_made_of(fit):
    # With bandwidth without end every collective of k = 2 takes two latencies, the receiver's word included.
    small = UPDATE._replace(parameters=2, critic_parameters=2, statistics=2)
    seconds = update_seconds(small, Link(0.5, math.inf), 2, fit=fit)
    assert seconds.wire == pytest.approx(rounds(small, fit=fit))
    assert seconds.gathering == (2 if fit == "whole" else 1)


def test_fewer_products_save_as_many_rounds():
    assert rounds(UPDATE) - rounds(UPDATE._replace(products=2)) == 8
    assert rounds(UPDATE._replace(statistics=10)) - rounds(UPDATE) == 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sum_seconds(FREE, 2, 8, "tree"), "algorithm: 'tree' given; want 'built' or 'ring' or 'halving'"),
        (lambda: sum_seconds(FREE, 0, 8), "ranks: 0 given; want at least 1"),
        (lambda: gathering_seconds(FREE, -1, 8), "ranks: -1 given; want at least 1"),
        (lambda: update_seconds(UPDATE, FREE, 2, fit="half"), "fit: 'half' given; want 'whole' or 'reduced'"),
        (lambda: rounds(UPDATE, fit="half"), "fit: 'half' given; want 'whole' or 'reduced'"),
    ],
)
def test_what_is_no_cost_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def network_base(link: Link, ranks: int) -> dict:
    """What bench.scaling_network would measure without a limit, on a wire that is as the model says."""
    of_vector, of_parts = 22832, 22832 * (16 // ranks)
    return {
        "scalars": {"reduction": sum_seconds(link, ranks, 16, "ring")},
        "vector": {
            **{"bytes": of_vector, "reduction": sum_seconds(link, ranks, of_vector, "ring")},
            **{"gathered_bytes": of_parts, "gathering": gathering_seconds(link, ranks, of_parts)},
        },
        "update": 0.5,
    }


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_a_link_is_known_by_what_its_messages_take(ranks):
    link = Link(2e-4, 1e9)
    # The two numbers that are reduced are carried, too: sixteen bytes beside a latency.
    assert scaling_network.free_link(ranks, network_base(link, ranks)) == pytest.approx(link, rel=1e-3)


def test_a_limit_adds_to_an_update_what_its_traffic_takes():
    base = network_base(Link(1e-4, 1e9), 2)
    traffic = {"rollout": [2.0, 200_000.0, 0.0], "products": [10.0, 1_826_560.0, 0.0], "checksum": [0.0, 0.0, 0.0]}
    predict = scaling_network.predict
    assert predict(2, scaling_network.Limit(None, 0.0), base, traffic)["update"] == pytest.approx(0.5)
    # Of each gathering two messages, a receiver's word included; each way at once.
    slow = predict(2, scaling_network.Limit(None, 10.0), base, traffic)["update"]
    assert slow == pytest.approx(0.5 + (2 * 2 + 10 * 2) * 0.01)
    narrow = predict(2, scaling_network.Limit(8.0, 0.0), base, traffic)["update"]
    assert narrow == pytest.approx(0.5 + (200_000 + 1_826_560) * (1e-6 - 1e-9), rel=1e-3)


def test_the_most_ranks_are_the_last_that_are_half_as_fast():
    link = Link(50e-6, 1e9 / 8)
    most = int(scaling_report._largest(UPDATE, link, "whole", "ring").replace(",", ""))
    assert efficiency(UPDATE, link, most) >= 0.5 > efficiency(UPDATE, link, most + 1)


def test_the_page_is_the_one_that_the_results_make():
    page = scaling_report.PAGE.read_text(encoding="utf-8")
    assert page == scaling_report.render(page), "run `python -m bench.scaling_report`"
    assert {match[2] for match in scaling_report.MARKS.finditer(page)} == set(scaling_report.SECTIONS)


def test_the_page_without_results_says_what_makes_them(tmp_path):
    page = scaling_report.render(scaling_report.PAGE.read_text(encoding="utf-8"), tmp_path)
    assert "No results are committed; `python -m bench.scaling_network` makes them." in page


PLAN = """
tasks = ["HalfCheetah-v5"]
seeds = "0-1"
timesteps = 16384

[goals]
HalfCheetah-v5 = 10

[arms]
plain = ""
wide = "--num-envs 64 --preconditioner kfac --cg-iterations 2"
never = "--num-envs 64"
"""


def test_steps_updates_and_rounds_to_a_score(tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN)
    (tmp_path / "curves").mkdir()
    lines = ["arm,seed,timesteps,seconds,return"]
    for seed in (0, 1):
        lines += [f"plain,{seed},{2048 * i},{i},{5 * i + seed - 0.5}" for i in range(1, 9)]  # on average 5 i: at 2
        lines += [f"wide,{seed},{16384 * i},{i},{10 * i}" for i in range(1, 3)]
        lines += [f"never,{seed},{16384 * i},{i},1" for i in range(1, 3)]
    (tmp_path / "curves" / "HalfCheetah-v5.csv").write_text("\n".join(lines) + "\n")
    _, _, plain, wide, never = scaling_report.large_batches(Study(tmp_path))
    of_plain, of_wide = 10 + 3 + 2 + 1.5, 2 + 3 + 2 + 1 + 1.5  # products, fixed ones, rollout, trials, statistics
    steps, updates, rounds_ = (cell.strip() for cell in plain.split("|")[3:6])
    assert float(steps.replace(",", "")) == pytest.approx(4096, rel=0.03)  # of a grid
    assert updates == "2"
    assert float(rounds_) == pytest.approx(2 * of_plain, rel=0.03)
    assert wide.split("|")[3:6] == [" 16,384 ", " 1 ", f" {of_wide:,.0f} "]
    assert never.split("|")[4] == " \u2265 2 "


def stub(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def batch(tmp_path: Path, *arguments: str, port: int = 29400) -> subprocess.CompletedProcess[str]:
    """What the batch file does where stubs stand for SLURM's commands: two nodes, both this machine, a core each."""
    programs = tmp_path / "programs"
    programs.mkdir(exist_ok=True)
    stub(programs, "scontrol", '[ "$*" = "show hostnames node[1-2]" ] && printf "localhost\\nlocalhost\\n"')
    # What every node runs, at once; the port is a free one, so that tests can run beside each other.
    stub(
        programs,
        "srun",
        f'echo "srun $*"; [ -z "${{ONLY_SAY:-}}" ] || exit 0\n'
        f'for argument; do shift; set -- "$@" "$(echo "$argument" | sed s/:29400/:{port}/)"; done\n'
        '"$@" & first=$!; "$@" & second=$!; wait $first; code=$?; wait $second && exit $code',
    )
    stub(programs, "torchrun", f'exec "{sys.executable}" -m torch.distributed.run "$@"')
    slurm = {"SLURM_JOB_ID": "17", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "1"}
    slurm["SLURM_JOB_NODELIST"] = "node[1-2]"
    paths = {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["sh", str(ROOT / "examples" / "train.sbatch"), *arguments],
        env={**os.environ, **paths, **slurm},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_the_batch_file_trains_on_all_nodes(tmp_path):
    done = batch(tmp_path, "CartPole-v1", "--timesteps", "4096", "--eval-episodes", "0", port=free_port())
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "runs" / "17" / "config.json").read_text())
    assert told["ranks"] == 2
    assert (tmp_path / "runs" / "17" / "model.trpo").exists()


def test_the_batch_file_goes_on_where_the_job_was_put_back(tmp_path, monkeypatch):
    (tmp_path / "runs" / "17").mkdir(parents=True)
    (tmp_path / "runs" / "17" / "config.json").write_text("{}")
    monkeypatch.setenv("ONLY_SAY", "1")
    done = batch(tmp_path, "CartPole-v1", "--timesteps", "4096")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("-m trpo_fast train --resume runs/17 --threads 1")
