"""One update beside sb3-contrib's, from one rollout buffer: the same numbers, generators, logs and optimizer state."""

import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

pytest.importorskip("sb3_contrib")

import sb3_contrib
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.distributions import kl_divergence
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import VecNormalize

from tests import reference
from tests.sb3.pairs import (
    ACTIONS,
    BOX,
    IMAGES,
    collect,
    environment,
    flat,
    make,
    optimizer_state,
    pair,
    relative,
    share,
    train,
)
from trpo_fast import Status
from trpo_fast.policies.flat import GatheredParameters
from trpo_fast.sb3 import TRPO

DICT = spaces.Dict({"a": spaces.Box(-1.0, 1.0, (3,), np.float32), "b": spaces.Discrete(3), "image": IMAGES})
SMALL = {"n_steps": 32, "batch_size": 32}


def assert_one_update_agrees(ours, theirs, *, actor=1e-3, critic=1e-3):
    policy, value = flat(theirs, False), flat(theirs, True)
    np.testing.assert_array_equal(flat(ours, False), policy)
    generators, expected = train(ours), train(theirs)
    for one, other in zip(generators[0], expected[0], strict=True):
        np.testing.assert_array_equal(one, other)
    assert torch.equal(generators[1], expected[1])
    assert (flat(theirs, False) != policy).any()
    assert relative(flat(ours, False) - policy, flat(theirs, False) - policy) < actor
    assert relative(flat(ours, True) - value, flat(theirs, True) - value) < critic
    logged, wanted = ours.logger.name_to_value, theirs.logger.name_to_value
    assert list(logged) == list(wanted)
    for key, value in wanted.items():
        assert logged[key] == pytest.approx(value, rel=2e-4, abs=1e-5), key
    state, wanted = optimizer_state(ours), optimizer_state(theirs)
    assert list(state) == list(wanted)
    for name, (step, m, v) in wanted.items():
        assert state[name][0] == step
        torch.testing.assert_close(state[name][1], m, rtol=1e-3, atol=1e-3 * float(m.abs().max()))
        torch.testing.assert_close(state[name][2], v, rtol=1e-3, atol=1e-3 * float(v.abs().max()))


class SbFisher:
    """What sb3-contrib's train() has when it calls its solver."""

    def __init__(self, model):
        (data,) = model.rollout_buffer.get(batch_size=None)
        actions = data.actions.long() if isinstance(model.action_space, spaces.Discrete) else data.actions
        actions = actions.flatten() if isinstance(model.action_space, spaces.Discrete) else actions
        with torch.no_grad():
            old = copy.copy(model.policy.get_distribution(data.observations))
        new = model.policy.get_distribution(data.observations)
        advantages = (data.advantages - data.advantages.mean()) / (data.advantages.std() + 1e-8)
        objective = (advantages * (new.log_prob(actions) - data.old_log_prob).exp()).mean()
        self.model = model
        self.parameters, self.gradient, self.kl_gradient, _ = model._compute_actor_grad(
            kl_divergence(new, old).mean(), objective
        )

    def product(self, v):
        v = torch.from_numpy(v).to(self.gradient.dtype)
        return self.model.hessian_vector_product(self.parameters, self.kl_gradient, v).detach().numpy()


@pytest.mark.parametrize("actions", ACTIONS)
def test_fisher_products_are_those_of_sb3_contrib(actions, monkeypatch):
    import trpo_fast.sb3.update as update

    ours, theirs = pair(action_space=ACTIONS[actions])
    operators, solve = [], update.conjugate_gradient
    monkeypatch.setattr(update, "conjugate_gradient", lambda A, g, **kw: operators.append((A, kw)) or solve(A, g, **kw))
    reference = SbFisher(theirs)
    ours.train()
    ((operator, settings),) = operators
    divisor = 6 if actions in ("box", "multibinary") else 1
    rng = np.random.default_rng(0)
    for _ in range(5):
        v = rng.normal(size=operator.size).astype(np.float32)
        product = (operator.matvec(v) + settings["damping"] * v) / divisor
        assert relative(product, reference.product(v)) < 1e-5


