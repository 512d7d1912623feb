"""The same bits for any number of threads, wherever a row stands, and beside another Python thread."""

import threading

import numpy as np
import pytest

from tests import reference
from trpo_fast import conjugate_gradient, get_num_threads, set_num_threads
from trpo_fast._core.critic import ValueKernel
from trpo_fast._core.policy import PolicyKernel

ROWS = 1500
THREADS = [2, 3, 8]


@pytest.fixture(autouse=True)
def restored_threads():
    count = get_num_threads()
    yield
    set_num_threads(count)


@pytest.fixture(params=["gaussian", "categorical"])
def distribution(request):
    return request.param


@pytest.fixture(params=[np.float32, np.float64])
def dtype(request):
    return request.param


class Problem:
    def __init__(self, distribution="gaussian", dtype=np.float64, rows=ROWS, seed=0, widths=(7, 33, 16, 3)):
        rng = np.random.default_rng(seed)
        self.kernel = PolicyKernel(widths, "tanh", distribution, dtype)
        self.critic = ValueKernel((*widths[:-1], 1), "tanh", dtype)
        self.theta = (0.3 * rng.normal(size=self.kernel.size)).astype(dtype)
        self.trial = self.theta + (0.01 * rng.normal(size=self.kernel.size)).astype(dtype)
        self.v = rng.normal(size=self.kernel.size).astype(dtype)
        self.phi = (0.3 * rng.normal(size=self.critic.size)).astype(dtype)
        self.observations = rng.normal(size=(rows, widths[0])).astype(dtype)
        self.actions = (
            rng.normal(size=(rows, widths[-1])).astype(dtype)
            if distribution == "gaussian"
            else rng.integers(0, widths[-1], rows)
        )
        self.advantages = rng.normal(size=rows).astype(dtype)

    def bind(self):
        self.kernel.bind(self.theta, self.observations, self.actions, self.advantages)
        return self.kernel

    def everything(self):
        """Bytes of all that is computed from the batch."""
        kernel = self.bind()
        F, g = kernel.fisher_operator(), kernel.surrogate_gradient()
        solution = conjugate_gradient(F, g, damping=0.1, reorthogonalize=True)
        return {
            "log_probs": kernel.log_probs().tobytes(),
            "gradient": g.tobytes(),
            "product": (F @ self.v).tobytes(),
            "solution": solution.x.tobytes(),
            "new_old": kernel.evaluate(self.trial, "new_old"),
            "old_new": kernel.evaluate(self.trial, "old_new"),
            "entropy": kernel.entropy(),
            "outputs": kernel.forward(self.theta, self.observations).tobytes(),
            "values": self.critic.values(self.phi, self.observations).tobytes(),
        }


@pytest.mark.parametrize("rows", [1, 95, 97, ROWS, 6200])  # one block, 16 and 32
def test_results_do_not_depend_on_the_number_of_threads(rows, dtype, distribution):
    problem = Problem(distribution, dtype, rows)
    set_num_threads(1)
    expected = problem.everything()
    for count in THREADS:
        set_num_threads(count)
        assert problem.everything() == expected


def test_the_number_of_threads_may_change_while_a_batch_is_bound():
    problem = Problem()
    for first, then in ((1, 8), (8, 1), (2, 3)):
        set_num_threads(first)
        kernel = problem.bind()
        expected = (kernel.fisher_operator() @ problem.v).tobytes(), kernel.evaluate(problem.trial)
        set_num_threads(then)
        assert ((kernel.fisher_operator() @ problem.v).tobytes(), kernel.evaluate(problem.trial)) == expected


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_a_row_has_the_same_bits_whatever_the_batch_and_its_place_there(activation, count, dtype):
    set_num_threads(count)
    rng = np.random.default_rng(1)
    kernel = PolicyKernel((17, 64, 61, 6), activation, "gaussian", dtype)
    critic = ValueKernel((17, 64, 61, 1), activation, dtype)
    theta, phi = (0.3 * rng.normal(size=size).astype(dtype) for size in (kernel.size, critic.size))
    theta, phi = theta.astype(dtype), phi.astype(dtype)
    observations = rng.normal(size=(700, 17)).astype(dtype)
    outputs, values = kernel.forward(theta, observations), critic.values(phi, observations)
    for rows in (slice(0, 1), slice(95, 97), slice(350, 351), slice(3, 700), slice(699, None), rng.permutation(700)):
        some = np.ascontiguousarray(observations[rows])
        np.testing.assert_array_equal(kernel.forward(theta, some), outputs[rows])
        np.testing.assert_array_equal(critic.values(phi, some), values[rows])


