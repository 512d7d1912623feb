"""N + M updates are N updates, a file, another agent, and M updates: to the bit, where environments are known."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import warnings
from collections import OrderedDict

import gymnasium as gym
import numpy as np
import pytest

from tests.agents import SHORT
from tests.registered import newest
from trpo_fast import model_file
from trpo_fast.algorithm import checkpoint
from trpo_fast.algorithm.callbacks import Callback, CheckpointCallback
from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.environments.worker_process import WorkerError
from trpo_fast.state import packed

UPDATES = 6
T = 20

MUJOCO = [f"{name}-v5" for name in ("Ant", "HalfCheetah", "Hopper", "Humanoid", "InvertedDoublePendulum", "Pusher")]
MUJOCO += [f"{name}-v5" for name in ("HumanoidStandup", "InvertedPendulum", "Reacher", "Swimmer", "Walker2d")]
PLAIN = ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0"]
TOYS = [newest(name) for name in ("FrozenLake", "Taxi", "CliffWalking", "Blackjack")]


def everything(agent):
    """A digest of every bit that training goes on from."""
    now = checkpoint.capture(agent)
    sha = hashlib.sha256(repr(sorted(now.counters.items())).encode())
    for name, array in sorted(now.arrays.items()):
        sha.update(name.encode() + array.tobytes())
    assert now.episodes is not None
    sha.update(packed(now.episodes).tobytes())
    return sha.hexdigest()


def settings(env, **others):
    # Episodes begin and end within a rollout, so that points right after a reset and right after an end are among them.
    kwargs = {"max_episode_steps": 17} if env in (*MUJOCO, *PLAIN) else None
    return {"env": env, "env_kwargs": kwargs, "num_envs": 2, "steps_per_env": T, **SHORT, **others}


def saved_at_every_update(agent, folder, total):
    """Digests after each update of a training in which the agent is saved after each."""
    seen = {}

    def keep(agent):
        agent.save(folder / f"{agent.num_updates}.trpo")
        seen[agent.num_updates] = everything(agent)

    agent.learn(total, callback=keep)
    return seen


def resumed(path, total, **loading):
    agent = TRPO.load(path, trust_environment=True, **loading)
    try:
        agent.learn(total - agent.num_timesteps, reset_num_timesteps=False)
        return everything(agent)
    finally:
        agent.close()


@pytest.mark.filterwarnings("ignore:.*compiler attribute")
@pytest.mark.parametrize("env", [*PLAIN, *MUJOCO, *TOYS])
def test_training_resumed_from_any_update_ends_with_the_same_bits(env, tmp_path):
    if env in MUJOCO:
        pytest.importorskip("mujoco")
    total = UPDATES * T * 2
    agent = TRPO(**settings(env))
    assert agent.inexact is None
    seen = saved_at_every_update(agent, tmp_path, total)
    agent.close()
    assert len(seen) == UPDATES
    for update in range(1, UPDATES):
        assert resumed(tmp_path / f"{update}.trpo", total) == seen[UPDATES], f"saved after update {update}"


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("vectorization", ["sync", "workers"])
def test_training_of_a_lunar_lander_goes_on_with_the_same_bits(vectorization, continuous, tmp_path):
    pytest.importorskip("Box2D")
    total = 5 * 90 * 2
    others = {"steps_per_env": 90, "vectorization": vectorization}
    others["env_kwargs"] = {"continuous": continuous, "max_episode_steps": 70}
    agent = TRPO(**settings("LunarLander-v3", **others))
    assert agent.inexact is None
    seen = saved_at_every_update(agent, tmp_path, total)
    agent.close()
    for update in (1, 2, 3, 4) if vectorization == "sync" else (2,):
        assert resumed(tmp_path / f"{update}.trpo", total) == seen[5], f"saved after update {update}"


@pytest.mark.parametrize("vectorization", ["sync", "workers"])
def test_training_of_an_atari_game_goes_on_with_the_same_bits(vectorization, tmp_path):
    """With its default wrappers: preprocessing and four frames."""
    gym.register_envs(pytest.importorskip("ale_py"))
    total, kwargs = 3 * T * 2, {"repeat_action_probability": 0.0, "max_episode_steps": 33}
    others = {"env_kwargs": kwargs, "vectorization": vectorization}
    others |= {"hidden_sizes": (64, 64), "critic_hidden_sizes": (64, 64)}  # a CNN has none
    agent = TRPO(**settings("ALE/Breakout-v5", **others))
    assert agent.inexact is None
    assert agent.recipe.resolved().wrappers == ("atari",)
    seen = saved_at_every_update(agent, tmp_path, total)
    agent.close()
    for update in (1, 2) if vectorization == "sync" else (1,):
        assert resumed(tmp_path / f"{update}.trpo", total) == seen[3], f"saved after update {update}"


@pytest.mark.parametrize("env", ["CartPole-v1", "Hopper-v5"])
@pytest.mark.parametrize("first", ["sync", "workers"])
def test_training_goes_on_with_the_same_bits_in_any_number_of_workers(env, first, tmp_path):
    if env in MUJOCO:
        pytest.importorskip("mujoco")
    total = 4 * T * 3
    agent = TRPO(**settings(env, num_envs=3, vectorization=first, num_workers=3 if first == "workers" else None))
    seen = saved_at_every_update(agent, tmp_path, total)
    agent.close()
    for loading in ({"vectorization": "sync"}, {"vectorization": "workers", "num_workers": 2}):
        assert resumed(tmp_path / "2.trpo", total, **loading) == seen[4], loading


@pytest.mark.parametrize("mode", ["NEXT_STEP", "SAME_STEP"])
def test_training_in_vector_environments_goes_on_with_the_same_bits(mode, tmp_path):
    def own():
        return TRPO(**{**settings("CartPole-v1"), "env_kwargs": {"max_episode_steps": 17}, "vectorization": "vector"})

    def made():
        copies = [lambda: gym.make("Pendulum-v1", max_episode_steps=17)] * 2
        return gym.vector.SyncVectorEnv(copies, autoreset_mode=gym.vector.AutoresetMode[mode])

    total = 400
    for make, again in ((own, None), (lambda: TRPO(**{**settings(made()), "num_envs": None}), made)):
        agent = make()
        assert agent.inexact is None
        seen = saved_at_every_update(agent, tmp_path, total)
        agent.close()
        last = max(seen)
        for update in range(1, last, 2):
            found = resumed(tmp_path / f"{update}.trpo", total, **({} if again is None else {"env": again()}))
            assert found == seen[last], update


class Counting(gym.Env):
    """A walk that says its own state, and draws from its generator."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.where, self.length = self.np_random.normal(size=2), int(self.np_random.integers(3, 9))
        return self.where.astype(np.float32), {}

    def step(self, action):
        self.where = self.where + (2 * action - 1) * self.np_random.normal(size=2)
        self.length -= 1
        return self.where.astype(np.float32), float(self.where.sum()), self.length == 0, False, {}

    def get_state(self):
        return {"where": self.where, "length": self.length}

    def set_state(self, state):
        self.where, self.length = state["where"], state["length"]


