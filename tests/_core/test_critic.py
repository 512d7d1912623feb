"""Value networks and their fit, against the float64 oracle."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import reference
from trpo_fast._core import library
from trpo_fast._core.critic import ValueKernel
from trpo_fast._core.policy import PolicyKernel
from trpo_fast.algorithm.config import TRPOConfig

WIDTHS = (4, 16, 8, 1)
ACTIVATIONS = tuple(reference.ACTIVATIONS)


class Fit:
    """A fit of a smooth function of B samples."""

    def __init__(self, dtype=np.float64, widths=WIDTHS, activation="tanh", rows=50):
        rng = np.random.default_rng(0)
        self.kernel = ValueKernel(widths, activation, dtype)
        self.network = reference.MLP(tuple(widths), activation)
        self.parameters = (0.5 * rng.normal(size=self.network.size)).astype(dtype)
        self.first_moment, self.second_moment = np.zeros_like(self.parameters), np.zeros_like(self.parameters)
        self.observations = rng.normal(size=(rows, widths[0])).astype(dtype)
        self.returns = (3 * np.sin(self.observations[:, 0]) + rng.normal(size=rows)).astype(dtype)
        self.settings = {
            "adam_step": 0,
            "epochs": 3,
            "batch_size": 16,
            "learning_rate": 1e-2,
            "seed": 5,
            "stream": 1,
            "first_epoch": 0,
        }

    @property
    def state(self):
        return self.parameters, self.first_moment, self.second_moment

    def run(self, **settings):
        return self.kernel.fit(*self.state, self.observations, self.returns, **(self.settings | settings))

    def expected(self, **settings):
        settings = self.settings | settings
        key = {name: settings.pop(name) for name in ("seed", "stream")}
        first = settings.pop("first_epoch")
        orders = [
            library.permutation(len(self.returns), **key, step=first + epoch) for epoch in range(settings.pop("epochs"))
        ]
        return reference.fit_values(self.network, *self.state, self.observations, self.returns, orders, **settings)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("widths", [(4, 1), (3, 7, 1), (17, 64, 64, 1)], ids=str)
def test_values_are_the_oracles(widths, activation, dtype):
    fit = Fit(dtype, widths, activation, rows=203)
    values = fit.kernel.values(fit.parameters, fit.observations)
    assert values.shape == (203,)
    assert values.dtype == dtype
    expected = fit.network.forward(fit.parameters, fit.observations)[0][:, 0]
    np.testing.assert_allclose(
        values, expected, rtol=0, atol=(1e-5 if dtype == np.float32 else 1e-13) * np.abs(expected).max()
    )
    out = np.empty(203, dtype)
    assert fit.kernel.values(fit.parameters, fit.observations, out) is out
    np.testing.assert_array_equal(out, values)
    np.testing.assert_array_equal(fit.kernel.values(fit.parameters, fit.observations[7:8].copy()), values[7:8])


@pytest.mark.parametrize("batch_size", [1, 16, 25, 50, 64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_fit_is_adam_over_the_drawn_minibatches(activation, batch_size):
    fit = Fit(activation=activation)
    *expected, step, loss = fit.expected(batch_size=batch_size)
    assert fit.run(batch_size=batch_size) == (step, pytest.approx(loss, rel=1e-9))
    assert step == 3 * -(-50 // batch_size)
    for ours, theirs in zip(fit.state, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-10)


def test_a_fit_in_single_precision_is_near_the_one_in_double():
    fit = Fit(np.float32, rows=300)
    fit.settings |= {"epochs": 5, "batch_size": 64}
    before = fit.parameters.astype(np.float64)
    expected, *_, step, loss = fit.expected()
    assert fit.run() == (step, pytest.approx(loss, rel=1e-4))
    # Adam divides gradients by their own size, so a coordinate whose gradient is of rounding size moves at random.
    assert np.linalg.norm(fit.parameters - expected) < 1e-3 * np.linalg.norm(expected - before)


def test_two_fits_in_a_row_are_one_longer_fit():
    once, twice = Fit(), Fit()
    step, loss = once.run(epochs=4)
    middle, _ = twice.run(epochs=1)
    assert twice.run(epochs=3, adam_step=middle, first_epoch=1) == (step, loss)
    for ours, theirs in zip(twice.state, once.state, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_fit_reduces_the_error():
    fit = Fit(rows=400)

    def error():
        return np.mean((fit.kernel.values(fit.parameters, fit.observations) - fit.returns) ** 2)

    before = error()
    fit.run(epochs=30)
    assert error() < 0.5 * before


@pytest.mark.parametrize("what", [{"seed": 6}, {"stream": 2}, {"first_epoch": 1}])
def test_the_minibatches_are_keyed(what):
    base, same, other = Fit(), Fit(), Fit()
    base.run()
    same.run()
    other.run(**what)
    np.testing.assert_array_equal(base.parameters, same.parameters)
    assert (base.parameters != other.parameters).any()


@pytest.mark.parametrize("batch_size", [128, 500])
@pytest.mark.parametrize("threads", [2, 5])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_fit_does_not_depend_on_the_number_of_threads(threads, batch_size, bfloat16, portable_bfloat16):
    before, results = library.get_num_threads(), []
    try:
        for allowed, wanted in ((1, None), (threads, None), (threads, 1), (1, threads)):
            library.set_num_threads(allowed)
            fit = Fit(np.float32, (17, 64, 64, 1), rows=1000)
            outcome = fit.run(batch_size=batch_size, epochs=2, threads=wanted, bfloat16=bfloat16)
            results.append((outcome, [array.tobytes() for array in fit.state]))
    finally:
        library.set_num_threads(before)
    assert all(result == results[0] for result in results)


ROUNDING = 2.0**-9  # of one number to bf16


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("widths", [(4, 1), (3, 7, 1), (17, 64, 64, 1), (5, 33, 20, 9, 1)], ids=str)
@pytest.mark.parametrize("rows", [1, 63, 128])
def test_a_gradient_of_bf16_products_is_that_of_rounded_operands(widths, activation, rows, portable_bfloat16):
    fit = Fit(np.float32, widths, activation, rows)
    fit.network = reference.NarrowCritic(tuple(widths), activation)
    fit.settings |= {"epochs": 1, "batch_size": rows, "learning_rate": 0.0, "beta1": 0.0}  # m is then the gradient
    _, expected, *_ = fit.expected()
    fit.network = reference.MLP(tuple(widths), activation)
    _, exact, *_ = fit.expected()
    fit.run(bfloat16=True)
    # One rounding that falls to the other side, as its operand was a float32 sum, is a whole spacing in one place; an
    # operand that is not rounded at all is ten times as much.
    size = np.linalg.norm(exact)
    assert np.linalg.norm(fit.first_moment - expected) < ROUNDING / 10 * size
    # Of one row, V(s) - R, which is a factor of all, may have lost any digits to the subtraction.
    assert rows == 1 or np.linalg.norm(fit.first_moment - exact) < 16 * ROUNDING * size
    if len(widths) > 2 and activation != "relu":  # of one row, relu may leave nothing to round
        assert np.linalg.norm(fit.first_moment - exact) > 1e-2 * ROUNDING * size


def test_a_fit_of_bf16_products_ends_at_the_loss_of_the_exact_one(portable_bfloat16):
    def loss_after(**settings):
        fit = Fit(np.float32, (17, 64, 64, 1), rows=1000)
        fit.settings |= {"epochs": 20, "batch_size": 128, "learning_rate": 1e-3}
        fit.run(**settings)
        return np.mean((fit.kernel.values(fit.parameters, fit.observations) - fit.returns) ** 2), fit.parameters

    exact, parameters = loss_after()
    rounded, others = loss_after(bfloat16=True)
    assert rounded == pytest.approx(exact, rel=0.05)
    assert not np.array_equal(parameters, others)


def test_bf16_products_of_a_fit_are_refused_by_name_where_there_are_none():
    library.choose_bfloat16("portable")
    try:
        with pytest.raises(TypeError, match="bfloat16: a kernel of float64 given; want float32"):
            Fit(np.float64).run(bfloat16=True)
    finally:
        library.choose_bfloat16(None)
    fit = Fit(np.float32)
    if library.bfloat16_products() is None:
        with pytest.raises(ValueError, match=r"^bfloat16: .*; want 'float32'$"):
            fit.run(bfloat16=True)
    else:
        fit.run(bfloat16=True)


def test_a_fit_in_another_thread_gives_the_same_bits():
    here, there = Fit(rows=500), Fit(rows=500)
    here.run()
    worker = threading.Thread(target=there.run)
    worker.start()
    worker.join()
    np.testing.assert_array_equal(here.parameters, there.parameters)


def test_a_fit_lets_other_python_threads_run():
    fit = Fit(rows=2000)
    worker = threading.Thread(target=fit.run, kwargs={"epochs": 2000})
    ticks = 0
    worker.start()
    while worker.is_alive():
        time.sleep(0.001)
        ticks += 1
    assert ticks > 50


@pytest.mark.parametrize("spoil", ["returns", "observations", "learning_rate"])
def test_a_fit_that_would_not_stay_finite_leaves_everything_as_it_was(spoil):
    fit = Fit()
    if spoil == "learning_rate":
        fit.settings["learning_rate"] = 1e308
    else:
        getattr(fit, spoil)[3] = np.inf
    fit.first_moment[:] = 0.25
    before = [array.tobytes() for array in fit.state]
    with pytest.raises(FloatingPointError):
        fit.run()
    assert [array.tobytes() for array in fit.state] == before


@pytest.mark.parametrize("row", range(0, 50, 7))
@pytest.mark.parametrize(("dtype", "huge"), [(np.float32, 1e25), (np.float64, 1e200)])
def test_a_return_whose_gradient_overflows_adams_second_moment_is_named_and_leaves_everything_as_it_was(
    dtype, huge, row
):
    fit = Fit(dtype)
    fit.returns[row] = huge
    fit.first_moment[:], fit.second_moment[:] = 0.25, 0.5
    before = [array.tobytes() for array in fit.state]
    with pytest.raises(FloatingPointError, match=r"square is infinite in float.*second moment.*returns of up to 1e\+2"):
        fit.run()
    assert [array.tobytes() for array in fit.state] == before
    fit.returns[row] = 1
    fit.run()
    assert all(np.isfinite(array).all() for array in fit.state)


@settings(max_examples=60, deadline=None)
@given(
    exponent=st.floats(0, 308.2),
    single=st.booleans(),
    row=st.integers(0, 49),
    activation=st.sampled_from(ACTIVATIONS),
    epochs=st.integers(1, 2),
)
def test_a_fit_to_any_return_either_stays_finite_or_changes_no_bit(exponent, single, row, activation, epochs):
    dtype = np.float32 if single else np.float64
    fit = Fit(dtype, activation=activation)
    fit.returns[row] = dtype(10 ** (exponent * (38.5 / 308.2 if single else 1)))
    before = [array.tobytes() for array in fit.state]
    try:
        fit.run(epochs=epochs)
    except FloatingPointError:
        assert [array.tobytes() for array in fit.state] == before
    else:
        assert all(np.isfinite(array).all() for array in fit.state)
        assert fit.parameters.tobytes() != before[0]


def test_interrupting_a_fit_leaves_everything_as_it_was():
    fit = Fit(rows=5000)
    before = [array.tobytes() for array in fit.state]
    # A shell that starts the tests in the background makes them deaf to SIGINT.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            fit.run(epochs=100_000)
        timer.join()
    finally:
        signal.signal(signal.SIGINT, previous)
    assert [array.tobytes() for array in fit.state] == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"epochs": -1}, "epochs"),
        ({"learning_rate": np.nan}, "learning_rate"),
        ({"adam_step": -1}, "adam_step"),
        ({"threads": 0}, "threads"),
        ({"threads": -1}, "threads"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Fit().run(**settings)


@pytest.mark.parametrize("name", ["parameters", "first_moment", "second_moment", "observations", "returns"])
@pytest.mark.parametrize("how", ["short", "other dtype", "strided"])
def test_arrays_that_do_not_fit_are_named(how, name):
    fit = Fit()
    array = getattr(fit, name)
    spoiled = {
        "short": array[:-1].copy(),
        "other dtype": array.astype(np.float32),
        "strided": np.repeat(array, 2, -1)[..., ::2],
    }
    setattr(fit, name, spoiled[how])
    # One row fewer may be noticed as observations or as returns that do not fit the other.
    expected = "observations|returns" if name in ("observations", "returns") and how == "short" else name
    with pytest.raises((ValueError, TypeError), match=expected):
        fit.run()


@pytest.mark.parametrize("name", ["parameters", "first_moment", "second_moment"])
def test_read_only_state_is_refused_by_name(name):
    fit = Fit()
    getattr(fit, name).flags.writeable = False
    with pytest.raises((ValueError, TypeError), match=name):
        fit.run()


def test_state_arrays_that_are_one_array_are_refused():
    fit = Fit()
    fit.second_moment = fit.first_moment
    with pytest.raises(ValueError, match=r"moment"):
        fit.run()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((4, 2), "tanh", np.float64), "widths"),
        (((4,), "tanh", np.float64), "widths"),
        (((4, 1), "swish", np.float64), "activation.*swish"),
        (((4, 1), "tanh", np.float16), "dtype.*float16"),
    ],
)
def test_a_kernel_that_cannot_be_is_refused_by_name(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        ValueKernel(*arguments)


def test_a_stopped_fit_leaves_every_array_as_it_was():
    fit = Fit()
    before = [array.tobytes() for array in fit.state]
    with pytest.raises(RuntimeError, match="stopped"):
        fit.run(stop=np.ones(1, np.uint8))
    assert [array.tobytes() for array in fit.state] == before
    fit.run(stop=np.zeros(1, np.uint8))
    assert [array.tobytes() for array in fit.state] != before
    with pytest.raises(ValueError, match="stop"):
        fit.run(stop=np.zeros(2, np.uint8))


def keyless(fit, **settings):
    """Settings of a fit whose order is given."""
    without = {name: value for name, value in fit.settings.items() if name not in ("seed", "stream", "first_epoch")}
    return without | settings


@pytest.mark.parametrize("batch_size", [16, 25, 64])
def test_a_fit_in_a_given_order_meets_the_rows_in_that_order_and_reports_every_minibatch(batch_size):
    fit = Fit()
    order = np.stack([np.random.default_rng(seed).permutation(50) for seed in range(3)])
    losses = np.full((3, -(-50 // batch_size)), np.nan)
    *expected, step, loss = reference.fit_values(
        fit.network,
        *fit.state,
        fit.observations,
        fit.returns,
        order,
        adam_step=4,
        batch_size=batch_size,
        learning_rate=1e-2,
    )
    settings = keyless(fit, order=order, losses=losses, adam_step=4, batch_size=batch_size)
    assert fit.kernel.fit(*fit.state, fit.observations, fit.returns, **settings) == (step, pytest.approx(loss))
    for ours, theirs in zip(fit.state, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-10)
    sizes = np.minimum(batch_size, 50 - batch_size * np.arange(losses.shape[1]))
    assert (losses[-1] * sizes).sum() / 50 == pytest.approx(loss)
    # The first minibatch is met before any step.
    fresh = Fit()
    first = order[0, :batch_size]
    errors = fresh.network.forward(fresh.parameters, fresh.observations[first])[0][:, 0] - fresh.returns[first]
    assert losses[0, 0] == pytest.approx(np.mean(errors**2))


def test_a_given_order_equal_to_the_drawn_one_gives_the_same_bits():
    drawn, given = Fit(np.float32), Fit(np.float32)
    order = np.stack([library.permutation(50, seed=5, stream=1, step=epoch) for epoch in range(3)])
    outcome = drawn.run()
    settings = keyless(given, order=order)
    assert given.kernel.fit(*given.state, given.observations, given.returns, **settings) == outcome
    for one, other in zip(drawn.state, given.state, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("row", [-1, 50])
def test_an_order_that_leaves_the_rows_is_refused_and_leaves_everything_as_it_was(row):
    fit = Fit()
    before = [array.tobytes() for array in fit.state]
    order = np.tile(np.arange(50), (3, 1))
    order[1, 7] = row
    with pytest.raises(ValueError, match=f"order: epoch 1 holds {row} at 7; want rows 0 to 49"):
        fit.kernel.fit(*fit.state, fit.observations, fit.returns, **keyless(fit, order=order))
    assert [array.tobytes() for array in fit.state] == before


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"order": np.zeros((2, 50), np.int64)}, ValueError, "order"),
        ({"order": np.zeros((3, 50), np.int32)}, TypeError, "order"),
        ({"losses": np.zeros((3, 5))}, ValueError, "losses"),
        ({"losses": np.zeros((3, 4), np.float32)}, TypeError, "losses"),
        ({"seed": 1}, TypeError, "order, seed, stream, first_epoch: order and seed given; want order alone"),
        ({"order": None}, TypeError, "order, seed, stream, first_epoch: none given; want order alone"),
    ],
)
def test_orders_and_losses_that_do_not_fit_are_named(settings, error, message):
    fit = Fit()
    settings = keyless(fit, order=np.tile(np.arange(50), (3, 1))) | settings
    with pytest.raises(error, match=message):
        fit.kernel.fit(*fit.state, fit.observations, fit.returns, **settings)


def test_a_second_moment_that_cannot_be_is_named():
    fit = Fit()
    fit.second_moment[3] = -1e-3
    with pytest.raises(ValueError, match=r"second_moment: -0\.001 given in it; want numbers >= 0"):
        fit.run()


@pytest.mark.parametrize(
    "make",
    [
        lambda widths: PolicyKernel(widths, "tanh", "gaussian", np.float64),
        lambda widths: ValueKernel(widths, "tanh", np.float64),
    ],
)
@pytest.mark.parametrize("width", [4.5, 4.0, "4", True, None])
def test_widths_that_are_no_integers_are_named(make, width):
    with pytest.raises(TypeError, match=r"widths: \(.*, 1\) given; want a sequence of integers"):
        make((width, 1))


@pytest.mark.parametrize("width", [0, 2**24 + 1])
def test_layers_of_no_possible_size_are_named(width):
    with pytest.raises(ValueError, match=rf"widths: \(2, {width}, 1\) given; want layer sizes from 1 to 2\*\*24"):
        ValueKernel((2, width, 1), "tanh", np.float64)


def test_the_largest_layer_is_that_of_the_settings():
    assert TRPOConfig(hidden_sizes=(library.LARGEST_LAYER,)).hidden_sizes == (2**24,)
    assert ValueKernel((1, library.LARGEST_LAYER, 1), "tanh", np.float64).size == 3 * 2**24 + 1


def test_a_count_of_adam_steps_leaves_room_for_the_next_ones():
    with pytest.raises(ValueError, match=r"adam_step: .*want at most"):
        Fit().run(adam_step=2**63 - 1)
