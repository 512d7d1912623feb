"""Random numbers against Random123, elementary functions against mpmath, instruction sets, threads, forks."""

import os
import platform
import shutil
import subprocess
import sys
from collections import OrderedDict

import mpmath
import numpy as np
import pytest

from trpo_fast import get_num_threads, set_num_threads
from trpo_fast._core import library

# Known answers of Random123 1.14 (tests/kat_vectors, philox4x32, 10 rounds): counter, key, result.
PHILOX = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return tuple(int(word, 16) for word in text.split())


@pytest.mark.parametrize(("counter", "key", "result"), PHILOX)
def test_philox_gives_the_known_answers_of_random123(counter, key, result):
    assert library.philox(words(key), words(counter)) == words(result)


def test_a_permutation_holds_every_index_once():
    for size in (0, 1, 2, 3, 100, 1001):
        order = library.permutation(size, seed=1, stream=1, step=0)
        assert order.dtype == np.int64
        np.testing.assert_array_equal(np.sort(order), np.arange(size))


def test_a_permutation_is_determined_by_seed_stream_and_step():
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2**64 - 1, 0, 0), (0, 255, 0), (0, 0, 2**33), (2**32, 0, 0)]

    def draw(seed, stream, step):
        return library.permutation(50, seed=seed, stream=stream, step=step).tobytes()

    assert len({draw(*key) for key in keys}) == len(keys)
    assert all(draw(*key) == draw(*key) for key in keys)


def test_every_order_of_four_is_equally_likely():
    draws = 4800
    counts = {}
    for step in range(draws):
        order = tuple(library.permutation(4, seed=0, stream=1, step=step))
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    # chi-squared with 23 degrees of freedom: above 49.7 with probability 0.001, and the seed is fixed.
    assert sum((count - draws / 24) ** 2 / (draws / 24) for count in counts.values()) < 49.7


def test_an_array_of_one_item_is_no_number():
    assert library.as_double(np.array(1.5), "x") == 1.5
    for array in (np.ones(1), np.ones((1, 1)), np.ones(2)):
        with pytest.raises(TypeError, match=r"x: array.* given; want a number that a double can hold"):
            library.as_double(array, "x")


def test_a_bool_of_numpys_is_no_size():
    with pytest.raises(TypeError, match=r"size: .*True.* given; want an integer"):
        library.permutation(np.True_, seed=0, stream=0, step=0)


@pytest.mark.parametrize("size", [-1, -(2**40)])
def test_a_negative_size_is_named(size):
    with pytest.raises(ValueError, match=r"size: .*-"):
        library.permutation(size, seed=0, stream=0, step=0)


EXACT = {
    "tanh": mpmath.tanh,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "elu": lambda x: x if x > 0 else mpmath.expm1(x),
    "relu": lambda x: max(x, mpmath.mpf(0)),
    "leaky_relu": lambda x: x if x > 0 else x / 100,
    "silu": lambda x: x / (1 + mpmath.exp(-x)),
    "gelu": lambda x: x * normal_distribution_function(x),
    "softplus": lambda x: x if x > 20 else mpmath.log1p(mpmath.exp(x)),  # as torch has it
}
LIMITS = {"gelu": 6}  # in ulp, where it is not 4
# Near its zero a derivative is the difference of terms of about 0.2: what is lost there is counted against them.
EXACT_DERIVATIVES = {
    "silu_derivative": (lambda x: (1 + x / (1 + mpmath.exp(x))) / (1 + mpmath.exp(-x)), -1.2784645),
    "gelu_derivative": (lambda x: normal_distribution_function(x) + x * mpmath.npdf(x), -0.7517916),
    "softplus_derivative": (lambda x: 1 if x > 20 else 1 / (1 + mpmath.exp(-x)), None),
}


def normal_distribution_function(x):
    return mpmath.erfc(-min(max(x, -100), 100) / mpmath.sqrt(2)) / 2


