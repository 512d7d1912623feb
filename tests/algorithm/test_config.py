import dataclasses
import functools
import json
import math
import threading
import warnings

import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete

from tests.algorithm.images import Halves
from tests.rollout.masked_toys import Lenient
from trpo_fast.algorithm.config import TRPOConfig


def test_defaults_satisfy_their_own_rules():
    assert TRPOConfig() == TRPOConfig.from_dict(TRPOConfig().to_dict())


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TRPOConfig().max_kl = 1.0


@pytest.mark.parametrize("entry", dataclasses.fields(TRPOConfig), ids=lambda entry: entry.name)
def test_every_field_says_what_it_means_and_why_it_has_its_default(entry):
    assert len(entry.metadata["meaning"]) > 10
    assert len(entry.metadata["why"]) > 10
    assert f"{entry.name} : {entry.type}, default {entry.default!r}" in TRPOConfig.__doc__


BAD = {
    "num_envs": [0, -1, 2.0, True, "8", 10**12],
    "steps_per_env": [0, 1.5, 2**24 + 1],
    "warm_up_steps": [-1, None, 10**12],
    "reset_on_checkpoint": [-1, None, 1.5],
    "max_kl": [0, -0.01, math.nan, math.inf, "0.01", True],
    "max_kl_schedule": ["exponential", None, 0.5],
    "kl_direction": ["new", None],
    "damping": [-1e-9, math.nan, math.inf],
    "relative_damping": [-1e-9, math.nan, math.inf, "0.1", True],
    "cg_iterations": [0, 2.5, 10**12],
    "cg_rtol": [-1.0, math.nan],
    "cg_progress_tol": [-1e-9, math.inf, math.nan],
    "preconditioner": ["jacobi", 1, False, "none"],
    "fisher_subsample": [0.0, 1.01, math.nan, True, "0.1"],
    "reorthogonalize": [1, "yes", None],
    "fisher_jacobians": [True, "yes", None],
    "fisher_precision": ["float64", "bf16", None],
    "critic_precision": ["float64", "bf16", None],
    "step_curvature": ["hessian"],
    "line_search": [0, None],
    "backtrack_factor": [0.0, 1.0, math.nan],
    "max_backtracks": [-1, 0.5, 10**12],
    "entropy_coefficient": [-0.01, math.inf, math.nan],
    "gamma": [-0.1, 1.01, math.nan],
    "gae_lambda": [-0.1, 1.01],
    "critic_gae_lambda": [-0.1, 1.01, None],
    "normalize_advantages": [0],
    "policy": ["rnn", None, ["mlp"]],
    "channel_axis": ["middle", 1, None],
    "hidden_sizes": [(0,), (64, -1), (10**11,), 64, "64", (64.0,), None],
    "critic_hidden_sizes": [(0,), 3],
    "recurrent_size": [0, 2.5, 10**12],
    "recurrent_critic": ["yes"],
    "activation": ["mish", None],
    "action_map": ["tanh", None, True],
    "log_std_init": [math.nan, math.inf, "0"],
    "log_std_limit": [0, 44.0, math.nan, "20"],
    "mask_in_observation": ["hide", True, None],
    "normalize_observations": ["true"],
    "observation_clip": [0, -1.0, math.nan],
    "scale_rewards": [1],
    "reward_clip": [0, math.nan],
    "critic_epochs": [0, 10**12],
    "critic_batch_size": [0, 0.5, 10**12],
    "critic_learning_rate": [0.0, -1e-3, math.inf, math.nan],
    "critic_learning_rate_schedule": ["step"],
    "overlap_critic": [None],
    "evaluation_max_steps": [0, -1, 2.5, None],
    "engine": ["torch"],
    "device": ["gpu", "cuda:0", None],
    "dtype": ["float16", float, np.float32],
}


def test_table_of_bad_values_covers_every_field():
    assert set(BAD) == {entry.name for entry in dataclasses.fields(TRPOConfig)}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_bad_value_is_refused_by_field_value_and_want(name, value):
    with pytest.raises(ValueError) as error:
        TRPOConfig(**{name: value})
    message = str(error.value)
    assert message.startswith(f"{name}: ")
    assert repr(value) in message
    assert "want " in message


def test_unknown_field_is_refused_with_the_nearest_name():
    with pytest.raises(TypeError, match="'maxkl' is no field of TRPOConfig; did you mean max_kl"):
        TRPOConfig().replace(maxkl=0.1)
    with pytest.raises(TypeError, match="max_kl"):
        TRPOConfig.from_dict({"maxkl": 0.1})


