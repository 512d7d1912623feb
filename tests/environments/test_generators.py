from __future__ import annotations

import random
import threading
import warnings

import numpy as np
import pytest

from tests.rollout.toys import Walk, make_environments, pushes
from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.environments.copies import Copies
from trpo_fast.environments.generators import WATCHED_STEPS, Look, preserved, seed_both
from trpo_fast.environments.recipe import EnvironmentRecipe


def drawing(where: str, draw) -> type[Walk]:
    """A class of environments that draw at their `where`; a new one, as each is named once."""

    class Drawing(Walk):
        __hash__ = None  # as a dataclass has

        def reset(self, *, seed=None, options=None):
            observation, info = super().reset(seed=seed)
            if where == "reset":
                observation[0] = draw()
            return observation, info

        def step(self, action):
            observation, reward, *others = super().step(action)
            if where == "step":
                reward = draw()
            return observation, reward, *others

    return Drawing


def draw_numpy() -> float:
    return float(np.random.normal())


def draw_python() -> float:
    return random.gauss(0, 1)


@pytest.mark.parametrize("where", ["reset", "step"])
@pytest.mark.parametrize(("whose", "draw"), [("numpy", draw_numpy), ("Python", draw_python)])
def test_an_environment_that_draws_from_a_global_generator_is_named_once(where, whose, draw):
    kind = drawing(where, draw)
    for expected in (1, 0):
        environments = make_environments(kind, 3)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            environments.reset(0)
            for action in pushes(environments, 5):
                environments.step(action)
        assert len(caught) == expected
        environments.close()
        if expected:
            text = str(caught[0].message)
            assert f"Drawing draws from {whose}'s global random generator" in text and "does not reproduce" in text


def test_environments_that_draw_from_their_own_generator_are_not_named():
    environments = make_environments(Walk, 2)
    environments.reset(0)
    for action in pushes(environments, WATCHED_STEPS + 2):
        environments.step(action)
    assert environments.copies._called == environments.copies.envs  # nothing stands between any more
    environments.close()


def test_seeding_the_global_generator_from_ones_seed_is_reproducible_and_not_named():
    class Old(Walk):
        def reset(self, *, seed=None, options=None):
            if seed is not None:
                np.random.seed(seed)
            observation, info = super().reset(seed=seed)
            observation[0] = np.random.random() if seed is not None else 0.0
            return observation, info

    make_environments(Old, 2).reset(5)


class Made(Walk):
    """Draws a number when it is made, and observes it."""

    def __init__(self, draw=draw_numpy) -> None:
        super().__init__()
        self.number = draw()

    def _observe(self):
        return np.array([self.number, 0, 0])


@pytest.mark.parametrize(("whose", "draw"), [("numpy", draw_numpy), ("Python", draw_python)])
def test_a_constructor_that_draws_from_a_global_generator_is_named_once(whose, draw):
    class Own(Made):
        pass

    with pytest.warns(UserWarning, match=f"Own draws from {whose}'s global random generator in its constructor, .*not"):
        make_environments(Own, 2, env_kwargs={"draw": draw}).close()
    make_environments(Own, 2, env_kwargs={"draw": draw}).close()


@pytest.mark.parametrize("draw", [draw_numpy, pytest.param(draw_python, marks=pytest.mark.long)])
def test_what_constructors_draw_in_workers_follows_from_the_seed_however_copies_are_shared_out(draw):
    seen = {}
    for seed, workers in ((1, 1), (1, 2), (2, 2), (None, 1)):
        recipe = {"vectorization": "workers", "num_workers": workers, "env_kwargs": {"draw": draw}}
        environments = EnvironmentRecipe(Made, **recipe).make(3, seed=seed)
        seen[seed, workers] = environments.reset(0)[:, 0].tolist()
        environments.close()
    assert seen[1, 1] == seen[1, 2]
    assert len({*seen[1, 1], *seen[2, 2], *seen[None, 1]}) == 9


def test_an_agent_s_seed_decides_what_constructors_draw_in_workers():
    def parameters(seed):
        stepping = {"vectorization": "workers", "num_workers": 1, "num_envs": 2, "steps_per_env": 8}
        agent = TRPO(Made, seed=seed, warm_up_steps=0, hidden_sizes=(4,), **stepping)
        rows = agent.environments.reset(0)[:, 0].tolist()
        agent.close()
        return rows

    assert parameters(3) == parameters(3) != parameters(4)


