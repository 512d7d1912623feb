"""Arrays of the compiled functions: what is none is named, and what is written shares no memory with anything else."""

import numpy as np
import pytest

from trpo_fast._core import acting, cg, linesearch, policy, rollout
from trpo_fast._core.critic import ValueKernel
from trpo_fast._core.operator import CallableOperator, DenseOperator
from trpo_fast._core.preconditioner import KroneckerPreconditioner
from trpo_fast._core.recording import Recorder
from trpo_fast._core.stepping import CopyLoop

F = np.float64
SHAPES = {"gaussian": ((6, 2), F), "categorical": ((6,), np.int64), "bernoulli": ((6, 2), np.int64)}


def kernel_of(distribution):
    return policy.PolicyKernel((3, 2), "tanh", distribution, F)


def masks_of(distribution):
    return np.ones((6, 4 if distribution == "bernoulli" else 2), bool)


class Function:
    """A compiled function of `arrays`, of which it writes those that are named in `written`."""

    def __init__(self, function, written, **arrays):
        self.function, self.written, self.arrays = function, written.split(), arrays

    def __call__(self, arrays):
        self.function(**arrays)


def act(distribution):
    kernel, (shape, dtype) = kernel_of(distribution), SHAPES[distribution]
    of_actor = {
        "parameters": np.zeros(kernel.size),
        "observation_mean": np.zeros(3),
        "observation_scale": np.ones(3),
    }
    of_call = {
        "observations": np.zeros((6, 3)),
        "normalized": np.zeros((6, 3)),
        "actions": np.zeros(shape, dtype),
        "log_probs": np.zeros(6),
        "env_actions": np.zeros(shape, dtype),
    }
    if distribution == "gaussian":
        numbers = {"action_low": -1, "action_high": 1, "action_scale": 1, "action_offset": 0}
        of_actor |= {name: np.full(2, value, F) for name, value in numbers.items()}
    else:
        of_call["action_masks"] = masks_of(distribution)
        of_actor["action_start"] = np.zeros(2 if distribution == "bernoulli" else 1, np.int64)

    def call(**arrays):
        made = {name: arrays.pop(name) for name in of_actor}
        acting.Actor(kernel, made.pop("parameters"), **made).act(step=0, **arrays)

    return Function(call, "normalized actions log_probs env_actions", **of_actor, **of_call)


def arrays_of_another_actor(distribution):
    shape, dtype = SHAPES[distribution]
    masks = {} if distribution == "gaussian" else {"action_masks": masks_of(distribution)}

    def call(**arrays):
        acting.check_arrays(**({"action_masks": None} | arrays), dtype=np.dtype(F), real=not masks)

    return Function(
        call,
        "normalized actions log_probs env_actions",
        observations=np.zeros((6, 3)),
        normalized=np.zeros((6, 3)),
        actions=np.zeros(shape, dtype),
        log_probs=np.zeros(6),
        env_actions=np.zeros(shape, dtype),
        **masks,
    )


def sample(distribution):
    shape, dtype = SHAPES[distribution]
    gaussian = distribution == "gaussian"
    last = {"log_std": np.zeros(2)} if gaussian else {"action_masks": masks_of(distribution)}

    def call(**arrays):
        acting.sample(distribution, step=0, seed=0, stream=0, **({"log_std": None} | arrays))

    arrays = {"distribution_parameters": np.zeros((6, 2)), "actions": np.zeros(shape, dtype), "log_probs": np.zeros(6)}
    return Function(call, "actions log_probs", **arrays, **last)


def from_a_batch(distribution, write):
    """What `write(kernel, out)` writes from a bound batch."""
    shape, dtype = SHAPES[distribution]
    arrays = {"observations": np.zeros((6, 3)), "advantages": np.zeros(6), "log_probs": np.zeros(6)}
    if distribution == "gaussian":
        arrays["actions"] = np.zeros(shape, dtype)
    else:
        arrays["action_masks"] = masks_of(distribution)  # of discrete actions a copy is kept

    def call(out, **given):
        kernel = kernel_of(distribution)  # one each, as a test may run in several threads
        kernel.bind(np.zeros(kernel.size), **({"actions": np.zeros(shape, dtype)} | given))
        write(kernel, out)

    return Function(call, "out", **arrays, out=np.zeros(kernel_of(distribution).size))


