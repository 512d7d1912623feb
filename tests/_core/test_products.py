"""Products at the kernel's boundary: what is refused, and copies of actions that index memory."""

import numpy as np
import pytest

from tests import reference
from trpo_fast._core.acting import sample
from trpo_fast._core.policy import PolicyKernel

PARTS = (("categorical", 3, None), ("gaussian", 2, None), ("multicategorical", 4, (1, 3)), ("bernoulli", 2, None))
WIDTHS = (5, 8, 11)


def kernel_of(dtype=np.float64, parts=PARTS, widths=WIDTHS):
    return PolicyKernel(widths, "tanh", "product", dtype, None, parts)


def test_a_kernel_says_what_it_is():
    kernel = kernel_of()
    assert (kernel.distribution, kernel.parts, kernel.nvec, kernel.log_std_items) == ("product", PARTS, None, 2)
    oracle = reference.Product(WIDTHS, "tanh", tuple((kind, n, nvec or ()) for kind, n, nvec in PARTS))
    assert kernel.size == oracle.size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("product", np.float64, None, None), "parts: None.* given; want them for 'product', None for others"),
        (("gaussian", np.float64, None, PARTS), "parts: .*want them for 'product', None for others"),
        (("product", np.float64, None, ()), r"parts: \[\].* given; want outputs that add up to 11"),
        (("product", np.float64, None, PARTS[1:]), r"parts: \[2, 4, 2\].* given; want outputs that add up to 11"),
        (("product", np.float64, None, (("product", 11, None),)), "parts: 'product'.* given; want one of"),
        (
            ("product", np.float64, None, (("multicategorical", 11, None),)),
            "parts: .*want .distribution, outputs, nvec",
        ),
        (("product", np.float64, None, (("multicategorical", 11, (4, 4)),)), "nvec: .*want positive sizes that add up"),
        (
            ("product", np.float64, None, (("gaussian", 0, None), ("bernoulli", 11, None))),
            "parts: .*want .distribution",
        ),
    ],
    ids=str,
)
def test_parts_that_make_no_kernel_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        PolicyKernel(WIDTHS, "tanh", *arguments)


def bound(kernel, **replace):
    rng = np.random.default_rng(0)
    dtype = kernel.dtype
    columns = [rng.integers(0, 3, (40, 1)), rng.normal(size=(40, 2)), 0 * rng.integers(0, 1, (40, 1))]
    columns += [rng.integers(0, 3, (40, 1)), rng.integers(0, 2, (40, 2))]
    arguments = {
        "parameters": (0.4 * rng.normal(size=kernel.size)).astype(dtype),
        "observations": rng.normal(size=(40, 5)).astype(dtype),
        "actions": np.hstack(columns).astype(dtype),
        "advantages": rng.normal(size=40).astype(dtype),
    } | replace
    kernel.bind(**arguments)
    return arguments


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_actions_are_copied_since_they_index_memory(dtype):
    kernel = kernel_of(dtype)
    arguments = bound(kernel)
    before = kernel.surrogate_gradient()
    arguments["actions"][:, 0] = 1e6
    np.testing.assert_array_equal(kernel.surrogate_gradient(), before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -0.5, 3.0])
def test_no_number_that_is_no_choice_reaches_the_kernels(value, dtype):
    kernel = kernel_of(dtype)
    actions = bound(kernel)["actions"]
    actions[7, 4] = value
    with pytest.raises(ValueError, match=r"actions: row 7, part 2, component 1 holds .*; want 0 to 2"):
        bound(kernel, actions=actions)


def test_masks_are_checked_part_by_part():
    kernel = kernel_of()
    actions = bound(kernel)["actions"]
    masks = np.ones((40, 3 + 4 + 4), bool)
    bound(kernel, action_masks=masks)
    masks[9, 4:7] = False
    with pytest.raises(ValueError, match=r"action_masks: row 9, part 2, component 1 forbids every choice"):
        bound(kernel, action_masks=masks)
    masks[9, 4:7] = True
    masks[11, :3] = np.arange(3) != actions[11, 0]
    with pytest.raises(ValueError, match=r"actions: row 11, part 0 holds \d, which its mask forbids"):
        bound(kernel, action_masks=masks)
    with pytest.raises(ValueError, match="action_masks"):
        bound(kernel, action_masks=masks[:, 1:].copy())
    gaussians = kernel_of(parts=(("gaussian", 4, None), ("gaussian", 7, None)))
    with pytest.raises(ValueError, match="action_masks: a gaussian policy takes none"):
        bound(gaussians, actions=np.zeros((40, 11)), action_masks=masks)


def test_a_product_of_gaussians_is_the_gaussian():
    whole, product = (
        PolicyKernel(WIDTHS, "tanh", "gaussian", np.float64),
        kernel_of(parts=(("gaussian", 4, None), ("gaussian", 7, None))),
    )
    actions = np.random.default_rng(1).normal(size=(40, 11))
    for kernel in (whole, product):
        bound(kernel, actions=actions)
    np.testing.assert_allclose(product.surrogate_gradient(), whole.surrogate_gradient(), rtol=1e-12, atol=1e-15)
    v = np.random.default_rng(2).normal(size=whole.size)
    np.testing.assert_allclose(product.fisher_operator() @ v, whole.fisher_operator() @ v, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(product.entropy(), whole.entropy(), rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sampling_elsewhere_is_the_actors_and_wants_a_log_std_for_each_mean(dtype):
    outputs = np.random.default_rng(0).normal(size=(6, 11)).astype(dtype)
    actions, log_probs = np.empty((6, 7), dtype), np.empty(6, dtype)
    more = {"seed": 1, "stream": 2, "parts": PARTS}
    sample("product", outputs, np.zeros(2, dtype), 3, actions, log_probs, **more)
    assert np.isfinite(log_probs).all()
    with pytest.raises(ValueError, match="log_std"):
        sample("product", outputs, np.zeros(3, dtype), 3, actions, log_probs, **more)
    with pytest.raises(TypeError, match="actions"):
        sample("product", outputs, np.zeros(2, dtype), 3, actions.astype(np.int64), log_probs, **more)