def in_threads(*functions):
    """Run them at once, each ten times; their results. Both wait for each other at the start."""
    barrier, results = threading.Barrier(len(functions)), [[] for _ in functions]

    def work(function, kept):
        barrier.wait()
        for _ in range(10):
            kept.append(function())

    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in zip(functions, results, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return results


@pytest.mark.parametrize("count", [1, 4])
def test_two_python_threads_may_solve_two_problems_at_once(count):
    problems = Problem("gaussian", np.float32), Problem("categorical", np.float64, seed=1)
    set_num_threads(1)
    expected = [problem.everything() for problem in problems]
    set_num_threads(count)
    for found, wanted in zip(in_threads(*(p.everything for p in problems)), expected, strict=True):
        assert found == [wanted] * 10


def test_two_kernels_may_share_their_input():
    problem, twin = Problem(), Problem()
    for name in ("theta", "observations", "actions", "advantages", "trial", "v", "phi"):
        array = getattr(problem, name)
        array.flags.writeable = False
        setattr(twin, name, array)
    expected = problem.everything()
    set_num_threads(2)
    assert in_threads(problem.everything, twin.everything) == [[expected] * 10] * 2


def test_one_python_operator_may_serve_two_solves_at_once():
    matrix = np.diag(np.geomspace(1, 100, 30))
    b = np.ones(30)
    expected = conjugate_gradient(lambda v: matrix @ v, b).x.tobytes()

    def solve():
        return conjugate_gradient(lambda v: matrix @ v, b).x.tobytes()

    assert in_threads(solve, solve) == [[expected] * 10] * 2


def _bound_kernel(rows=20_000):
    rng = np.random.default_rng(0)
    kernel = PolicyKernel((17, 64, 64, 6), "tanh", "gaussian", np.float32)
    theta = (0.1 * rng.normal(size=kernel.size)).astype(np.float32)
    batch = [rng.normal(size=shape).astype(np.float32) for shape in ((rows, 17), (rows, 6), (rows,))]
    kernel.bind(theta, *batch)
    return kernel, theta, batch


@pytest.mark.parametrize("other", ["product", "bind"])
def test_an_engine_at_work_in_another_thread_is_refused_and_never_wrong(other):
    kernel, theta, batch = _bound_kernel()
    v = np.ones(kernel.size, np.float32)
    expected = kernel.fisher_operator() @ v
    refused, wrong = [], []
    done = threading.Event()

    def multiply():
        while not done.is_set():
            try:
                if (kernel.fisher_operator() @ v).tobytes() != expected.tobytes():
                    wrong.append(1)
            except RuntimeError as error:
                refused.append(str(error))

    thread = threading.Thread(target=multiply)
    thread.start()
    for _ in range(200):
        try:
            if other == "bind":
                kernel.bind(theta, *batch)
            elif (kernel.fisher_operator() @ v).tobytes() != expected.tobytes():
                wrong.append(1)
        except RuntimeError as error:
            refused.append(str(error))
    done.set()
    thread.join()
    assert not wrong
    assert all("another thread" in text or "outlived" in text or "no batch" in text for text in refused)
    assert (kernel.fisher_operator() @ v).tobytes() == expected.tobytes()
