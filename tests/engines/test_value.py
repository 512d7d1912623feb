import threading

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from trpo_fast._core.critic import ValueKernel
from trpo_fast.engines.value import FailedFits, TorchValueKernel, make_value_kernel
from trpo_fast.policies import MLPCritic

SETTINGS = {"batch_size": 32, "learning_rate": 3e-3, "seed": 3, "stream": 1, "first_epoch": 5}


def critic_of(dtype="float64"):
    return MLPCritic(spaces.Box(-1, 1, (5,)), (8, 4), dtype=dtype, seed=0)


def data(dtype="float64", rows=100):
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, 5)).astype(dtype), rng.normal(size=rows).astype(dtype)


def state_of(critic):
    theta = critic.flat.numpy.copy()
    return [theta, np.full_like(theta, 0.01), np.full_like(theta, 0.001)]


def test_the_compiled_kernel_serves_a_plain_mlp_critic_and_torch_everything_else():
    class Own(MLPCritic):
        pass

    assert isinstance(make_value_kernel(critic_of()), ValueKernel)
    assert isinstance(make_value_kernel(Own(spaces.Box(-1, 1, (5,)))), TorchValueKernel)
    frozen = critic_of()
    frozen.layers[0].bias.requires_grad_(False)
    assert isinstance(make_value_kernel(frozen), TorchValueKernel)
    patched = critic_of()
    patched.layers[0].forward = patched.layers[0].forward
    assert isinstance(make_value_kernel(patched), TorchValueKernel)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-11), ("float32", 2e-4)])
def test_torch_fits_as_the_compiled_kernel_does(dtype, tolerance):
    critic, (observations, returns) = critic_of(dtype), data(dtype)
    compiled = ValueKernel(critic.widths, critic.activation, dtype)
    results = []
    for kernel in (compiled, TorchValueKernel(critic)):
        state = state_of(critic)
        step, loss = kernel.fit(*state, observations, returns, adam_step=7, epochs=4, **SETTINGS)
        assert step == 7 + 4 * 4
        results.append([*state, loss, kernel.values(state[0], observations)])
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_frozen_parameters_stay_and_the_module_is_not_touched():
    critic, (observations, returns) = critic_of(), data()
    critic.layers[0].weight.requires_grad_(False)
    kernel, before, (theta, _, _) = TorchValueKernel(critic), critic.flat.numpy.copy(), state_of(critic)
    kernel.fit(theta, 0 * theta, 0 * theta, observations, returns, adam_step=0, epochs=1, **SETTINGS)
    assert (theta[:40] == before[:40]).all()
    assert (theta[40:] != before[40:]).all()
    assert critic.flat.numpy.tobytes() == before.tobytes()


def test_a_fit_that_is_stopped_or_goes_astray_changes_nothing():
    critic, (observations, returns) = critic_of(), data()
    kernel, state = TorchValueKernel(critic), state_of(critic)
    before = [array.copy() for array in state]
    with pytest.raises(RuntimeError, match="was stopped"):
        kernel.fit(*state, observations, returns, adam_step=0, epochs=1, stop=np.ones(1, np.uint8), **SETTINGS)
    with pytest.raises(FloatingPointError, match="not finite"):
        kernel.fit(*state, observations, 1e300 * returns, adam_step=0, epochs=2, **SETTINGS)
    for array, expected in zip(state, before, strict=True):
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("kind", [TorchValueKernel, lambda critic: ValueKernel(critic.widths, "tanh", "float32")])
def test_a_return_whose_gradient_overflows_adams_second_moment_is_named_and_changes_nothing(kind):
    critic, (observations, returns) = critic_of("float32"), data("float32")
    kernel, state = kind(critic), state_of(critic)
    before = [array.copy() for array in state]
    returns[17] = 1e25
    with pytest.raises(FloatingPointError, match=r"square is infinite in float32.*second moment.*1e\+25"):
        kernel.fit(*state, observations, returns, adam_step=0, epochs=2, **SETTINGS)
    for array, expected in zip(state, before, strict=True):
        np.testing.assert_array_equal(array, expected)


def test_failed_fits_are_warnings_until_the_third_in_a_row():
    failed, error = FailedFits(), FloatingPointError("returns of up to 1e25")
    for _ in range(3):
        for _ in range(2):
            with pytest.warns(RuntimeWarning, match=r"1e25.*those before this fit"):
                failed.settle(error)
        failed.settle(None)
    for _ in range(2):
        with pytest.warns(RuntimeWarning):
            failed.settle(error)
    with pytest.raises(FloatingPointError, match="1e25"):
        failed.settle(error)


def test_a_fit_in_another_thread_has_the_same_bits_and_leaves_the_module_usable():
    critic, (observations, returns) = critic_of(), data()
    kernel, here, there = TorchValueKernel(critic), state_of(critic), state_of(critic)
    kernel.fit(*here, observations, returns, adam_step=0, epochs=3, **SETTINGS)
    names = [name for name, _ in critic.named_parameters()]
    thread = threading.Thread(
        target=lambda: kernel.fit(*there, observations, returns, adam_step=0, epochs=3, **SETTINGS)
    )
    thread.start()
    while thread.is_alive():
        assert [name for name, p in critic.named_parameters() if isinstance(p, nn.Parameter)] == names
    thread.join()
    for a, b in zip(here, there, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.Linear(5, 1), ValueError, r"critic: forward returned shape \(100, 1\) for 100 .* want \(100,\)"),
        (lambda: nn.LSTM(5, 1), TypeError, "critic: forward returned tuple; want a Tensor"),
    ],
)
def test_what_is_no_value_for_each_row_is_named(make, error, message):
    kernel = TorchValueKernel(make().double())
    observations, _ = data()
    with pytest.raises(error, match=message):
        kernel.values(np.zeros(kernel.size), observations)


def test_a_random_layer_in_training_mode_is_named():
    critic = nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    with pytest.raises(ValueError, match=r"critic: '1', a Dropout in training mode, draws random numbers.*critic.eval"):
        TorchValueKernel(critic)
    TorchValueKernel(critic.eval())


def test_observations_have_the_shape_that_was_asked_for_and_buffers_are_read_at_each_call():
    class Shaped(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))
            self.register_buffer("offset", torch.zeros((), dtype=torch.float64))

        def forward(self, observations):
            assert observations.shape[1:] == (2, 3)
            return self.weight * observations.sum((1, 2)) + self.offset

    critic = Shaped()
    kernel = make_value_kernel(critic, observation_shape=(2, 3))
    assert kernel.values(np.full(1, 2.0), np.ones((1500, 6))).tolist() == [12.0] * 1500
    critic.offset += 1.0
    assert kernel.values(np.full(1, 2.0), np.ones((3, 6))).tolist() == [13.0] * 3


class Pixels(nn.Module):
    """A value of 5 bytes, as floats."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(5, 1)

    def forward(self, observations):
        assert observations.dtype == self.layer.weight.dtype
        return self.layer(observations / 255)[:, 0]


def test_bytes_give_the_bits_of_the_floats_that_they_stand_for():
    rng = np.random.default_rng(1)
    pixels, returns = rng.integers(0, 256, (1100, 5)).astype(np.uint8), rng.normal(size=1100).astype(np.float32)
    kernel, results = TorchValueKernel(Pixels()), []
    for observations in (pixels, pixels.astype(np.float32)):
        state = [np.full(6, value, np.float32) for value in (0.1, 0.01, 0.001)]
        _, loss = kernel.fit(*state, observations, returns, adam_step=0, epochs=2, **SETTINGS)
        results.append([*state, loss, kernel.values(state[0], observations)])
    for found, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(found, expected)
