"""Compiled recurrent cells against a float64 oracle of their equations, and the actor that has one."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trpo_fast._core.acting import Actor
from trpo_fast._core.library import get_num_threads, set_num_threads
from trpo_fast._core.policy import PolicyKernel
from trpo_fast._core.recurrent import Cell, CellActor

GATES = {"gru": 3, "lstm": 4}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def expected(kind, weight, bias, inputs, starts, first):
    """States (T, E, S) of inputs (T, E, G H), in float64: the equations of torch.nn.GRUCell and LSTMCell."""
    weight, bias, inputs, first = (np.asarray(array, np.float64) for array in (weight, bias, inputs, first))
    units = weight.shape[1]
    h, c, out = first[:, :units], first[:, units:], []
    for x, start in zip(inputs, starts, strict=True):
        h, c = (np.where(start[:, None], 0, part) for part in (h, c))
        x, u = np.split(x, GATES[kind], 1), np.split(h @ weight.T + bias, GATES[kind], 1)
        if kind == "gru":
            r, z = sigmoid(x[0] + u[0]), sigmoid(x[1] + u[1])
            h = (1 - z) * np.tanh(x[2] + r * u[2]) + z * h
            out.append(h)
        else:
            c = sigmoid(x[1] + u[1]) * c + sigmoid(x[0] + u[0]) * np.tanh(x[2] + u[2])
            h = sigmoid(x[3] + u[3]) * np.tanh(c)
            out.append(np.concatenate([h, c], 1))
    return np.stack(out)


class Problem:
    """One cell with everything that its passes take."""

    def __init__(self, kind, units=5, steps=6, sequences=3, dtype=np.float64, seed=0):
        rng = np.random.default_rng(seed)
        self.kind, self.steps, self.sequences = kind, steps, sequences
        self.cell = Cell(kind, units, dtype)
        self.width = GATES[kind] * units
        self.weight = (rng.normal(size=(self.width, units)) / np.sqrt(units)).astype(dtype)
        self.bias = rng.normal(size=self.width).astype(dtype)
        self.inputs = rng.normal(size=(steps * sequences, self.width)).astype(dtype)
        self.starts = rng.random(steps * sequences) < 0.2
        self.first = rng.normal(size=(sequences, self.cell.state_items)).astype(dtype)
        self.rng = rng

    def forward(self, **given):
        names = ("weight", "bias", "inputs", "starts", "first")
        return self.cell.forward(*(given.get(name, getattr(self, name)) for name in names), keep=True)

    def expected(self, inputs=None, weight=None, bias=None):
        inputs = self.inputs if inputs is None else inputs
        shaped = np.asarray(inputs).reshape(self.steps, self.sequences, -1)
        starts = self.starts.reshape(self.steps, self.sequences)
        found = expected(
            self.kind,
            self.weight if weight is None else weight,
            self.bias if bias is None else bias,
            *(shaped, starts, self.first),
        )
        return found.reshape(len(self.inputs), -1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", GATES)
@settings(max_examples=25)
@given(units=st.integers(1, 40), steps=st.integers(1, 9), sequences=st.integers(1, 9), seed=st.integers(0, 2**32))
def test_states_are_the_equations(kind, dtype, units, steps, sequences, seed):
    problem = Problem(kind, units, steps, sequences, dtype, seed)
    states, _ = problem.forward()
    np.testing.assert_allclose(states, problem.expected(), rtol=0, atol=60 * np.finfo(dtype).eps)


@pytest.mark.parametrize("kind", GATES)
@settings(max_examples=15)
@given(units=st.integers(1, 20), steps=st.integers(1, 7), sequences=st.integers(1, 5), seed=st.integers(0, 2**32))
def test_derivatives_are_those_of_the_equations(kind, units, steps, sequences, seed):
    problem = Problem(kind, units, steps, sequences, seed=seed)
    states, kept = problem.forward()
    dx, dw, db = (problem.rng.normal(size=array.shape) for array in (problem.inputs, problem.weight, problem.bias))
    before = np.concatenate([problem.first[:, :units], states[:-sequences, :units]])
    before[problem.starts] = 0
    given = problem.weight, problem.bias, kept, problem.starts
    tangent = problem.cell.jvp(*given, dx, before @ dw.T + db, sequences)
    eps = 1e-6
    moved = [
        problem.expected(problem.inputs + s * dx, problem.weight + s * dw, problem.bias + s * db) for s in (eps, -eps)
    ]
    np.testing.assert_allclose(tangent, (moved[0] - moved[1])[:, :units] / (2 * eps), atol=1e-7)
    w = problem.rng.normal(size=tangent.shape)
    inputs, recurrent = problem.cell.vjp(*given, w, sequences)
    left = np.sum(w * tangent)
    right = np.sum(inputs * dx) + np.sum((recurrent.T @ before) * dw) + recurrent.sum(0) @ db
    assert left == pytest.approx(right, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("kind", GATES)
def test_a_sequence_alone_has_the_bits_that_it_has_among_others_on_any_number_of_threads(kind):
    problem, before = Problem(kind, 13, 7, 9, np.float32), get_num_threads()
    states, kept = problem.forward()
    shape = problem.steps, problem.sequences
    try:
        for threads in (1, 2, 5):
            set_num_threads(threads)
            again, kept_again = problem.forward()
            assert again.tobytes() == states.tobytes() and kept_again.tobytes() == kept.tobytes()
    finally:
        set_num_threads(before)
    for e in range(problem.sequences):
        own = np.ascontiguousarray(problem.inputs.reshape(*shape, -1)[:, e])
        starts = np.ascontiguousarray(problem.starts.reshape(shape)[:, e])
        alone, _ = problem.forward(inputs=own, starts=starts, first=problem.first[e : e + 1])
        assert alone.tobytes() == np.ascontiguousarray(states.reshape(*shape, -1)[:, e]).tobytes()


def test_parameters_may_change_between_calls():
    problem = Problem("gru")
    problem.forward()
    problem.weight[0, 0] += 1.0
    states, _ = problem.forward()
    np.testing.assert_allclose(states, problem.expected(), atol=1e-14)
    problem.bias[-1] -= 1.0
    states, _ = problem.forward()
    np.testing.assert_allclose(states, problem.expected(), atol=1e-14)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("weight", np.zeros((15, 4)), "weight"),
        ("weight", np.zeros((15, 5), np.float32), "weight"),
        ("bias", np.zeros(14), "bias"),
        ("inputs", np.zeros((18, 14)), "inputs"),
        ("inputs", np.zeros((17, 15)), "17 rows"),
        ("starts", np.zeros(18, np.uint8), "starts"),
        ("starts", np.zeros(17, bool), "starts"),
        ("first", np.zeros((3, 4)), "first"),
        ("first", np.zeros((0, 5)), "0 sequences"),
    ],
)
def test_bad_arrays_are_named(name, value, words):
    with pytest.raises((TypeError, ValueError), match=words):
        Problem("gru").forward(**{name: value})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("rnn", 5, "float64"), "kind: 'rnn'.* given; want one of 'gru', 'lstm'"),
        (("gru", 0, "float64"), "units"),
        (("gru", 2**24 + 1, "float64"), "units"),
        (("gru", 2.5, "float64"), "units"),
        (("gru", 5, "float16"), "float16"),
    ],
)
def test_bad_cells_are_named(arguments, words):
    with pytest.raises((TypeError, ValueError), match=words):
        Cell(*arguments)


def test_two_threads_at_one_cell_are_refused_or_right():
    problem = Problem("lstm", 64, 200, 4)
    states, _ = problem.forward()
    wrong, refused = [], []

    def run():
        for _ in range(20):
            try:
                if problem.forward()[0].tobytes() != states.tobytes():
                    wrong.append(1)
            except RuntimeError as error:
                refused.append(str(error))

    workers = [threading.Thread(target=run) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    assert all("another thread" in text for text in refused)


class Acting:
    """A recurrent Gaussian policy of random parameters, and the arrays of its actor."""

    def __init__(self, kind, dtype=np.float32, rows=4, inputs=3, units=6, actions=2, **options):
        rng = np.random.default_rng(1)
        width = GATES[kind] * units
        shapes = ((width, inputs), (width, units), (width,), (width,))
        self.parameters = [(0.5 * rng.normal(size=shape)).astype(dtype) for shape in shapes]
        self.head = PolicyKernel((units, 5, actions), "tanh", "gaussian", dtype)
        self.head_parameters = (0.3 * rng.normal(size=self.head.size)).astype(dtype)
        self.kind, self.units, self.dtype = kind, units, dtype
        self.statistics = {
            "observation_mean": rng.normal(size=inputs),
            "observation_scale": rng.uniform(0.5, 2, inputs),
        }
        self.options = {"action_low": -np.ones(actions), "action_high": np.ones(actions), "seed": 7, "stream": 3}
        self.actor = CellActor(
            kind,
            self.parameters,
            self.head,
            self.head_parameters,
            **self.statistics,
            observation_clip=2.0,
            **self.options,
        )
        self.rng, self.rows, self.inputs, self.actions = rng, rows, inputs, actions

    def arrays(self, rows):
        return (
            *(np.empty((rows, n), self.dtype) for n in (self.inputs, self.actions)),
            np.empty(rows, self.dtype),
            np.empty((rows, self.actions), np.float32),
        )


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", GATES)
def test_the_actor_is_normalization_cell_and_the_compiled_actor(kind, dtype, deterministic):
    acting = Acting(kind, dtype)
    actor, rows = acting.actor, acting.rows
    actor.begin(rows)
    weight_ih, weight_hh, bias_ih, bias_hh = (array.astype(np.float64) for array in acting.parameters)
    state = np.zeros((1, *actor.state.shape))
    plain = Actor(acting.head, acting.head_parameters, **acting.options)
    for step in range(5):
        observations = 3 * acting.rng.normal(size=(rows, acting.inputs))
        starts = acting.rng.random(rows) < 0.3
        arrays = acting.arrays(rows)
        actor.episode_starts = starts
        actor.act(observations, step, *arrays, deterministic, 10)
        mean, scale = acting.statistics["observation_mean"], acting.statistics["observation_scale"]
        seen = np.clip((observations - mean) * scale, -2, 2)
        np.testing.assert_allclose(arrays[0], seen, rtol=1e-6)
        inputs = (arrays[0].astype(np.float64) @ weight_ih.T + bias_ih)[None]
        state = expected(kind, weight_hh, bias_hh, inputs, starts[None], state[0])
        np.testing.assert_allclose(actor.state, state[0], atol=50 * np.finfo(dtype).eps)
        hidden = np.ascontiguousarray(actor.state[:, : acting.units])
        wanted = (np.empty_like(hidden), *(np.empty_like(array) for array in arrays[1:]))
        plain.act(hidden, step, *wanted, deterministic, 10)
        for mine, its in zip(arrays[1:], wanted[1:], strict=True):
            assert mine.tobytes() == its.tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_actor_names_an_observation_that_is_not_finite_and_keeps_its_state(bad):
    acting = Acting("gru")
    acting.actor.begin(2)
    before = acting.actor.state
    observations = np.zeros((2, 3))
    observations[1, 2] = bad
    with pytest.raises(FloatingPointError, match="observation of environment 6 is not finite"):
        acting.actor.act(observations, 0, *acting.arrays(2), False, 5)
    assert acting.actor.state is before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("state", np.zeros((2, 5), np.float32)),
        ("state", None),
        ("episode_starts", np.zeros(3, bool)),
        ("episode_starts", [True, False]),
    ],
)
def test_the_actor_names_a_state_that_is_none(name, value):
    acting = Acting("gru")
    acting.actor.begin(2)
    setattr(acting.actor, name, value)
    with pytest.raises((TypeError, ValueError), match=name):
        acting.actor.act(np.zeros((2, 3)), 0, *acting.arrays(2))


def test_the_actor_reads_live_parameters():
    acting = Acting("lstm")
    arrays, again = acting.arrays(1), acting.arrays(1)
    acting.actor.act(np.ones((1, 3)), 0, *arrays, True)
    acting.parameters[2] += 1.0
    acting.actor.begin(1)
    acting.actor.act(np.ones((1, 3)), 0, *again, True)
    assert (arrays[1] != again[1]).all()


@pytest.mark.parametrize(
    ("first", "second"), [("normalized", "actions"), ("log_probs", "env_actions"), ("state", "actions")]
)
def test_the_actor_refuses_arrays_that_share_memory(first, second):
    acting = Acting("gru", rows=1, inputs=2, units=2, actions=2)
    acting.actor.begin(1)
    shared = np.zeros(2, np.float32)
    arrays = dict(zip(("normalized", "actions", "log_probs", "env_actions"), acting.arrays(1), strict=True))
    for name in (first, second):
        if name == "state":
            acting.actor.state = shared.reshape(1, 2)
        else:
            arrays[name] = shared[: arrays[name].size].reshape(arrays[name].shape)
    with pytest.raises(ValueError, match="memory"):
        acting.actor.act(np.zeros((1, 2)), 0, *arrays.values())
