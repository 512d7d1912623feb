"""An agent whose environment has its action mask in the observation: trained, played, predicted, saved, deployed."""

from __future__ import annotations

import functools
import json
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import trpo_fast
from tests.rollout.masked_toys import Lenient, Shown
from trpo_fast import model_file
from trpo_fast.deploy import load_actor

SMALL = {
    **{"num_envs": 2, "steps_per_env": 16, "warm_up_steps": 4, "seed": 1, "hidden_sizes": (8,)},
    "max_kl_schedule": "constant",
}
ENV = functools.partial(Shown, Discrete(5, start=-2))  # raises at an action that its mask forbids
SAID = r"observation\['action_mask'\]: obeyed as the action mask, and left out .* mask_in_observation='observe'"


def trained(env=ENV, steps=64, **settings):
    with pytest.warns(UserWarning, match=SAID) as caught:
        agent = trpo_fast.TRPO(env, **SMALL, **settings).learn(steps)
    assert len(caught) == 1
    return agent


@pytest.mark.parametrize(
    "settings", [{}, {"vectorization": "workers", "num_workers": 2}, {"engine": "autograd"}], ids=str
)
def test_training_obeys_it_and_evaluation_and_the_networks_do_not_see_it(settings):
    agent = trained(**settings)
    assert list(agent.observation_space) == ["here", "far"]
    assert agent.policy.widths[0] == agent.critic.widths[0] == 5
    assert agent.observation_normalizer.mean.shape == (5,)
    assert agent.trained_with_masks
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(agent.evaluate(4, deterministic=False).returns) == 4
        assert len(agent.evaluate(2, env=ENV).returns) == 2
    agent.close()


def test_a_vector_environment_of_a_user_s_is_obeyed_too():
    agent = trained(SyncVectorEnv([ENV] * 2, autoreset_mode=AutoresetMode.NEXT_STEP))
    assert agent.policy.widths[0] == 5
    assert len(agent.evaluate(4, deterministic=False).returns) == 4


def observations_of(count):
    env = ENV()
    found = [env.reset(seed=3)[0]]
    for seed in range(count - 1):
        found.append(env.reset(seed=seed)[0])
    return found


def test_predict_and_load_actor_take_it_out_of_the_observation(tmp_path):
    agent = trained()
    agent.save(tmp_path / "model.trpo")
    actor = load_actor(tmp_path / "model.trpo")
    assert list(actor.observation_space.spaces) == ["here", "far"]
    singles = observations_of(30)
    batch = {key: np.stack([one[key] for one in singles]) for key in singles[0]}
    masks = batch["action_mask"].astype(bool)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for deterministic in (False, True):
            for actions in (
                agent.predict(batch, deterministic=deterministic)[0],
                actor(batch, deterministic=deterministic),
                np.array([agent.predict(one, deterministic=deterministic)[0] for one in singles]),
                np.array([actor(one, deterministic=deterministic) for one in singles]),
            ):
                assert masks[np.arange(30), actions + 2].all()
        bare = {key: batch[key] for key in ("here", "far")}
        wanted = agent.predict(bare, deterministic=True, action_masks=masks)[0]
        np.testing.assert_array_equal(agent.predict(batch, deterministic=True)[0], wanted)
    # One that is given comes before it.
    last = np.zeros((30, 5), bool)
    last[:, 4] = True
    assert (agent.predict(batch, action_masks=last)[0] == 2).all()
    assert (actor(batch, action_masks=last) == 2).all()
    with pytest.warns(UserWarning, match="predict: action_masks: none given"):
        agent.predict(bare)


def test_a_loaded_agent_goes_on_with_the_same_bits(tmp_path):
    through, saved = trained(steps=128), trained(steps=64)
    saved.save(tmp_path / "model.trpo")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = trpo_fast.TRPO.load(tmp_path / "model.trpo", env=ENV)
        assert again.inexact is None
        again.learn(64, reset_num_timesteps=False)
    for one, other in zip(through.policy.parameters(), again.policy.parameters(), strict=True):
        assert (one == other).all()
    with pytest.raises(ValueError, match=r"mask_in_observation: 'observe' given; want it left out"):
        trpo_fast.TRPO.load(tmp_path / "model.trpo", env=ENV, mask_in_observation="observe")


LENIENT = functools.partial(Lenient, Discrete(5, start=-2))


def test_observe_leaves_it_in_and_files_from_before_the_setting_keep_its_columns(tmp_path):
    with pytest.warns(UserWarning, match="looks like an action mask, and nothing keeps the policy to it"):
        agent = trpo_fast.TRPO(LENIENT, **SMALL, mask_in_observation="observe").learn(64)
    assert agent.policy.widths[0] == 10
    assert not agent.trained_with_masks
    agent.save(tmp_path / "model.trpo")
    arrays, metadata = model_file.read(tmp_path / "model.trpo")
    del metadata["config"]["mask_in_observation"]
    model_file.write(tmp_path / "old.trpo", arrays, json.loads(json.dumps(metadata)))
    old = trpo_fast.TRPO.load(tmp_path / "old.trpo", env=LENIENT)
    assert old.config.mask_in_observation == "observe"
    assert old.policy.widths[0] == 10
    observation = observations_of(1)[0]
    wanted = agent.predict(observation, deterministic=True)[0]
    assert old.predict(observation, deterministic=True)[0] == wanted == load_actor(tmp_path / "old.trpo")(observation)
    assert len(old.evaluate(2).returns) == 2
    old.learn(32)
    assert not old.trained_with_masks


@pytest.mark.parametrize("space", [Discrete(3), Box(-1, 1, (2,), np.float32)], ids=str)
def test_a_part_that_is_called_so_and_is_no_mask_stays_an_input_with_one_warning(space):
    class Other(gymnasium.Env):
        observation_space = Dict(action_mask=MultiBinary(4), rest=Box(-1, 1, (2,), np.float32))
        action_space = space

        def _draw(self):
            rng = self.np_random
            return {"action_mask": rng.integers(0, 2, 4, np.int8), "rest": rng.uniform(-1, 1, 2).astype(np.float32)}

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self._draw(), {}

        def step(self, action):
            return self._draw(), 1.0, bool(self.np_random.random() < 0.2), False, {}

    with pytest.warns(
        UserWarning, match=r"\['action_mask'\]: MultiBinary\(4\) is no mask of .*; it stays a part"
    ) as caught:
        agent = trpo_fast.TRPO(Other, **SMALL)
    assert len(caught) == 1
    agent.learn(32)
    assert agent.policy.widths[0] == 6
    assert not agent.trained_with_masks
    agent.predict(Other().reset()[0])


def test_an_onnx_graph_has_no_input_for_it(tmp_path):
    pytest.importorskip("onnx")
    from trpo_fast.onnx_export import export_onnx
    from trpo_fast.onnx_graph import onnx_model
    from trpo_fast.saved_policy import read_policy

    trained().save(tmp_path / "model.trpo")
    export_onnx(tmp_path / "model.trpo")
    graph = onnx_model(read_policy(tmp_path / "model.trpo")).graph
    assert [one.name for one in graph.input] == ["observation/here", "observation/far"]