def table(dtype):
    """Both signs of every magnitude, subnormal to largest, the range of the functions densely, and their edges."""
    info = np.finfo(dtype)
    below = [np.nextafter(dtype(value), dtype(0)) for value in (info.tiny, info.max)]
    edges = [0, info.smallest_subnormal, info.tiny, *below, info.eps]
    edges += [0.5 * np.log(2), np.log(2), 9, 10, 19, 22, 87, 87.3, 88, 88.8, 104, 708, 708.3, 709, 745, 750]
    magnitudes = np.concatenate(
        [
            np.geomspace(float(info.smallest_subnormal), float(info.max) / 2, 150),
            np.geomspace(1e-4, 800, 150),
            np.linspace(0, 25, 150),
        ]
    )
    x = np.concatenate([magnitudes, edges]).astype(dtype)
    return np.concatenate([x, -x])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", EXACT)
def test_activations_are_within_4_ulp(activation, dtype):
    x = np.concatenate([table(dtype), dense(dtype)])
    y = library.elementary(activation, x)
    assert y.dtype == dtype
    for point, value in zip(x, y, strict=True):
        error = ulps(value, EXACT[activation], point, least=subnormal_product(activation, point))
        assert error <= LIMITS.get(activation, 4), f"{activation}({point!r}) = {value!r}, off by {error:.1f} ulp"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", EXACT_DERIVATIVES)
def test_derivatives_that_are_kept_are_within_8_ulp(name, dtype):
    x = np.concatenate([table(dtype), dense(dtype)])
    function, zero = EXACT_DERIVATIVES[name]
    for point, value in zip(x, library.elementary(name, x), strict=True):
        near = zero is not None and abs(point - zero) < 0.5
        error = ulps(value, function, point, least=0.2 if near else subnormal_product(name, point))
        assert error <= 8, f"{name}({point!r}) = {value!r}, off by {error:.1f} ulp"


FUNCTIONS = {
    "exp": (mpmath.exp, -np.inf),
    "expm1": (mpmath.expm1, -np.inf),
    "log": (mpmath.log, 0),
    "log1p": (mpmath.log1p, -1),
}


def subnormal_product(name, point):
    """Where exp(-|x|) is rounded as a subnormal number, silu and gelu are x times as coarse."""
    info = np.finfo(type(point))
    return min(abs(float(point)), 800) * float(info.tiny) if name.startswith(("silu", "gelu")) else 0


def ulps(value, function, point, least=0):
    """How far `value` is from function(point), in units of its last place, or of `least`'s; 0 where both overflow."""
    dtype = type(value)
    with mpmath.workdps(60):
        exact = function(mpmath.mpf(float(point)))
        largest = mpmath.mpf(float(np.finfo(dtype).max))
        if np.isinf(value):
            return 0.0 if abs(exact) > largest else np.inf
        nearest = dtype(float(exact)) if abs(exact) <= largest else dtype(largest)
        return float(
            abs(mpmath.mpf(float(value)) - exact) / mpmath.mpf(float(np.spacing(max(np.abs(nearest), dtype(least)))))
        )


def dense(dtype, seed=0):
    """Random points where the functions' reductions change: around 1, around halves of log(2), between them."""
    rng = np.random.default_rng(seed)
    steps = [0.5 * np.log(2), np.log(2), 1.5 * np.log(2), 2**-0.5, 1, 2**0.5]
    near = np.concatenate([step * (1 + 0.02 * rng.uniform(-1, 1, 60)) for step in steps])
    return np.concatenate([near, -near, rng.uniform(-2, 2, 300)]).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_elementary_functions_are_within_2_ulp_over_their_whole_range(name, dtype):
    function, lowest = FUNCTIONS[name]
    x = np.concatenate([table(dtype), dense(dtype)])
    x = x[x > lowest]
    y = library.elementary(name, x)
    assert y.dtype == dtype
    for point, value in zip(x, y, strict=True):
        error = ulps(value, function, point)
        assert error <= 2, f"{name}({point!r}) = {value!r}, off by {error:.2f} ulp"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name, function", [("sine_of_turns", "sin"), ("cosine_of_turns", "cos")])
