"""Recurrent policies in the autograd engine, against plain double backward in float64 over torch's own cells."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from torch import nn
from torch.distributions import Categorical, Independent, Normal, kl_divergence

from tests.engines.networks import Once
from trpo_fast.engines import fisher_matrix, make_engine
from trpo_fast.engines.checks import check_recurrent
from trpo_fast.policies.distributions import with_masks
from trpo_fast.policies.recurrent import RecurrentCritic, RecurrentPolicy, is_recurrent
from trpo_fast.rollout.batch import Batch, Sequences
from trpo_fast.solvers import Status, StepSettings, trust_region_step

T, E, D = 7, 3, 4
SEEN = Box(-9, 9, (D,))
ACTIONS = {
    "gaussian": Box(-1, 1, (2,)),
    "categorical": Discrete(3),
    "multicategorical": MultiDiscrete([2, 3]),
    "bernoulli": MultiBinary(2),
}


class Fused(nn.Module):
    """A recurrent policy of a user's own, on torch's fused LSTM, which knows no episode starts within its call."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(3)
        self.core = nn.LSTM(D, 5, dtype=dtype)
        self.head = nn.Linear(5, 3, dtype=dtype)

    def initial_state(self, count):
        return self.head.weight.new_zeros(count, 10)

    def forward(self, observations, state, episode_starts):
        outputs = []
        for x, starts in zip(observations, episode_starts, strict=True):
            h, c = torch.where(starts[:, None], 0.0, state).chunk(2, dim=1)
            y, (h, c) = self.core(x[None], (h[None].contiguous(), c[None].contiguous()))
            state = torch.cat([h[0], c[0]], 1)
            outputs.append(y[0])
        return Categorical(logits=self.head(torch.cat(outputs))), state


def batch_for(policy, space, *, masked=False, seed=0, valid=True):
    rng = np.random.default_rng(seed)
    dtype = next(policy.parameters()).detach().numpy().dtype
    observations = rng.normal(size=(T * E, D)).astype(dtype)
    starts = rng.random((T, E)) < 0.2
    is_sample = np.ones((T, E), bool)
    if valid is not True:
        is_sample[2, 1] = is_sample[5, 0] = False
    state = 0.5 * rng.normal(size=(E, policy.initial_state(1).shape[1])).astype(dtype)
    masks = None
    if isinstance(space, Box):
        actions = rng.normal(size=(T * E, 2)).astype(dtype)
    else:
        actions = np.stack([np.atleast_1d(space.sample()) for _ in range(T * E)])
        actions = actions.astype(np.int64).reshape(T * E, *(space.shape or ()))
    if masked:
        masks = np.ones((T * E, 3), bool)
        masks[np.arange(T * E), (actions + 1) % 3] = False
    advantages = rng.normal(size=T * E).astype(dtype)
    return Batch(observations, actions, advantages, None, masks, Sequences(starts, is_sample, state))