class Masked(Counting):
    """The same, with masks in the info."""

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed)
        return observation, {**info, "action_mask": self.mask()}

    def step(self, action):
        *answer, info = super().step(action)
        return *answer, {**info, "action_mask": self.mask()}

    def mask(self):
        return np.array([self.where[0] < 0.5, True])


@pytest.mark.parametrize(
    ("kind", "vectorization"),
    [
        (Counting, "sync"),
        (Masked, "sync"),
        (Masked, "workers"),
        pytest.param(Counting, "workers", marks=pytest.mark.long),
    ],
)
def test_an_environment_that_says_its_own_state_goes_on_with_the_same_bits(kind, vectorization, tmp_path):
    total = 5 * T * 2
    agent = TRPO(**settings(kind, vectorization=vectorization))
    assert agent.inexact is None
    seen = saved_at_every_update(agent, tmp_path, total)
    agent.close()
    for update in range(1, 5) if vectorization == "sync" else (2,):
        assert resumed(tmp_path / f"{update}.trpo", total, env=kind, vectorization=vectorization) == seen[5]


@pytest.mark.parametrize(("first", "then"), [("workers", "sync"), ("sync", "workers")])
def test_a_class_of_a_function_goes_on_in_workers_and_back_with_the_same_bits(first, then, tmp_path):
    class Local(Counting):
        pass

    # As that of a script, which workers get by value.
    Local.__module__ = "__main__"
    agent = TRPO(**settings(Local, vectorization=first)).learn(4 * T)
    agent.save(tmp_path / "a.trpo")
    other = TRPO.load(tmp_path / "a.trpo", env=Local, vectorization=then)
    for one in (agent, other):
        one.learn(4 * T, reset_num_timesteps=False).close()
        assert one.inexact is None
    wanted, found = (packed(checkpoint.capture(one).arrays) for one in (agent, other))
    assert found.tobytes() == wanted.tobytes()


