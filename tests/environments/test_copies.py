from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from tests.discretes import discrete
from tests.rollout.toys import Parts, Walk, make_environments, play
from trpo_fast.environments.copies import Copies

SAME, NEXT, DISABLED = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED


def test_reset_starts_every_copy_with_a_generator_of_its_own():
    adapter = make_environments(Walk, num_envs=5)
    first = adapter.reset(3).copy()
    assert len(np.unique(first[:, 0])) == 5
    np.testing.assert_array_equal(adapter.reset(3)[:, 0], first[:, 0])
    assert not np.isin(adapter.reset(50)[:, 0], first[:, 0]).any()


class Reuses(Walk):
    """Hands out the same array at every step and reset."""

    def __init__(self):
        super().__init__(limit=3)
        self.memory = np.zeros(3)

    def _observe(self):
        self.memory[...] = super()._observe()
        return self.memory


def test_final_observation_survives_an_environment_that_reuses_its_memory():
    finals = play(make_environments(Reuses, num_envs=2))[3]
    assert len(finals) > 5
    assert all(row[1] == 3 for _, _, row in finals)


@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [
        (np.uint8, np.float32),
        (np.float16, np.float32),
        (np.float32, np.float32),
        (np.int64, np.float64),
        (bool, np.float32),
    ],
)
def test_observations_become_float_rows(dtype, wanted):
    class Image(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0, 1, (2, 3), dtype)
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return np.asfortranarray(np.eye(2, 3).astype(dtype)), {}

    adapter = make_environments(Image, num_envs=4)
    rows = adapter.reset(0)
    assert rows.dtype == adapter.observation_dtype == wanted
    assert rows.shape == (4, 6)
    np.testing.assert_array_equal(rows, np.tile([1, 0, 0, 0, 1, 0], (4, 1)))


def test_callable_that_returns_one_object_twice_is_refused():
    one = Walk()
    with pytest.raises(ValueError, match="a new environment at every call"):
        make_environments(lambda: one, num_envs=2)


def test_an_object_that_is_in_use_is_refused_and_left_as_it_is():
    one = Walk()
    one.close = lambda: pytest.fail("closed")
    held = Copies([lambda: one])
    with pytest.raises(ValueError, match="it returned a Walk that is in use"):
        make_environments(lambda: gymnasium.wrappers.TimeLimit(one, 5), num_envs=1)
    assert held.envs == [one]


def test_an_object_may_be_handed_out_again_once_it_was_closed_or_its_holder_is_gone():
    one = Walk()
    Copies([lambda: one]).close()
    forgotten = Copies([lambda: one])
    forgotten.itself = forgotten  # gone only when cycles are looked for
    del forgotten
    Copies([lambda: one]).close()


def test_the_third_of_eight_constructors_raises_and_all_are_closed():
    made, closed = [], []

    class Counted(Walk):
        def __init__(self):
            super().__init__()
            if len(made) == 2:
                raise OSError("no licence left")
            made.append(self)

        def close(self):
            closed.append(self)

    with pytest.raises(OSError, match="no licence left"):
        make_environments(Counted, num_envs=8)
    assert closed == made and len(made) == 2


class Careless(Walk):
    """Answers what it is told, in the copy that is told so."""

    def __init__(self, reset=None, step=None):
        super().__init__(limit=2, edge=np.inf)
        self.changed_reset = reset
        self.changed_step = step

    def reset(self, *, seed=None, options=None):
        answer = super().reset(seed=seed)
        return answer if self.changed_reset is None or self.episode == 0 else self.changed_reset(*answer)

    def step(self, action):
        answer = super().step(action)
        return answer if self.changed_step is None else self.changed_step(*answer)


