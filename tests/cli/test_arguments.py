import dataclasses
import re

import pytest

from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.cli.arguments import VECTORIZATIONS, make_parser
from trpo_fast.cli.options import config_overrides
from trpo_fast.cli.values import option_of
from trpo_fast.environments import recipe

TEXTS = {
    "max_kl_schedule": ("cosine", "cosine"),
    "critic_learning_rate_schedule": ("cosine", "cosine"),
    "preconditioner": ("diagonal", "diagonal"),
    "fisher_jacobians": ("always", "always"),
    "fisher_precision": ("bfloat16", "bfloat16"),
    "critic_precision": ("bfloat16", "bfloat16"),
    "kl_direction": ("old_new", "old_new"),
    "step_curvature": ("damped", "damped"),
    "policy": ("cnn", "cnn"),
    "channel_axis": ("first", "first"),
    "device": ("cuda", "cuda"),
    "activation": ("relu", "relu"),
    "engine": ("autograd", "autograd"),
    "dtype": ("float64", "float64"),
    "hidden_sizes": ("128,32", (128, 32)),
    "critic_hidden_sizes": ("none", ()),
    "observation_clip": ("inf", float("inf")),
    "log_std_init": ("-0.5", -0.5),
    "action_map": ("affine", "affine"),
    "mask_in_observation": ("observe", "observe"),
}


def _text_and_value(entry):
    if entry.name in TEXTS:
        return TEXTS[entry.name]
    if isinstance(entry.default, bool):
        return str(not entry.default).lower(), not entry.default
    default = entry.metadata.get("like", entry.default)
    return ("3", 3) if isinstance(default, int) else ("0.25", 0.25)


@pytest.mark.parametrize("entry", dataclasses.fields(TRPOConfig), ids=lambda entry: entry.name)
def test_every_config_field_is_an_option(entry):
    text, value = _text_and_value(entry)
    assert value != entry.default
    arguments = make_parser().parse_args(["train", "CartPole-v1", f"{option_of(entry.name)}={text}"])
    assert config_overrides(arguments) == {entry.name: value}


def test_none_is_a_value_that_an_option_can_set():
    arguments = make_parser().parse_args(["train", "CartPole-v1", "--preconditioner", "none", "--critic-epochs=None"])
    assert config_overrides(arguments) == {"preconditioner": None, "critic_epochs": None}


def test_options_left_out_override_nothing():
    assert config_overrides(make_parser().parse_args(["train", "CartPole-v1"])) == {}


def test_help_shows_every_field_with_its_default_and_the_reason(command):
    result = command("train", "--help")
    assert result.code == 0
    text = re.sub(r"\s+", " ", result.out)
    for entry in dataclasses.fields(TRPOConfig):
        assert option_of(entry.name) + " " in text
        # A hyphen may end a line of its own.
        assert entry.metadata["why"].replace(" ", "") in text.replace(" ", "")
    assert "(default 64,64: " in text and "(default true: " in text


@pytest.mark.parametrize(
    ("option", "value", "want"),
    [
        ("--max-kl", "0", "want a finite number > 0"),
        ("--max-kl", "small", "want a finite number > 0"),
        ("--gamma", "nan", r"want a number in \[0, 1\]"),
        ("--steps-per-env", "2.5", "want an integer >= 1"),
        ("--steps-per-env", "9999999999999", r"want an integer >= 1, at most 2\*\*24"),
        ("--hidden-sizes", "64,x", "want integers >= 1 with commas"),
        ("--hidden-sizes", "", "want integers >= 1 with commas"),
        ("--hidden-sizes", "64,,64", "want integers >= 1 with commas"),
        ("--hidden-sizes", "99999999999", r"want integers >= 1 .*at most 2\*\*24"),
        ("--overlap-critic", "maybe", "want true or false"),
        ("--activation", "mish", "want one of 'tanh', 'relu'"),
        ("--preconditioner", "jacobi", "want one of 'kfac', 'diagonal', None"),
        ("--timesteps", "0", "want an integer >= 1"),
        ("--timesteps", "1.5", "want an integer >= 1"),
        ("--timesteps", "nan", "want an integer >= 1"),
        ("--timesteps", "inf", "want an integer >= 1"),
        ("--seed", "-1", r"want an integer from 0 to 2\*\*32 - 1"),
        ("--seed", "4294967296", r"want an integer from 0 to 2\*\*32 - 1"),
        ("--threads", "none", "want an integer >= 1"),
        ("--eval-episodes", "-1", "want an integer >= 0"),
    ],
)
def test_bad_option_is_refused_by_name_value_and_want(command, option, value, want):
    result = command("train", "CartPole-v1", f"{option}={value}")
    assert result.code == 2
    assert re.search(rf"argument {option}: '{re.escape(value)}' given; {want}", result.err)
    (line,) = result.err.splitlines()  # not the usage of fifty options
    assert line.endswith("(trpo-fast train --help shows all options)")


def test_an_option_is_not_abbreviated_and_what_there_is_none_of_names_those_near(command):
    result = command("train", "CartPole-v1", "--steps", "512")
    assert result.code == 2
    assert "--steps: no such option; did you mean --timesteps or --warm-up-steps or --steps-per-env?" in result.err
    result = command("train", "CartPole-v1", "--gam", "0.5")
    assert result.code == 2 and "--gam: no such option; did you mean --gamma" in result.err
    result = command("eval", "run", "--zzz=1")
    assert result.code == 2 and "--zzz: no such option (" in result.err


def test_steps_may_be_written_with_an_exponent():
    assert make_parser().parse_args(["train", "CartPole-v1", "--timesteps", "1e6"]).timesteps == 1_000_000


def test_no_command_is_an_error_that_names_the_commands(command):
    result = command()
    assert result.code == 2
    assert "COMMAND" in result.err


def test_vectorizations_are_those_of_the_recipe():
    assert VECTORIZATIONS == recipe.VECTORIZATIONS


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", ""),
        *(
            ("train", "CartPole-v1", option, "")
            for option in ("--out", "--config", "--preset", "--wrapper", "--import")
        ),
        ("train", "--resume", ""),
        ("eval", ""),
        ("plot", "a", ""),
        ("plot", "a", "--out", ""),
        ("export", ""),
    ],
)
def test_an_empty_value_is_named_and_nothing_is_done(command, arguments, tmp_path):
    result = command(*arguments)
    assert result.code == 2 and "'' given; want it with a value, or left out" in result.err
    *_, option, _ = arguments
    assert not option.startswith("--") or f"argument {option}: " in result.err
    assert list(tmp_path.iterdir()) == []