class Saying(Counting):
    """Says what it is told to."""

    def __init__(self, said):
        self.said = said

    def get_state(self):
        return self.said


@pytest.mark.parametrize(
    ("said", "named", "vectorization"),
    [
        ({"where": object()}, r"\['where'\]: .*object.* given; want arrays", "sync"),
        ({"where": {3}}, r"\['where'\]: .*set.* given; want arrays", "sync"),
        (None, " returned None; want a dict", "sync"),
        ([1.5, 2], r" returned \[1.5, 2\]; want a dict", "workers"),
    ],
    ids=["object", "set", "none", "list"],
)
def test_what_get_state_says_that_is_no_dict_of_plain_data_is_named_in_the_first_rollout(said, named, vectorization):
    workers = 1 if vectorization == "workers" else None
    agent = TRPO(**settings(lambda: Saying(said), vectorization=vectorization, num_workers=workers))
    with pytest.raises(TypeError, match=rf"environment 0: get_state\(\) of Saying{named}"):
        agent.learn(100)
    agent.close()


def test_what_get_state_raises_travels_on_with_the_environment_noted():
    class Failing(Counting):
        def get_state(self):
            raise RuntimeError("no state today")

    agent = TRPO(**settings(Failing))
    with pytest.raises(RuntimeError, match="no state today") as raised:
        agent.learn(100)
    assert "environment 0, in its get_state" in raised.value.__notes__
    agent.close()


def loaded_after_an_update(made, vectorization, path):
    vectorized = {"vectorization": vectorization, "num_workers": 1 if vectorization == "workers" else None}
    agent = TRPO(**settings(made, **vectorized))
    agent.learn(2 * T)
    agent.save(path)
    agent.close()
    return TRPO.load(path, env=made, **vectorized)


@pytest.mark.parametrize("vectorization", ["sync", "workers"])
def test_a_simulator_whose_constructor_draws_has_new_episodes_begin_and_the_run_says_so(vectorization, tmp_path):
    def made():
        env = gym.make("CartPole-v1", max_episode_steps=17)
        env.unwrapped.length = float(np.random.default_rng().uniform(0.3, 0.7))
        return env

    other = loaded_after_an_update(made, vectorization, tmp_path / "m.trpo")
    named = "environment 0: CartPoleEnv, made again, is another one than was saved, in one of gravity, .*length"
    with pytest.warns(UserWarning, match=f"new episodes begin.*: {named}"):
        other.learn(2 * T, reset_num_timesteps=False)
    assert re.match(named, other.inexact)
    other.close()
    assert re.match(named, other.inexact)


def test_a_lake_whose_map_is_drawn_is_inexact_from_the_start_and_cuts_do_not_help():
    agent = TRPO(**{**settings("FrozenLake-v1"), "env_kwargs": {"map_name": None}})
    assert "draws its map when it is made" in agent.inexact
    agent.close()
    agent = TRPO(**{**settings("FrozenLake-v1", reset_on_checkpoint=1), "env_kwargs": {"map_name": None}})
    assert "reset_on_checkpoint=1 does not help: its map is another one whenever it is made" in agent.inexact
    agent.close()


class Odd(Counting):
    """Observations in a dict whose keys are numbers, which no file can have."""

    observation_space = gym.spaces.Dict({1: Counting.observation_space})

    def reset(self, **arguments):
        observation, info = super().reset(**arguments)
        return {1: observation}, info

    def step(self, action):
        observation, *answer = super().step(action)
        return {1: observation}, *answer


class Ordered(Odd):
    """The same in an OrderedDict."""

    observation_space = gym.spaces.Dict({"1": Counting.observation_space})

    def reset(self, **arguments):
        observation, info = super().reset(**arguments)
        return OrderedDict({"1": observation[1]}), info

    def step(self, action):
        observation, *answer = super().step(action)
        return OrderedDict({"1": observation[1]}), *answer


def stacked(kind):
    return gym.wrappers.FrameStackObservation(kind(), 3)