@pytest.mark.parametrize("actions", ACTIONS)
def test_an_update_is_that_of_sb3_contrib(actions):
    ours, theirs = pair(action_space=ACTIONS[actions])
    assert_one_update_agrees(ours, theirs)
    assert (ours.update_engine, ours.critic_engine) == ("compiled", "compiled")
    assert ours.last_step.status == Status.SUCCESS
    # and the next one from what the first has left, optimizer state included
    collect(theirs)
    for name, value in vars(theirs.rollout_buffer).items():
        setattr(ours.rollout_buffer, name, copy.deepcopy(value))
    train(ours)
    train(theirs)
    assert relative(flat(ours, False), flat(theirs, False)) < 1e-3
    assert relative(flat(ours, True), flat(theirs, True)) < 1e-4
    assert all(step == 24 for step, _, _ in optimizer_state(ours).values())


@pytest.mark.parametrize(
    "settings",
    [
        {"sub_sampling_factor": 3},
        {"sub_sampling_factor": 1.0},
        {"normalize_advantage": False},
        {"batch_size": 256},
        {"cg_damping": 0.01, "target_kl": 0.003, "line_search_shrinking_factor": 0.5},
        {"learning_rate": lambda progress: 3e-3 * progress, "n_critic_updates": 1},
        {"policy_kwargs": {"activation_fn": nn.ReLU, "net_arch": {"pi": [16], "vf": [32, 8]}, "log_std_init": -1.0}},
        {"policy_kwargs": {"activation_fn": nn.SiLU}},
        {"policy_kwargs": {"activation_fn": nn.GELU}},
        {"policy_kwargs": {"activation_fn": nn.Softplus}},
        {"policy_kwargs": {"share_features_extractor": False}},
        {"policy_kwargs": {"optimizer_kwargs": {"betas": (0.8, 0.99), "eps": 1e-6}}},
        {"policy_kwargs": {"optimizer_class": torch.optim.AdamW, "optimizer_kwargs": {"weight_decay": 3.0}}},
        {"policy": "MultiInputPolicy", "observation_space": spaces.Dict({"b": BOX, "a": spaces.Discrete(3)})},
    ],
    ids=lambda settings: ", ".join(settings),
)
def test_settings_mean_what_they_mean_there(settings):
    ours, theirs = pair(**settings)
    assert_one_update_agrees(ours, theirs)
    assert (ours.update_engine, ours.critic_engine) == ("compiled", "compiled")


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size:UserWarning")
def test_the_value_loss_is_the_mean_over_minibatches_whatever_their_size():
    ours, theirs = pair(batch_size=100)  # 100, 100 and 56 rows
    assert_one_update_agrees(ours, theirs)
    assert ours.critic_engine == "compiled"


@pytest.mark.parametrize("observations", ["discrete", "multibinary", "image", "float64"])
def test_observations_that_are_preprocessed(observations):
    space = {
        "discrete": spaces.Discrete(6),
        "multibinary": spaces.MultiBinary(4),
        "image": spaces.Box(0, 255, (1, 8, 8), np.uint8),
        "float64": spaces.Box(-1.0, 1.0, (2, 3), np.float64),
    }[observations]
    ours, theirs = pair(space, policy_kwargs={"activation_fn": nn.Tanh})
    assert_one_update_agrees(ours, theirs)
    assert (ours.update_engine, ours.critic_engine) == ("compiled", "compiled")


def test_the_direction_of_twenty_five_iterations_gains_no_less():
    ours, theirs = pair(cg_max_steps=25, cg_damping=0.01, target_kl=1e-4)
    theta = flat(theirs, False)
    (data,) = theirs.rollout_buffer.get(batch_size=None)
    observations, actions, advantages = (
        tensor.double().numpy() for tensor in (data.observations, data.actions, data.advantages)
    )
    policy = reference.Policy((9, 64, 64, 6), "tanh", "gaussian")
    advantages = (advantages - advantages.mean()) / (advantages.std(ddof=1) + 1e-8)
    g = policy.surrogate_gradient(theta, observations, actions, advantages)

    def gain(model):  # g'x / sqrt(x'(F/A + lambda I)x), whatever the length of x
        train(model)
        x = flat(model, False) - theta
        curvature = x @ policy.fisher_product(theta, observations, x) / 6 + 0.01 * (x @ x)
        return (g @ x) / np.sqrt(curvature)

    gained = gain(ours)
    assert ours.last_step.status == Status.SUCCESS
    assert gained > (1 - 1e-5) * gain(theirs)  # displacements are float32


