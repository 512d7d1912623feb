"""The compiled recorder of a rollout against an actor that is called with slices."""

from __future__ import annotations

import numpy as np
import pytest

from trpo_fast._core.acting import Actor
from trpo_fast._core.policy import PolicyKernel
from trpo_fast._core.recording import Recorder
from trpo_fast.rollout.recording import SlicingRecorder, make_recorder

T, E, D = 5, 7, 3
CASES = {
    "gaussian": ((D, 8, 2), "gaussian", None),
    "categorical": ((D, 8, 4), "categorical", None),
    "multicategorical": ((D, 8, 5), "multicategorical", (2, 3)),
    "bernoulli": ((D, 8, 2), "bernoulli", None),
}
DISCRETE = [kind for kind in CASES if kind != "gaussian"]


class Rollout:
    """Arrays of a rollout, full of what must be overwritten, and an actor for them."""

    def __init__(self, kind="gaussian", dtype=np.float32, raw=np.float64, masked=False, narrow=False):
        widths, distribution, nvec = CASES[kind]
        self.kernel = PolicyKernel(widths, "tanh", distribution, dtype, nvec, narrow=narrow)
        self.theta = np.random.default_rng(1).normal(size=self.kernel.size).astype(dtype)
        bounds = {"action_low": np.full(2, -0.5), "action_high": np.full(2, 0.5)} if kind == "gaussian" else {}
        self.actor = Actor(self.kernel, self.theta, seed=3, stream=1, **bounds)
        shape = {"gaussian": (2,), "categorical": (), "multicategorical": (2,), "bernoulli": (2,)}[kind]
        self.arrays = {
            "observations": np.full((T, E, D), 77, dtype),
            "actions": np.full((T, E, *shape), 77, dtype if kind == "gaussian" else np.int64),
            "log_probs": np.full((T, E), 77, dtype),
            "rewards": np.full((T, E), 77.0),
            "terminated": np.ones((T, E), bool),
            "truncated": np.ones((T, E), bool),
            "raw": np.full((T, E, D), 77, raw),
        }
        rng = np.random.default_rng(2)
        self.masks = [None] * T
        if masked:
            items = {"categorical": 4, "multicategorical": 5, "bernoulli": 4}[kind]
            self.arrays["action_masks"] = np.zeros((T, E, items), bool)
            self.masks = rng.random((T, E, items)) < 0.5
            self.masks[..., [0, 2]] = True
        self.seen = rng.normal(size=(T, E, D)).astype(raw)
        self.outcomes = rng.normal(size=(T, E)), rng.random((T, E)) < 0.5, rng.random((T, E)) < 0.5

    def recorder(self, own=slice(0, E), made_by=Recorder, **replace):
        dtype = np.int64 if self.arrays["actions"].dtype == np.int64 else np.float32
        settings = {"first_step": 11, "env_action_dtype": dtype} | self.arrays | replace
        return made_by(self.actor, own, **settings)

    def fill(self, own=slice(0, E), made_by=Recorder):
        """All steps; what went to the environments."""
        recorder = self.recorder(own, made_by)
        env_actions = []
        for t in range(T):
            masks = None if self.masks[t] is None else np.ascontiguousarray(self.masks[t][own])
            env_actions.append(recorder.act(t, self.seen[t, own].copy(), masks))
            recorder.record(t, *(each[t, own].copy() for each in self.outcomes))
        return env_actions


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype
        assert one[name].tobytes() == other[name].tobytes(), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("raw", [np.float32, np.float64])
@pytest.mark.parametrize(("kind", "masked"), [*((kind, False) for kind in CASES), *((kind, True) for kind in DISCRETE)])
def test_a_rollout_has_the_bits_of_an_actor_that_is_called_with_slices(kind, masked, raw, dtype):
    compiled, sliced = Rollout(kind, dtype, raw, masked), Rollout(kind, dtype, raw, masked)
    ours, theirs = compiled.fill(), sliced.fill(made_by=SlicingRecorder)
    same(compiled.arrays, sliced.arrays)
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        np.testing.assert_array_equal(one, other)
    assert not (compiled.arrays["observations"] == 77).any()


@pytest.mark.parametrize("kind", CASES)
def test_copies_that_are_shared_out_to_several_recorders_get_the_bits_of_one(kind):
    whole, shared = Rollout(kind, masked=kind != "gaussian"), Rollout(kind, masked=kind != "gaussian")
    whole.fill()
    for own in (slice(5, 7), slice(0, 2), slice(2, 5)):
        shared.fill(own)
    same(whole.arrays, shared.arrays)


def test_only_what_belongs_to_its_copies_is_written():
    r = Rollout()
    r.fill(slice(2, 4))
    for name, array in r.arrays.items():
        untouched = np.delete(array, [2, 3], axis=1)
        assert (untouched == (1 if array.dtype == bool else 77)).all(), name


def test_what_goes_to_the_environments_is_new_memory_at_every_step():
    r = Rollout()
    kept = r.fill()
    assert all(not np.shares_memory(one, other) for i, one in enumerate(kept) for other in kept[:i])
    assert all(not np.shares_memory(one, array) for one in kept for array in r.arrays.values())


def test_arrays_that_are_written_again_in_place_are_read_again():
    r = Rollout()
    recorder = r.recorder()
    rows, rewards, ended = np.zeros((E, D)), np.zeros(E), np.zeros(E, bool)
    for t in range(T):
        rows[...], rewards[...], ended[...] = r.seen[t], r.outcomes[0][t], r.outcomes[1][t]
        recorder.act(t, rows)
        recorder.record(t, rewards, ended, ended)
    np.testing.assert_array_equal(r.arrays["raw"], r.seen)
    np.testing.assert_array_equal(r.arrays["rewards"], r.outcomes[0])
    np.testing.assert_array_equal(r.arrays["truncated"], r.outcomes[1])


