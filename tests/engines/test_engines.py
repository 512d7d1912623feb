"""Both engines against the float64 oracle and against each other, over a table of problems."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from tests import reference
from tests.engines.cases import KINDS, improvement_scale, make_case, relative_error
from trpo_fast.engines import AutogradEngine, NativeEngine, make_engine
from trpo_fast.policies.mlp import MLPPolicy
from trpo_fast.rollout.batch import Batch
from trpo_fast.solvers import Status, conjugate_gradient, trust_region_step

DISTRIBUTIONS = ("gaussian", "categorical", "masked multicategorical", "masked bernoulli", "masked product")
SHAPES = ((), (8,), (16, 8), (5, 7, 3, 9), (64, 64))
ACTIVATIONS = tuple(reference.ACTIVATIONS)


@pytest.fixture(params=["native", "autograd"])
def name(request):
    return request.param


def bound(case, name, **more):
    engine = make_engine(case.policy, name)
    engine.bind(case.batch(), **more)
    return engine


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("hidden", "activation", "kind"),
    # every pair of shape, activation and kind
    [
        (hidden, ACTIVATIONS[(i + j) % len(ACTIVATIONS)], kind)
        for i, hidden in enumerate(SHAPES)
        for j, kind in enumerate(KINDS)
    ],
    ids=str,
)
def test_gradient_fisher_product_and_trial_are_the_oracles(hidden, activation, kind, dtype, name):
    case = make_case(kind, hidden, activation, dtype, outputs=5)
    engine, theta, oracle, masks = bound(case, name), case.theta, case.oracle, case.masks
    expected = oracle.surrogate_gradient(theta, *case.data, masks=masks)
    assert relative_error(engine.surrogate_gradient(), expected) < case.tolerance
    v = case.vector()
    expected = oracle.fisher_product(theta, case.observations, v, masks=masks)
    assert relative_error(engine.fisher_operator() @ v, expected) < case.tolerance
    assert engine.entropy() == pytest.approx(oracle.entropy(theta, case.observations, masks), rel=case.tolerance)

    case.move()
    for direction in ("new_old", "old_new"):
        improvement, kl = engine.evaluate(direction)
        expected_improvement, expected_kl = oracle.evaluate(case.theta, theta, *case.data, direction, masks=masks)
        assert kl == pytest.approx(expected_kl, rel=case.tolerance)
        scale = improvement_scale(case, case.theta, theta)
        assert improvement == pytest.approx(expected_improvement, rel=0, abs=case.tolerance * scale)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("rows", [1, 2, 15, 16, 17, 95, 96, 97, 192, 1000, 1537])
def test_any_number_of_samples_serves(rows, distribution, dtype, name):
    case = make_case(distribution, dtype=dtype, rows=rows)
    engine, theta, v = bound(case, name), case.theta, case.vector()
    expected = case.oracle.surrogate_gradient(theta, *case.data, masks=case.masks)
    assert relative_error(engine.surrogate_gradient(), expected) < case.tolerance
    expected = case.oracle.fisher_product(theta, case.observations, v, masks=case.masks)
    assert relative_error(engine.fisher_operator() @ v, expected) < case.tolerance


@pytest.mark.parametrize("widths", [(1, 1), (1, 2), (3, 17), (33, 5), (376, 17)], ids=str)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_any_number_of_inputs_and_outputs_serves(distribution, widths, name):
    inputs, outputs = widths
    case = make_case(distribution, (19, 6), "tanh", "float64", 40, inputs, outputs)
    engine, theta, v = bound(case, name), case.theta, case.vector()
    expected = case.oracle.surrogate_gradient(theta, *case.data, masks=case.masks)
    # nothing to learn from a single choice
    assert expected.any() or max(case.oracle.blocks) == 1
    assert relative_error(engine.surrogate_gradient(), expected) < case.tolerance
    expected = case.oracle.fisher_product(theta, case.observations, v, masks=case.masks)
    assert relative_error(engine.fisher_operator() @ v, expected) < case.tolerance


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_engines_agree(distribution, dtype):
    case = make_case(distribution, dtype=dtype)
    native, autograd = bound(case, "native"), bound(case, "autograd")
    v = case.vector()
    assert relative_error(native.surrogate_gradient(), autograd.surrogate_gradient()) < case.tolerance
    assert relative_error(native.fisher_operator() @ v, autograd.fisher_operator() @ v) < case.tolerance
    case.move()
    assert native.evaluate()[1] == pytest.approx(autograd.evaluate()[1], rel=case.tolerance)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_fisher_operator_is_the_dense_matrix_entry_by_entry(distribution, name):
    case = make_case(distribution, (6, 5), rows=50)
    expected = case.oracle.fisher(case.theta, case.observations, masks=case.masks)
    operator = bound(case, name).fisher_operator()
    assert operator.shape == expected.shape
    columns = np.stack([operator @ unit for unit in np.eye(len(expected))], axis=1)
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert (np.abs(columns - expected) <= 1e-10 * scale + 1e-14).all()


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_fisher_matrix_is_the_hessian_of_either_kl(distribution, name):
    case = make_case(distribution)
    engine, v = bound(case, name), case.vector()
    curvature = v @ (engine.fisher_operator() @ v)
    step = 1e-4 / np.linalg.norm(v)
    for direction in ("new_old", "old_new"):
        kl = 0.0
        for sign in (1, -1):
            engine.parameters()[:] += sign * step * v
            engine.parameters_changed()
            kl += engine.evaluate(direction)[1] / 2
            engine.parameters()[:] -= sign * step * v
        assert kl == pytest.approx(0.5 * step**2 * curvature, rel=1e-4)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("rows", [1, 100, 777])
def test_at_theta_old_improvement_and_kl_are_exactly_zero(rows, distribution, dtype, name):
    case = make_case(distribution, (32, 32), dtype=dtype, rows=rows)
    engine = bound(case, name)
    assert engine.evaluate("new_old") == (0.0, 0.0)
    assert engine.evaluate("old_new") == (0.0, 0.0)
    before = engine.parameters().copy()
    case.move()
    assert engine.evaluate()[1] > 0
    engine.parameters()[:] = before
    engine.parameters_changed()
    assert engine.evaluate() == (0.0, 0.0)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_sums_over_shards_with_a_common_total_add_up_to_the_whole(distribution, name):
    case = make_case(distribution, rows=200)
    entropy = {"entropy_coefficient": 0.1}
    whole, v, theta = bound(case, name, **entropy), case.vector(), case.policy.flat.numpy.copy()
    shards = []
    for rows in (slice(0, 61), slice(61, 200)):
        engine = make_engine(case.policy, name)
        masks = None if case.masks is None else case.masks[rows]
        engine.bind(Batch(*(array[rows] for array in case.data), action_masks=masks), total=200, **entropy)
        shards.append(engine)
    gradient = sum(engine.surrogate_gradient() for engine in shards)
    np.testing.assert_allclose(gradient, whole.surrogate_gradient(), rtol=1e-11, atol=1e-14)
    product = sum(engine.fisher_operator() @ v for engine in shards)
    np.testing.assert_allclose(product, whole.fisher_operator() @ v, rtol=1e-11, atol=1e-14)
    whole.parameters()[:] = theta + 0.01 * v
    whole.parameters_changed()
    sums = np.sum([engine.evaluate() for engine in shards], axis=0)
    np.testing.assert_allclose(sums, whole.evaluate(), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_recorded_log_probabilities_are_the_denominators_of_the_ratio(distribution, name):
    case = make_case(distribution)
    theta = case.theta
    log_probs = case.oracle.log_prob(theta, case.observations, case.actions, case.masks)
    behaviour = log_probs + 0.1 * case.rng.normal(size=131)
    engine = make_engine(case.policy, name)
    engine.bind(case.batch(log_probs=behaviour))
    ratios = np.exp(log_probs - behaviour)
    gradient = case.oracle.surrogate_gradient(
        theta, case.observations, case.actions, ratios * case.advantages, masks=case.masks
    )
    assert relative_error(engine.surrogate_gradient(), gradient) < case.tolerance
    improvement, kl = engine.evaluate()
    assert improvement == pytest.approx(((ratios - 1) * case.advantages).mean(), rel=1e-10)
    assert kl == 0.0


def test_the_parameters_are_the_policys_own_memory(name):
    case = make_case()
    engine = bound(case, name)
    assert np.shares_memory(engine.parameters(), case.policy.flat.numpy)
    assert engine.size == len(engine.parameters()) == sum(p.numel() for p in case.policy.parameters())
    assert engine.dtype == np.float64
    engine.parameters()[:] = 0.5
    assert all((parameter == 0.5).all() for parameter in case.policy.parameters())


def test_parameters_changed_makes_a_stale_torch_graph_fail(name):
    case = make_case()
    engine = bound(case, name)
    loss = case.policy(torch.from_numpy(case.observations)).mean.sum()
    engine.parameters()[:] *= 0.5
    engine.parameters_changed()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_gradient_and_fisher_products_stay_at_theta_old_while_trials_are_evaluated(name):
    case = make_case()
    engine, v = bound(case, name), case.vector()
    operator = engine.fisher_operator()
    gradient, product = engine.surrogate_gradient(), operator @ v
    case.move(0.5)
    engine.evaluate()
    np.testing.assert_array_equal(operator @ v, product)
    np.testing.assert_array_equal(engine.surrogate_gradient(), gradient)
    np.testing.assert_array_equal(engine.fisher_operator() @ v, product)


def test_an_operator_outlived_by_a_rebind_raises(name):
    case = make_case()
    engine = bound(case, name)
    operator = engine.fisher_operator()
    engine.bind(case.batch())
    with pytest.raises(RuntimeError, match="outlived"):
        operator @ case.vector()
    engine.fisher_operator() @ case.vector()


def test_an_operator_outlives_its_engine(name):
    case = make_case()
    operator, v = bound(case, name).fisher_operator(), case.vector()
    expected = case.oracle.fisher_product(case.theta, case.observations, v)
    assert relative_error(operator @ v, expected) < case.tolerance


def test_using_an_engine_before_bind_says_so(name):
    engine = make_engine(make_case().policy, name)
    for use in (engine.surrogate_gradient, engine.fisher_operator, engine.evaluate, engine.entropy):
        with pytest.raises(RuntimeError, match="bind"):
            use()


@pytest.mark.parametrize(
    ("verdict", "status"),
    [
        ((-1.0, 0.0), Status.NO_IMPROVEMENT),
        ((1.0, 1e9), Status.KL_VIOLATED),
        ((np.nan, np.nan), None),
        ((0.0, 0.0), Status.NO_IMPROVEMENT),
    ],
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_rejected_step_restores_every_bit_of_the_parameters(dtype, verdict, status, name, monkeypatch):
    case = make_case(dtype=dtype)
    engine = bound(case, name)
    before = engine.parameters().copy()
    seen = []

    def evaluate(kl_direction="new_old"):
        seen.append(engine.parameters().copy())
        return verdict

    monkeypatch.setattr(engine, "evaluate", evaluate)
    report = trust_region_step(engine, max_backtracks=3)
    assert report.status < 0
    assert status in (None, report.status)
    assert any((trial != before).any() for trial in seen)
    assert engine.parameters().tobytes() == before.tobytes()
    assert case.policy.flat.is_intact()


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_an_accepted_step_improves_within_the_trust_region(dtype, distribution, name):
    case = make_case(distribution, (16, 16), dtype=dtype, rows=400)
    engine = bound(case, name)
    theta = case.theta
    report = trust_region_step(engine, max_kl=0.01)
    assert report.status == Status.SUCCESS
    improvement, kl = case.oracle.evaluate(case.theta, theta, *case.data, masks=case.masks)
    assert 0 < kl <= 0.01 * (1 + 1e-4)
    assert improvement > 0
    assert report.kl == pytest.approx(kl, rel=1e-4)
    assert report.improvement == pytest.approx(improvement, rel=1e-3)


def test_the_engines_make_the_same_step():
    thetas = []
    for name in ("native", "autograd"):
        case = make_case("gaussian", (16, 16), rows=400)
        trust_region_step(bound(case, name), cg_iterations=10)
        thetas.append(case.theta)
    assert relative_error(*thetas) < 1e-9


@pytest.mark.parametrize(
    ("replace", "message"),
    [
        ({"observations": np.zeros((131, 5))}, "observations"),
        ({"actions": np.zeros((131, 2))}, "actions"),
        ({"actions": np.zeros(131)}, "actions"),
    ],
)
def test_a_batch_that_does_not_fit_the_policy_is_named(replace, message, name):
    case = make_case()
    arrays = dict(zip(("observations", "actions", "advantages"), case.data, strict=True)) | replace
    with pytest.raises(ValueError, match=message):
        make_engine(case.policy, name).bind(Batch(**arrays))


@pytest.mark.parametrize("actions", [np.full(131, 3), np.full(131, -1), np.zeros((131, 2), int), np.full(131, 0.5)])
def test_actions_that_are_not_choices_are_refused(actions, name):
    case = make_case("categorical")
    with pytest.raises(ValueError, match="actions"):
        make_engine(case.policy, name).bind(Batch(case.observations, actions, case.advantages))


def test_integer_actions_of_another_width_and_arrays_of_another_precision_are_converted(name):
    case = make_case("categorical", dtype="float32")
    engine = bound(case, name)
    gradient = engine.surrogate_gradient()
    engine.bind(
        Batch(case.observations.astype(np.float64), case.actions.astype(np.int32), case.advantages.astype(np.float64))
    )
    assert engine.surrogate_gradient().dtype == np.float32
    np.testing.assert_array_equal(engine.surrogate_gradient(), gradient)


@pytest.mark.parametrize("total", [0, -5, 130])
def test_a_total_must_cover_the_batch(total, name):
    case = make_case()
    with pytest.raises(ValueError, match="total"):
        make_engine(case.policy, name).bind(case.batch(), total=total)


def test_an_unknown_kl_direction_is_named(name):
    with pytest.raises(ValueError, match="kl_direction"):
        bound(make_case(), name).evaluate("backward")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_parameter_that_is_not_finite_is_named(value, name):
    case = make_case()
    engine = make_engine(case.policy, name)
    with torch.no_grad():
        case.policy.layers[1].bias[2] = value
    with pytest.raises(ValueError, match=r"'layers.1.bias'"):
        engine.bind(case.batch())


def test_broken_views_are_made_again_when_an_engine_binds(name):
    case = make_case()
    engine = bound(case, name)
    buffer = engine.parameters()
    state = {key: 0.5 * tensor for key, tensor in case.policy.state_dict().items()}
    case.policy.load_state_dict(state, assign=True)
    expected = case.oracle.surrogate_gradient(0.5 * buffer, *case.data)
    engine.bind(case.batch())
    assert engine.parameters() is buffer
    assert case.policy.flat.is_intact()
    assert relative_error(engine.surrogate_gradient(), expected) < case.tolerance


def test_an_engine_refuses_a_policy_whose_dtype_changed(name):
    case = make_case()
    engine = bound(case, name)
    case.policy.float()
    with pytest.raises(ValueError, match="make another engine"):
        engine.bind(case.batch())


def test_acting_and_updating_leave_the_global_generators_alone(name):
    case = make_case()
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    engine = bound(case, name)
    trust_region_step(engine)
    out = [np.zeros((2, 7)), np.zeros((2, 3)), np.zeros(2), np.zeros((2, 3))]
    engine.actor(case.policy.action_space).act(case.observations[:2], 0, *out)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)


def test_the_engine_is_chosen_and_says_why():
    policy = make_case().policy
    assert isinstance(make_engine(policy), NativeEngine)
    assert (make_engine(policy).name, make_engine(policy, "autograd").name) == ("native", "autograd")
    assert isinstance(make_engine(policy, "autograd"), AutogradEngine)
    assert "MLPPolicy" in make_engine(policy).reason
    assert make_engine(policy, "autograd").reason == "asked for"
    with pytest.raises(ValueError, match="engine: 'fast' given; want one of 'auto', 'native', 'autograd'"):
        make_engine(policy, "fast")
    with pytest.raises(TypeError, match="policy: SimpleNamespace"):
        make_engine(SimpleNamespace())


@pytest.mark.parametrize(("hidden", "name"), [(63, "native"), (64, "autograd")])
def test_networks_deeper_than_the_kernels_serve_fall_back_and_say_why(hidden, name):
    policy = MLPPolicy(spaces.Box(-1, 1, (2,)), spaces.Discrete(2), (2,) * hidden)
    assert make_engine(policy).name == name
    if name == "autograd":
        assert make_engine(policy).reason == "MLPPolicy has 65 layers, more than 64"
        with pytest.raises(ValueError, match="cannot serve this policy: MLPPolicy has 65 layers"):
            make_engine(policy, "native")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_operator_is_not_redrawn_inside_cg(distribution, dtype, name):
    case = make_case(distribution, dtype=dtype)
    engine, v = bound(case, name), case.vector()
    operator = engine.fisher_operator()
    products = [operator @ v]
    conjugate_gradient(
        operator,
        engine.surrogate_gradient(),
        damping=0.1,
        max_iter=5,
        rtol=0.0,
        callback=lambda x: products.append(operator @ v),
    )
    products.append(operator @ v)
    assert len(products) == 7
    assert len({product.tobytes() for product in products}) == 1


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_entropy_bonus_enters_gradient_and_improvement_and_nothing_else(kind, dtype, name):
    case = make_case(kind, dtype=dtype, outputs=5)
    plain, engine, v = bound(case, name), bound(case, name, entropy_coefficient=0.3, total=200), case.vector()
    more = {"masks": case.masks, "entropy_coefficient": 0.3, "total": 200}
    theta = case.theta
    expected = case.oracle.surrogate_gradient(theta, *case.data, **more)
    assert relative_error(engine.surrogate_gradient(), expected) < case.tolerance
    product = plain.fisher_operator() @ v * (131 / 200)
    assert relative_error(engine.fisher_operator() @ v, product) < case.tolerance
    assert engine.evaluate() == (0.0, 0.0)

    case.move()
    improvement, kl = engine.evaluate()
    expected = case.oracle.evaluate(case.theta, theta, *case.data, **more)[0]
    assert improvement == pytest.approx(
        expected, rel=0, abs=case.tolerance * (1 + improvement_scale(case, case.theta, theta))
    )
    assert kl == pytest.approx(plain.evaluate()[1] * (131 / 200), rel=1e-12)
    assert abs(expected - plain.evaluate()[0] * (131 / 200)) > 1e-5  # the bonus is no rounding


@pytest.mark.parametrize("kind", KINDS)
def test_a_coefficient_of_zero_changes_no_bit(kind, name):
    case = make_case(kind)
    plain, engine = bound(case, name), bound(case, name, entropy_coefficient=0.0)
    np.testing.assert_array_equal(plain.surrogate_gradient(), engine.surrogate_gradient())
    case.move()
    assert plain.evaluate() == engine.evaluate()


@pytest.mark.parametrize("kind", KINDS)
def test_a_fisher_operator_over_some_rows_is_their_mean(kind, name):
    case = make_case(kind, outputs=5)
    engine, v = bound(case, name, total=200), case.vector()
    rows = np.sort(case.rng.permutation(131)[:40])
    masks = None if case.masks is None else case.masks[rows]
    # sums over the rows stand for sums over the batch
    expected = case.oracle.fisher_product(case.theta, case.observations[rows], v, masks=masks) * (131 / 200)
    operator = engine.fisher_operator(rows)
    assert relative_error(operator @ v, expected) < case.tolerance
    other = engine.fisher_operator(np.arange(131))
    assert relative_error(other @ v, engine.fisher_operator() @ v) < case.tolerance
    case.move()
    assert relative_error(operator @ v, expected) < case.tolerance
    engine.bind(case.batch())
    with pytest.raises(RuntimeError, match="outlived"):
        operator @ v


@pytest.mark.parametrize("rows", [[], [0.0, 1.0], [[0, 1]], [1, 0], [1, 1], [-1, 4], [0, 131], [True, False]], ids=str)
def test_rows_that_are_no_subset_are_refused(rows, name):
    engine = bound(make_case(), name)
    array = np.array(rows) if rows else np.array(rows, np.int64)
    with pytest.raises((ValueError, TypeError), match="rows"):
        engine.fisher_operator(array)


@pytest.mark.parametrize("kind", ["masked categorical", "masked multicategorical", "masked bernoulli"])
def test_forbidden_choices_take_no_part_at_all(kind, name):
    # Whatever logits they have: another bias of a choice that no row allows changes no result.
    case = make_case(kind, (), outputs=4)
    last = -2 if "bernoulli" in kind else -1  # the last flag may not be 1; the last choice may not be taken
    case.actions[..., -1] = 0
    case.masks[:, last:] = [True, False][last + 2 :]
    if kind == "masked categorical":
        case.actions %= 3
        case.masks |= case.oracle.chosen(case.actions) > 0
    if kind == "masked multicategorical":
        case.masks[:, -2] = True
    results = []
    for bias in (-3.0, 0.0, 5.0):
        case.policy.flat.numpy[-1] = bias
        case.policy.flat.bump_versions()
        engine = bound(case, name, entropy_coefficient=0.1)
        v = np.ones(engine.size)
        product = engine.fisher_operator() @ v
        results.append((*engine.surrogate_gradient(), *product, engine.entropy()))
        of_forbidden = [engine.surrogate_gradient()[-1], product[-1]]
        engine.parameters()[-1] += 1.0
        # torch's Categorical has normalized over all choices before the masks come, which leaves rounding
        assert np.abs([*of_forbidden, *engine.evaluate()]).max() <= (0.0 if name == "native" else 1e-15)
    np.testing.assert_allclose(results, np.broadcast_to(results[0], np.shape(results)), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("masked")])
def test_impossible_masks_and_forbidden_actions_are_named_by_row(kind, name):
    case = make_case(kind, outputs=4)
    stuck = case.masks.copy()
    stuck[17] = False
    with pytest.raises(ValueError, match=r"action_masks: .*17"):
        make_engine(case.policy, name).bind(case.batch(action_masks=stuck))
    forbidden = case.masks.copy()
    forbidden[23] = case.oracle.chosen(case.actions)[23] == 0
    with pytest.raises(ValueError, match=r"actions: .*23.* forbids"):
        make_engine(case.policy, name).bind(case.batch(action_masks=forbidden))
    with pytest.raises(ValueError, match="action_masks"):
        make_engine(case.policy, name).bind(case.batch(action_masks=case.masks[:, :-1].copy()))
    out_of_range = case.actions.copy()
    out_of_range[5] = 4
    with pytest.raises(ValueError, match=r"actions: .*4"):
        make_engine(case.policy, name).bind(Batch(case.observations, out_of_range, case.advantages))
    out_of_range[5] = -1
    with pytest.raises(ValueError, match=r"actions: .*-1"):
        make_engine(case.policy, name).bind(Batch(case.observations, out_of_range, case.advantages))


def test_a_gaussian_policy_takes_no_masks(name):
    case = make_case()
    with pytest.raises(ValueError, match="action_masks"):
        make_engine(case.policy, name).bind(case.batch(action_masks=np.ones((131, 3), bool)))