def careless(**changes):
    """Three copies of which the second is careless from its second episode or its first step on."""
    made = iter([{}, changes, {}])
    return make_environments(lambda: Careless(**next(made)), num_envs=3)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"step": lambda o, *others: (o[0], *others)},
            ValueError,
            r"observation of environment 1: float64 of shape \(\) returned by step; want \(3,\), as",
        ),
        (
            {"step": lambda o, *others: (o[None], *others)},
            ValueError,
            r"observation of environment 1: ndarray of shape \(1, 3\) returned by step",
        ),
        (
            {"step": lambda o, *others: ([[1], [2, 3], []], *others)},
            ValueError,
            "observation of environment 1: .*of shape lists of different lengths",
        ),
        (
            {"step": lambda *answer: answer[:4]},
            ValueError,
            r"step of environment 1: tuple of 4 items given; want \(observation, reward",
        ),
        ({"step": lambda *answer: None}, ValueError, "step of environment 1: None given; want "),
        (
            {"step": lambda o, r, *others: (o, None, *others)},
            TypeError,
            "reward of environment 1: None given; want a number",
        ),
        (
            {"step": lambda o, r, *others: (o, "1.0", *others)},
            TypeError,
            "reward of environment 1: '1.0' given; want a number",
        ),
        (
            {"step": lambda o, r, *others: (o, np.ones(2), *others)},
            TypeError,
            r"reward of environment 1: array\(\[1., 1.\]\) given; want a number",
        ),
        *(
            (
                {"step": lambda o, r, _, *others, flag=flag: (o, r, flag, *others)},
                TypeError,
                "terminated of environment 1: .* given; want a bool",
            )
            for flag in ("no", None, float("nan"), np.array([True, False]))
        ),
        (
            {"reset": lambda o, info: o},
            ValueError,
            r"reset of environment 1: ndarray of 3 items given; want \(observation, info\)",
        ),
        (
            {"reset": lambda o, info: (o[:2], info)},
            ValueError,
            r"observation of environment 1: ndarray of shape \(2,\) returned by reset",
        ),
        (
            {"reset": lambda o, info: (o.astype(complex), info)},
            TypeError,
            "observation of environment 1: complex128 returned by reset; want float64, as",
        ),
    ],
)
def test_answers_against_the_contract_name_environment_and_what_is_wanted(changes, error, message):
    adapter = careless(**changes)
    adapter.reset(0)
    with pytest.raises(error, match=message):
        for _ in range(2):  # the second step ends the first episode
            adapter.step(np.zeros((3, 1), np.float32))
    if "reset" in changes:
        with pytest.raises(error, match=message):
            adapter.reset(0)
    adapter.close()


def test_a_reward_that_no_float_holds_is_named():
    adapter = careless(step=lambda o, r, *others: (o, 10**400, *others))
    adapter.reset(0)
    with pytest.raises(TypeError, match=r"reward of environment 1: .* given; want a number"):
        adapter.step(np.zeros((3, 1), np.float32))


def test_reward_may_be_an_array_of_one_item():
    adapter = careless(step=lambda o, r, *others: (o, np.array([[2.5]]), *others))
    adapter.reset(0)
    assert adapter.step(np.zeros((3, 1), np.float32)).rewards[1] == 2.5
    adapter.close()


def test_errors_of_the_environment_itself_reach_the_caller_as_they_are():
    class Failing(Walk):
        def step(self, action):
            raise ValueError("of the environment")

    adapter = make_environments(Failing, num_envs=2)
    adapter.reset(0)
    with pytest.raises(ValueError, match="of the environment") as raised:
        adapter.step(np.zeros((2, 1), np.float32))
    assert str(raised.value) == "of the environment"
    assert raised.value.__notes__ == ["environment 0, step 1 after the reset"]


class WithoutSpace(Walk):
    observation_space = None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: 3, "3 given as environment 0; want a gymnasium.Env"),
        (
            lambda: SyncVectorEnv([Walk], autoreset_mode=SAME),
            "SyncVectorEnv.* given as environment 0; want a gymnasium.Env",
        ),
        (WithoutSpace, "None given as observation_space of environment 0; want a gymnasium Space"),
    ],
    ids=["number", "vector", "space"],
)
def test_callable_that_makes_no_environment_is_named(make, message):
    with pytest.raises(TypeError, match=message):
        make_environments(make, num_envs=2)


def test_an_environment_of_gym_is_named_with_the_wrapper_that_helps():
    old = type("CartPole", (), {"__module__": "gym.envs.classic_control"})
    with pytest.raises(TypeError, match=r"a gymnasium.Env.*shimmy.GymV26CompatibilityV0"):
        make_environments(old, num_envs=1)


def test_an_environment_whose_reset_takes_no_seed_is_told_what_is_wanted():
    class Old(Walk):
        def reset(self):
            return np.zeros(3)

    adapter = make_environments(Old, num_envs=2)
    with pytest.raises(TypeError, match=r"reset of environment 0 \(Old\) takes no seed.*a gymnasium.Wrapper"):
        adapter.reset(0)
    adapter.close()


