"""Two builds beside each other: a wrong answer is no row, a pair is of neighbouring rounds. Timings are made up."""

import json
import statistics
import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from bench import builds, side_by_side
from bench.builds import ROOT
from bench.problems import ChoiceProblem, PolicyProblem
from bench.side_by_side import BF16, Goal, PeerRow, Row, alternate, check, line, merge, obstacle, text
from tests import reference
from trpo_fast.benchmarks import WrongAnswer

SMALL = PolicyProblem((5, 8, 3), 40)
CASCADE_LAKE = {"vendor": "GenuineIntel", "family": 6, "model": 85, "stepping": 7}
ZEN_4 = {"vendor": "AuthenticAMD", "family": 25, "model": 17, "stepping": 1}
MACHINE = {
    **{"cpu": "Some CPU", **CASCADE_LAKE, "caches": None, "bfloat16": False, "instruction_set": "x86-64-v4"},
    **{"multiply_adds": {"float32": 100.0, "float64": 50.0, "bfloat16": None}, "versions": {}},
}


def row(kind="fisher", problem=SMALL, **more):
    return Row(f"a {kind}", kind, problem, Goal(1.25), **more)


def right(row):
    """What float64 NumPy says, in float32 as a build would."""
    problem, arrays = row.problem, side_by_side.arrays_of(row.problem)
    if row.kind == "fisher":
        return {"product": side_by_side._exact_product(problem).astype(np.float32)}
    if row.kind == "solve":
        return {"x": side_by_side._exact_direction(problem).astype(np.float32)}
    if row.kind == "trial":
        data = problem.observations, problem.actions, problem.advantages
        return {
            "evaluation": np.array(side_by_side.oracle(problem).evaluate(arrays["trial"], problem.parameters, *data))
        }
    if row.kind == "act":
        policy, rng = side_by_side.ExactPolicy(problem), np.random.default_rng(0)
        actions = policy.mean() + np.exp(problem.log_std) * rng.standard_normal(problem.actions.shape)
        return {"actions": actions, "clipped": actions.clip(-1, 1), "log_probs": policy.log_prob(actions)}
    critic = side_by_side._exact_critic(problem).astype(np.float32)
    if row.kind == "fit":
        return {"critic": critic}
    policy = side_by_side.ExactPolicy(problem)
    return {"critic": critic, "parameters": policy.trust_region_step(side_by_side.SETTINGS)}


ROWS = [
    *map(row, ("fisher", "solve", "fit", "update", "act")),
    *(row(kind, ChoiceProblem(choices, (8,), 40)) for kind in ("trial", "fisher") for choices in ((4,), (3, 3))),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.kind}-{row.problem.name}")
def test_the_oracles_answer_is_right_and_a_spoiled_one_is_an_error_that_names_row_and_side(row):
    answer = right(row)
    assert check(row, "now", answer) < 1e-4
    for name, values in answer.items():
        for spoiled in (values * np.float32(1.01), values * np.nan):
            with pytest.raises(WrongAnswer, match=f"a {row.kind}, on 1, before: .*a wrong answer has no time"):
                check(row, "before", {**answer, name: spoiled})


def test_a_fit_that_ends_an_epoch_early_is_wrong():
    early = side_by_side.exact_fit(SMALL, side_by_side.SETTINGS.critic_epochs - 1, 128, 1e-3)
    with pytest.raises(WrongAnswer, match="critic"):
        check(row("fit"), "now", {"critic": early})


def test_float32_products_are_no_bf16_products_and_the_other_side_stays_float32():
    narrow = row(bf16=BF16)
    exact = right(narrow)["product"]
    with pytest.raises(WrongAnswer, match="the product's error"):
        check(narrow, "now", {"product": exact})
    rounded = exact * (1 + 4e-3 * np.random.default_rng(0).uniform(-1, 1, exact.shape))
    assert check(narrow, "now", {"product": rounded}) > 1e-4
    with pytest.raises(WrongAnswer, match="the product's error"):
        check(narrow, "before", {"product": rounded})