class Licensed(Walk):
    """Seeds a global generator from its own seed, and draws from it in its steps."""

    whose = "numpy"

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            np.random.seed(seed) if self.whose == "numpy" else random.seed(seed)
        return super().reset(seed=seed)

    def step(self, action):
        observation, _, *others = super().step(action)
        return observation, draw_numpy() if self.whose == "numpy" else draw_python(), *others


def rewards_of(kind, num_envs, steps=WATCHED_STEPS + 2):
    environments = make_environments(kind, num_envs)
    environments.reset(0)
    rewards = [environments.step(action).rewards.tolist() for action in pushes(environments, steps)]
    environments.close()
    return rewards


@pytest.mark.parametrize("whose", ["numpy", "Python"])
def test_one_copy_that_seeds_a_global_generator_and_draws_from_it_is_reproduced_and_not_named(whose):
    kind = type("Alone", (Licensed,), {"whose": whose})
    assert rewards_of(kind, 1) == rewards_of(kind, 1)


@pytest.mark.parametrize("whose", ["numpy", "Python"])
def test_copies_that_seed_a_global_generator_and_draw_from_it_are_said_to_share_it(whose):
    kind = type("Several", (Licensed,), {"whose": whose})
    with pytest.warns(UserWarning, match=f"Several seeds {whose}'s .* in reset .*: the 2 copies .* draw from one stre"):
        first = rewards_of(kind, 2)
    assert first == rewards_of(kind, 2)


def test_a_generator_that_a_later_reset_seeds_from_nothing_is_named_though_the_first_did_not():
    class Forgetful(Walk):
        def reset(self, *, seed=None, options=None):
            np.random.seed(seed)
            return super().reset(seed=seed)

    with pytest.warns(UserWarning, match="Forgetful draws from numpy's global random generator, which no seed"):
        rewards_of(Forgetful, 1)


def test_python_s_generator_is_looked_at_where_numpy_s_is_seeded():
    class Half(Walk):
        def reset(self, *, seed=None, options=None):
            if seed is not None:
                np.random.seed(seed)
            random.random()
            return super().reset(seed=seed)

    with pytest.warns(UserWarning, match="Half draws from Python's global random generator, which no seed"):
        rewards_of(Half, 1, steps=1)


def played(kind, groups, outer_seed, steps=60):
    """Observations and rewards of four copies in `groups`, each of which draws its seeds from the global position."""
    np.random.seed(outer_seed), random.seed(outer_seed)
    rows, rewards = np.zeros((4, 3)), np.zeros(4)
    flags, finals = np.zeros((2, 4), bool), np.zeros((4, 3))
    copies = [(Copies([kind] * (b - a), a, own_generators=True), slice(a, b)) for a, b in groups]
    for group, part in copies:
        group.bind(rows[part], rewards[part], flags[0, part], flags[1, part], finals[part])
        group.reset(range(11 + part.start, 11 + part.stop))
    seen = [rows.copy()]
    for action in np.random.default_rng(0).uniform(-1, 1, (steps, 4, 1)).astype(np.float32):
        for group, part in copies:
            group.step(action[part])
        seen += [rows.copy(), rewards.copy()]
    for group, _ in copies:
        group.close()
    return b"".join(array.tobytes() for array in seen)


@pytest.mark.parametrize("where", ["reset", "step"])
@pytest.mark.parametrize("draw", [draw_numpy, draw_python])
def test_own_generators_follow_from_the_seed_however_copies_are_grouped(where, draw):
    kind = drawing(where, draw)
    one = played(kind, [(0, 4)], outer_seed=1)
    assert one == played(kind, [(0, 4)], outer_seed=2)
    assert one == played(kind, [(0, 1), (1, 4)], outer_seed=3)
    assert one == played(kind, [(0, 2), (2, 4)], outer_seed=4)