def test_an_environment_whose_reset_takes_no_options_is_told_what_is_wanted():
    class Half(Walk):
        def reset(self, seed=None):
            return super().reset(seed=seed)

    adapter = make_environments(Half, num_envs=2)
    with pytest.raises(
        TypeError, match=r"reset of environment 0 \(Half\) takes no options: Gymnasium's is reset\(\*, seed"
    ):
        adapter.reset(0)
    adapter.close()


def test_a_wrapper_whose_reset_takes_no_seed_is_the_one_named():
    class Forgetful(gymnasium.Wrapper):
        def reset(self):
            return self.env.reset()

    adapter = make_environments(lambda: gymnasium.wrappers.RecordEpisodeStatistics(Forgetful(Walk())), num_envs=1)
    with pytest.raises(TypeError, match=r"reset of environment 0 \(Forgetful\) takes no seed"):
        adapter.reset(0)
    adapter.close()


class WithoutSeed(Walk):
    """Its reset takes no seed, and nobody calls it with one."""

    def reset(self):
        return super().reset()


class WithinIt(WithoutSeed):
    def reset(self):
        raise TypeError("WithinIt.reset() got an unexpected keyword argument 'seed'")


class Deaf(gymnasium.Wrapper):
    def reset(self, *, seed=None, options=None):
        return self.env.reset()


class Mistaken(Deaf):
    def reset(self, *, seed=None, options=None):
        return super().reset() + 1


class MistakenAboutASeed(Deaf):
    def reset(self, *, seed=None, options=None):
        return (lambda: self.env.reset())(seed=seed)


class WithAnOddBase(Walk):
    class Base:
        def reset(self):
            return None

    def reset(self, *, seed=None, options=None):
        return self.Base().reset(seed=seed)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Mistaken(WithoutSeed()),
        lambda: MistakenAboutASeed(WithoutSeed()),
        lambda: Deaf(WithinIt()),
        WithAnOddBase,
    ],
    ids=["wrapper", "of another call", "in the body", "in the base"],
)
def test_a_type_error_that_is_not_of_calling_reset_with_a_seed_travels_on_with_the_environment_noted(make):
    adapter = make_environments(make, num_envs=1)
    with pytest.raises(TypeError) as raised:
        adapter.reset(0)
    assert "takes no seed" not in str(raised.value) and raised.value.__cause__ is None
    assert "environment 0, in its reset" in raised.value.__notes__
    assert raised.traceback[-1].path.name == "test_copies.py"
    adapter.close()


class CarelessParts(Parts):
    """Answers what it is told from its first step on."""

    def __init__(self, change=None):
        super().__init__()
        self.change = change

    def _observe(self):
        observation = super()._observe()
        return observation if self.change is None or self.steps == 0 else self.change(observation)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: {"moved": o["moved"]}, r"environment 1: \['moved'\] given; want a dict with count, moved"),
        (lambda o: {**o, "moved": o["moved"][:1]}, r"environment 1\['moved'\]: .*returned by step; want \(2,\)"),
        (lambda o: {**o, "count": o["count"][:1]}, r"environment 1\['count'\]: a tuple of 1 items given; want a tuple"),
    ],
)
def test_parts_against_the_contract_name_environment_and_what_is_wanted(change, message):
    made = iter([None, change, None])
    adapter = make_environments(lambda: CarelessParts(next(made)), num_envs=3)
    adapter.reset(0)
    with pytest.raises(ValueError, match=f"observation of {message}"):
        adapter.step(np.zeros((3, 1), np.float32))
    adapter.close()


@pytest.mark.parametrize("vectorization", ["sync", "workers"])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda o: {**o, "count": (9, *o["count"][1:])}, ValueError, r"\['count'\]\[0\]: 9 is no choice of"),
        (
            lambda o: {**o, "count": (1.5, *o["count"][1:])},
            TypeError,
            r"\['count'\]\[0\]: float64 returned by step; want int64",
        ),
    ],
    ids=["no choice", "a fraction"],
)
def test_a_part_that_stops_to_fit_names_environment_and_step(vectorization, change, error, message):
    def late(observation):
        return change(observation) if observation["count"][0] == 3 else observation

    environments = make_environments(lambda: CarelessParts(late), num_envs=2, vectorization=vectorization)
    environments.reset(0)
    with pytest.raises(error, match=f"observation of environment 0{message}") as raised:
        for _ in range(4):
            environments.step(np.zeros((2, 1), np.float32))
    assert "step 3 after the reset" in raised.value.__notes__
    environments.close()