class FakeSide:
    """Answers as it is told; `log` is everybody's."""

    def __init__(self, name, log, seconds, answers, unsupported=None, share=1.0):
        self.name, self.log, self.share = name, log, share
        self.seconds, self.answers, self.unsupported = iter(seconds), iter(answers), unsupported

    def prepare(self, row, problem, bf16):
        self.log.append((self.name, "prepare", bf16))
        return {"unsupported": self.unsupported} if self.unsupported else {"seconds": 0.02}

    def round(self, calls):
        self.log.append((self.name, calls))
        return {"seconds": next(self.seconds), "cpu_share": self.share}

    def computed(self):
        return next(self.answers)


def fakes(before, now, share=1.0, **more):
    log, good = [], right(row())
    sides = {
        "before": FakeSide("before", log, before, [good] * 2, share=share),
        "now": FakeSide("now", log, now, **{"answers": [good] * 2, **more}),
    }
    return sides, log


def test_rounds_take_turns_and_a_ratio_is_of_two_that_followed_each_other():
    sides, log = fakes([4.0, 40.0, 8.0], [2.0, 10.0, 8.0])  # a slow minute falls on both
    found = alternate(row(), sides, Path("unread"), 3)
    assert [entry[0] for entry in log] == ["before", "now"] * 4
    assert {entry[1] for entry in log[2:]} == {round(side_by_side.ROUND_SECONDS / 0.02)}
    made = line(row(), found, MACHINE)
    assert made["ratio"] == statistics.median([2.0, 4.0, 1.0]) == 2.0
    assert made["quartiles"] == [1.5, 3.0]
    assert made["seconds"] == {"before": 8.0, "now": 8.0} and made["rounds"]["before"] == [4.0, 40.0, 8.0]
    assert made["holds"] is True and made["quiet"] and max(made["errors"].values()) < 1e-6
    assert line(row(), found | {"now": [4.0, 40.0, 8.0]}, MACHINE)["holds"] is False


def test_an_answer_that_goes_wrong_while_it_is_timed_is_an_error():
    good = right(row())
    sides, _ = fakes([1.0], [1.0], answers=[good, {"product": good["product"] + 1}])
    with pytest.raises(WrongAnswer, match="now: the product's error"):
        alternate(row(), sides, Path("unread"), 1)


def test_a_busy_machine_neither_holds_nor_falls_short():
    sides, _ = fakes([4.0, 4.0], [1.0, 1.0], share=0.5)
    made = line(row(), alternate(row(), sides, Path("unread"), 2), MACHINE)
    assert made["holds"] is None and not made["quiet"] and made["cpu_share"] == 0.5
    assert text(made, MACHINE).endswith("goal 1.25: BUSY, not to be quoted")


def test_several_threads_have_their_share_measured_beside_the_rounds(monkeypatch):
    monkeypatch.setattr(side_by_side, "share_of_cores", lambda threads: threads / 10)
    sides, _ = fakes([4.0], [1.0])
    assert alternate(row(threads=2), sides, Path("unread"), 1)["cpu_shares"] == [0.2]


def test_what_a_build_has_not_is_said_and_not_timed():
    sides, log = fakes([], [], answers=[], unsupported="this build has no fisher_precision")
    found = alternate(row(bf16=BF16), sides, Path("unread"), 3)
    made = line(row(bf16=BF16), found, MACHINE)
    assert made["not_measured"] == "this build has no fisher_precision" and "ratio" not in made
    assert "this build has no fisher_precision; goal 1.25" in text(made, MACHINE)
    assert [entry[-1] for entry in log] == [(), BF16]


def test_rounds_of_all_starts_count_and_the_largest_error():
    result = {}
    merge(result, {"before": [1.0], "now": [2.0], "errors": {"now": 0.1}})
    merge(result, {"before": [3.0], "now": [4.0], "errors": {"now": 0.05}})
    assert result == {"before": [1.0, 3.0], "now": [2.0, 4.0], "errors": {"now": 0.1}}