@pytest.mark.parametrize("vectorization", ["sync", "workers", "vector env"])
def test_a_stack_of_what_no_file_can_have_trains_statistically_and_says_why_once(vectorization):
    reason = r"environment \d: FrameStackObservation keeps what no file can have: obs_queue\[0\]: keys that are no str"
    given = settings(lambda: stacked(Odd))
    if vectorization == "vector env":
        given["env"] = gym.vector.SyncVectorEnv([lambda: stacked(Odd)] * 2)
        del given["num_envs"], given["env_kwargs"]
    else:
        given["vectorization"] = vectorization
    agent = TRPO(**given)
    with pytest.warns(UserWarning, match=f"from a file a training goes on statistically.*{reason}") as caught:
        agent.learn(6 * T)
    assert len([one for one in caught if "statistically" in str(one.message)]) == 1
    assert agent.num_updates >= 3 and re.match(reason, agent.inexact)
    agent.close()
    assert re.match(reason, agent.inexact)


def test_a_stack_of_ordered_dicts_goes_on_with_the_same_bits(tmp_path):
    agent = TRPO(**settings(lambda: stacked(Ordered)))
    seen = saved_at_every_update(agent, tmp_path, 8 * T)
    agent.close()
    assert resumed(tmp_path / "2.trpo", 8 * T, env=lambda: stacked(Ordered)) == seen[4]


class Refusing(Counting):
    """Takes no state, the second copy of a process alone."""

    made = 0

    def __init__(self, error):
        self.error, self.index = error, Refusing.made % 2
        Refusing.made += 1

    def set_state(self, state):
        if self.index == 1:
            raise self.error
        super().set_state(state)


@pytest.mark.parametrize(
    ("error", "vectorization"),
    [
        *((kind("x"), "sync") for kind in (RuntimeError, AssertionError, KeyError, ValueError)),
        (RuntimeError("x"), "workers"),
    ],
    ids=repr,
)
def test_whatever_set_state_raises_has_new_episodes_begin_and_is_named(error, vectorization, tmp_path, monkeypatch):
    def made():
        return Refusing(error)

    monkeypatch.setattr(Refusing, "made", 0)
    other = loaded_after_an_update(made, vectorization, tmp_path / "m.trpo")
    Refusing.made = 0  # one was made for its spaces
    named = rf"new episodes begin.*: environment 1: set_state\(\) of Refusing raised {re.escape(repr(error))}"
    assert other.inexact is None
    with pytest.warns(UserWarning, match=named):
        other.learn(2 * T, reset_num_timesteps=False)
    assert other.num_updates == 2
    assert re.match(named.partition(": ")[2], other.inexact)
    other.close()


def longer(env):
    return gym.wrappers.TimeLimit(env, 30)


@pytest.mark.parametrize(
    ("loading", "reason"),
    [
        ({"wrappers": ["gymnasium.wrappers:FlattenObservation"]}, "saved of another environment"),
        ({"num_envs": 3}, "saved of 2 copies, and these are 3"),
        ({"env": lambda: longer(gym.make("CartPole-v1"))}, "environment 0: saved of .* this is .*"),
        ({"env": gym.vector.SyncVectorEnv}, "saved of copies that were made one by one.*"),
    ],
    ids=["wrappers", "copies", "layers", "vector environment"],
)
def test_where_new_episodes_begin_the_agent_and_every_file_of_it_say_why_from_then_on(loading, reason, tmp_path):
    TRPO(**settings(lambda: gym.make("CartPole-v1"))).learn(2 * T).save(tmp_path / "own.trpo")
    TRPO(**settings("CartPole-v1")).learn(2 * T).save(tmp_path / "named.trpo")
    if loading.get("env") is gym.vector.SyncVectorEnv:
        loading = {"env": gym.vector.SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 2)}
    agent = TRPO.load(tmp_path / ("own.trpo" if "env" in loading else "named.trpo"), **loading)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        agent.learn(2 * T, reset_num_timesteps=False)
    said = agent.inexact
    assert re.fullmatch(f"{reason}, so that new episodes began", said)
    agent.save(tmp_path / "later.trpo")
    agent.close()
    assert agent.inexact == said
    assert model_file.read(tmp_path / "later.trpo")[1]["resume"] == f"statistical: {said}"
    agent = TRPO.load(tmp_path / "later.trpo", **{name: given for name, given in loading.items() if name == "env"})
    agent.learn(2 * T, reset_num_timesteps=False)
    assert agent.inexact == said
    agent.close()


