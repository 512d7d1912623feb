"""Arrays of actions and masks, and a log-std, that cannot be: named before anything is computed."""

import numpy as np
import pytest

from tests._core.policies import Setting, outputs_for
from trpo_fast._core.acting import Actor


@pytest.mark.parametrize("actions", [np.array([3] + [0] * 39), np.array([-1] + [0] * 39)])
def test_an_action_outside_the_choices_is_refused(actions):
    with pytest.raises(ValueError, match="actions"):
        Setting("categorical").bind(actions=actions)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.masks.__setitem__((7, slice(2, 4)), False),
            "action_masks: row 7, component 1 forbids every choice",
        ),
        (lambda s: s.actions.__setitem__((9, 1), 2), "actions: row 9, component 1 holds 2; want 0 to 1"),
        (lambda s: s.actions.__setitem__((9, 1), -1), "actions: row 9, component 1 holds -1; want 0 to 1"),
        (
            lambda s: s.masks.__setitem__((3, slice(0, 2)), np.arange(2) != s.actions[3, 0]),
            r"actions: row 3, component 0 holds \d, which its mask forbids",
        ),
    ],
)
def test_a_choice_that_cannot_be_is_named_by_row_and_component(change, message):
    s = Setting("masked bernoulli")
    change(s)
    with pytest.raises(ValueError, match=message):
        s.bind()


def test_acting_names_a_mask_that_forbids_everything_by_its_environment():
    s = Setting("masked multicategorical")
    s.masks[13, 2] = False
    with pytest.raises(ValueError, match="action_masks: row 113, component 1 forbids every choice"):
        Actor(s.kernel, s.theta).act(s.observations, 0, *outputs_for(s), first_row=100, action_masks=s.masks)


@pytest.mark.parametrize("masks", [np.ones((40, 4), bool), np.ones((40, 3), np.uint8), np.ones((39, 3), bool), [True]])
def test_masks_that_do_not_fit_are_named(masks):
    s = Setting("categorical")
    with pytest.raises((ValueError, TypeError), match="action_masks"):
        s.bind(action_masks=masks)
    with pytest.raises((ValueError, TypeError), match="action_masks"):
        Actor(s.kernel, s.theta).act(s.observations, 0, *outputs_for(s), action_masks=masks)
    with pytest.raises(ValueError, match="action_masks: a gaussian policy takes none"):
        Setting().bind(action_masks=np.ones((40, 3), bool))


@pytest.mark.parametrize(("dtype", "value"), [(np.float32, 44.0), (np.float32, -1000.0), (np.float64, 1000.0)])
def test_a_log_std_that_overflows_is_named_and_never_becomes_nan(dtype, value):
    s = Setting(dtype=dtype)
    before = s.theta.copy()
    s.theta[1] = value
    with pytest.raises(ValueError, match=f"log_std: item 1 is {value}; want -"):
        s.bind()
    with pytest.raises(ValueError, match=f"log_std: item 1 is {value}; want -"):
        Actor(s.kernel, s.theta).act(s.observations, 0, *outputs_for(s))
    improvement, kl = s.bind(parameters=before).evaluate(s.theta)
    assert not (improvement > 0 and kl <= 0.01)
    s.theta[1] = np.copysign(43.0 if dtype == np.float32 else 354.0, value)
    s.actions = s.kernel.forward(s.theta, s.observations)
    s.bind()
    assert np.isfinite(s.kernel.surrogate_gradient()).all()
    assert np.isfinite(s.kernel.fisher_operator() @ np.ones(s.kernel.size, dtype)).all()