def test_goals_are_of_the_kind_of_cpu():
    goal = Goal(2.0, 1.7)
    assert (goal.on(ZEN_4), goal.on(CASCADE_LAKE), goal.on({"cpu": "another"})) == (2.0, 1.7, 2.0)
    assert Goal(1.3).on(CASCADE_LAKE) == 1.3
    peer = PeerRow("beside", Goal(8.8))
    made = line(peer, {"before": [9.0, 9.0], "now": [1.0, 1.0], "cpu_shares": [1.0]}, MACHINE)
    assert made["goal_of"] == "Zen 4" and "(of a Zen 4 core)" in text(made, MACHINE)
    assert "(of a Zen 4 core)" not in text(made, MACHINE | ZEN_4)


def test_a_cpu_without_bf16_and_too_few_cores_are_said():
    assert obstacle(row(bf16=BF16), MACHINE, 2) == "this CPU has no bf16"
    assert obstacle(row(bf16=BF16), MACHINE | {"bfloat16": True}, 2) is None
    assert obstacle(row(threads=2), MACHINE, 1) == "wants 2 cores"
    assert obstacle(row(), MACHINE, 1) is None


def test_every_target_of_the_core_has_its_row():
    goals = [(r.threads, r.goal.ratio, r.goal.with_two_pipes, len(r.bf16)) for r in side_by_side.ROWS]
    assert goals == [
        *[(1, 1.3, None, 0), (1, 1.3, None, 0)],  # F v, as the rule takes it and by cached Jacobians
        *[(1, 1.25, None, 0), (1, 2.0, 1.7, 1), (1, 1.8, 1.5, 1)],  # the solve, and both with bf16 products
        *[(1, 1.3, None, 0), (2, 1.8, None, 0)],  # the critic's fit
        *[(1, 1.25, None, 0), (1, 1.45, None, 1), (1, 1.65, None, 2), (2, 1.5, None, 0)],  # the whole update
        *[(2, 1.9, None, 0)] * 4,  # two threads over one
        *[(1, 2.5, None, 0), (1, 1.35, None, 0), (1, 2.5, None, 0)],  # a trial, 6 x 6, act
        *[(1, 8.8, None, 0), (2, 12.0, None, 0), (1, 10.0, None, 1)],  # beside sb3-contrib
    ]
    assert len({(r.name, r.threads) for r in side_by_side.ROWS}) == len(side_by_side.ROWS)


@pytest.mark.parametrize("problem", [ChoiceProblem((18,), (8,), 300), ChoiceProblem((6,) * 6, (8,), 300)])
def test_choices_are_drawn_from_all_and_fit_the_oracle(problem):
    policy = side_by_side.oracle(problem)
    assert policy.size == problem.parameters.size == problem.direction.size and policy.outputs == sum(problem.choices)
    assert problem.actions.dtype == np.int64 and problem.actions.min() == 0
    assert problem.actions.max() == max(problem.choices) - 1
    assert problem.actions.shape == ((300,) if len(problem.choices) == 1 else (300, len(problem.choices)))
    assert problem.observations.dtype == problem.advantages.dtype == problem.parameters.dtype == np.float32


def test_the_oracle_goes_through_large_batches_in_blocks():
    problem = PolicyProblem((3, 4, 2), 20_000)
    whole = reference.Policy(problem.widths, "tanh", "gaussian").fisher_product(
        problem.parameters, problem.observations, problem.direction
    )
    np.testing.assert_allclose(side_by_side._exact_product(problem), whole, rtol=1e-10)