def gradient_into(kernel, out):
    kernel.surrogate_gradient(out)


def product_into(kernel, out):
    if out is None:
        raise TypeError("out: not given")  # then the product is a new array
    kernel.fisher_operator().matvec(np.zeros(kernel.size), out)


def solution_into(kernel, out):
    try:
        solve(kernel.fisher_operator(), np.zeros(kernel.size), out)
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("x:", "out:", 1)) from None


def solve(A, b, x):
    settings = {"max_iter": 1, "rtol": 0.0, "atol": 0.0, "damping": 1.0, "progress_tol": 0.0}
    flags = {"preconditioner": None, "start_from_x": False, "reorthogonalize": False, "callback": None}
    cg.solve(A, b, x, **settings, **flags)


def fit(parameters, first_moment, second_moment, observations, returns, **others):
    settings = {"adam_step": 0, "epochs": 2, "batch_size": 3, "learning_rate": 0.1}
    state = parameters, first_moment, second_moment
    ValueKernel((3, 1), "tanh", F).fit(*state, observations, returns, **settings, **others)


def recorder(parameters, observation_mean, **arrays):
    kernel = kernel_of("gaussian")
    actor = acting.Actor(kernel, parameters, observation_mean=observation_mean, observation_scale=np.ones(3))
    return Recorder(actor, slice(0, 2), first_step=0, env_action_dtype=F, **arrays)


def flags():
    return np.zeros((4, 2), bool)


def rows():
    return np.zeros((4, 2))


def recorded():
    return {
        "observations": np.zeros((4, 2, 3)),
        "actions": np.zeros((4, 2, 2)),
        "log_probs": rows(),
        "rewards": rows(),
        "terminated": flags(),
        "truncated": flags(),
        "raw": np.zeros((4, 2, 3)),
    }


ALL = {
    **{f"act {distribution}": act(distribution) for distribution in SHAPES},
    **{f"another's act {distribution}": arrays_of_another_actor(distribution) for distribution in SHAPES},
    **{f"sample {distribution}": sample(distribution) for distribution in SHAPES},
    **{f"gradient {distribution}": from_a_batch(distribution, gradient_into) for distribution in SHAPES},
    "product": from_a_batch("gaussian", product_into),
    "solution": from_a_batch("gaussian", solution_into),
    "gaussian_actions": Function(
        acting.gaussian_actions, "noise", means=np.zeros((6, 2)), log_std=np.zeros(2), noise=np.zeros((6, 2))
    ),
    "generalized_advantages": Function(
        lambda **arrays: rollout.generalized_advantages(**arrays, gamma=0.9, gae_lambda=0.9),
        "advantages returns",
        rewards=rows(),
        values=rows(),
        next_values=rows(),
        terminated=flags(),
        truncated=flags(),
        advantages=rows(),
        returns=rows(),
    ),
    "discounted_returns": Function(
        lambda **arrays: rollout.discounted_returns(**arrays, gamma=0.9),
        "carry out",
        rewards=rows(),
        done=flags(),
        valid=flags(),
        carry=np.zeros(2),
        out=rows(),
    ),
    "merge_moments": Function(
        lambda **arrays: rollout.merge_moments(**arrays, count=1.0),
        "mean m2",
        data=rows(),
        mean=np.zeros(2),
        m2=np.zeros(2),
    ),
    "fit": Function(
        fit,
        "parameters first_moment second_moment losses",
        parameters=np.zeros(4),
        first_moment=np.zeros(4),
        second_moment=np.zeros(4),
        observations=np.zeros((6, 3)),
        returns=np.zeros(6),
        losses=np.zeros((2, 2)),
        order=np.array([range(6)] * 2),
        stop=np.zeros(1, np.uint8),
    ),
    "values": Function(
        ValueKernel((3, 1), "tanh", F).values,
        "out",
        parameters=np.zeros(4),
        observations=np.zeros((6, 3)),
        out=np.zeros(6),
    ),
    "DenseOperator": Function(
        lambda matrix, v, out: DenseOperator(matrix).matvec(v, out),
        "out",
        matrix=np.eye(3),
        v=np.zeros(3),
        out=np.zeros(3),
    ),
    "solve": Function(
        lambda matrix, b, x: solve(DenseOperator(matrix), b, x), "x", matrix=np.eye(3), b=np.zeros(3), x=np.zeros(3)
    ),
    "backtrack": Function(
        lambda theta, step: linesearch.backtrack(
            lambda _: (1.0, 0.0), theta, step, max_kl=1.0, backtrack_factor=0.5, max_backtracks=1
        ),
        "theta",
        theta=np.zeros(3),
        step=np.zeros(3),
    ),
    "Recorder": Function(
        recorder,
        "observations actions log_probs rewards terminated truncated raw",
        parameters=np.zeros(kernel_of("gaussian").size),
        observation_mean=np.zeros(3),
        **recorded(),
    ),
    "CopyLoop": Function(
        lambda **arrays: CopyLoop(**arrays, shape=(3,), gather=False, other=print),
        "rows rewards terminated truncated",
        rows=np.zeros((2, 3)),
        rewards=np.zeros(2),
        terminated=np.zeros(2, bool),
        truncated=np.zeros(2, bool),
    ),
}