class Failing(Counting):
    """Raises in every step as long as it is told to, and notes the seeds of its resets."""

    fails, seeds = False, []

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            Failing.seeds.append(seed)
        return super().reset(seed=seed, options=options)

    def step(self, action):
        if Failing.fails:
            raise RuntimeError("x")
        return super().step(action)


def test_after_an_exception_in_an_update_the_agent_and_its_file_say_that_new_episodes_began(tmp_path):
    agent = TRPO(**settings(Failing)).learn(2 * T)
    Failing.fails = True
    with pytest.raises(RuntimeError, match="x"):
        agent.learn(2 * T, reset_num_timesteps=False)
    Failing.fails = False
    for _ in range(2):
        assert agent.inexact == "an update raised, so that new episodes began"
        agent.save(tmp_path / "a.trpo")
        assert model_file.read(tmp_path / "a.trpo")[1]["resume"] == f"statistical: {agent.inexact}"
        agent.learn(2 * T, reset_num_timesteps=False)
    agent.close()


@pytest.mark.parametrize("before", [0, 1])
def test_after_an_exception_other_seeds_are_played_as_often_as_it_takes(before):
    agent = TRPO(**settings(Failing))
    if before:
        agent.learn(before * 2 * T)
    Failing.fails, Failing.seeds = True, []
    for _ in range(3):
        with pytest.raises(RuntimeError, match="x"):
            agent.learn(2 * T, reset_num_timesteps=False)
    # Of two copies; the look at them before the first reset has the same seeds.
    assert len(set(Failing.seeds)) == 2 * (3 - (before > 0))
    assert agent.inexact == "an update raised, so that new episodes began"
    Failing.fails = False
    agent.learn(2 * T, reset_num_timesteps=False)
    assert agent.num_updates == before + 1
    agent.close()


def test_a_file_of_a_moment_before_an_exception_resumes_exactly(tmp_path):
    class Breaking(Callback):
        def on_update(self, agent):
            Failing.fails = agent.num_updates == 2
            return True

    agent = TRPO(**settings(Failing))
    with pytest.raises(RuntimeError, match="x"):
        agent.learn(8 * T, callback=[CheckpointCallback(tmp_path, 2 * T), Breaking()])
    agent.close()
    Failing.fails = False
    said = [model_file.read(path)[1]["resume"] for path in sorted(tmp_path.glob("*.trpo"))]
    assert said == ["exact", "exact"]
    assert agent.inexact == "an update raised, so that new episodes began"


def test_episodes_that_a_file_has_not_are_named_by_who_goes_on_without_them(tmp_path):
    TRPO(**settings("CartPole-v1")).learn(2 * T).save(tmp_path / "whole.trpo")
    arrays, metadata = model_file.read(tmp_path / "whole.trpo")
    del arrays["episodes_under_way"]
    model_file.write(tmp_path / "old.trpo", arrays, metadata)
    agent = TRPO.load(tmp_path / "old.trpo")
    assert agent.inexact == "its episodes are not in the file"
    agent.learn(2 * T, reset_num_timesteps=False)
    assert agent.inexact == "the episodes under way were lost, so that new ones began"
    agent.close()


@pytest.mark.parametrize("vectorization", ["sync", "workers"])
def test_training_after_ctrl_c_in_an_update_is_the_undisturbed_one(vectorization, tmp_path, monkeypatch):
    total = 6 * T * 2
    falling = settings("Pendulum-v1", vectorization=vectorization, max_kl_schedule="linear")
    undisturbed = TRPO(**falling).learn(total)
    wanted = everything(undisturbed)
    undisturbed.close()
    for moment in ("collect", "finish") if vectorization == "sync" else ("finish",):
        agent = TRPO(**falling)
        owner = agent.collector if moment == "collect" else agent.collector.finisher
        real, calls = getattr(owner, moment), []

        def interrupted(*arguments, real=real, calls=calls, **named):
            answer = real(*arguments, **named)
            calls.append(1)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return answer

        monkeypatch.setattr(owner, moment, interrupted)
        with pytest.raises(KeyboardInterrupt):
            agent.learn(total)
        assert agent.num_updates == 3
        agent.save(tmp_path / "a.trpo")
        assert resumed(tmp_path / "a.trpo", total) == wanted  # saved, and in another
        agent.learn(total - agent.num_timesteps, reset_num_timesteps=False)  # and this one itself
        assert everything(agent) == wanted
        agent.close()