@pytest.mark.parametrize(
    "threads", [1, pytest.param(2, marks=pytest.mark.skipif("len(__import__('os').sched_getaffinity(0)) < 2"))]
)
def test_this_build_computes_what_every_row_asks_for(tmp_path, monkeypatch, threads):
    monkeypatch.setattr(side_by_side, "ROUND_SECONDS", 0.0)
    monkeypatch.setattr(side_by_side, "share_of_cores", lambda threads: 1.0)
    with ExitStack() as stack:
        side = side_by_side.Side(stack, ROOT, threads, tmp_path)
        for position, one in enumerate(ROWS):
            file = tmp_path / f"{position}.npz"
            np.savez(file, **side_by_side.arrays_of(one.problem))
            found = alternate(Row(one.name, one.kind, one.problem, one.goal, threads), {"now": side}, file, 2)
            assert len(found["now"]) == 2 and min(found["now"]) > 0 and found["errors"]["now"] < 1e-4
        absent = Row("absent", "fisher", SMALL, Goal(1.0), threads, ("such_precision",))
        assert alternate(absent, {"now": side}, file, 1) == {"unsupported": "this build has no such_precision"}


def test_a_side_that_ends_is_named(tmp_path):
    file = tmp_path / "ends.py"
    file.write_text("import sys; sys.stdin.readline()\n")
    with ExitStack() as stack:
        worker = builds.Worker(stack, file, ROOT)
        worker.ask("anything")
        with pytest.raises(SystemExit, match=r"ends\.py: one of the sides ended"):
            worker.answer()


def test_a_checkout_is_taken_as_it_is_and_what_is_neither_that_nor_a_revision_is_refused(tmp_path):
    with builds.checkout(str(ROOT)) as folder:
        assert folder == ROOT
    wanted = "--against: no-such-revision given; want a revision, or a checkout"
    with pytest.raises(SystemExit, match=wanted), builds.checkout("no-such-revision"):
        pass


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a repository")
def test_a_revision_is_built_in_a_folder_of_its_own(monkeypatch):
    run, built = subprocess.run, []

    def instead(command, **options):
        if "setup.py" in command:
            built.append(options["cwd"])
            return None
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", instead)
    with builds.checkout("HEAD") as folder:
        assert built == [folder] and folder != ROOT and (folder / "trpo_fast" / "__init__.py").exists()
        assert (folder / "setup.py").exists() and not list(folder.rglob("*.so"))
    assert not folder.exists()
    assert builds.revision("HEAD") == builds.revision(str(ROOT)) != "unknown"