def plain(policy, batch):
    """The distribution by torch's own cells, step by step, as a function of the parameters by name; rows that count."""
    sequences = batch.sequences
    observations = torch.from_numpy(batch.observations).view(T, E, D)

    def forward(parameters):
        if not isinstance(policy, RecurrentPolicy):
            arguments = observations, torch.from_numpy(sequences.state), torch.from_numpy(sequences.starts)
            return torch.func.functional_call(policy, parameters, arguments)[0]
        state, hidden = torch.from_numpy(sequences.state), []
        cell = [parameters[f"cell.{name}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        for x, starts in zip(observations, torch.from_numpy(sequences.starts), strict=True):
            state = torch.where(starts[:, None], 0.0, state)
            if policy.kind == "gru":
                h = state = torch.gru_cell(x, state, *cell)
            else:
                h, c = torch.lstm_cell(x, state.chunk(2, dim=1), *cell)
                state = torch.cat([h, c], 1)
            hidden.append(h)
        y = torch.cat(hidden)
        for index in range(len(policy.layers)):
            y = y @ parameters[f"layers.{index}.weight"].T + parameters[f"layers.{index}.bias"]
            y = torch.tanh(y) if index < len(policy.layers) - 1 else y
        if policy.distribution == "gaussian":
            found = Independent(Normal(y, parameters["log_std"].exp().expand_as(y)), 1)
        else:
            found = Categorical(logits=y)
        return found if batch.action_masks is None else with_masks(found, torch.from_numpy(batch.action_masks))

    return forward, torch.from_numpy(np.flatnonzero(sequences.valid))


def oracle(policy, batch, v):
    """(gradient of the surrogate, F v) by double backward of the KL divergence."""
    forward, rows = plain(policy, batch)
    theta = {name: tensor.detach().clone().requires_grad_() for name, tensor in policy.named_parameters()}
    new = forward(theta)
    with torch.no_grad():
        old = forward(theta)
    log_probs = new.log_prob(torch.from_numpy(batch.actions))[rows]
    surrogate = ((log_probs - log_probs.detach()).exp() * torch.from_numpy(batch.advantages)[rows]).mean()
    gradient = torch.autograd.grad(surrogate, list(theta.values()), retain_graph=True)
    first = torch.autograd.grad(kl_divergence(old, new)[rows].mean(), list(theta.values()), create_graph=True)
    flat = torch.cat([part.reshape(-1) for part in first])
    product = torch.autograd.grad(flat @ torch.from_numpy(v), list(theta.values()))
    return [torch.cat([part.reshape(-1) for part in parts]).numpy() for parts in (gradient, product)]


CASES = [
    (kind, name, masked)
    for kind in ("gru", "lstm")
    for name, masked in (("gaussian", 0), ("categorical", 0), ("categorical", 1))
]


@pytest.mark.parametrize("valid", [True, "some"])
@pytest.mark.parametrize(("kind", "name", "masked"), [*CASES, ("own", "categorical", 0)])
def test_gradient_and_fisher_products_are_those_of_double_backward(kind, name, masked, valid):
    policy = Fused() if kind == "own" else RecurrentPolicy(kind, SEEN, ACTIONS[name], units=6, dtype="float64", seed=1)
    batch = batch_for(policy, ACTIONS[name], masked=masked, valid=valid)
    engine = make_engine(policy)
    engine.bind(batch)
    v = np.random.default_rng(4).normal(size=engine.size)
    gradient, product = oracle(policy, batch, v)
    np.testing.assert_allclose(engine.surrogate_gradient(), gradient, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(engine.fisher_operator().matvec(v), product, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ACTIONS)
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_the_first_ratio_is_one_and_a_step_stays_within_its_bound(kind, name):
    policy = RecurrentPolicy(kind, SEEN, ACTIONS[name], units=6, seed=1)
    engine = make_engine(policy)
    engine.bind(batch_for(policy, ACTIONS[name], valid="some"))
    assert engine.recurrent
    assert engine.evaluate() == (0.0, 0.0)
    settings = StepSettings(max_kl=0.01)
    assert trust_region_step(engine, step=settings).status is Status.SUCCESS
    improvement, kl = engine.evaluate()
    assert improvement > 0
    assert 0 < kl <= 0.01


def test_rows_that_are_no_samples_do_not_count():
    policy = RecurrentPolicy("gru", SEEN, ACTIONS["gaussian"], units=6, dtype="float64", seed=1)
    engine, found = make_engine(policy), []
    for other in (0.0, 1e3):
        batch = batch_for(policy, ACTIONS["gaussian"], valid="some")
        batch.advantages[~batch.sequences.valid.reshape(-1)] = other
        engine.bind(batch)
        found.append((engine.surrogate_gradient(), engine.entropy(), batch.samples))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:]
    assert found[0][2] == T * E - 2


def test_an_episode_start_forgets_what_was_before():
    policy = RecurrentPolicy("lstm", SEEN, ACTIONS["gaussian"], units=6, dtype="float64", seed=1)
    batch = batch_for(policy, ACTIONS["gaussian"])
    starts = torch.zeros(T, E, dtype=torch.bool)
    starts[3] = True
    observations = torch.from_numpy(batch.observations).view(T, E, D)
    state = torch.from_numpy(batch.sequences.state)
    whole, last = policy(observations, state, starts)
    later, last_of_later = policy(observations[3:], torch.full_like(state, 7.0), starts[3:])
    torch.testing.assert_close(whole.mean[3 * E :], later.mean, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(last, last_of_later, rtol=1e-12, atol=1e-15)


class Wrong(Fused):
    def __init__(self, what):
        super().__init__()
        self.what = what

    def forward(self, observations, state, episode_starts):
        found, after = super().forward(observations, state, episode_starts)
        return {"alone": found, "three": (found, after, after), "state": (found, after[:1]), "none": (found, None)}[
            self.what
        ]


@pytest.mark.parametrize(
    ("what", "words"), [("alone", "pair"), ("three", "pair"), ("state", r"\(1, 10\)"), ("none", "NoneType")]
)
def test_what_a_forward_returns_is_checked(what, words):
    policy = Wrong(what)
    assert is_recurrent(policy)
    engine = make_engine(policy)
    with pytest.raises((TypeError, ValueError), match=f"policy: forward returned.*{words}"):
        engine.bind(batch_for(policy, ACTIONS["categorical"]))


def test_batches_are_of_the_policys_kind():
    policy = RecurrentPolicy("gru", SEEN, ACTIONS["gaussian"], units=6, seed=1)
    batch = batch_for(policy, ACTIONS["gaussian"])
    without = Batch(batch.observations, batch.actions, batch.advantages)
    with pytest.raises(ValueError, match="no sequences given; want some"):
        make_engine(policy).bind(without)
    flat = nn.Sequential(nn.Linear(D, 2))
    flat.forward = lambda x: Independent(Normal(flat[0](x), 1.0), 1)
    with pytest.raises(ValueError, match="sequences given; want none"):
        make_engine(flat).bind(batch)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"starts": np.zeros((T, E + 1), bool)}, "starts"),
        ({"valid": np.zeros((T, E), bool)}, "0 samples"),
        ({"valid": np.ones((E, T), bool)}, "valid"),
        ({"state": np.zeros((E + 1, 6), np.float32)}, "state"),
    ],
)
def test_sequences_that_do_not_fit_are_named(changed, words):
    policy = RecurrentPolicy("gru", SEEN, ACTIONS["gaussian"], units=6, seed=1)
    batch = batch_for(policy, ACTIONS["gaussian"])
    given = {name: getattr(batch.sequences, name) for name in ("starts", "valid", "state")} | changed
    with pytest.raises(ValueError, match=words):
        Batch(batch.observations, batch.actions, batch.advantages, sequences=Sequences(**given))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "rnn"}, "kind: 'rnn'"),
        ({"units": 0}, "units"),
        ({"activation": "sine"}, "activation"),
        ({"hidden_sizes": (0,)}, "hidden_sizes"),
        ({"dtype": "float16"}, "dtype"),
    ],
)
def test_bad_policies_are_named(arguments, words):
    given = {"kind": "gru", **arguments}
    with pytest.raises(ValueError, match=words):
        RecurrentPolicy(given.pop("kind"), SEEN, ACTIONS["gaussian"], **given)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (((T, E, D + 1), (E, 6), (T, E)), "observations"),
        (((T * E, D), (E, 6), (T, E)), "observations"),
        (((T, E, D), (E, 5), (T, E)), "state"),
        (((T, E, D), (E, 6), (E, T)), "episode_starts"),
    ],
)
def test_bad_sequences_of_observations_are_named(shapes, words):
    policy = RecurrentPolicy("gru", SEEN, ACTIONS["gaussian"], units=6)
    with pytest.raises(ValueError, match=words):
        policy(*(torch.zeros(shape) for shape in shapes))


