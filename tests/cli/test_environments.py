"""Environments that other modules register, on the command line: named, kept, printed, and not imported unasked."""

import json
import sys

import gymnasium
import numpy as np
import pytest

from tests.rollout.toys import Walk
from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.cli import train
from trpo_fast.cli.arguments import make_parser
from trpo_fast.environments.recipe import EnvironmentRecipe

MODULE = """
import gymnasium
from tests.rollout.toys import Walk
gymnasium.register("Rambling-v0", Walk)

class Seen(gymnasium.Wrapper):
    pass
"""
NAME = "rambles_for_a_test"


class RawWalk(Walk):
    action_space = gymnasium.spaces.Box(0.0, 200.0, (1,), np.float32)


@pytest.fixture
def rambles(tmp_path, monkeypatch, command):
    """A module in the working folder, which is not on the path; ``forget()`` makes it as if never imported."""
    (tmp_path / f"{NAME}.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])

    def forget():
        sys.modules.pop(NAME, None)
        gymnasium.registry.pop("Rambling-v0", None)

    yield forget
    forget()


@pytest.fixture
def run(command, small, rambles, tmp_path):
    """A run with arguments and a wrapper, as if by another process."""
    options = ("--env-kwargs", '{"limit": 5}', "--wrapper", f"{NAME}:Seen", "--timesteps", "64", "--out", "run")
    result = command("train", f"{NAME}:Rambling-v0", *options, *small)
    assert result.code == 0, result.err
    rambles()
    return tmp_path / "run"


def environment_of(run):
    return json.loads((run / "config.json").read_text())["environment"]


def test_train_takes_a_module_arguments_and_wrappers_and_writes_them_down(run):
    description = environment_of(run)
    assert description == {
        "id": f"{NAME}:Rambling-v0",
        "vectorization": None,
        "env_kwargs": {"limit": 5},
        "wrappers": [f"{NAME}:Seen"],
        "modules": [],
        "num_workers": None,
    }
    recipe = TRPO.load(run / "model.trpo").recipe
    assert recipe.to_json() == description


def test_import_registers_an_id(command, small, rambles):
    assert command("train", "Rambling-v0", "--timesteps", "64", "--out", "a", *small).code == 2
    result = command("train", "Rambling-v0", "--import", NAME, "--timesteps", "64", "--out", "b", *small)
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ([], ("workers", 3)),
        (["--vectorization", "workers"], ("workers", 3)),
        (["--num-workers", "2"], ("workers", 2)),
        (["--vectorization", "sync"], ("sync", None)),
    ],
    ids=str,
)
def test_workers_of_a_config_are_kept_unless_something_else_is_said(options, wanted):
    saved = EnvironmentRecipe("CartPole-v1", "workers", num_workers=3).to_json()
    recipe = train._recipe(make_parser().parse_args(["train", "CartPole-v1", *options]), saved)
    assert (recipe.vectorization, recipe.num_workers) == wanted


@pytest.mark.parametrize("arguments", [["eval", "run"], ["train", "--resume", "run", "--timesteps", "128"]])
def test_what_a_file_says_is_printed_and_its_code_is_not_imported_unasked(command, run, rambles, arguments):
    result = command(*arguments)
    assert result.code == 2
    said, error = result.err.splitlines()
    assert said == f"{NAME}:Rambling-v0: env_kwargs {{'limit': 5}}, wrappers ['{NAME}:Seen']"
    assert f"the file would import {NAME}, and a file is not trusted with code" in error
    assert f"--import {NAME}, or --trust" in error
    assert NAME not in sys.modules
    for option in (["--import", NAME], ["--trust"]):
        again = [argument.replace("128", "192") if option == ["--trust"] else argument for argument in arguments]
        result = command(*again, *option)
        assert result.code == 0, result.err
        assert result.err.startswith(said[:40])
        rambles()


def test_an_id_alone_prints_nothing(command, small):
    assert command("train", "CartPole-v1", "--timesteps", "64", "--out", "run", *small).code == 0
    assert command("eval", "run", "--episodes", "1").err == ""


def test_eval_plays_with_the_arguments_of_the_run(command, run):
    result = command("eval", "run", "--import", NAME, "--episodes", "3", "--json")
    assert json.loads(result.out)["mean_length"] <= 5


def test_eval_plays_with_arguments_and_wrappers_that_take_the_place_of_the_runs(command, run, rambles):
    (run.parent / "heard_for_a_test.py").write_text(
        "from gymnasium.wrappers import TimeLimit\ndef two(env):\n    return TimeLimit(env, 2)\n"
    )
    play = ("eval", "run", "--episodes", "9", "--json")
    longer = command(*play, "--import", NAME, "--env-kwargs", '{"limit": 6, "edge": 99}')
    assert json.loads(longer.out)["mean_length"] == 6
    assert f"env_kwargs {{'limit': 6, 'edge': 99}}, wrappers ['{NAME}:Seen']" in longer.err
    rambles()
    short = command(*play, "--import", NAME, "--env-kwargs", '{"edge": 99}', "--wrapper", "heard_for_a_test:two")
    assert json.loads(short.out)["mean_length"] == 2
    assert "env_kwargs {'edge': 99}, wrappers ['heard_for_a_test:two']" in short.err
    rambles()
    plain = command(*play, "--import", NAME, "--wrapper", "none")
    assert plain.code == 0 and "wrappers" not in plain.err
    assert environment_of(run)["env_kwargs"] == {"limit": 5}