def test_a_schedule_of_a_second_part_is_resumed_from_any_update_of_it(tmp_path):
    first, total = 2 * 2 * T, 8 * 2 * T
    agent = TRPO(**settings("Pendulum-v1", max_kl_schedule="linear")).learn(first)
    regions = []

    def keep(agent):
        regions.append(agent.last_update.max_kl)
        agent.save(tmp_path / f"{len(regions)}.trpo")

    agent.learn(total - first, callback=keep, reset_num_timesteps=False)
    assert regions == pytest.approx([agent.config.max_kl * (6 - i) / 6 for i in range(6)])
    for update in range(1, 6):
        assert resumed(tmp_path / f"{update}.trpo", total) == everything(agent)
    agent.close()


def test_training_goes_on_after_close_with_the_same_bits():
    total = 6 * T * 2
    falling = settings("Acrobot-v1", max_kl_schedule="linear")
    wanted = TRPO(**falling).learn(total)
    agent = TRPO(**falling)
    while agent.num_timesteps < total:
        agent.learn(2 * T, reset_num_timesteps=False, horizon=total)
        agent.close()
    assert everything(agent) == everything(wanted)
    wanted.close()


def test_what_a_callback_changed_stays_after_ctrl_c_in_the_next_update(monkeypatch):
    agent = TRPO(**settings("Pendulum-v1"))

    def clamp(agent):
        agent.policy.log_std.data.fill_(-1.5)

    def stop(*arguments, **named):
        raise KeyboardInterrupt

    def twice(agent):
        clamp(agent)
        if agent.num_updates == 2:
            monkeypatch.setattr(agent.collector.finisher, "finish", stop)

    with pytest.raises(KeyboardInterrupt):
        agent.learn(1000, callback=twice)
    assert agent.num_updates == 2
    assert agent.policy.log_std.detach().numpy().tolist() == [-1.5]
    agent.close()


CHILD = """
import os, signal, sys
from pathlib import Path
from trpo_fast.algorithm.trpo import TRPO
from tests.algorithm.test_resume import everything, settings
folder, env, vectorization, total, kill_at = Path(sys.argv[1]), *sys.argv[2:4], *map(int, sys.argv[4:])
files = sorted(folder.glob("*.trpo"))
agent = TRPO.load(files[-1]) if files else TRPO(**settings(env, vectorization=vectorization))
left = [kill_at]
real = agent.training_environments.ready(agent.num_updates).collect
def collect():
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real()
agent.collector.collect = collect
agent.learn(total - agent.num_timesteps, lambda agent: agent.save(folder / f"{agent.num_timesteps:09d}.trpo"),
            reset_num_timesteps=False)
print(everything(agent))
print(agent.evaluate(2).returns.tolist())
agent.close()
"""


@pytest.mark.parametrize(
    ("env", "vectorization"),
    [("CartPole-v1", "sync"), pytest.param("Hopper-v5", "workers", marks=pytest.mark.long)],
)
def test_training_killed_again_and_again_ends_as_the_undisturbed_one(env, vectorization, tmp_path):
    if env in MUJOCO:
        pytest.importorskip("mujoco")
    total = UPDATES * T * 2
    rng = np.random.default_rng(3)

    def child(folder, kill_at):
        folder.mkdir(exist_ok=True)
        arguments = [str(folder), env, vectorization, str(total), str(kill_at)]
        return subprocess.run([sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True)

    wanted = child(tmp_path / "undisturbed", 0)
    assert wanted.returncode == 0, wanted.stderr
    kills = 0
    while (found := child(tmp_path / "killed", int(rng.integers(2, 5)) if kills < 3 else 0)).returncode != 0:
        assert found.returncode == -9, found.stderr
        kills += 1
    assert kills == 3
    assert found.stdout == wanted.stdout


def test_a_worker_that_died_has_new_episodes_begin(tmp_path):
    agent = TRPO(**settings("Pendulum-v1", vectorization="workers", num_workers=1))
    agent.learn(2 * T)
    os.kill(agent.environments.processes[0], signal.SIGKILL)
    with pytest.raises(WorkerError):
        agent.learn(2 * T, reset_num_timesteps=False)
    assert checkpoint.capture(agent).episodes is None
    agent.learn(2 * T, reset_num_timesteps=False)
    assert everything(agent)
    agent.close()