def in_one_piece(first, second):
    """Arrays like the two whose first bytes are the same memory."""
    memory = np.zeros(max(first.nbytes, second.nbytes), np.uint8)
    return [memory[: one.nbytes].view(one.dtype).reshape(one.shape) for one in (first, second)]


@pytest.mark.parametrize("call", ALL.values(), ids=ALL)
def test_arrays_apart_are_fine(call):
    call({name: array.copy() for name, array in call.arrays.items()})


@pytest.mark.parametrize("call", ALL.values(), ids=ALL)
def test_what_is_written_shares_memory_with_nothing_else(call):
    for written in call.written:
        for other in call.arrays:
            if other == written:
                continue
            arrays = {name: array.copy() for name, array in call.arrays.items()}
            arrays[written], arrays[other] = in_one_piece(arrays[written], arrays[other])
            if other == "action_masks":
                arrays[other][...] = True
            before = {name: array.copy() for name, array in arrays.items()}
            with pytest.raises(ValueError, match=rf"\b({written}|{other})\b.*shares memory with"):
                call(dict(arrays))
            for name, array in arrays.items():
                np.testing.assert_array_equal(array, before[name], err_msg=f"{written} and {other}: {name}")


@pytest.mark.parametrize("call", ALL.values(), ids=ALL)
@pytest.mark.parametrize(
    "kind", [list, lambda array: None, lambda array: "text", lambda array: np.zeros(array.shape, "M8[s]")]
)
def test_what_is_no_array_of_numbers_is_named(call, kind):
    optional = {"losses", "stop", "log_probs", "raw", "out", "order"}
    for name in call.arrays:
        spoiled = kind(call.arrays[name])
        if spoiled is None and (name in optional or name.startswith(("action_", "observation_"))):
            continue
        with pytest.raises((TypeError, ValueError), match=rf"\b{name}\b"):
            call({other: array.copy() for other, array in call.arrays.items()} | {name: spoiled})