def test_a_failed_line_search_leaves_every_bit_of_the_policy():
    settings = {"target_kl": 1e3, "line_search_max_iter": 1}
    ours, theirs = pair(**settings)
    before = [p.detach().clone() for n, p in ours.policy.named_parameters() if "value" not in n]
    train(ours)
    train(theirs)
    assert theirs.logger.name_to_value["train/is_line_search_success"] == 0
    assert ours.last_step.status < 0
    after = [p for n, p in ours.policy.named_parameters() if "value" not in n]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    for key in ("policy_objective", "kl_divergence_loss", "is_line_search_success", "value_loss"):
        expected = theirs.logger.name_to_value[f"train/{key}"]
        assert ours.logger.name_to_value[f"train/{key}"] == pytest.approx(expected, rel=1e-5, abs=1e-6)


# Between 5 and 8 it is rounding that decides, and with it the CPU.
@pytest.mark.parametrize(("trials", "success"), [(1, 0), (5, 0), (8, 1), (10, 1)])
def test_the_number_of_trials_is_that_of_sb3_contrib(trials, success):
    for model in pair(target_kl=1e3, line_search_max_iter=trials):
        train(model)
        assert model.logger.name_to_value["train/is_line_search_success"] == success


@pytest.mark.parametrize("settings", [{"line_search_max_iter": 0}, {"target_kl": 0.0}, {"cg_max_steps": 0}], ids=str)
def test_settings_that_allow_no_step_end_as_there(settings):
    ours, theirs = pair(**settings)
    before = flat(ours, False)
    for model in (ours, theirs):
        train(model)
        assert model.logger.name_to_value["train/is_line_search_success"] == 0
        np.testing.assert_array_equal(flat(model, False), before)


def test_no_fit_of_the_value_function_is_no_error():
    ours, _ = pair(n_critic_updates=0)
    value = flat(ours, True)
    train(ours)
    np.testing.assert_array_equal(flat(ours, True), value)
    assert np.isnan(ours.logger.name_to_value["train/value_loss"])


class OwnProducts(TRPO):
    """A Fisher product of someone's own."""

    def hessian_vector_product(self, params, grad_kl, vector, retain_graph=True):
        self.products = getattr(self, "products", 0) + 1
        return super().hessian_vector_product(params, grad_kl, vector, retain_graph)


def test_a_subclass_with_mathematics_of_its_own_keeps_them():
    model = make(OwnProducts)
    collect(model)
    with pytest.warns(UserWarning, match="OwnProducts has its own hessian_vector_product"):
        train(model)
    assert model.products == 7  # five iterations, the start and the step


def test_without_a_gradient_the_policy_stays_and_the_generators_move_on():
    ours, theirs = pair(normalize_advantage=False)
    for model in (ours, theirs):
        model.rollout_buffer.advantages[:] = 0.0
    before = flat(ours, False)
    generators, expected = train(ours), train(theirs)
    assert ours.last_step.status == Status.NO_GRADIENT
    np.testing.assert_array_equal(flat(ours, False), before)
    np.testing.assert_array_equal(generators[0][1], expected[0][1])
    assert torch.equal(generators[1], expected[1])
    assert ours.logger.name_to_value["train/is_line_search_success"] == 0


def test_paper_kl_is_that_of_the_joint_distribution():
    joint, theirs = pair(paper_kl=True)
    joint.target_kl, joint.cg_damping = 6 * theirs.target_kl, 6 * theirs.cg_damping
    before = flat(joint, False)
    train(joint)
    train(theirs)
    assert relative(flat(joint, False) - before, flat(theirs, False) - before) < 1e-3
    kl = "train/kl_divergence_loss"
    assert joint.logger.name_to_value[kl] == pytest.approx(6 * theirs.logger.name_to_value[kl], rel=1e-3)