def test_numpy_scalars_and_lists_become_plain_values():
    config = TRPOConfig(num_envs=np.int64(4), gamma=np.float32(0.5), damping=1, hidden_sizes=[32, np.int32(16)])
    assert config.hidden_sizes == (32, 16)
    assert [type(value) for value in (config.num_envs, config.gamma, config.damping)] == [int, float, float]


def test_json_round_trip_keeps_every_field_and_infinity():
    config = TRPOConfig(observation_clip=math.inf, hidden_sizes=(), dtype="float64")
    text = json.dumps(config.to_dict(), allow_nan=False)
    assert TRPOConfig.from_dict(json.loads(text)) == config


def test_a_saved_configuration_that_is_older_than_a_field_keeps_what_there_was():
    values = TRPOConfig().to_dict()
    assert TRPOConfig.from_saved(values) == TRPOConfig()
    del values["action_map"]
    assert TRPOConfig.from_dict(values).action_map == "auto"
    assert TRPOConfig.from_saved(values).action_map == "clip"
    del values["fisher_jacobians"]
    assert TRPOConfig.from_saved(values).fisher_jacobians == "never"


def test_a_saved_configuration_without_what_every_one_has_is_refused_by_name():
    then = {"action_map": "clip", "channel_axis": "auto", "device": "auto", "fisher_jacobians": "never"}
    then |= {"critic_precision": "float32", "fisher_precision": "float32", "relative_damping": 0.0}
    then |= {"recurrent_critic": True, "recurrent_size": 64}
    then |= {"evaluation_max_steps": 50_000, "log_std_limit": 20, "reset_on_checkpoint": 0}
    then |= {"mask_in_observation": "observe"}  # of those that came later
    then |= {"critic_gae_lambda": TRPOConfig().gae_lambda}  # there was one for both
    for field in dataclasses.fields(TRPOConfig):
        values = TRPOConfig().to_dict()
        del values[field.name]
        if field.name in then:
            assert TRPOConfig.from_saved(values) == TRPOConfig(**{field.name: then[field.name]})
        else:
            with pytest.raises(ValueError, match=rf"^config\.{field.name}: missing; want the value"):
                TRPOConfig.from_saved(values)


def _learned_bits(agent, bits):
    return bits(agent)


def _evaluation_lengths(agent, bits):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="evaluate: .* had not ended")
        return agent.evaluate(2).lengths.tolist()


def _fit_thread(agent, bits):
    class Recorder:
        def __init__(self, kernel):
            self.kernel = kernel

        def __getattr__(self, name):
            return getattr(self.kernel, name)

        def fit(self, *arguments, **options):
            threads.append(threading.current_thread() is threading.main_thread())
            return self.kernel.fit(*arguments, **options)

    threads = []
    agent.critic_trainer._kernel = Recorder(agent.critic_trainer._kernel)
    agent.learn(1, reset_num_timesteps=False)
    return threads