def test_sine_and_cosine_of_turns_are_within_2_ulp(name, function, dtype):
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.uniform(-3, 3, 1_000), np.geomspace(1e-30, 1, 200), np.linspace(-1, 1, 65)]).astype(dtype)
    for point, value in zip(x, library.elementary(name, x), strict=True):
        if 4 * point % 1 == 0:
            assert value == round(float(getattr(np, function)(2 * np.pi * float(point)))), point
            continue
        error = ulps(value, lambda p: getattr(mpmath, function)(2 * mpmath.pi * p), point)
        assert error <= 2, f"{name}({point!r}) = {value!r}, off by {error:.2f} ulp"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "name, points, values",
    [
        ("exp", [-np.inf, -1e30, -0.0, 0.0, 1e30, np.inf], [0.0, 0.0, 1.0, 1.0, np.inf, np.inf]),
        ("expm1", [-np.inf, -1e30, -0.0, 0.0, 1e30, np.inf], [-1.0, -1.0, -0.0, 0.0, np.inf, np.inf]),
        ("log", [-np.inf, -1.0, -0.0, 0.0, 1.0, np.inf], [np.nan, np.nan, -np.inf, -np.inf, 0.0, np.inf]),
        ("log1p", [-np.inf, -2.0, -1.0, -0.0, 0.0, np.inf], [np.nan, np.nan, -np.inf, -0.0, 0.0, np.inf]),
    ],
)
def test_elementary_functions_at_the_ends_of_their_range(name, points, values, dtype):
    y = library.elementary(name, np.array([*points, np.nan, -np.nan], dtype))
    wanted = np.array(values, dtype)
    np.testing.assert_array_equal(y[:-2], wanted)
    np.testing.assert_array_equal(np.signbit(y[:-2][wanted == 0]), np.signbit(wanted[wanted == 0]))
    assert np.isnan(y[-2:]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_elementary_functions_keep_to_their_range_and_pass_nan_on(dtype):
    x = np.sort(np.concatenate([table(dtype), [-np.inf, np.inf]]).astype(dtype))
    limits = {
        "tanh": (-1, 1),
        "sigmoid": (0, 1),
        "elu": (-1, np.inf),
        "relu": (0, np.inf),
        "leaky_relu": (-np.inf, np.inf),
        "softplus": (0, np.inf),
    }
    for activation, (low, high) in limits.items():
        y = library.elementary(activation, x)
        assert ((low <= y) & (y <= high)).all(), activation
        assert y[0] == pytest.approx(low, abs=float(np.finfo(dtype).tiny))
        assert y[-1] == high
        assert np.isnan(library.elementary(activation, np.array([np.nan, -np.nan, 1], dtype))[:2]).all()
    odd = library.elementary("tanh", x)
    np.testing.assert_array_equal(odd, -library.elementary("tanh", -x))
    assert np.signbit(library.elementary("tanh", np.array([-0.0], dtype)))[0]


@pytest.mark.parametrize("activation", [*EXACT, *EXACT_DERIVATIVES, *FUNCTIONS])
def test_elementary_functions_do_not_depend_on_the_place_in_the_array(activation):
    x = np.abs(np.random.default_rng(0).normal(size=67)).astype(np.float32)
    whole = library.elementary(activation, x)
    for start in range(0, 67, 7):
        np.testing.assert_array_equal(library.elementary(activation, x[start:]), whole[start:])
    np.testing.assert_array_equal(library.elementary(activation, x[:66].reshape(3, 22)), whole[:66].reshape(3, 22))
    np.testing.assert_array_equal(library.elementary(activation, x[::3]), whole[::3])
    assert library.elementary(activation, np.zeros(0)).shape == (0,)


def test_elementary_misuse_is_named():
    with pytest.raises(ValueError, match=r"function: .*cubic.*'tanh', 'relu', 'elu', .*'exp'"):
        library.elementary("cubic", np.ones(3))
    for x in ([1.0], np.ones(3, np.float16), np.ones(3, np.int64), None):
        with pytest.raises(TypeError, match=r"x: .*want a float32 or float64 array"):
            library.elementary("tanh", x)


def run(program, **environment):
    """A fresh interpreter; its output."""
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_instruction_set_in_use_is_the_highest_available():
    available = library.available_instruction_sets()
    assert len(set(available)) == len(available) >= 1
    if "TRPO_FAST_ISA" not in os.environ:
        assert library.instruction_set() == available[-1]


SOLVE = """
import numpy as np
from trpo_fast import conjugate_gradient
from trpo_fast._core import library
from trpo_fast._core.policy import PolicyKernel
rng = np.random.default_rng(0)
theta, observations = rng.normal(size=(3 + 5 * 16 + 16 + 16 * 3 + 3)), rng.normal(size=(300, 5))
actions, advantages, v = rng.normal(size=(300, 3)), rng.normal(size=300), rng.normal(size=150)
print(library.instruction_set())
for dtype in (np.float32, np.float64):
    kernel = PolicyKernel((5, 16, 3), "tanh", "gaussian", dtype)
    kernel.bind(*(a.astype(dtype) for a in (0.3 * theta, observations, actions, advantages)))
    F, g = kernel.fisher_operator(), kernel.surrogate_gradient()
    for result in (F @ v, g, conjugate_gradient(F, g, damping=0.1).x):
        print(*result.tolist())
"""


@pytest.mark.parametrize("isa", library.available_instruction_sets())
def test_every_instruction_set_can_be_forced_and_solves_the_same_problem(isa):
    done = run(SOLVE, TRPO_FAST_ISA=isa, PYTHONPATH=os.getcwd())
    assert done.returncode == 0, done.stderr
    name, *lines = done.stdout.splitlines()
    assert name == isa
    here = {}
    exec(SOLVE, {"print": lambda *values: here.setdefault("lines", []).append(values)})  # with the set in use here
    for index, (line, expected) in enumerate(zip(lines, here["lines"][1:], strict=True)):
        actual, expected = np.array(line.split(), float), np.array(expected)
        tolerance = 1e-4 if index < 3 else 1e-11
        assert np.linalg.norm(actual - expected) <= tolerance * np.linalg.norm(expected)


@pytest.mark.parametrize("isa", ["x86-64-v9", "sse", "X86-64-V2", " x86-64-v2", "native", "0"])
def test_an_unknown_instruction_set_is_an_import_error_that_lists_the_available(isa):
    done = run("import trpo_fast._core.library", TRPO_FAST_ISA=isa, PYTHONPATH=os.getcwd())
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: TRPO_FAST_ISA=")
    assert isa in last
    for available in library.available_instruction_sets():
        assert available in last


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the CPU of the test is an x86-64")
@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="qemu-x86_64 is not installed (Debian: qemu-user)")
@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="no sanitizer begins in an emulated process")
@pytest.mark.parametrize("wanted", ["", "x86-64-v2"])
def test_a_cpu_below_all_instruction_sets_is_an_import_error_and_not_a_crash(wanted):
    # numpy must not have been loaded before: its own code ends the process on such a CPU.
    done = subprocess.run(
        ["qemu-x86_64", "-cpu", "core2duo", sys.executable, "-c", "import trpo_fast"],
        env={**os.environ, "PYTHONPATH": os.getcwd(), "TRPO_FAST_ISA": wanted},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("ImportError: this CPU is below x86-64-v2 (SSE4.2)")


def test_an_empty_choice_of_instruction_set_is_none():
    done = run("from trpo_fast._core.library import *; print(instruction_set())", TRPO_FAST_ISA="")
    assert done.stdout.strip() == library.available_instruction_sets()[-1]


@pytest.fixture
def restored_threads():
    count = get_num_threads()
    yield count
    set_num_threads(count)


def test_the_number_of_threads_can_be_set(restored_threads):
    assert 1 <= restored_threads <= 256
    for count in (1, 2, 256, np.int64(3)):
        set_num_threads(count)
        assert get_num_threads() == library.get_num_threads() == count


@pytest.mark.parametrize("count", [0, -1, 257, 10_000, 2**40])
def test_a_number_of_threads_out_of_range_is_named(count, restored_threads):
    with pytest.raises(ValueError, match=f"count: {count}.* given; want 1 to 256 threads"):
        set_num_threads(count)
    assert get_num_threads() == restored_threads


@pytest.mark.parametrize("count", [True, 1.5, 2.0, "2", [2]])
def test_a_number_of_threads_that_is_no_integer_is_named(count, restored_threads):
    with pytest.raises(TypeError, match=r"count: .* given; want an integer or None"):
        set_num_threads(count)
    assert get_num_threads() == restored_threads


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
def test_the_first_number_of_threads_is_that_of_the_cores_granted():
    program = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import trpo_fast
print(trpo_fast.get_num_threads())
"""
    assert run(program, PYTHONPATH=os.getcwd(), TRPO_FAST_NUM_THREADS="").stdout.strip() == "1"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
def test_usable_cores_follow_the_affinity_whatever_number_of_threads_is_set(restored_threads):
    granted = os.sched_getaffinity(0)
    set_num_threads(7)
    assert 1 <= library.usable_cores() <= len(granted)
    os.sched_setaffinity(0, {min(granted)})
    try:
        assert library.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, granted)


# Prints "done" if every child computes what its parent did. A child that hangs is killed by its alarm.
FORK = """
import os, signal, threading, warnings
import numpy as np
from trpo_fast import set_num_threads
from trpo_fast._core.policy import PolicyKernel
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: it is what is tried here
set_num_threads(4)
rng = np.random.default_rng(0)
def problem():
    kernel = PolicyKernel((5, 16, 3), "tanh", "gaussian", np.float64)
    kernel.bind(rng.normal(size=kernel.size), *(rng.normal(size=s) for s in ((3000, 5), (3000, 3), (3000,))))
    return kernel.fisher_operator(), rng.normal(size=kernel.size)
F, v = problem()
expected = (F @ v).tobytes()  # the pool's threads exist from here on
G, w = problem()
running = {busy}
def work():
    while running:
        G @ w
worker = threading.Thread(target=work)
worker.start()
for _ in range(10):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        same = all((F @ v).tobytes() == expected for _ in range(5))
        grandchild = os.fork()
        if grandchild == 0:
            signal.alarm(60)
            os._exit(0 if (F @ v).tobytes() == expected else 1)
        same = same and os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) == 0
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (F @ v).tobytes() == expected
running = False
worker.join()
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("busy", [False, True])
def test_a_forked_child_can_run_parallel_sections(busy):
    # With busy, another thread may be inside a parallel section at the moment of the fork.
    done = run(FORK.replace("{busy}", str(busy)), PYTHONPATH=os.getcwd())
    assert done.stdout.strip() == "done", done.stderr


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_item_that_is_not_finite_is_seen_wherever_it_is(dtype):
    for size in (0, 1, 15, 16, 17, 40):
        x = np.full(size, np.finfo(dtype).max, dtype)
        assert library.all_finite(x) is True
        for at in range(size):
            for bad in (np.nan, np.inf, -np.inf):
                changed = x.copy()
                changed[at] = bad
                assert library.all_finite(changed) is False


@pytest.mark.parametrize(
    "x", [[1.0], None, np.zeros(3, np.int64), np.zeros((2, 2)), np.zeros(6)[::2], np.zeros(3, "f2"), np.zeros(3, ">f8")]
)
def test_what_has_no_finite_items_is_named(x):
    with pytest.raises((TypeError, ValueError), match=r"x: .* given; want a C-contiguous float"):
        library.all_finite(x)


def test_values_of_dictionaries_are_told_by_identity_and_in_order():
    a, b = [1], [1]
    parts = [{"x": a, "y": None}, {}, {"x": b}]
    assert library.holds(parts, [a, None, b]) is True
    for objects in ([a, None, a], [a, None], [a, None, b, None], [b, None, a], []):
        assert library.holds(parts, objects) is False
    assert library.holds([], []) and not library.holds([], [None])
    assert library.holds([OrderedDict(x=a), parts[0]], [a, a, None])  # as modules of older torch have
    for wrong in ((None, []), ([], None), ([None], []), ([[]], [])):
        with pytest.raises(TypeError):
            library.holds(*wrong)