@pytest.mark.parametrize(
    ("space", "action", "wanted"),
    [
        (gymnasium.spaces.MultiBinary((2, 2)), [1, 0, 0, 1], np.array([[1, 0], [0, 1]], np.int8)),
        (
            gymnasium.spaces.MultiDiscrete([[2, 3]], start=[[4, 5]], dtype=np.int32),
            [5, 6],
            np.array([[5, 6]], np.int32),
        ),
        (discrete(3, -1), -1, discrete(3).dtype.type(-1)),
        (gymnasium.spaces.Box(-1, 1, (1, 2), np.float64), [0.1, 0.2], np.array([[0.1, 0.2]])),
        (gymnasium.spaces.Box(-1, 1, (2,), np.float16), [0.5, 0.25], np.array([0.5, 0.25], np.float16)),
    ],
    ids=str,
)
def test_the_environment_gets_what_its_action_space_wants(space, action, wanted):
    class Receiving(Walk):
        action_space = space

        def step(self, action):
            assert action in self.action_space
            assert action.dtype == wanted.dtype
            assert action.shape == wanted.shape
            np.testing.assert_array_equal(action, wanted)
            return self._observe(), 7.0, False, False, {}

    adapter = make_environments(Receiving, num_envs=2)
    adapter.reset(0)
    actions = np.array([action, action], adapter.action_dtype)
    assert actions.shape == adapter.action_shape
    assert adapter.step(actions).rewards.tolist() == [7.0, 7.0]
    adapter.close()


@pytest.mark.parametrize(
    ("space", "first", "later", "name"),
    [
        (gymnasium.spaces.Box(0, 9, (2,), np.int64), np.array([1, 2]), np.array([1.5, 2.0]), ""),
        (gymnasium.spaces.Box(0, 255, (2,), np.uint8), np.array([1, 2], np.uint8), np.array([0.1, 0.9]), ""),
        (gymnasium.spaces.Box(0, 255, (2,), np.uint8), np.array([1, 2], np.uint8), np.ones(2, np.float32), ""),
        (gymnasium.spaces.Discrete(3), 1, 1.5, ""),
        (gymnasium.spaces.Discrete(3), np.int64(1), np.float64(1.0), ""),
        (gymnasium.spaces.Box(0, 9, (), np.int64), 3, 3.5, ""),
    ],
    ids=str,
)
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a Dict"])
def test_integers_whose_step_returns_fractions_are_refused_at_the_first_step(space, first, later, name, inside):
    class Fractional(gymnasium.Env):
        observation_space = gymnasium.spaces.Dict(part=space) if inside else space
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return ({"part": first} if inside else first), {}

        def step(self, action):
            return ({"part": later} if inside else later), 0.0, False, False, {}

    adapter = make_environments(Fractional, num_envs=2)
    adapter.reset(0)
    part = r"\['part'\]" if inside else ""
    with pytest.raises(
        TypeError, match=f"observation of environment 0{part}: .* returned by step; want {space.dtype}, as"
    ):
        adapter.step(np.zeros(2, np.int64))
    adapter.close()


def test_what_the_making_of_an_environment_raises_has_its_index():
    makers = [Walk, Walk, lambda: 1 / 0]
    with pytest.raises(ZeroDivisionError) as raised:
        Copies(makers, 4)
    assert raised.value.__notes__ == ["environment 6, while it was made"]


class OneInfo(Walk):
    """Writes to the same dict at every step and reset."""

    def __init__(self):
        super().__init__(limit=3)
        self.info = {}

    def reset(self, *, seed=None, options=None):
        observation, _ = super().reset(seed=seed)
        self.info |= {"is_success": False, "x": 0}
        return observation, self.info

    def step(self, action):
        *answer, _ = super().step(action)
        self.info |= {"is_success": answer[2] or answer[3], "x": self.info["x"] + 1}
        return *answer, self.info


@pytest.mark.parametrize("vectorization", ["sync", "workers"])
def test_infos_of_an_episodes_end_are_its_own_where_the_reset_writes_to_the_same_dict(vectorization):
    adapter = make_environments(OneInfo, num_envs=2, vectorization=vectorization)
    adapter.ask(["is_success", "x", "other"])
    adapter.reset(0)
    seen = []
    for _ in range(7):
        adapter.step(np.zeros((2, *(adapter.action_space.shape or ())), adapter.action_space.dtype))
        seen.append(adapter.infos[1, :2].tolist())
        assert np.isnan(adapter.infos[:, 2]).all()
    adapter.close()
    assert seen == 2 * [[0, 1], [0, 2], [1, 3]] + [[0, 1]]
