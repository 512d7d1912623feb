"""What people type who come from other libraries is answered by what it is called here."""

import re
import sys
import types

import pytest

from trpo_fast.cli import other_words
from trpo_fast.cli.arguments import make_parser

PARSERS = next(action for action in make_parser()._actions if action.dest == "command").choices


def test_whatever_is_pointed_at_exists():
    options = {name for parser in PARSERS.values() for name in parser._option_string_actions} | {"--version", "--help"}
    for word, meaning in {**other_words.OPTIONS, **other_words.COMMANDS}.items():
        for named in re.findall(r"--[a-z-]+", meaning):
            assert named in options, (word, named)
        for named in re.findall(r"trpo-fast (\w+)", meaning):
            assert named in PARSERS, (word, named)
    assert all(meaning.startswith("--") or meaning.split()[0] in PARSERS for meaning in other_words.COMMANDS.values())


def test_no_word_of_ours_is_taken_for_one_of_theirs():
    assert not other_words.OPTIONS.keys() & PARSERS["train"]._option_string_actions.keys()
    assert not other_words.COMMANDS.keys() & PARSERS.keys()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "CartPole-v1", "--lr", "1e-3"], "--lr: no such option; want --max-kl for the policy"),
        (["train", "CartPole-v1", "--n-envs=4"], "--n-envs: no such option; want --num-envs "),
        (["train", "--algo", "trpo", "--env", "CartPole-v1"], "--algo: no such option; want it left out"),
        (["train", "CartPole-v1", "-n", "1000"], "-n: no such option; want --timesteps "),
        (["train", "CartPole-v1", "-optimize"], "-optimize: no such option; want trpo-fast tune ENV"),
        (["train", "--hidden-sizes", "64", "64", "CartPole-v1"], "--hidden-sizes: 64 64 given; want them with commas"),
        (
            ["train", "CartPole-v1", "--critic-hidden-sizes", "64", "32"],
            "want them with commas: --critic-hidden-sizes",
        ),
        (["tune", "CartPole-v1", "--n-trials", "5"], "--n-trials: no such option; want --trials "),
        (["tune", "CartPole-v1", "--n-jobs", "5"], "--n-jobs: no such option; want --workers "),
        (["eval", "run", "--n-episodes", "5"], "--n-episodes: no such option; want --episodes "),
        (["enjoy", "--algo", "trpo"], "enjoy: no such command; want eval RUN "),
        (["optimize", "CartPole-v1"], "optimize: no such command; want tune ENV "),
    ],
)
def test_words_of_other_libraries_point_to_ours(command, arguments, said):
    result = command(*arguments)
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert said in line


def test_sizes_with_commas_or_alone_are_as_they_were():
    for text, sizes in (("64,64", (64, 64)), ("64", (64,))):
        arguments = make_parser().parse_args(["train", "--hidden-sizes", text, "CartPole-v1", "--num-envs", "2"])
        assert arguments.config_hidden_sizes == sizes and arguments.env == "CartPole-v1"


def test_the_file_of_a_model_in_the_place_of_its_run_is_answered_by_the_run(command, small):
    assert command("train", "CartPole-v1", "--timesteps", "64", "--out", "runs/a", *small).code == 0
    for file in ("runs/a/model.trpo", "runs/a/checkpoints/000000000000.trpo"):
        result = command("train", "--resume", file)
        assert result.code == 2
        assert f"--resume: {file} given, a file; want the folder of its run, --resume runs/a\n" in result.err


def test_an_id_of_old_gym_is_answered_by_shimmy(command, monkeypatch, tmp_path):
    old = types.ModuleType("gym")
    old.envs = types.SimpleNamespace(registry={"OldLander-v0": object()})
    monkeypatch.setitem(sys.modules, "gym", old)
    result = command("train", "OldLander-v0")
    assert result.code == 2
    said = "is of gym, Gymnasium's predecessor: pip install 'shimmy[gym-v26]'; want 'shimmy:GymV26Environment-v0' with"
    assert said in result.err and 'env_kwargs={"env_id": "OldLander-v0"}' in result.err
    assert said not in command("train", "OtherLander-v0").err
    monkeypatch.setitem(sys.modules, "gym", None)
    (tmp_path / "old_package.py").write_text("import gym")
    assert said in command("train", "old_package:OtherLander-v0").err