def test_eval_trusts_a_wrapper_that_is_typed_and_nothing_else_of_the_file(command, run, rambles):
    result = command("eval", "run", "--wrapper", "gymnasium.wrappers:RecordEpisodeStatistics")
    assert result.code == 2 and f"the file would import {NAME}" in result.err
    result = command("eval", "run", "--wrapper", f"{NAME}:Seen")
    assert result.code == 0, result.err


def test_eval_in_other_spaces_than_the_agents_is_one_line(command, run):
    (run.parent / "timed_for_a_test.py").write_text(
        "from gymnasium.wrappers import TimeAwareObservation, TimeLimit\n"
        "def timed(env):\n    return TimeAwareObservation(TimeLimit(env, 9))\n"
    )
    result = command("eval", "run", "--import", NAME, "--wrapper", "timed_for_a_test:timed")
    assert result.code == 2
    assert "observation has shape (4,) instead of (3,)" in result.err.splitlines()[-1]


def test_arguments_for_an_environment_that_a_file_does_not_name_are_one_line(command, tmp_path):
    TRPO(Walk, num_envs=1).save(tmp_path / "agent.trpo")
    result = command("eval", "agent.trpo", "--env-kwargs", "{}")
    assert result.code == 2
    assert result.err.startswith("trpo-fast eval: error: --env-kwargs: {} given, but agent.trpo names no environment")


def test_the_command_to_go_on_names_what_it_will_have_to_import(command, small, rambles, monkeypatch):
    def fail(self, collector):
        raise KeyboardInterrupt

    monkeypatch.setattr(TRPO, "_update", fail)
    result = command("train", f"{NAME}:Rambling-v0", "--timesteps", "64", "--out", "run", *small)
    assert result.out.splitlines()[-1] == f"trpo-fast train --resume run --import {NAME}"


def test_config_of_a_run_keeps_its_arguments_and_wrappers_or_asks(command, small, run, rambles):
    config, short = ("--config", "run/config.json"), ("--timesteps", "64")
    result = command("train", f"{NAME}:Rambling-v0", *config, *short, "--out", "same")
    assert result.code == 0, result.err
    assert environment_of(run.parent / "same") == environment_of(run)
    assert "env_kwargs {'limit': 5}" in result.err
    result = command("train", f"{NAME}:Rambling-v0", *config, *short, "--out", "other", "--env-kwargs", '{"limit": 6}')
    assert result.code == 0, result.err
    assert environment_of(run.parent / "other")["env_kwargs"] == {"limit": 6}
    result = command("train", "Pendulum-v1", *config, *short, "--out", "third")
    assert result.code == 2
    assert "--env-kwargs, --wrapper: none given for Pendulum-v1; the run's rambles_for_a_test:Ramb" in result.err
    assert f"made with {{'limit': 5}} and ['{NAME}:Seen']" in result.err
    assert "--env-kwargs '{}' --wrapper none for none" in result.err
    nothing = ("--env-kwargs", "{}", "--wrapper", "none")
    assert command("train", "Pendulum-v1", *config, *short, *nothing, "--out", "third", *small).code == 0


def test_a_number_of_workers_without_workers_is_refused_in_the_command_line_s_words(command):
    result = command("train", "Pendulum-v1", "--timesteps", "64", "--num-workers", "2")
    assert result.code == 2
    assert "--num-workers: 2 given; want it with --vectorization workers alone" in result.err


def test_the_action_map_of_a_run_is_found_again_for_another_environment(command, small, tmp_path):
    gymnasium.register("RawWalk-v0", RawWalk)
    try:
        assert command("train", "RawWalk-v0", "--timesteps", "64", "--out", "raw", *small).code == 0
    finally:
        gymnasium.registry.pop("RawWalk-v0")

    def action_map(out):
        return json.loads((tmp_path / out / "config.json").read_text())["config"]["action_map"]

    assert action_map("raw") == "affine"
    result = command("train", "CartPole-v1", "--timesteps", "64", "--out", "other", "--config", "raw/config.json")
    assert (result.code, action_map("other")) == (0, "clip"), result.err


def test_a_resumed_run_keeps_its_arguments(command, run):
    result = command("train", "--resume", "run", "--env-kwargs", "{}", "--wrapper", "none", "--trust")
    assert result.code == 2
    assert "--env-kwargs: {} given, the run has {'limit': 5}; --wrapper: ['none'] given, the run has ['" in result.err
    assert "want --resume without: a resumed run keeps what it began with" in result.err