def test_parameters_that_changed_since_the_last_rollout_are_taken():
    changed, made_so = Rollout(), Rollout()
    changed.fill()
    for r in (changed, made_so):
        r.theta *= 0.5
        r.fill()
    same(changed.arrays, made_so.arrays)


@pytest.mark.parametrize("kind", CASES)
def test_narrow_kernels_act_to_the_same_bits_in_single_precision(kind):
    wide, narrow = Rollout(kind), Rollout(kind, narrow=True)
    wide.fill()
    narrow.fill()
    same(wide.arrays, narrow.arrays)


def test_a_recorder_that_could_not_be_made_writes_nothing():
    r = Rollout()
    recorder = Recorder.__new__(Recorder)
    settings = {"first_step": 11, "env_action_dtype": np.float32} | r.arrays
    with pytest.raises(ValueError, match="observations"):
        recorder.__init__(r.actor, slice(0, E), **settings | {"observations": np.zeros((T, E, D + 1), np.float32)})
    for call in (lambda: recorder.act(0, r.seen[0]), lambda: recorder.record(0, *(each[0] for each in r.outcomes))):
        with pytest.raises(TypeError, match="Recorder: not initialized"):
            call()
    recorder.__init__(r.actor, slice(0, E), **settings)
    with pytest.raises(TypeError, match="Recorder: already initialized"):
        recorder.__init__(r.actor, slice(0, 1), **settings)


def test_a_row_that_cannot_be_acted_on_is_named():
    r = Rollout()
    r.seen[1, 3, 0] = np.nan
    with pytest.raises(FloatingPointError, match="observation of environment 3 is not finite at step 12"):
        r.fill()


@pytest.mark.parametrize(
    ("replace", "error", "words"),
    [
        ({"rewards": np.zeros(3)}, ValueError, "rewards"),
        ({"observations": np.zeros((T, E, D + 1), np.float32)}, ValueError, r"observations.*\(5, 7, 3\)"),
        ({"observations": np.zeros((T, E, D))}, TypeError, "observations"),
        ({"actions": np.zeros((T, E, 2), np.int64)}, TypeError, "actions"),
        ({"log_probs": np.zeros((E, T), np.float32).T}, ValueError, "log_probs.*C-contiguous"),
        ({"terminated": np.zeros((T, E), np.uint8)}, TypeError, "terminated"),
        ({"truncated": [[False] * E] * T}, TypeError, "truncated"),
        ({"raw": np.zeros((T, E, D), np.int32)}, TypeError, "raw.*int32"),
        ({"action_masks": np.zeros((T, E, 2), bool)}, ValueError, "action_masks: a gaussian"),
        ({"env_action_dtype": np.int64}, TypeError, "env_action_dtype: int64.* given; want float32 or float64"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else None,
)
def test_arrays_that_do_not_fit_are_named(replace, error, words):
    with pytest.raises(error, match=words):
        Rollout().recorder(**replace)


@pytest.mark.parametrize("own", [slice(0, 0), slice(0, E, 2), slice(9, 12)])
def test_copies_that_are_none_or_not_in_a_row_are_refused(own):
    with pytest.raises(ValueError, match=r"own: .*want some of 7 copies in a row"):
        Rollout().recorder(own)


def test_rows_that_do_not_fit_are_named():
    r = Rollout("categorical", masked=True)
    recorder, masks = r.recorder(), r.masks[0]
    with pytest.raises(TypeError, match=r"observations: float32.* given; want float64 as raw has it"):
        recorder.act(0, r.seen[0].astype(np.float32), masks)
    with pytest.raises(ValueError, match="observations"):
        recorder.act(0, r.seen[0, :3].copy(), masks)
    with pytest.raises(ValueError, match="action_masks: none given; want some in this rollout"):
        recorder.act(0, r.seen[0])
    with pytest.raises(ValueError, match="action_masks"):
        recorder.act(0, r.seen[0], masks[:, :2].copy())
    with pytest.raises(ValueError, match="action_masks: some given; want none"):
        Rollout().recorder().act(0, r.seen[0], masks)
    for t in (-1, T):
        with pytest.raises(IndexError, match=r"t: .*want 0 to 4"):
            recorder.act(t, r.seen[0], masks)
        with pytest.raises(IndexError, match=r"t: .*want 0 to 4"):
            recorder.record(t, np.zeros(E), np.zeros(E, bool), np.zeros(E, bool))
    with pytest.raises(TypeError, match="rewards"):
        recorder.record(0, np.zeros(E, np.float32), np.zeros(E, bool), np.zeros(E, bool))
    with pytest.raises(ValueError, match="truncated"):
        recorder.record(0, np.zeros(E), np.zeros(E, bool), np.zeros(E + 1, bool))


def test_rows_that_were_refused_are_refused_again():
    r = Rollout()
    recorder, wrong = r.recorder(), r.seen[0].astype(np.float32)
    for _ in range(2):
        with pytest.raises(TypeError, match="observations"):
            recorder.act(0, wrong)


def test_bytes_of_images_and_actors_of_torch_are_recorded_with_slices():
    r = Rollout()
    more = {"first_step": 0, "env_action_dtype": np.float32}
    assert isinstance(make_recorder(r.actor, slice(0, E), **more, **r.arrays), Recorder)
    images = r.arrays | {"observations": np.zeros((T, E, D), np.uint8)}
    assert isinstance(make_recorder(r.actor, slice(0, E), **more, **images), SlicingRecorder)
    assert isinstance(make_recorder(object(), slice(0, E), **more, **r.arrays), SlicingRecorder)