def test_own_generators_differ_between_copies_and_seeds():
    kind = drawing("step", draw_numpy)
    rewards = {}
    for seed in (1, 50):
        copies = Copies([kind] * 3, own_generators=True)
        rows, rewards[seed], flags = np.zeros((3, 3)), np.zeros(3), np.zeros((2, 3), bool)
        copies.bind(rows, rewards[seed], flags[0], flags[1], rows.copy())
        copies.reset(range(seed, seed + 3))
        copies.step(np.zeros((3, 1), np.float32))
        copies.close()
    assert len({*rewards[1], *rewards[50]}) == 6


def test_own_generators_leave_the_process_s_where_the_reset_put_them():
    seed_both(11)  # as `played` resets its first copy: what draws late in a worker finds them there
    expected = np.random.random(), random.random()
    kind = drawing("step", lambda: draw_numpy() + draw_python())
    played(kind, [(0, 4)], outer_seed=8)
    assert (np.random.random(), random.random()) == expected


def test_own_generators_serve_an_environment_that_draws_nothing_by_itself_soon():
    copies = Copies([Walk, Walk], own_generators=True)
    rows, flags = np.zeros((2, 3)), np.zeros((2, 2), bool)
    copies.bind(rows, np.zeros(2), flags[0], flags[1], rows.copy())
    copies.reset([1, 2])
    for _ in range(WATCHED_STEPS):
        copies.step(np.zeros((2, 1), np.float32))
    assert copies._called == copies.envs
    copies.close()


def test_what_another_thread_draws_meanwhile_is_nobodys():
    inside, drawn = threading.Event(), threading.Event()

    def draw():
        inside.wait(60)
        with Look() as look:
            np.random.random()
        drawn.set()
        seen.append(look.moved)

    seen = []
    thread = threading.Thread(target=draw)
    thread.start()
    with Look() as look:
        inside.set()
        drawn.wait(60)
    thread.join()
    assert (look.moved, seen) == ((), [()])
    with Look() as look:
        np.random.random()
    assert look.moved == ("numpy",)


def test_an_environment_that_is_known_to_draw_excuses_those_of_other_threads(monkeypatch):
    monkeypatch.setattr(Look, "_drawing", [])
    inside, drawn = threading.Event(), threading.Event()
    kind = drawing("step", draw_numpy)

    def draw():
        environments = make_environments(kind, 1)
        environments.reset(0)
        environments.step(next(iter(pushes(environments, 1))))
        inside.set()
        drawn.wait(60)
        environments.close()

    thread = threading.Thread(target=draw)
    with pytest.warns(UserWarning, match="Drawing draws from numpy's global random generator"):
        thread.start()
        assert inside.wait(60)
    with Look() as look:
        np.random.random()
    drawn.set()
    thread.join()
    assert look.moved == ()
    with Look() as look:
        np.random.random()
    assert look.moved == ("numpy",)


def test_looks_within_a_look_are_of_the_same_thread():
    with Look() as outer:
        with Look() as inner:
            pass
        np.random.random()
    assert (outer.moved, inner.moved) == (("numpy",), ())


@pytest.mark.parametrize("first_ends_first", [True, False])
def test_threads_that_put_the_generators_back_leave_them_where_they_were(first_ends_first):
    np.random.seed(5)
    random.seed(5)
    wanted = np.random.RandomState(5).random(), random.Random(5).random()
    begun = [threading.Event(), threading.Event()]
    ended = [threading.Event(), threading.Event()]

    def put_elsewhere(number):
        with preserved():
            seed_both(number)
            begun[number].set()
            ended[number].wait(60)

    threads = [threading.Thread(target=put_elsewhere, args=(number,)) for number in (0, 1)]
    for number, thread in enumerate(threads):
        thread.start()
        begun[number].wait(60)
    for number in (0, 1) if first_ends_first else (1, 0):
        ended[number].set()
        threads[number].join()
    assert (np.random.random(), random.random()) == wanted


def test_agents_in_two_threads_are_not_said_to_draw(recwarn):
    """Where an agent is made the environment is made twice, from states that the generators are put back from."""

    def learn(seed):
        for _ in range(5):
            TRPO("CartPole-v1", num_envs=2, steps_per_env=16, seed=seed, preset=None).learn(32)

    threads = [threading.Thread(target=learn, args=(seed,)) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not [str(warning.message) for warning in recwarn if "global random generator" in str(warning.message)]
