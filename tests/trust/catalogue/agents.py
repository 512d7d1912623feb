"""Calls of agents, their settings, callbacks and normalizers."""

import dataclasses
import functools
import tempfile

import numpy as np

import trpo_fast
from tests.trust.catalogue.declaring import call, target
from trpo_fast import deploy
from trpo_fast.normalizers import ObservationNormalizer, RewardScaler


@functools.cache
def agent(kind="CartPole-v1", policy=None):
    return trpo_fast.TRPO(kind, num_envs=2, seed=0, preset=None, policy=policy)


@functools.cache
def folder():
    return tempfile.TemporaryDirectory()


@functools.cache
def saved(kind="CartPole-v1", policy=None):
    path = f"{folder().name}/{kind}-{policy}.trpo"
    agent(kind, policy).save(path)
    return path


AGENTS = [("CartPole-v1", None, 4), ("Pendulum-v1", None, 3), ("CartPole-v1", "gru", 4)]
"""Environment, policy, size of an observation."""


def prediction_of(rng, size, recurrent):
    """Arguments of `predict`, of one to three observations."""
    count = int(rng.integers(1, 4))
    single = rng.random() < 0.5
    rows = 1 if single else count
    known = recurrent and rng.random() < 0.5
    return {
        "observation": rng.normal(size=size if single else (count, size)),
        "state": np.zeros((rows, 64), np.float32) if known else None,
        "episode_start": np.zeros(rows, bool) if known else None,
        "deterministic": bool(rng.integers(2)),
        "action_masks": None,
    }


def fits(kind):
    def check(answer, observation, **_):
        actions, size = np.asarray(answer[0]), np.shape(observation)[:-1]
        if kind == "Pendulum-v1":
            return None if actions.shape == (*size, 1) and (np.abs(actions) <= 2).all() else f"{actions} for {size}"
        return None if actions.shape == size and np.isin(actions, (0, 1)).all() else f"{actions} for {size}"

    return check


@target("TRPO.predict", 3)
def _(rng):
    kind, policy, size = AGENTS[rng.integers(3)]
    arguments = prediction_of(rng, size, policy is not None)
    return call(agent(kind, policy).predict, arguments, check=fits(kind), aliases=("action mask",))


@target("LoadedActor.predict", 3)
def _(rng):
    kind, policy, size = AGENTS[rng.integers(3)]
    arguments = prediction_of(rng, size, policy is not None)
    return call(loaded(kind, policy).predict, arguments, check=fits(kind), aliases=("action mask",))


@functools.cache
def loaded(kind, policy):
    return deploy.load_actor(saved(kind, policy))


@target("LoadedActor.__call__", 2)
def _(rng):
    kind, _, size = AGENTS[rng.integers(2)]
    arguments = prediction_of(rng, size, False)
    del arguments["state"], arguments["episode_start"]

    def check(answer, **given):
        return fits(kind)([answer], **given)

    return call(loaded(kind, None), arguments, check=check, aliases=("action mask",))


@target("load_actor", 0.5)
def _(rng):
    path = saved() if rng.random() < 0.7 else "nowhere.trpo"
    return call(deploy.load_actor, {"path": path, "seed": None}, raises=(OSError,))


@target("TRPO.values", 2)
def _(rng):
    return call(agent().values, {"observations": rng.normal(size=(3, 4))}, aliases=("observation",))


@target("TRPO.log_probs", 2)
def _(rng):
    arguments = {"observations": rng.normal(size=(3, 4)), "actions": rng.integers(2, size=3), "action_masks": None}

    def check(answer, **_):
        return None if (np.asarray(answer) <= 0).all() else f"{answer}"

    return call(agent().log_probs, arguments, check=check, aliases=("observation", "action", "action mask"))


@target("TRPO.observe")
def _(rng):
    return call(
        trpo_fast.TRPO("CartPole-v1", num_envs=1, seed=0, preset=None).observe,
        {"observations": rng.normal(size=(3, 4))},
        aliases=("observation",),
    )


@target("TRPO.evaluate", 0.1)
def _(rng):
    arguments = {"episodes": 1, "deterministic": True, "seed": 0, "max_steps": 20, "progress_bar": False}
    return call(agent().evaluate, arguments, dear="episodes max_steps", kept="progress_bar")