def test_a_fisher_matrix_of_rows_is_refused_for_what_remembers():
    with pytest.raises(ValueError, match="policy: a recurrent RecurrentPolicy given"):
        fisher_matrix(RecurrentPolicy("gru", SEEN, ACTIONS["gaussian"], units=6), np.zeros((3, D)))


def test_a_policy_that_was_moved_from_the_cpu_is_named():
    policy = RecurrentPolicy("gru", SEEN, ACTIONS["gaussian"], units=6).to("meta")
    with pytest.raises(ValueError, match="policy: a RecurrentPolicy on meta; want the CPU"):
        policy(torch.zeros(T, E, D), torch.zeros(E, 6), torch.zeros(T, E, dtype=torch.bool))


def test_a_stale_graph_of_a_cell_fails_loudly():
    policy = RecurrentPolicy("gru", SEEN, ACTIONS["gaussian"], units=6, seed=0)
    found, _ = policy(torch.ones(T, E, D), torch.zeros(E, 6), torch.zeros(T, E, dtype=torch.bool))
    with torch.no_grad():
        policy.cell.weight_hh.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        found.mean.sum().backward()


def test_a_module_with_another_initial_state_is_no_recurrent_one():
    module = nn.Linear(D, 2)
    module.initial_state = nn.Parameter(torch.zeros(3))
    assert not is_recurrent(module)