@pytest.mark.parametrize("text", ["{", "[1]", "3", "{'a': 1}"])
def test_arguments_that_are_no_json_object_are_named(command, text):
    result = command("train", "CartPole-v1", "--env-kwargs", text)
    assert result.code == 2
    assert "--env-kwargs" in result.err and "want a JSON object, e.g." in result.err


def test_a_wrapper_that_does_not_exist_is_one_line(command, small):
    result = command("train", "CartPole-v1", "--wrapper", "nowhere_at_all:Wrapper", *small)
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert "wrappers: 'nowhere_at_all:Wrapper' cannot be applied: ModuleNotFoundError" in line


def test_packages_that_do_not_fit_are_one_line_and_the_run_can_go_on_once_they_do(command, small, rambles, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr("trpo_fast.environments.packages.is_of_a_package", lambda _: True)
        broken.setattr("tests.rollout.toys.Walk.reset", lambda *_, **__: {}["mujoco"])
        result = command("train", f"{NAME}:Rambling-v0", "--timesteps", "64", "--out", "run", *small)
    assert result.code == 1
    assert "trpo-fast train: error: environment 0 (Walk) cannot be reset: KeyError: 'mujoco'" in result.err
    assert "Traceback" not in result.err
    assert "failed after 0 steps, saved; once the reason is mended, to go on:" in result.out
    assert "wrappers and settings: where these are the reason, begin anew" in result.out
    result = command("train", "--resume", "run", "--import", NAME)
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    ("method", "wrong", "words"),
    [
        ("reset", lambda self: (np.zeros(2, np.float32), {}), "give it these, or a gymnasium.Wrapper that has them"),
        ("step", lambda self, action: (np.zeros(2, np.float32), np.ones(2), False, False, {}), "reward"),
        ("step", lambda self, action: (np.zeros(7, np.float32), 0.0, False, False, {}), "observation"),
    ],
    ids=["no seed", "vector reward", "wrong shape"],
)
def test_an_answer_against_the_contract_is_said_without_a_traceback(
    command, small, rambles, monkeypatch, method, wrong, words
):
    monkeypatch.setattr(f"tests.rollout.toys.Walk.{method}", wrong)
    result = command("train", f"{NAME}:Rambling-v0", "--timesteps", "64", "--out", "run", *small)
    assert result.code == 1
    assert "trpo-fast train: error: " in result.err and "environment 0" in result.err
    assert words in result.err
    assert "Traceback" not in result.err


def test_what_an_environment_itself_raises_is_a_line_that_says_where(command, small, rambles, monkeypatch):
    def step(self, action):
        raise ValueError("out of fuel")

    monkeypatch.setattr("tests.rollout.toys.Walk.step", step)
    result = command("train", f"{NAME}:Rambling-v0", "--timesteps", "64", "--out", "run", *small)
    assert result.code == 1
    assert "Traceback" not in result.err and "ValueError: out of fuel at " in result.err
    assert "test_environments.py:" in result.err and " in step (environment 0, step 1 after the reset" in result.err


EXITS = """
import gymnasium
from tests.rollout.toys import Walk

class Exits(Walk):
    def step(self, action):
        Exits.steps += 1
        if Exits.steps == 300:
            raise SystemExit  # as sys.exit() does, in whose place wandb puts a function of its own
        return super().step(action)

    steps = 0

gymnasium.register("Exits-v0", Exits)
"""


@pytest.fixture
def exits(tmp_path, monkeypatch):
    (tmp_path / "exits_for_a_test.py").write_text(EXITS)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    yield
    sys.modules.pop("exits_for_a_test", None)
    gymnasium.registry.pop("Exits-v0", None)


def test_an_environment_that_wants_to_end_the_process_fails_on_the_way_and_what_was_done_is_saved(
    command, small, exits, tmp_path
):
    result = command("train", "exits_for_a_test:Exits-v0", "--timesteps", "1024", "--out", "run", *small)
    assert result.code == 1
    assert "error: SystemExit() at " in result.err and "exits_for_a_test.py:9 in step" in result.err
    assert "saved; to go on" in result.out
    assert (tmp_path / "run" / "model.trpo").exists()
    sys.modules["exits_for_a_test"].Exits.steps = 299
    result = command("eval", "run", "--import", "exits_for_a_test", "--episodes", "3")
    assert result.code == 1 and "error: SystemExit() at " in result.err


def test_a_worker_process_that_ends_is_an_error_of_one_line(command, small, exits):
    command_line = ["train", "exits_for_a_test:Exits-v0", "--timesteps", "4096", "--out", "run", *small]
    result = command(*command_line, "--vectorization", "workers")
    assert result.code == 1
    assert "Traceback" not in result.err and "exit" in result.err
