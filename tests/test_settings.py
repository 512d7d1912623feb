"""Settings that are declared once: what a rule accepts, and that every keyword of a step has one declaration."""

import dataclasses
import inspect
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trpo_fast import DirectionSettings, StepSettings, TRPOConfig, trust_region_step
from trpo_fast._core.library import in_words
from trpo_fast.settings import COUNT, NOT_NEGATIVE, Rule, Settings, checked, declared, document, required, setting

KINDS = (DirectionSettings, StepSettings)
FIELDS = [(kind, entry) for kind in KINDS for entry in dataclasses.fields(kind)]
named = pytest.mark.parametrize(("kind", "entry"), FIELDS, ids=[entry.name for _, entry in FIELDS])

VALUES = st.one_of(
    st.floats(),
    st.integers(),
    st.booleans(),
    st.none(),
    st.sampled_from(["new_old", "old_new", "fisher", "damped", "kfac", "diagonal", "other", ""]),
    st.sampled_from([np.float32(0.5), np.int64(3), np.True_, Fraction(1, 3), 10**400, 1j, (1,), [0.5], b"fisher"]),
)

AGENTS_OWN = {"relative_damping": 0.1, "max_kl": 0.06}  # defaults of theirs, where those of a step are others
OF_A_STEP = {
    entry.name: entry.default
    for kind in (DirectionSettings, StepSettings)
    for entry in dataclasses.fields(kind)
    if entry.name in AGENTS_OWN
}


@named
def test_a_configuration_has_each_field_by_the_same_declaration(kind, entry):
    own = TRPOConfig.__dataclass_fields__[entry.name]
    if entry.name in AGENTS_OWN:
        assert own.default == AGENTS_OWN[entry.name] != entry.default
        assert {**own.metadata, "why": None} == {**entry.metadata, "why": None} and own.type == entry.type
    else:
        assert (own.default, own.metadata, own.type) == (entry.default, entry.metadata, entry.type)


@named
def test_the_step_takes_each_field_as_a_keyword_with_the_same_default(kind, entry):
    parameter = inspect.signature(trust_region_step).parameters[entry.name]
    assert (parameter.default, parameter.kind) == (entry.default, parameter.KEYWORD_ONLY)
    assert f"{entry.name} : {entry.type}, default {entry.default!r}" in trust_region_step.__doc__
    assert f"{entry.name} : {entry.type}, default {entry.default!r}" in kind.__doc__


@named
@given(value=VALUES)
def test_what_settings_accept_a_configuration_stores_alike_and_what_they_refuse_it_refuses(kind, entry, value):
    try:
        found = getattr(kind(**{entry.name: value}), entry.name)
    except (TypeError, ValueError) as error:
        assert str(error) == f"{entry.name}: {in_words(value)} given; want {entry.metadata['rule'].want}"
        with pytest.raises(ValueError, match=f"^{entry.name}: .* given; want "):
            TRPOConfig(**{entry.name: value})
        return
    assert found == (float(value) if isinstance(found, float) else value)
    assert type(found) is type(entry.default) or entry.default is None
    config = TRPOConfig(**{**OF_A_STEP, entry.name: value})
    assert getattr(config, entry.name) == found
    part = config.direction_settings if kind is DirectionSettings else config.step_settings
    assert part == kind(**{entry.name: value})


def test_no_two_parts_of_a_step_share_a_keyword():
    names = [entry.name for _, entry in FIELDS]
    assert len(names) == len(set(names)) == 15


def test_settings_are_frozen_plain_and_by_name_alone():
    for kind in KINDS:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(kind(), dataclasses.fields(kind)[0].name, 1)
        with pytest.raises(TypeError):
            kind(0.1)
        assert kind(**dataclasses.asdict(kind())) == kind() and hash(kind()) == hash(kind())


def test_replaced_fields_are_checked_and_unknown_ones_have_near_names():
    assert StepSettings().replace(max_kl=1) == StepSettings(max_kl=1.0)
    with pytest.raises(ValueError, match=r"max_kl: -1.* given; want a finite number > 0"):
        StepSettings().replace(max_kl=-1)
    with pytest.raises(TypeError, match="'maxkl' is no field of StepSettings; did you mean max_kl"):
        StepSettings().replace(maxkl=1)
    with pytest.raises(TypeError, match="'zzz' is no field of DirectionSettings; the fields are damping, "):
        DirectionSettings().replace(zzz=1)


@pytest.mark.parametrize("value", [10**400, -(10**400), Fraction(10**400)])
def test_numbers_beyond_the_largest_float_are_named(value):
    for function in (checked, required):
        with pytest.raises(ValueError, match=r"^rate: "):
            function("rate", value, NOT_NEGATIVE)
    with pytest.raises(ValueError, match=r"^count: "):
        required("count", 10**400, COUNT)


def test_a_dataclass_of_settings_says_what_it_declares():
    @dataclasses.dataclass(frozen=True)
    class Own(Settings):
        """Mine."""

        level: float = setting(0.5, Rule("a level", float), "how much", why="half is little")

    document(Own)
    assert "level : <class 'float'>, default 0.5" in Own.__doc__ and "Why 0.5: half is little." in Own.__doc__
    assert declared(Own, "level").metadata["meaning"] == "how much"
    assert Own(level="1").level == 1.0
    with pytest.raises(ValueError, match=r"level: 'high'.* given; want a level"):
        Own(level="high")
    assert math.isclose(Own().replace(level=2).level, 2.0)