def test_the_file_says_where_it_was_made_and_what_every_row_came_to(tmp_path, monkeypatch, capsys):
    @contextmanager
    def checkout(against):
        yield ROOT

    def measure(rows, before, now, starts, rounds):
        good = {"before": [3.0] * rounds, "now": [1.0] * rounds, "cpu_shares": [1.0], "errors": {"now": 1e-7}}
        return [dict(good) for _ in rows]

    monkeypatch.setattr(side_by_side.signal, "signal", lambda *_: None)
    monkeypatch.setattr(side_by_side, "checkout", checkout)
    monkeypatch.setattr(side_by_side, "measure", measure)
    monkeypatch.setattr(side_by_side, "describe", lambda: MACHINE)
    monkeypatch.setattr(side_by_side, "built_from", lambda root: ("abc", False))
    monkeypatch.setattr(side_by_side, "PEER_PACKAGES", ("no_such_package",))
    monkeypatch.setattr(side_by_side.os, "sched_getaffinity", lambda process: {0, 1})
    out = tmp_path / "new" / "rows.json"
    assert side_by_side.main(["--against", str(ROOT), "--rounds", "3", "--out", str(out)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("Some CPU, Cascade Lake (family 6, model 85, stepping 7); caches not known; ")
    assert "100 GFLOP/s in float32, no bf16" in printed[0]
    found = json.loads(out.read_text())
    assert found["schema"] == side_by_side.SCHEMA and found["machine"] == MACHINE and found["quiet"]
    assert found["builds"]["now"] == "abc" and str(ROOT) not in json.dumps(found)
    assert found["command"].startswith("python -m bench.side_by_side --against ")
    assert [one["name"] for one in found["rows"]] == [one.name for one in side_by_side.ROWS]
    reasons = {one["not_measured"] for one in found["rows"] if "not_measured" in one}
    assert reasons == {"this CPU has no bf16", "no_such_package is not installed"}
    wanted = {"name", "threads", "against", "goal", "ratio", "quartiles", "holds", "seconds", "errors", "rounds"}
    for one in found["rows"]:
        assert one["goal"] > 0 and ("not_measured" in one or set(one) == wanted | {"cpu_share", "quiet"})
    shown = [entry for entry in printed if "goal " in entry]
    assert len(shown) == len(side_by_side.ROWS) and sum(entry.endswith(": holds") for entry in shown) == 14


def test_changes_that_no_commit_has_are_not_to_be_quoted(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(side_by_side.signal, "signal", lambda *_: None)
    monkeypatch.setattr(side_by_side, "measure", lambda rows, *more: [{"unsupported": "left out"} for _ in rows])
    monkeypatch.setattr(side_by_side, "describe", lambda: MACHINE)
    monkeypatch.setattr(side_by_side, "built_from", lambda root: ("abc", True))
    out = tmp_path / "rows.json"
    side_by_side.main(["--against", str(ROOT), "--only", "trial", "act", "--out", str(out)])
    assert "NOT TO BE QUOTED: this checkout has changes that no commit has" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert not found["quiet"] and found["builds"]["now"] == "abc and changes"
    assert [one["name"].split()[0:2] for one in found["rows"]] == [["a", "trial,"], ["act", "of"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "nothing"], "--only: no row has nothing in its name"),
        (["--rounds", "0"], "want --rounds and --starts of at least 1"),
        (["--peer-rounds", "3"], "--peer-rounds of 0 or at least 7"),
    ],
)
def test_what_cannot_be_measured_is_refused(capsys, arguments, message):
    with pytest.raises(SystemExit):
        side_by_side.main(arguments)
    assert message in capsys.readouterr().err


def test_what_stands_against_the_comparison_with_sb3_contrib_is_said(monkeypatch):
    monkeypatch.setattr(side_by_side, "PEER_PACKAGES", ("json", "no_such_package"))
    peer = PeerRow("beside", Goal(8.8), bf16=("no_such_precision",))
    wanted = "no_such_package is not installed, this build has no no_such_precision"
    assert obstacle(peer, MACHINE | {"bfloat16": True}, 1) == wanted
    monkeypatch.setattr(side_by_side, "PEER_PACKAGES", ("json",))
    assert obstacle(PeerRow("beside", Goal(8.8)), MACHINE, 1) is None


def test_an_update_that_goes_wrong_beside_sb3_contrib_is_an_error(monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "AssertionError: an update went wrong\n")
    monkeypatch.setattr(subprocess, "run", lambda *command, **options: failed)
    with pytest.raises(
        SystemExit, match=r"beside, on 1: bench\.compare_sb3 failed:\nAssertionError: an update went wrong"
    ):
        side_by_side.peer_rounds(PeerRow("beside", Goal(8.8)), 7)


def test_rounds_beside_sb3_contrib_are_pairs_of_updates(monkeypatch):
    met = []

    def run(command, **options):
        met.append(command)
        rounds = {"trpo_fast": [{"update_seconds": 1.0}], "sb3-contrib": [{"update_seconds": 9.0}]}
        Path(command[command.index("--out") + 1]).write_text(json.dumps({"cpu_share": 1.0, "rounds": rounds}))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    found = side_by_side.peer_rounds(PeerRow("beside", Goal(10.0), 2, BF16), 7)
    assert found == {"before": [9.0], "now": [1.0], "cpu_shares": [1.0]}
    assert met[0][1:9] == [
        "-m",
        "bench.compare_sb3",
        "--threads",
        "2",
        "--rounds",
        "7",
        "--fisher-precision",
        "bfloat16",
    ]