AUTOGRAD = {
    "gSDE": {"use_sde": True},
    "gSDE, squashed": {"use_sde": True, "policy_kwargs": {"squash_output": True}},
    "gSDE, expln": {"use_sde": True, "policy_kwargs": {"use_expln": True, "full_std": False}},
    "images": {"policy": "CnnPolicy", "observation_space": IMAGES, **SMALL},
    "images, two extractors": {
        "policy": "CnnPolicy",
        "observation_space": IMAGES,
        "policy_kwargs": {"share_features_extractor": False},
        **SMALL,
    },
    "dict": {"policy": "MultiInputPolicy", "observation_space": DICT, **SMALL},
    "Mish": {"policy_kwargs": {"activation_fn": nn.Mish}},
    "Mish, discrete": {"policy_kwargs": {"activation_fn": nn.Mish}, "action_space": ACTIONS["discrete"]},
    "Mish, multibinary": {"policy_kwargs": {"activation_fn": nn.Mish}, "action_space": ACTIONS["multibinary"]},
}


@pytest.mark.parametrize("case", AUTOGRAD)
def test_policies_without_kernels_are_updated_by_autograd(case, capsys):
    ours, theirs = pair(**AUTOGRAD[case])
    ours.verbose = 1
    assert_one_update_agrees(ours, theirs)
    # A value function of no features extractor has a kernel whatever the actor is.
    assert (ours.update_engine, ours.critic_engine) == ("autograd", "compiled" if "gSDE" in case else "torch")
    assert ours.update_reason
    train(ours)
    assert capsys.readouterr().out.count(f"by autograd: {ours.update_reason}") == 1


def test_parameters_that_are_copied_to_and_fro_reach_every_trial(monkeypatch):
    # as those on a GPU are
    monkeypatch.setattr("trpo_fast.engines.autograd.flat_parameters", GatheredParameters)
    ours, theirs = pair(use_sde=True, target_kl=0.05)
    assert_one_update_agrees(ours, theirs)
    assert ours.update_engine == "autograd"


def test_what_the_value_function_has_to_itself_is_fitted_though_it_is_not_called_value():
    ours, theirs = pair(**AUTOGRAD["images, two extractors"])
    assert_one_update_agrees(ours, theirs)
    own = [name for name in optimizer_state(ours) if name.startswith("vf_features_extractor")]
    assert own


class Dropout(FlattenExtractor):
    """Draws random numbers in every forward pass of an update."""

    def __init__(self, observation_space):
        super().__init__(observation_space)
        self.dropout = nn.Dropout(0.1)

    def forward(self, observations):
        return self.dropout(super().forward(observations))


@pytest.mark.parametrize("paper_kl", [False, True])
def test_what_no_engine_can_serve_is_left_to_sb3_contrib_with_one_warning(paper_kl, recwarn):
    settings = {"policy_kwargs": {"features_extractor_class": Dropout}}
    ours, theirs = pair(paper_kl=paper_kl, **settings)
    if paper_kl:
        ours.target_kl, ours.cg_damping = 6 * ours.target_kl, 6 * ours.cg_damping
    with pytest.warns(UserWarning, match=r"sb3-contrib's own train\(\).*Dropout"):
        generators = train(ours)
    expected = train(theirs)
    np.testing.assert_array_equal(generators[0][1], expected[0][1])
    assert torch.equal(generators[1], expected[1])
    if not paper_kl:
        np.testing.assert_array_equal(flat(ours, False), flat(theirs, False))
    assert relative(flat(ours, False), flat(theirs, False)) < 1e-6
    np.testing.assert_array_equal(flat(ours, True), flat(theirs, True))
    kl = "train/kl_divergence_loss"
    wanted = theirs.logger.name_to_value[kl] * (6 if paper_kl else 1)
    assert ours.logger.name_to_value[kl] == pytest.approx(wanted, rel=1e-3)
    assert (ours.update_engine, ours.last_step) == ("sb3_contrib", None)
    recwarn.clear()
    train(ours)  # is not said again
    assert not recwarn.list


class OwnBuffer(RolloutBuffer):
    """Minibatches without any randomness."""

    def get(self, batch_size=None):
        np.random.permutation(3)
        if not self.generator_ready:
            for name in ("observations", "actions", "values", "log_probs", "advantages", "returns"):
                setattr(self, name, self.swap_and_flatten(getattr(self, name)))
            self.generator_ready = True
        rows = np.arange(self.buffer_size * self.n_envs)
        for start in range(0, len(rows), batch_size or len(rows)):
            yield self._get_samples(rows[start : start + (batch_size or len(rows))])