@pytest.mark.parametrize("kept", recorded())
def test_what_comes_to_a_recorder_lies_in_nothing_that_it_keeps(kept):
    arrays = recorded()
    made = recorder(np.zeros(kernel_of("gaussian").size), np.zeros(3), **arrays)
    observations, reward, flag = np.zeros((2, 3)), np.zeros(2), np.zeros(2, bool)
    same = arrays[kept].reshape(-1)
    if same.dtype == bool:
        with pytest.raises(ValueError, match="terminated: shares memory with what the rollout keeps"):
            made.record(0, reward, same[:2], flag)
        with pytest.raises(ValueError, match="truncated: shares memory with what the rollout keeps"):
            made.record(0, reward, flag, same[:2])
    else:
        with pytest.raises(ValueError, match="rewards: shares memory with what the rollout keeps"):
            made.record(0, same[:2], flag, flag)
        with pytest.raises(ValueError, match="observations: shares memory with what the rollout keeps"):
            made.act(0, same[:6].reshape(2, 3))
    made.act(0, observations)
    made.record(0, reward, flag, flag)


def test_lists_of_observations_are_named_by_a_recorder():
    made = recorder(np.zeros(kernel_of("gaussian").size), np.zeros(3), **recorded())
    with pytest.raises(TypeError, match="observations"):
        made.act(0, [[0.0, 0.0, 0.0]] * 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: policy.PolicyKernel((3, 2), "tanh", "gaussian", F, narrow=2), "narrow: 2 given; want True or False"),
        (lambda: policy.PolicyKernel(np.array(3), "tanh", "gaussian", F), r"widths: array\(3\) given; want a sequence"),
        (lambda: policy.PolicyKernel(np.eye(2, dtype=int), "tanh", "gaussian", F), "(?s)widths: .* want a sequence"),
        (lambda: policy.PolicyKernel((3, 2), [], "gaussian", F), r"activation: \[\] given; want one of 'tanh'"),
        (lambda: policy.PolicyKernel((3, 2), "tanh", [], F), r"distribution: \[\] given; want one of 'gaussian'"),
        (lambda: policy.PolicyKernel((3, 2), "tanh", "gaussian", "\ud800"), "dtype: .* given; want float32 or float64"),
        (lambda: policy.PolicyKernel((3, 2), "tanh", "gaussian", "1" * 5000), "dtype: .* want float32 or float64"),
        (lambda: policy.PolicyKernel((3, 2), "tanh", "product", F, parts=3), "parts: 3 given; want a sequence of"),
        (
            lambda: policy.PolicyKernel((3, 2), "tanh", "product", F, parts=[("gaussian", 2**70, None)]),
            "parts: .* given; want at most",
        ),
        (
            lambda: policy.PolicyKernel((3, 2), "tanh", "multicategorical", F, nvec=np.array(2)),
            "nvec: .* given; want a sequence of integers",
        ),
        (
            lambda: acting.sample(
                "gaussian", np.zeros((6, 2)), np.zeros(2), 0, np.zeros((6, 2)), np.zeros(6), seed=0, stream=0,
                deterministic="no",
            ),
            "deterministic: 'no' given; want True or False",
        ),
        (lambda: CallableOperator(abs, 3, F, name=[]), r"name: \[\] given; want a string"),
        (lambda: KroneckerPreconditioner(np.array(1.0), 3, F, 0.1), "blocks: ndarray given; want a sequence"),
        (
            lambda: KroneckerPreconditioner([(np.eye(1), np.eye(1), np.array([1.5]), None)], 3, F, 0.1),
            r"blocks\[0\]: weight: array\(\[1.5\]\) given; want an integer",
        ),
        (lambda: DenseOperator(np.eye(2)).matvec([[1.0], [1.0, 2.0]]), "v: list given; want an array of real numbers"),
    ],
)  # fmt: skip
def test_what_is_of_another_kind_is_named(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def misaligned(array):
    memory = np.zeros(array.nbytes + 1, np.uint8)
    view = memory[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def test_operands_may_lie_at_any_byte():
    matrix, rows = DenseOperator(np.array([[2.0, 1.0], [1.0, 3.0]])), misaligned(np.array([[1.0, 2.0], [3.0, 4.0]]))
    np.testing.assert_array_equal(matrix.matvec(rows[0]), [4.0, 7.0])
    np.testing.assert_array_equal(matrix.matmat(rows), [[5.0, 8.0], [10.0, 14.0]])
    np.testing.assert_array_equal(matrix.matmat(rows[:, :1]), [[5.0], [10.0]])
