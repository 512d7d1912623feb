"""A number that no C number holds is refused by the name of its argument, wherever one can be given."""

import dataclasses
import math
from fractions import Fraction

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

import trpo_fast
from trpo_fast._core import acting, library, policy, rollout
from trpo_fast._core.critic import ValueKernel
from trpo_fast._core.operator import CallableOperator
from trpo_fast._core.preconditioner import KroneckerPreconditioner
from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.normalizers import ObservationNormalizer, RewardScaler
from trpo_fast.solvers.line_search import LineSearchResult, full_step

# Python shows no integer of more than 4,300 digits unless told to.
HUGE = {"401 digits": 10**400, "negative": -(10**400), "5,001 digits": 10**5000}

BOX, CHOICES = gym.spaces.Box(-1.0, 1.0, (3,)), gym.spaces.Discrete(2)


class Own(nn.Module):
    """A policy that the compiled engine has no kernels for."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, observations):
        return torch.distributions.Categorical(logits=self.layer(observations))


def a_batch():
    rng = np.random.default_rng(0)
    return trpo_fast.Batch(rng.normal(size=(16, 3)), rng.integers(2, size=16), rng.normal(size=16))


def an_engine(make=lambda: trpo_fast.MLPPolicy(BOX, CHOICES)):
    engine = trpo_fast.make_engine(make())
    engine.bind(a_batch())
    return engine


def a_kernel():
    return policy.PolicyKernel((3, 2), "tanh", "gaussian", "float64")


def act(**changed):
    arrays = {name: np.zeros((2, 2)) for name in ("actions", "env_actions")}
    arrays |= {name: np.zeros((2, 3)) for name in ("observations", "normalized")} | {"log_probs": np.zeros(2)}
    acting.Actor(a_kernel(), np.zeros(a_kernel().size)).act(**(arrays | {"step": 0, "first_row": 0} | changed))


def sample(**changed):
    arrays = {"distribution_parameters": np.zeros((2, 2)), "log_std": np.zeros(2)}
    arrays |= {"actions": np.zeros((2, 2)), "log_probs": np.zeros(2)}
    acting.sample("gaussian", **(arrays | {"step": 0, "seed": 0, "stream": 0, "first_row": 0} | changed))


def fit(**changed):
    settings = {"adam_step": 0, "epochs": 1, "batch_size": 2, "learning_rate": 0.1}
    key = {"seed": 0, "stream": 0, "first_epoch": 0}
    state = [np.zeros(4) for _ in range(3)]
    ValueKernel((3, 1), "tanh", "f8").fit(*state, np.zeros((5, 3)), np.zeros(5), **(settings | key | changed))


def bind(**changed):
    a_kernel().bind(np.zeros(a_kernel().size), np.zeros((4, 3)), np.zeros((4, 2)), np.zeros(4), **changed)


def gae(**changed):
    arrays = [np.zeros((2, 2)) for _ in range(3)] + [np.zeros((2, 2), bool)] * 2 + [np.zeros((2, 2)) for _ in range(2)]
    rollout.generalized_advantages(*arrays, **({"gamma": 0.9, "gae_lambda": 0.9} | changed))


def sums(**changed):
    masks = [np.zeros((2, 2), bool) for _ in range(2)]
    rollout.discounted_returns(np.zeros((2, 2)), *masks, np.zeros(2), np.zeros((2, 2)), **changed)


def search(**changed):
    settings = {"max_kl": 1.0} | changed
    trpo_fast.backtracking_line_search(lambda _: (1.0, 0.0), np.ones(2), np.ones(2), **settings)


def factors(weight=0, bias=None):
    return KroneckerPreconditioner([(np.eye(2), np.eye(1), weight, bias)], 3, "f8", 0.1)


# What is called, and its numbers.
NUMBERS = [
    (
        lambda **changed: trpo_fast.conjugate_gradient(np.eye(2), np.ones(2), **changed),
        "max_iter rtol atol damping progress_tol",
    ),
    (search, "max_kl backtrack_factor max_backtracks"),
    (
        lambda **changed: trpo_fast.trust_region_step(an_engine(), **changed),
        "max_kl damping cg_iterations cg_rtol cg_progress_tol backtrack_factor max_backtracks",
    ),
    (lambda **changed: an_engine().bind(a_batch(), **changed), "total entropy_coefficient"),
    (lambda **changed: an_engine(Own).bind(a_batch(), **changed), "total entropy_coefficient"),
    (lambda **changed: an_engine().preconditioner("kfac", **changed), "damping"),
    (
        lambda objective: trpo_fast.backtracking_line_search(
            lambda _: (objective, 0.0), np.ones(2), np.ones(2), max_kl=1.0
        ),
        "objective",
    ),
    (lambda objective: full_step(lambda _: (0.0, objective), np.ones(2), np.ones(2)), "objective"),
    (
        lambda curvature: trpo_fast.step_length(
            trpo_fast.Direction(np.ones(2), np.ones(2), curvature, 0.1, trpo_fast.Status.SUCCESS)
        ),
        "curvature",
    ),
    (
        lambda **changed: trpo_fast.Direction(np.ones(2), np.ones(2), **changed),
        "curvature damping residual_norm gradient_norm",
    ),
    (
        lambda damping: trpo_fast.Direction.from_solution(
            trpo_fast.conjugate_gradient(np.eye(2), np.ones(2)), np.ones(2), damping
        ),
        "damping",
    ),
    (
        lambda length: trpo_fast.TrustRegionReport.of_parts(
            trpo_fast.Direction(np.ones(2), np.ones(2), 1.0), length, LineSearchResult(0, 0, 1.0, 1.0, 1.0)
        ),
        "length",
    ),
    (trpo_fast.set_num_threads, "count"),
    (
        lambda **changed: library.permutation(**({"size": 3, "seed": 1, "stream": 1, "step": 1} | changed)),
        "size seed stream step",
    ),
    (lambda rounds: library.multiply_adds("f4", rounds), "rounds"),
    (lambda key: library.philox((key, 0), (0, 0, 0, 0)), "key"),
    (lambda counter: library.philox((0, 0), (0, 0, 0, counter)), "counter"),
    (lambda widths: ValueKernel((widths, 1), "tanh", "f8"), "widths"),
    (lambda widths: policy.PolicyKernel((3, widths), "tanh", "gaussian", "f8"), "widths"),
    (lambda nvec: policy.PolicyKernel((3, 2), "tanh", "multicategorical", "f8", (nvec, 1)), "nvec"),
    (fit, "adam_step epochs batch_size learning_rate seed stream first_epoch beta1 beta2 epsilon"),
    (bind, "total entropy_coefficient cache_bytes"),
    (
        lambda **changed: acting.Actor(a_kernel(), np.zeros(a_kernel().size), **changed),
        "seed stream observation_clip",
    ),
    (act, "step first_row"),
    (sample, "step seed stream first_row"),
    (gae, "gamma gae_lambda"),
    (sums, "gamma"),
    (lambda count: rollout.merge_moments(np.zeros((2, 2)), np.zeros(2), np.zeros(2), count), "count"),
    (lambda size: CallableOperator(abs, size, "f8"), "size"),
    (lambda size: KroneckerPreconditioner([], size, "f8", 0.1), "size"),
    (lambda damping: KroneckerPreconditioner([], 3, "f8", damping), "damping"),
    (factors, "weight bias"),
    (lambda **changed: ObservationNormalizer(**({"size": 3} | changed)), "size clip epsilon"),
    (lambda **changed: RewardScaler(**({"num_envs": 3, "gamma": 0.9} | changed)), "num_envs gamma clip epsilon"),
    (lambda **changed: trpo_fast.MLPPolicy(BOX, BOX, **changed), "log_std_init seed"),
    (lambda hidden_sizes: trpo_fast.MLPPolicy(BOX, BOX, (4, hidden_sizes)), "hidden_sizes"),
]
EVERY = [(call, name) for call, names in NUMBERS for name in names.split()]


@pytest.mark.parametrize("value", HUGE.values(), ids=HUGE)
@pytest.mark.parametrize(("call", "name"), EVERY, ids=[f"{i}-{name}" for i, (_, name) in enumerate(EVERY)])
def test_a_number_that_is_too_large_is_named(call, name, value):
    with pytest.raises((ValueError, TypeError), match=name):
        call(**{name: value})


@pytest.mark.parametrize("value", HUGE.values(), ids=HUGE)
def test_a_setting_that_is_too_large_is_named(value):
    for field in dataclasses.fields(TRPOConfig):
        if not isinstance(field.default, str | bool):
            with pytest.raises((ValueError, TypeError), match=field.name):
                TRPOConfig(**{field.name: value})


def test_fractions_are_numbers_and_those_too_large_are_named():
    assert trpo_fast.conjugate_gradient(np.eye(2), np.ones(2), damping=Fraction(1)).x[0] == 0.5
    with pytest.raises(ValueError, match=r"damping: Fraction.* given; want a number that a double can hold"):
        trpo_fast.conjugate_gradient(np.eye(2), np.ones(2), damping=Fraction(10**400))


@pytest.mark.parametrize("value", [0, 1, 2**63, 2**64 - 1, np.int64(7), np.uint64(2**64 - 1)])
def test_counters_take_what_64_bits_hold(value):
    assert sorted(library.permutation(5, seed=value, stream=0, step=0)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("value", [1.0, "1", None, math.nan])
def test_counters_take_integers_alone(value):
    with pytest.raises(TypeError, match=r"seed: .* given; want an integer"):
        library.permutation(5, seed=value, stream=0, step=0)


@pytest.mark.parametrize("value", ["1", None, [1.0]])
def test_what_is_no_number_is_named(value):
    with pytest.raises(TypeError, match=r"gamma: .*want a number"):
        gae(gamma=value)