class Halves(OwnBuffer):
    """Two batches where sb3-contrib's has one."""

    def get(self, batch_size=None):
        return super().get(batch_size or self.buffer_size * self.n_envs // 2)


def test_a_second_batch_that_cannot_be_bound_leaves_nothing_of_the_first_step(monkeypatch):
    import trpo_fast.sb3.trpo as ours_trpo

    bound, actor = [], ours_trpo.AutogradActor

    def second_fails(*arguments):
        bound.append(1)
        if len(bound) == 2:
            raise RuntimeError("of the second")
        return actor(*arguments)

    monkeypatch.setattr(ours_trpo, "AutogradActor", second_fails)
    ours, theirs = pair(use_sde=True, rollout_buffer_class=Halves)
    with pytest.warns(UserWarning, match="RuntimeError: of the second"):
        generators = train(ours)
    expected = train(theirs)
    assert len(bound) == 2
    np.testing.assert_array_equal(flat(ours, False), flat(theirs, False))
    np.testing.assert_array_equal(flat(ours, True), flat(theirs, True))
    np.testing.assert_array_equal(generators[0][1], expected[0][1])
    assert torch.equal(generators[1], expected[1])


def test_a_second_batch_that_is_not_finite_leaves_nothing_of_the_first_step():
    ours, _ = pair(rollout_buffer_class=Halves)
    ours.rollout_buffer.returns[-1] = np.nan
    before = [p.detach().clone() for p in ours.policy.parameters()]
    with pytest.raises(FloatingPointError, match="returns"):
        train(ours)
    assert all(torch.equal(a, b) for a, b in zip(ours.policy.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"policy_kwargs": {"optimizer_class": torch.optim.SGD}}, "SGD"),
        ({"policy_kwargs": {"optimizer_class": torch.optim.RMSprop}}, "RMSprop"),
        ({"policy_kwargs": {"optimizer_kwargs": {"weight_decay": 0.1}}}, "weight_decay=0.1"),
        ({"policy_kwargs": {"optimizer_kwargs": {"amsgrad": True}}}, "amsgrad=True"),
        ({"policy_kwargs": {"optimizer_kwargs": {"maximize": True}}}, "maximize=True"),
        ({"rollout_buffer_class": OwnBuffer}, "OwnBuffer has its own get"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_value_functions_that_no_kernel_can_fit_are_fitted_by_torch(settings, reason):
    ours, theirs = pair(**settings)
    value = flat(ours, True)
    generators, expected = train(ours), train(theirs)
    np.testing.assert_array_equal(generators[0][1], expected[0][1])
    assert ours.update_engine == "compiled"
    assert ours.critic_engine == "torch"
    assert reason in ours.critic_reason
    assert (flat(ours, True) != value).any()
    np.testing.assert_array_equal(flat(ours, True), flat(theirs, True))


def several_groups(model):
    named = list(model.policy.named_parameters())
    groups = [{"params": [p for n, p in named if ("weight" in n) == weights]} for weights in (True, False)]
    return torch.optim.Adam(groups, lr=1e-3, eps=1e-5)


def with_a_hook(model):
    model.policy.optimizer.register_step_pre_hook(lambda *_: None)
    return model.policy.optimizer


def uneven(model):
    model.policy.value_net.bias.grad = torch.ones(1)
    model.policy.optimizer.step()
    return model.policy.optimizer


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(several_groups, "parameter group"), (with_a_hook, "hook"), (uneven, "other numbers of steps")],
)
def test_optimizers_that_the_kernel_would_not_keep_true_are_left_to_torch(spoil, reason):
    ours, theirs = pair()
    for model in (ours, theirs):
        model.policy.optimizer = spoil(model)
        train(model)
    assert reason in ours.critic_reason
    np.testing.assert_array_equal(flat(ours, True), flat(theirs, True))


def test_a_hook_on_every_optimizer_is_called():
    ours, _ = pair()
    calls = []
    handle = register_optimizer_step_post_hook(lambda *_: calls.append(1))
    try:
        train(ours)
    finally:
        handle.remove()
    assert ours.critic_reason == "torch has a hook on every optimizer" and len(calls) == 12


