import dataclasses
import math

import pytest

from trpo_fast import TRPOConfig
from trpo_fast.settings import Search, linear_range, log_range, one_of
from trpo_fast.tuning.space import as_parameters, declared_space, holds, space_for, suggested

ENTRIES = {entry.name: entry for entry in dataclasses.fields(TRPOConfig)}


@pytest.mark.parametrize("name", declared_space())
def test_whatever_is_tried_is_a_valid_setting_and_the_default_is_among_it(name):
    search, rule = declared_space()[name], ENTRIES[name].metadata["rule"]
    for value in search.choices or (search.low, search.high):
        stored = getattr(TRPOConfig(**{name: value}), name)
        assert stored == value == rule.convert(value)
    assert holds(search, ENTRIES[name].default)
    if not search.choices:
        assert 0 < search.high - search.low < math.inf and (search.low > 0 or not search.logarithmic)
        assert isinstance(ENTRIES[name].default, float)


class Asked:
    """An Optuna trial that gives the numbers it was made with, and the last choice."""

    def __init__(self, number):
        self.number = number

    def suggest_float(self, name, low, high, *, log):
        return min(max(self.number, low), high)

    def suggest_categorical(self, name, choices):
        assert all(isinstance(choice, str) for choice in choices)  # which every storage keeps
        return choices[-1]


@pytest.mark.parametrize("number", [-math.inf, 0.0333333333, math.inf])
def test_a_trial_trains_what_a_preset_can_say(number):
    settings = suggested(Asked(number), declared_space())
    assert TRPOConfig(**settings)
    for name, value in settings.items():
        assert holds(declared_space()[name], value)
        assert not isinstance(value, float) or value == float(f"{value:.3g}")
    assert isinstance(settings["hidden_sizes"], tuple)


def test_parameters_are_what_settings_are_suggested_from():
    space = {"a": log_range(0.1, 1), "b": one_of((1, 2), None), "c": linear_range(0, 1)}
    assert as_parameters({"a": 0.5, "b": (1, 2), "c": 7, "d": 1}, space) == {"a": 0.5, "b": "[1, 2]"}


def test_only_what_does_something_is_searched():
    everything = set(space_for(None, (), ("gaussian", "recurrent")))
    assert everything == set(declared_space())
    assert everything - set(space_for(None, (), ())) == {"log_std_init", "recurrent_size"}
    assert "gamma" not in space_for(None, ["gamma"], ())
    assert list(space_for(["gamma", "max_kl", "gamma"], (), ())) == ["max_kl", "gamma"]


@pytest.mark.parametrize(
    ("names", "fixed", "message"),
    [
        (["gamm"], (), "search: 'gamm' given; did you mean gamma"),
        (["num_envs"], (), "search: 'num_envs' given; want some of"),
        (["gamma"], ["gamma"], "search: 'gamma' given, which has a value given, too; want one of the two$"),
        (
            ["log_std_init"],
            (),
            "search: 'log_std_init' given, which is for gaussian agents alone; want another",
        ),
        ([], (), "search: no setting is left"),
        (None, list(ENTRIES), "search: no setting is left"),
    ],
)
def test_what_cannot_be_searched_is_named(names, fixed, message):
    with pytest.raises(ValueError, match=message):
        space_for(names, fixed, ())


def test_a_search_says_itself_in_words():
    assert log_range(0.01, 1).described == "0.01 to 1, by its logarithm"
    assert linear_range(-2, 0.5).described == "-2 to 0.5"
    assert Search(choices=("a", None)).described == "one of 'a', None"


def test_trials_of_a_given_bound_on_rewards_scale_them():
    assert "scale_rewards" in space_for(None, (), ())
    assert "scale_rewards" not in space_for(None, ["reward_clip"], ())