class Slip(Fused):
    """`Fused` with one mistake."""

    def __init__(self, slip=None):
        super().__init__(torch.float32)
        self.slip, self.calls = slip, 0

    def forward(self, observations, state, episode_starts):
        self.calls += 1
        if self.slip == "mixes":
            observations = observations - observations.mean(1, keepdim=True)
        if self.slip == "looks ahead":
            observations = observations.flip(0)
        if self.slip == "starts ignored":
            episode_starts = torch.zeros_like(episode_starts)
        if self.slip == "first start alone":
            episode_starts = torch.cat([episode_starts[:1], torch.zeros_like(episode_starts[1:])])
        if self.slip == "state ignored":
            state = torch.zeros_like(state)
        found, after = super().forward(observations, state, episode_starts)
        logits = found.logits
        if self.slip == "detached":
            logits = logits * logits.detach()
        if self.slip == "once":
            logits = Once.apply(logits)
        if self.slip == "not finite":
            logits = logits + (logits - logits.detach()).abs().sqrt()
        if self.slip == "noise":
            logits = logits + torch.randn_like(logits)
        if self.slip == "order":
            logits = logits.view(*episode_starts.shape, -1).transpose(0, 1).reshape(len(logits), -1)
        if self.slip == "counts":
            logits = logits + torch.arange(3) * self.calls
        return Categorical(logits=logits), after


SLIPS = {
    "mixes": "depend on the other sequences",
    "order": "depend on the other sequences",
    "looks ahead": "several steps at once",
    "first start alone": "several steps at once",
    "state ignored": "several steps at once",
    "starts ignored": "is not forgotten",
    "noise": "two forward passes",
    "counts": "two forward passes",
    "once": r"its backward \(Once\) is not differentiated as it is computed",
    "not finite": r"derivatives are not finite \(.*\) for any of the 5 rows",
}


@pytest.mark.parametrize("slip", SLIPS)
def test_recurrent_modules_whose_sequences_are_not_their_steps_are_refused(slip):
    with pytest.raises(ValueError, match=f"^policy: .*{SLIPS[slip]}"):
        check_recurrent("policy", Slip(slip), [torch.randn(5, D)])


def test_a_recurrent_module_that_detaches_is_warned_of():
    with pytest.warns(UserWarning, match="policy: its gradients are not the derivatives of what it computes"):
        check_recurrent("policy", Slip("detached"), [torch.randn(5, D)])


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda v: v.detach(), "nothing connects its values to its parameters"),
        (lambda v: v + (v - v.detach()).sqrt(), "its derivatives are not finite for any of the 5 rows"),
    ],
)
def test_a_recurrent_critic_without_a_gradient_is_refused(function, words):
    critic = RecurrentCritic("gru", SEEN, units=6)
    forward = critic.forward

    def sloping(*arguments):
        values, state = forward(*arguments)
        return function(values), state

    critic.forward = sloping
    with pytest.raises(ValueError, match=f"critic: {words}"):
        check_recurrent("critic", critic, [torch.randn(5, D)])


@pytest.mark.filterwarnings("error")
def test_recurrent_modules_that_are_right_pass_the_check():
    check_recurrent("policy", Slip(), [torch.randn(5, D)])
    for kind in ("gru", "lstm"):
        check_recurrent("policy", RecurrentPolicy(kind, SEEN, ACTIONS["gaussian"], units=6), [torch.randn(5, D)])
        check_recurrent("critic", RecurrentCritic(kind, SEEN, units=6), [torch.randn(5, D)])