def test_an_optimizer_of_the_users_own_is_taken_up_and_kept_true():
    ours, theirs = pair()
    train(ours)
    train(theirs)
    share(theirs, ours)
    for model in (ours, theirs):
        actor = [p for n, p in model.policy.named_parameters() if "value" not in n]
        critic = [p for n, p in model.policy.named_parameters() if "value" in n]
        model.policy.optimizer = torch.optim.Adam([{"params": critic, "betas": (0.5, 0.9)}, {"params": actor}])
    assert_one_update_agrees(ours, theirs)
    assert ours.critic_engine == "compiled"
    # torch goes on from the state as it would from its own
    for model in (ours, theirs):
        for parameter in model.policy.parameters():
            parameter.grad = torch.ones_like(parameter)
        model.policy.optimizer.step()
    assert relative(flat(ours, True), flat(theirs, True)) < 1e-4


def test_adams_state_is_made_as_torch_makes_it():
    ours, theirs = pair()
    train(ours)
    train(theirs)
    state, wanted = (model.policy.optimizer.state[model.policy.value_net.weight] for model in (ours, theirs))
    assert list(state) == list(wanted)
    for key, tensor in wanted.items():
        assert (state[key].dtype, state[key].shape, state[key].device) == (tensor.dtype, tensor.shape, tensor.device)
    assert all(p.grad is None for n, p in ours.policy.named_parameters() if "value" not in n)


@pytest.mark.parametrize("settings", [{}, {"use_sde": True}], ids=["compiled", "autograd"])
def test_hooks_on_parameters_are_called_as_there(settings):
    ours, theirs = pair(**settings)
    calls = []
    for model in (ours, theirs):
        calls.append([])
        for name, parameter in model.policy.named_parameters():
            parameter.register_hook(lambda gradient, name=name, seen=calls[-1]: seen.append(name) or 0.5 * gradient)
    with pytest.warns(UserWarning, match=r"sb3-contrib's own train\(\).*has a hook"):
        train(ours)
    train(theirs)
    assert calls[0] == calls[1] and len(set(calls[0])) == len(list(ours.policy.parameters()))
    for value in (False, True):
        np.testing.assert_array_equal(flat(ours, value), flat(theirs, value))


def test_hooks_on_the_value_function_leave_the_policy_to_autograd():
    ours, theirs = pair()
    for model in (ours, theirs):
        model.policy.value_net.weight.register_hook(lambda gradient: 0.5 * gradient)
    assert_one_update_agrees(ours, theirs)
    assert (ours.update_engine, ours.critic_engine) == ("autograd", "torch")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("line_search_shrinking_factor", 1.0),
        ("line_search_shrinking_factor", 0.0),
        ("cg_damping", -1e-5),
        ("cg_max_steps", -1),
    ],
)
def test_settings_that_the_solver_refuses_are_left_to_sb3_contrib_by_name(setting, value):
    ours, theirs = pair(**{setting: value})
    with pytest.warns(UserWarning, match=rf"sb3-contrib's own train\(\).*{setting} is {value}"):
        train(ours)
    train(theirs)
    for half in (False, True):
        np.testing.assert_array_equal(flat(ours, half), flat(theirs, half))


@pytest.mark.parametrize("settings", [{}, {"use_sde": True}], ids=["compiled", "autograd"])
def test_torchs_default_device_does_not_matter(settings):
    ours, theirs = pair(**settings)
    with torch.device("meta"):  # where nothing can be computed
        train(ours)
    assert ours.update_engine == ("autograd" if settings else "compiled")
    train(theirs)
    for value in (False, True):
        assert relative(flat(ours, value), flat(theirs, value)) < 1e-4
    assert {tensor.device.type for tensor in ours.policy.optimizer.state[ours.policy.value_net.weight].values()} == {
        "cpu"
    }


@pytest.mark.parametrize("settings", [{}, {"use_sde": True}], ids=["compiled", "autograd"])
def test_torchs_default_dtype_does_not_matter(settings):
    ours, theirs = pair(**settings)
    torch.set_default_dtype(torch.float64)
    try:
        train(ours)
    finally:
        torch.set_default_dtype(torch.float32)
    assert (ours.update_engine, ours.critic_engine) == ("autograd" if settings else "compiled", "compiled")
    train(theirs)
    for value in (False, True):
        assert relative(flat(ours, value), flat(theirs, value)) < 1e-4


def test_a_rollout_of_one_step_is_an_update():
    ours, theirs = pair(n_steps=1, normalize_advantage=False, batch_size=1)
    assert_one_update_agrees(ours, theirs)