@target("TRPO.save", 0.2)
def _(rng):
    return call(agent().save, {"path": f"{folder().name}/model.trpo"}, raises=(OSError,))


@target("TRPO.load", 0.3)
def _(rng):
    arguments = {
        "path": saved() if rng.random() < 0.5 else "nowhere.trpo",
        "env": None,
        "env_kwargs": None,
        "wrappers": None,
        "imports": (),
    }
    return call(trpo_fast.TRPO.load, arguments | {"trust_environment": False}, raises=(OSError,))


@target("TRPO.take_policy", 0.3)
def _(rng):
    own = trpo_fast.TRPO("CartPole-v1", num_envs=1, seed=1, preset=None)
    return call(own.take_policy, {"other": agent()})


@target("TRPO.learn", 0.1)
def _(rng):
    own = trpo_fast.TRPO(
        "CartPole-v1",
        num_envs=1,
        seed=1,
        preset=None,
        config=trpo_fast.TRPOConfig(num_envs=1, steps_per_env=16, warm_up_steps=0),
    )
    arguments = {
        "total_timesteps": 16,
        "callback": None,
        "reset_num_timesteps": True,
        "horizon": None,
        "schedules": None,
    }
    return call(own.learn, arguments, dear="total_timesteps", warns=(UserWarning,))


@target("TRPO.make_actor", 0.5)
def _(rng):
    return call(agent().make_actor, {"seed": 0, "stream": 0, "narrow": False})


@target("TRPO", 1)
def _(rng):
    arguments = {
        "env": "CartPole-v1",
        "num_envs": 2,
        "vectorization": None,
        "env_kwargs": None,
        "seed": 0,
        "config": trpo_fast.TRPOConfig(),
        "policy": None,
        "critic": None,
        "num_workers": None,
        "wrappers": None,
        "imports": (),
        "preset": None,
    }

    def use(**others):
        with trpo_fast.TRPO(**others):
            pass

    return call(use, arguments, dear="num_envs num_workers", warns=(UserWarning,))


CONFIG = {field.name: field.default for field in dataclasses.fields(trpo_fast.TRPOConfig)}


@target("TRPOConfig", 3)
def _(rng):
    return call(trpo_fast.TRPOConfig, dict(CONFIG))


@target("TRPOConfig.replace", 1)
def _(rng):
    return call(trpo_fast.TRPOConfig().replace, dict(CONFIG))


def of_a_mapping(name, function):
    @target(name, 0.5)
    def _(rng):
        values = trpo_fast.TRPOConfig().to_dict()
        return call(function, {"values": values}, aliases=tuple(values))


of_a_mapping("TRPOConfig.from_dict", trpo_fast.TRPOConfig.from_dict)
of_a_mapping("TRPOConfig.from_saved", trpo_fast.TRPOConfig.from_saved)


@target("TRPOConfig.resolved", 0.5)
def _(rng):
    return call(trpo_fast.TRPOConfig().resolved, {"policy": "mlp", "critic": "cnn"})


@target("CheckpointCallback")
def _(rng):
    arguments = {"folder": "checkpoints", "every": 100, "seconds": None, "keep": 2, "best": False}
    return call(trpo_fast.CheckpointCallback, arguments)


@target("EvaluationCallback")
def _(rng):
    arguments = {"every": 100, "episodes": 2, "deterministic": True, "seed": 0, "env": None, "max_steps": None}
    arguments |= {"best_path": None, "last_path": None, "at_start": False, "stop_at_return": None, "patience": None}
    return call(trpo_fast.EvaluationCallback, arguments)


@target("EveryNTimesteps")
def _(rng):
    return call(trpo_fast.EveryNTimesteps, {"every": 100, "callback": trpo_fast.Callback()})


@target("StopAtReturn")
def _(rng):
    return call(trpo_fast.StopAtReturn, {"value": 1.0, "episodes": 3})


@target("RunLogger", 0.5)
def _(rng):
    return call(trpo_fast.RunLogger, {"folder": None, "tensorboard": None, "log": "csv"})


@target("ObservationNormalizer")
def _(rng):
    arguments = {"size": 3, "clip": 10.0, "epsilon": 1e-8}
    return call(ObservationNormalizer, arguments, dear="size")


@target("RewardScaler")
def _(rng):
    return call(RewardScaler, {"num_envs": 2, "gamma": 0.9, "clip": 10.0, "epsilon": 1e-8}, dear="num_envs")
