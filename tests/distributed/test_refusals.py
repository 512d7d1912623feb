"""Ranks that differ, or of which one fails: all end, and all know which rank and why."""

import re

import pytest

from trpo_fast import TRPO
from trpo_fast import ranks as ranks_module
from trpo_fast.cli.main import main
from trpo_fast.ranks import RankError, Ranks, share_of


@pytest.fixture
def of_ranks(found):
    return found("refusal_scenarios:everything", 2)


DIFFERING = {
    "settings": r"config\.gamma: 0\.99 on rank 0, 0\.9 on rank 1; want the same on every rank",
    "seed": r"seed: 5 on rank 0, 6 on rank 1; want the same",
    "environment": r"env: 'CartPole-v1' on rank 0, 'Pendulum-v1' on rank 1; want the same",
    "env_kwargs": r"env_kwargs: \{'max_episode_steps': 50\} on rank 0, \{'max_episode_steps': 51\} on rank 1",
    "network": r"config\.hidden_sizes: [(\[]4,?[)\]] on rank 0, [(\[]5,?[)\]] on rank 1",
    "function": r"advantages: .* on rank 0, .* on rank 1; want the same",
    "one seed": r"seed: None on rank 0, 5 on rank 1",
    "stepping": r"vectorization: \('InProcessEnvironments', .*\) on rank 0, \('VectorAdapter', .*\) on rank 1",
    "version": r"numpy: '[0-9.]+' on rank 0, '1\.0' on rank 1",
    "build": r"torch: '.+' on rank 0, '2\.0\.0\+cu118' on rank 1",
    "no multiple": r"num_envs: 3 given; want a multiple of 2, the number of ranks",
    "fewer": r"num_envs: 1 given; want a multiple of 2, the number of ranks",
    "timesteps": r"total_timesteps: 32 on rank 0, 33 on rank 1",
    "schedules": r"schedules: .* on rank 0, .* on rank 1",
    "no sample": r"steps_per_env: 1 given; want more, or fewer ranks: no step of rank 0 is a sample",
}


@pytest.mark.parametrize(("name", "words"), DIFFERING.items())
def test_what_is_not_the_same_is_refused_on_every_rank_by_name(of_ranks, name, words):
    for found in of_ranks:
        kind, message = found[name]
        assert kind == "ValueError", message
        assert re.search(words, message), message


FAILING = {
    "no file": ("FileNotFoundError", r"rank-1\.trpo", "RankError", r"^rank 1: FileNotFoundError: .*rank-1\.trpo"),
    "broken": ("OSError", "the cable is out", "RankError", "^rank 1: OSError: the cable is out$"),
    "callback raises": ("KeyError", "callback", "RankError", "^rank 1: KeyError: 'callback'$"),
    "used up": ("RankError", "^this group of ranks has ended: OSError: .*; want new processes", "RankError", "ended"),
    "interrupted": ("KeyboardInterrupt", "", "KeyboardInterrupt", "^rank 1: stopped$"),
}


@pytest.mark.parametrize(("name", "expected"), FAILING.items())
def test_what_fails_on_one_rank_ends_the_others_who_name_it(of_ranks, name, expected):
    kind, words, other_kind, other_words = expected
    other, failing = (found[name] for found in of_ranks)
    assert failing[0] == kind, failing
    assert re.search(words, failing[1]), failing
    assert other[0] == other_kind, other
    assert re.search(other_words, other[1]), other


def test_parameters_that_parted_are_found_and_the_rank_named(of_ranks):
    for found in of_ranks:
        kind, message = found["parted"]
        assert kind == "RankError"
        assert message.startswith("rank 1: parameters or statistics are not those of rank 0")


def test_a_rank_that_hangs_is_named_within_the_timeout(of_ranks):
    (kind, message), (late, said) = (found["hung"] for found in of_ranks)
    assert kind == "RankError"
    assert re.fullmatch(r"rank 1: its process has ended, hangs or is busy \(.+\)", message), message
    assert late == "RankError", said  # it was let go on, and is no longer waited for


def test_a_seed_that_nobody_gave_is_the_same_everywhere(of_ranks):
    assert of_ranks[0]["after seed"] == of_ranks[1]["after seed"]


def test_a_callback_that_stops_on_one_rank_stops_all(of_ranks):
    assert [found["after stops"] for found in of_ranks] == [2, 2]


def test_masks_that_one_ranks_environments_have_are_obeyed_there(of_ranks):
    for found in of_ranks:
        trained_with_masks, actions = found["after masks"]
        assert trained_with_masks
        assert actions == [0, 0]  # of rank 1's copies, which forbid the other