def test_a_graph_from_before_the_update_fails_loudly():
    ours, _ = pair()
    observations = torch.zeros(1, 9)
    loss = ours.policy.predict_values(observations).sum()
    log_prob = ours.policy.get_distribution(observations).distribution.mean.sum()
    train(ours)
    for output in (loss, log_prob):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            output.backward()


@pytest.mark.parametrize("settings", [{}, {"use_sde": True}], ids=["compiled", "autograd"])
@pytest.mark.parametrize("what", ["advantages", "returns"])
def test_a_rollout_that_is_not_finite_is_named_and_changes_nothing(what, settings):
    ours, _ = pair(**settings)
    getattr(ours.rollout_buffer, what)[3] = np.nan
    before = [p.detach().clone() for p in ours.policy.parameters()]
    with pytest.raises(FloatingPointError, match=what) as caught:
        train(ours)
    assert isinstance(caught.value, ValueError)  # which rl_zoo3's search takes for a trial that failed
    assert all(torch.equal(a, b) for a, b in zip(ours.policy.parameters(), before, strict=True))


def test_a_fit_that_diverges_leaves_the_value_function_and_the_optimizer():
    ours, _ = pair(learning_rate=1e38)
    value = flat(ours, True)
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match=r"learning_rate=1e\+38.*those before this fit"):
            train(ours)
    with pytest.raises(FloatingPointError, match="learning_rate") as caught:
        train(ours)
    assert isinstance(caught.value, ValueError)
    np.testing.assert_array_equal(flat(ours, True), value)
    assert not optimizer_state(ours)


@pytest.mark.parametrize("policy_kwargs", [{}, {"activation_fn": nn.Mish}], ids=["compiled", "torch"])
@pytest.mark.parametrize("fitted_before", [False, True])
def test_one_return_that_is_far_too_large_is_named_and_the_training_goes_on(policy_kwargs, fitted_before):
    ours, _ = pair(policy_kwargs=policy_kwargs)
    assert ours.critic_engine is None
    if fitted_before:
        train(ours)
    value, state = flat(ours, True), optimizer_state(ours)
    ours.rollout_buffer.returns[3] = 1e25
    with pytest.warns(RuntimeWarning, match=r"second moment.*1e\+25.*those before this fit"):
        train(ours)
    assert ours.critic_engine == ("torch" if policy_kwargs else "compiled")
    assert np.isnan(ours.logger.name_to_value["train/value_loss"])
    np.testing.assert_array_equal(flat(ours, True), value)
    for name, (step, *moments) in optimizer_state(ours).items():
        assert step == state[name][0]
        for found, expected in zip(moments, state[name][1:], strict=True):
            assert torch.equal(found, expected)
    assert optimizer_state(ours).keys() == state.keys()
    returns = ours.rollout_buffer.returns  # of another shape since
    returns[returns == np.float32(1e25)] = 1
    train(ours)
    assert (flat(ours, True) != value).any()
    assert all(torch.isfinite(moment).all() for _, *both in optimizer_state(ours).values() for moment in both)


def test_normalized_environments_and_learning_on():
    env = VecNormalize(environment())
    model = TRPO("MlpPolicy", env, n_steps=32, batch_size=32, seed=0, device="cpu")
    model.learn(128)
    model.learn(128, reset_num_timesteps=False)
    assert model.num_timesteps == 256
    assert model._n_updates == 4
    assert (model.update_engine, model.critic_engine) == ("compiled", "compiled")


def test_a_run_is_that_of_sb3_contrib_for_as_long_as_rounding_lets_it():
    models = [make(kind, n_steps=64, batch_size=64) for kind in (TRPO, sb3_contrib.TRPO)]
    for model in models:
        model.set_random_seed(0)
        model.learn(2 * 128)
    ours, theirs = models
    assert relative(flat(ours, False), flat(theirs, False)) < 1e-3
    assert relative(flat(ours, True), flat(theirs, True)) < 1e-3


def test_it_learns_cartpole():
    model = TRPO("MlpPolicy", make_vec_env("CartPole-v1", n_envs=4, seed=0), n_steps=256, seed=0, learning_rate=3e-3)
    model.learn(40_000)
    mean, _ = evaluate_policy(model, make_vec_env("CartPole-v1", seed=100), n_eval_episodes=10)
    assert mean > 300