# A different value, and where it has to show: in every learned bit, unless something else is said.
CHANGES = {
    "num_envs": (2, _learned_bits),
    "steps_per_env": (48, _learned_bits),
    "warm_up_steps": (0, _learned_bits),
    "reset_on_checkpoint": (1, _learned_bits),
    "max_kl": (0.1, _learned_bits),
    "max_kl_schedule": ("cosine", _learned_bits),
    "kl_direction": ("old_new", lambda agent, bits: agent.last_update.kl),
    "damping": (1.0, _learned_bits),
    "relative_damping": (0.5, _learned_bits),
    "cg_iterations": (3, _learned_bits),
    "cg_rtol": (0.9, _learned_bits),
    "cg_progress_tol": (1.0, lambda agent, bits: agent.last_update.cg_iterations),
    "preconditioner": ("diagonal", _learned_bits),
    "fisher_subsample": (0.5, _learned_bits),
    "reorthogonalize": (False, _learned_bits),
    "fisher_jacobians": ("always", lambda agent, bits: agent.last_update.step.fisher_product),
    "fisher_precision": ("bfloat16", _learned_bits),
    "step_curvature": ("damped", _learned_bits),
    "line_search": (False, _learned_bits),
    "backtrack_factor": (0.5, _learned_bits),
    "max_backtracks": (0, _learned_bits),
    "entropy_coefficient": (0.1, _learned_bits),
    "gamma": (0.9, _learned_bits),
    "gae_lambda": (0.5, _learned_bits),
    "critic_gae_lambda": (0.5, _learned_bits),
    "normalize_advantages": (False, _learned_bits),
    "policy": ("mlp", lambda agent, bits: type(agent.policy)),
    "channel_axis": ("last", lambda agent, bits: agent.policy.image.channels_last),
    "hidden_sizes": ((8,), _learned_bits),
    "critic_hidden_sizes": ((8, 8), _learned_bits),
    "recurrent_size": (5, _learned_bits),
    "recurrent_critic": (False, _learned_bits),
    "activation": ("relu", _learned_bits),
    "log_std_init": (-0.5, _learned_bits),
    "log_std_limit": (1.0, _learned_bits),
    "action_map": ("clip", _learned_bits),
    "mask_in_observation": ("observe", lambda agent, bits: agent.policy.widths[0]),
    "normalize_observations": (False, _learned_bits),
    "observation_clip": (0.5, _learned_bits),
    "scale_rewards": (False, _learned_bits),
    "reward_clip": (0.01, _learned_bits),
    "critic_epochs": (3, _learned_bits),
    "critic_batch_size": (32, _learned_bits),
    "critic_precision": ("bfloat16", _learned_bits),
    "critic_learning_rate": (3e-4, _learned_bits),
    "critic_learning_rate_schedule": ("cosine", _learned_bits),
    "overlap_critic": (False, _fit_thread),  # by design it changes no bit
    "evaluation_max_steps": (7, _evaluation_lengths),
    "engine": ("autograd", lambda agent, bits: agent.engine.name),
    "device": ("cuda", lambda agent, bits: next(agent.policy.parameters()).device.type),
    "dtype": ("float64", _learned_bits),
}
# Large enough that the quadratic model of the KL is off and the line search has something to do; and enough iterations
# for a stop that judges by the last ten. What products are made of is otherwise the machine's to decide.
BASE = {"max_kl": 2.0, "cg_iterations": 15, "relative_damping": 0.0, "fisher_jacobians": "never"}


def test_table_of_changes_covers_every_field():
    assert set(CHANGES) == {entry.name for entry in dataclasses.fields(TRPOConfig)}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.filterwarnings("ignore:.*action_mask")
def test_changing_a_field_changes_the_training(name, make_agent, bits, portable_bfloat16):
    if name == "device" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here that torch can use")
    value, probe = CHANGES[name]
    seen = []
    for settings in (BASE, {**BASE, name: value}):
        # An environment of which nothing is known is needed for episodes to be cut, too.
        env = {"env": Halves} if name in ("policy", "channel_axis", "reset_on_checkpoint") else {}
        if name.startswith("recurrent_"):
            settings = settings | {"policy": "gru"}
        if name == "mask_in_observation":
            env = {"env": functools.partial(Lenient, Discrete(5))}
        if name == "channel_axis":
            settings = settings | {"policy": "cnn"}  # one pixel of height is no image without being asked for
        agent, backtracks = make_agent(**env, **settings), []
        agent.learn(3 * 3 * 64, callback=lambda agent, seen=backtracks: seen.append(agent.last_update.backtracks))
        if settings == BASE and name in ("backtrack_factor", "max_backtracks"):
            assert max(backtracks) > 0, "the case no longer exercises the line search"
        seen.append(probe(agent, bits))
    assert seen[0] != seen[1]


@pytest.mark.parametrize("read", [TRPOConfig.from_dict, TRPOConfig.from_saved])
@pytest.mark.parametrize("values", [b"max_kl", [("max_kl", 0.1)]])
def test_what_is_no_mapping_of_fields_is_named(read, values):
    with pytest.raises(TypeError, match=r"values: .* given; want a mapping of fields"):
        read(values)


def test_a_field_that_is_no_string_and_a_value_that_is_an_array_are_named():
    with pytest.raises(TypeError, match="3 is no field of TRPOConfig"):
        TRPOConfig.from_dict({3: 0.1})
    with pytest.raises((TypeError, ValueError), match="max_kl"):
        TRPOConfig.from_dict({"max_kl": np.ones(2)})


def test_a_kind_of_network_that_is_none_is_named():
    with pytest.raises(ValueError, match="critic: 'mlps' given; want one of 'mlp', 'cnn', 'recurrent'"):
        TRPOConfig().resolved(policy="mlp", critic="mlps")