def test_an_agent_that_was_closed_on_one_rank_learns_on_with_the_others(of_ranks):
    assert of_ranks[0]["after closed"] == of_ranks[1]["after closed"]


def test_functions_are_the_same_wrappers_where_they_have_one_name(of_ranks):
    assert [found["after functions"] for found in of_ranks] == [True, True]


@pytest.mark.parametrize(("completed", "fails"), [(False, False), (True, False), (True, True)])
def test_a_collective_may_end_between_two_pieces_of_a_wait(completed, fails):
    class Work:
        def wait(self, *limit):
            if limit:
                raise RuntimeError("Operation timed out!")
            if fails:
                raise RuntimeError("connection closed")

        def is_completed(self):
            return completed

    if fails:
        with pytest.raises(RuntimeError, match="connection closed"):
            ranks_module._done(Work())
    else:
        assert ranks_module._done(Work()) is completed


def test_environments_that_every_rank_hands_in_count_whatever_a_file_had(of_ranks):
    assert [found["after copies"] for found in of_ranks] == [4, 4]


PARTIAL = {
    "WORLD_SIZE without torchrun": ({"WORLD_SIZE": "2"}, "ranks: WORLD_SIZE=2 given without RANK, MASTER_ADDR, MASTER"),
    "RANK alone": ({"RANK": "0"}, "ranks: RANK=0 given without WORLD_SIZE, MASTER_ADDR, MASTER_PORT; want torchrun"),
}
WHOLE = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29400"}
NONSENSE = {
    "words": ({"RANK": "0", "WORLD_SIZE": "two", **WHOLE}, "WORLD_SIZE: 'two' given; want"),
    "no ranks": ({"RANK": "0", "WORLD_SIZE": "0", **WHOLE}, "WORLD_SIZE: '0' given; want"),
    "too large": ({"RANK": "2", "WORLD_SIZE": "2", **WHOLE}, "RANK: '2' given; want"),
    "port": ({"RANK": "0", "WORLD_SIZE": "2", **WHOLE, "MASTER_PORT": "x"}, "MASTER_PORT: 'x' given; want"),
}


@pytest.mark.parametrize(("variables", "words"), [*PARTIAL.values(), *NONSENSE.values()], ids=[*PARTIAL, *NONSENSE])
def test_a_part_of_what_torchrun_sets_is_refused(variables, words, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=words):
        TRPO("CartPole-v1", num_envs=2)
    assert main(["train", "CartPole-v1", "--timesteps", "1", "--eval-episodes", "0"]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    TRPO("CartPole-v1", num_envs=2, ranks=None).close()  # on this one alone, whatever is set


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf"), True, "10", None])
def test_a_timeout_that_is_no_time_is_refused(timeout):
    with pytest.raises(ValueError, match=f"^timeout: {timeout!r} given; want a positive number of seconds"):
        Ranks(timeout=timeout)


@pytest.mark.parametrize("timeout", ["0", "-3", "nan", "soon"])
def test_a_timeout_option_that_is_no_time_is_refused_under_torchrun_or_not(timeout, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["train", "CartPole-v1", "--timesteps", "1", "--eval-episodes", "0", "--rank-timeout", timeout])
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert "timeout: " in capsys.readouterr().err


@pytest.mark.parametrize("ranks", [2, "all", True, object])
def test_ranks_that_are_none_are_refused(ranks):
    with pytest.raises(TypeError, match=r"^ranks: .* given; want 'auto', Ranks.* or None"):
        TRPO("CartPole-v1", num_envs=2, ranks=ranks)
    with pytest.raises(TypeError, match=r"^ranks: "):
        TRPO.load("nowhere.trpo", ranks=ranks)


def test_a_process_by_itself_has_no_ranks(monkeypatch):
    assert Ranks.if_started() is None
    assert share_of(None, 7) == slice(0, 7)
    with pytest.raises(ValueError, match="without RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT; want torchrun"):
        Ranks()
    assert issubclass(RankError, RuntimeError)


def test_a_timeout_of_ranks_names_its_option_and_is_refused_without_ranks(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train = ["train", "CartPole-v1", "--timesteps", "1", "--eval-episodes", "0", "--rank-timeout"]
    assert main([*train, "-5"]) == 2
    assert "--rank-timeout: -5.0 given; want a positive number of seconds" in capsys.readouterr().err
    assert main([*train, "60"]) == 2
    assert "--rank-timeout: given without ranks; want it under torchrun alone" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
