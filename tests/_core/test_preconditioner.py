"""Preconditioners against float64 K-FAC, and what they are for: few products do the work of many."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import reference
from tests._core.side_by_side import refused_or_right
from tests.engines.cases import make_case
from tests.test_problems import FILES, load
from trpo_fast import Status, conjugate_gradient, get_num_threads, set_num_threads, trust_region_step
from trpo_fast._core.library import philox
from trpo_fast._core.policy import PolicyKernel
from trpo_fast._core.preconditioner import FACTORED_DAMPING, FisherFactors, KroneckerPreconditioner
from trpo_fast.engines import make_engine

TOLERANCE = {np.float32: 2e-4, np.float64: 1e-10}
SIGN_STREAM = 2


@pytest.fixture(autouse=True)
def restored_threads():
    count = get_num_threads()
    yield
    set_num_threads(count)


@pytest.fixture(params=[np.float32, np.float64])
def dtype(request):
    return request.param


class Setting:
    """A bound kernel and the oracle's parameters; two outputs or more."""

    def __init__(self, distribution="gaussian", dtype=np.float64, rows=300, widths=(5, 33, 16, 4), activation="tanh"):
        rng = np.random.default_rng(0)
        self.nvec = (2, widths[-1] - 2) if distribution == "multicategorical" else None
        self.kernel = PolicyKernel(widths, activation, distribution, dtype, self.nvec)
        self.oracle = reference.Policy(
            tuple(widths), activation, "gaussian" if distribution == "gaussian" else "categorical"
        )
        self.theta = (0.4 * rng.normal(size=self.kernel.size)).astype(dtype)
        self.observations = rng.normal(size=(rows, widths[0])).astype(dtype)
        self.actions = {
            "gaussian": lambda: rng.normal(size=(rows, widths[-1])).astype(dtype),
            "categorical": lambda: rng.integers(0, widths[-1], rows),
            "multicategorical": lambda: np.stack([rng.integers(0, n, rows) for n in self.nvec], axis=1),
            "bernoulli": lambda: rng.integers(0, 2, (rows, widths[-1])),
        }[distribution]()
        self.distribution, self.advantages = distribution, rng.normal(size=rows).astype(dtype)
        self.v = rng.normal(size=self.kernel.size).astype(dtype)
        self.bind()

    def bind(self, **options):
        self.kernel.bind(self.theta, self.observations, self.actions, self.advantages, **options)
        return FisherFactors(self.kernel)

    def roots(self):
        """R with R R' = M of every sample, (B, K, K), as symmetric or one-sided roots written out as matrices."""
        outputs, k = self.oracle.forward(self.theta, self.observations), self.oracle.outputs
        if self.distribution == "gaussian":
            return np.repeat(np.diag(np.exp(-self.theta[:k].astype(float)))[None], len(outputs), axis=0)
        if self.distribution == "bernoulli":
            p = 1 / (1 + np.exp(-outputs))
            return np.sqrt(p * (1 - p))[:, :, None] * np.eye(k)
        roots, at = np.zeros((len(outputs), k, k)), 0
        for size in self.nvec or (k,):
            part = slice(at, at + size)
            p = np.exp(reference.log_softmax(outputs[:, part]))
            roots[:, part, part] = np.sqrt(p)[:, :, None] * np.eye(size) - p[:, :, None] * np.sqrt(p)[:, None, :]
            at += size
        return roots

    def factors(self, input_rows, score_rows):
        """The oracle's, with the kernel's random signs, drawn for a row's place among the inputs."""
        places = np.flatnonzero(np.isin(input_rows, score_rows))
        signs = reference.sign_bits(philox, places, self.oracle.outputs, SIGN_STREAM)
        cotangents = np.einsum("bij,bj->bi", self.roots()[score_rows], signs)
        return reference.kronecker_factors(
            self.oracle, self.theta, self.observations, cotangents, input_rows, score_rows
        )


def relative_error(found, expected):
    return np.linalg.norm(np.asarray(found, np.float64) - expected) / np.linalg.norm(expected)


DISTRIBUTIONS = ["gaussian", "categorical", "multicategorical", "bernoulli"]


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("rows", [1, 5, 97, 300])
def test_statistics_and_product_are_the_oracles(rows, distribution, dtype):
    s = Setting(distribution, dtype, rows)
    everything = np.arange(rows)
    expected = s.factors(everything, everything)
    factors = FisherFactors(s.kernel)
    for (A, G), (wanted_A, wanted_G) in zip(factors.statistics(), expected, strict=True):
        assert relative_error(A, wanted_A) < TOLERANCE[dtype]
        assert relative_error(G, wanted_G) < TOLERANCE[dtype]
    M = factors.preconditioner("kfac", damping=0.3)
    solved = reference.kronecker_solve(s.oracle, expected, 2.0, 0.3, FACTORED_DAMPING * 0.3, s.v)
    assert relative_error(M @ s.v, solved) < 10 * TOLERANCE[dtype]


@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_statistics_of_every_activation_are_the_oracles(activation, dtype):
    s = Setting(dtype=dtype, activation=activation)
    everything = np.arange(300)
    expected = s.factors(everything, everything)
    for found, wanted in zip(FisherFactors(s.kernel).statistics(), expected, strict=True):
        assert relative_error(found[0], wanted[0]) < TOLERANCE[dtype]
        assert relative_error(found[1], wanted[1]) < TOLERANCE[dtype]


def test_large_batches_give_A_from_a_part_and_G_from_a_third_of_that():
    for count, input_step, score_step in ((1023, 1, 1), (1024, 1, 3), (13_000, 3, 9)):
        s = Setting(rows=count)
        expected = s.factors(np.arange(0, count, input_step), np.arange(0, count, score_step))
        for found, wanted in zip(FisherFactors(s.kernel).statistics(), expected, strict=True):
            assert relative_error(found[0], wanted[0]) < 1e-10
            assert relative_error(found[1], wanted[1]) < 1e-10


@pytest.mark.parametrize("distribution", ["gaussian", "multicategorical"])
@pytest.mark.parametrize("count", [300, 9_000])
def test_activations_that_were_not_kept_change_no_bit(distribution, count, dtype):
    s = Setting(distribution, dtype, count)
    rows = np.arange(1, count, 2)
    whole = s.bind()
    kept = [whole.preconditioner("kfac", damping=0.1, rows=some) @ s.v for some in (None, rows)]
    part = s.bind(cache_bytes=100_000)
    for some, expected in zip((None, rows), kept, strict=True):
        np.testing.assert_array_equal(part.preconditioner("kfac", damping=0.1, rows=some) @ s.v, expected)


def test_rows_choose_the_samples_and_total_scales_as_it_does_the_operator():
    s = Setting()
    rows = np.unique(np.random.default_rng(1).integers(0, 300, 120))
    factors = s.bind(total=600)
    expected = [(A, 0.5 * G) for A, G in s.factors(rows, rows)]
    for found, wanted in zip(factors.statistics(rows), expected, strict=True):
        assert relative_error(found[1], wanted[1]) < 1e-10
    M = factors.preconditioner("kfac", damping=0.1, rows=rows)
    solved = reference.kronecker_solve(s.oracle, expected, 1.0, 0.1, FACTORED_DAMPING * 0.1, s.v)
    assert relative_error(M @ s.v, solved) < 1e-9


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_random_signs_give_the_exact_output_fisher_on_average(distribution):
    s = Setting(distribution, rows=1000)
    expected = (s.roots() @ s.roots().transpose(0, 2, 1)).mean(0)
    G = FisherFactors(s.kernel).statistics()[-1][1]
    # The signs are fixed; an entry's mean over the 334 rows used stays within 5 standard errors.
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)) / 334)
    assert (abs(G - expected) < 5 * scale).all()


def test_forbidden_choices_take_no_part():
    s = Setting("categorical", rows=200)
    masks = np.ones((200, 4), bool)
    masks[:, 2] = False
    s.actions[s.actions == 2] = 1
    G = s.bind(action_masks=masks).statistics()[-1][1]
    assert (G[2] == 0).all() and (G[:, 2] == 0).all()
    assert G[0, 0] > 0.01


def test_the_diagonal_is_that_of_the_factors(dtype):
    s = Setting(dtype=dtype)
    everything = np.arange(300)
    pieces = [np.full(4, 2.0)]
    for A, G in s.factors(everything, everything):
        block = np.outer(np.diag(G), np.diag(A))
        pieces += [block[:, :-1].ravel(), block[:, -1]]
    M = FisherFactors(s.kernel).preconditioner("diagonal", damping=0.2)
    assert relative_error(M @ s.v, s.v / (np.concatenate(pieces) + 0.2)) < TOLERANCE[dtype]


@pytest.mark.parametrize("rows", [1, 96, 97, 3000])
@pytest.mark.parametrize("widths", [(5, 33, 16, 4), (40, 200, 130, 7)])
def test_the_bits_do_not_depend_on_the_number_of_threads(rows, widths, dtype):
    s = Setting(dtype=dtype, rows=rows, widths=widths)
    found = set()
    for count in (1, 2, 3, 8):
        set_num_threads(count)
        M = s.bind().preconditioner("kfac", damping=0.1)
        found.add((M @ s.v).tobytes())
    assert len(found) == 1


@settings(max_examples=40, deadline=None)
@given(
    widths=st.lists(st.integers(1, 70), min_size=2, max_size=4),
    rows=st.integers(1, 200),
    activation=st.sampled_from(["tanh", "relu", "sigmoid", "silu", "gelu", "softplus"]),
    damping=st.sampled_from([0.0, 1e-6, 1e-2, 10.0]),
    kind=st.sampled_from(["kfac", "diagonal"]),
    seed=st.integers(0, 100),
)
def test_preconditioners_are_symmetric_and_positive_definite(widths, rows, activation, damping, kind, seed):
    s = Setting(rows=rows, widths=tuple(widths), activation=activation)
    M = FisherFactors(s.kernel).preconditioner(kind, damping=damping)
    u, v = np.random.default_rng(seed).normal(size=(2, M.size))
    Mu, Mv = M @ u, M @ v
    assert abs(u @ Mv - v @ Mu) <= 1e-9 * np.linalg.norm(Mu) * np.linalg.norm(v)
    assert v @ Mv > 0 and u @ Mu > 0


def test_a_linear_policy_with_one_output_is_inverted_exactly():
    # F = A x 1 / sigma^2 there, so without damping M is its inverse but for the floor of sqrt(eps)
    s = Setting(rows=500, widths=(6, 1))
    M = FisherFactors(s.kernel).preconditioner("kfac", damping=0.0)
    F = s.kernel.fisher_operator()
    assert relative_error(M @ (F @ s.v), s.v) < 1e-6
    result = conjugate_gradient(F, s.v, max_iter=2, rtol=1e-10, preconditioner=M)
    assert result.status == 0


def test_a_preconditioner_of_ones_own_factors_may_share_the_vector_with_anything():
    """As an engine of torch modules would use it: factors, where their weights are, and what else there is."""
    rng = np.random.default_rng(0)
    samples = {n: rng.normal(size=(200, n)) for n in (6, 4, 3, 2)}
    A1, G1, A2, G2 = (samples[n].T @ samples[n] / 200 for n in (6, 4, 3, 2))
    # a layer (4, 5) with bias, two parameters of no layer, a layer (2, 3) without bias
    blocks = [(A1, G1, 0, 20), (A2, G2, 26, None)]
    diagonal = np.zeros(32)
    diagonal[24:26] = 3.0
    M = KroneckerPreconditioner(blocks, 32, np.float64, 0.1, diagonal)
    v = rng.normal(size=32)
    found = M @ v

    def shifted(A, G):
        root, pi = np.sqrt(FACTORED_DAMPING * 0.1), np.sqrt(np.trace(A) / len(A) / (np.trace(G) / len(G)))
        return A + pi * root * np.eye(len(A)), G + root / pi * np.eye(len(G))

    A, G = shifted(A1, G1)
    first = np.linalg.inv(G) @ np.concatenate([v[:20].reshape(4, 5), v[20:24, None]], axis=1) @ np.linalg.inv(A)
    A, G = shifted(A2, G2)
    second = np.linalg.inv(G) @ v[26:].reshape(2, 3) @ np.linalg.inv(A)
    expected = np.concatenate([first[:, :5].ravel(), first[:, 5], v[24:26] / 3.1, second.ravel()])
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("size", [1, 15, 16, 17, 31, 32, 33, 64, 65, 130, 513])
def test_factors_of_any_size_are_inverted(size, dtype):
    rng = np.random.default_rng(size)
    X = rng.normal(size=(2 * size, size))
    A = X.T @ X / len(X)
    M = KroneckerPreconditioner([(A.astype(dtype), np.eye(1, dtype=dtype), 0, None)], size, dtype, 0.0)
    v = rng.normal(size=size)
    floor = np.sqrt(np.finfo(dtype).eps)
    expected = np.linalg.solve(A + floor * np.trace(A) / size * np.eye(size), v) / (1 + floor)
    assert relative_error(M @ v.astype(dtype), expected) < 20 * TOLERANCE[dtype]


@pytest.mark.parametrize("damping", [0.0, 1e-3])
@pytest.mark.parametrize("kind", ["kfac", "diagonal"])
def test_singular_statistics_have_a_finite_inverse(kind, damping, dtype):
    for change in ("constant inputs", "dead layer", "one row", "large"):
        s = Setting(dtype=dtype, rows=1 if change == "one row" else 50, activation="relu")
        if change == "constant inputs":
            s.observations[:] = 1
        elif change == "large":
            s.observations *= 1e4
        elif change == "dead layer":
            bias = 4 + 33 * 5
            s.theta[bias : bias + 33] = -1e3
        M = s.bind().preconditioner(kind, damping=damping)
        assert np.isfinite(M @ s.v).all()
        assert s.v.astype(float) @ (M @ s.v) > 0


def test_a_dead_layer_gets_the_inverse_of_the_damping():
    s = Setting(rows=50, activation="relu")
    s.theta[4 + 33 * 5 : 4 + 33 * 6] = -1e3
    found = s.bind().preconditioner("kfac", damping=0.25) @ s.v
    np.testing.assert_allclose(found[4 : 4 + 33 * 6], 4 * s.v[4 : 4 + 33 * 6], rtol=1e-12)


def test_a_statistic_that_overflows_is_named():
    s = Setting(dtype=np.float32, rows=50)
    s.observations *= 1e25
    with pytest.raises(FloatingPointError, match=r"layer 0.*A of its inputs"):
        s.bind().preconditioner("kfac", damping=0.1)
    with pytest.raises(FloatingPointError, match=r"diagonal: .*not finite"):
        s.bind().preconditioner("diagonal", damping=0.1)


@pytest.mark.parametrize("damping", [0.0, 0.25])
@pytest.mark.parametrize("scale", [1e-45, 1e-36])
def test_a_factor_too_small_to_invert_is_one_that_vanishes(scale, damping):
    small, large = np.eye(2, dtype=np.float32) * np.float32(scale), np.eye(3, dtype=np.float32)
    v = np.arange(8, dtype=np.float32)
    for A, G, weight, bias in ((large, small, 0, 4), (small, large, 0, 3)):
        M = KroneckerPreconditioner([(A, G, weight, bias)], 8, np.float32, damping)
        used = len(G) * len(A)
        np.testing.assert_allclose((M @ v)[:used], v[:used] / (damping or 1), rtol=1e-6)


def test_a_preconditioner_is_outlived_by_the_next_bind():
    s = Setting()
    M = FisherFactors(s.kernel).preconditioner("kfac", damping=0.1)
    M @ s.v
    s.bind()
    with pytest.raises(RuntimeError, match="outlived"):
        M @ s.v


def test_two_preconditioners_of_a_batch_live_side_by_side():
    s = Setting()
    factors = FisherFactors(s.kernel)
    first = factors.preconditioner("kfac", damping=0.1)
    expected = first @ s.v
    second = factors.preconditioner("kfac", damping=10.0)
    assert (second @ s.v).tobytes() != expected.tobytes()
    assert (first @ s.v).tobytes() == expected.tobytes()


def test_a_preconditioner_at_work_in_another_thread_is_refused_and_never_wrong():
    s = Setting(widths=(40, 200, 130, 7))
    M = FisherFactors(s.kernel).preconditioner("kfac", damping=0.1)
    refused_or_right({number: lambda: (M @ s.v).tobytes() for number in range(2)}, 200)


SQUARE = np.eye(3)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (([(SQUARE, SQUARE, 0, None)], 9, np.float64, -1.0), ValueError, "damping: .*-1"),
        (([(SQUARE, SQUARE, 0, None)], 9, np.float64, np.nan), ValueError, "damping"),
        (([(SQUARE[:2], SQUARE, 0, None)], 9, np.float64, 0.1), ValueError, r"blocks\[0\]: A: .*\(2, 3\)"),
        (([(SQUARE, SQUARE.astype("f"), 0, None)], 9, np.float64, 0.1), TypeError, r"blocks\[0\]: G: .*float32"),
        (([(SQUARE, [[1.0]], 0, None)], 9, np.float64, 0.1), TypeError, r"blocks\[0\]: G: .*list"),
        (([(SQUARE, SQUARE, 1, None)], 9, np.float64, 0.1), ValueError, r"blocks\[0\]: weight .* 1 .*9"),
        (([(SQUARE, SQUARE, 0, 5)], 9, np.float64, 0.1), ValueError, r"blocks\[0\]: bias overlaps"),
        (([(SQUARE, SQUARE, 0, None)] * 65, 9, np.float64, 0.1), ValueError, "at most 64"),
        (([], 4, np.float64, 0.1, np.ones(3)), ValueError, r"diagonal: .*\(4,\)"),
        (([], 2, np.float64, 0.1, np.array([1, np.nan])), FloatingPointError, "diagonal: .*not finite"),
        (([], 2, np.float64, 0.1, np.array([1, -2.0])), FloatingPointError, "diagonal: .*negative"),
        (([], 4, np.int32, 0.1), TypeError, "dtype"),
        (([], 4, np.float64, "0.1"), TypeError, "damping: '0.1'.* given; want a number"),
        (([], 4, np.float64, None), TypeError, "damping: None.* given; want a number"),
        (([], "4", np.float64, 0.1), TypeError, "size: '4'.* given; want an integer"),
        (([], 4.0, np.float64, 0.1), TypeError, "size: 4.0.* given; want an integer"),
        (([], -1, np.float64, 0.1), ValueError, "size: -1.* given; want >= 0"),
        ((None, 4, np.float64, 0.1), TypeError, r"blocks: NoneType.* given; want a sequence of \(A, G, weight, bias\)"),
        (([(SQUARE, SQUARE)], 9, np.float64, 0.1), TypeError, r"blocks\[0\]: 2 items.* given; want \(A, G, .*"),
        (([SQUARE], 9, np.float64, 0.1), TypeError, r"blocks\[0\]: ndarray.* given; want \(A, G, .*"),
        (
            ([(SQUARE, SQUARE, None, None)], 9, np.float64, 0.1),
            TypeError,
            r"blocks\[0\]: weight: None given; want an integer",
        ),
        (
            ([(SQUARE, SQUARE, 0.0, None)], 9, np.float64, 0.1),
            TypeError,
            r"blocks\[0\]: weight: 0.0 given; want an integer",
        ),
        (([(SQUARE, SQUARE, 0, "b")], 9, np.float64, 0.1), TypeError, r"blocks\[0\]: bias: 'b' given; want an integer"),
        (([(-SQUARE, SQUARE, 0, None)], 9, np.float64, 0.1), FloatingPointError, "layer 0.*A of its inputs"),
        (([(SQUARE, np.diag([1.0, 2, -1]), 0, None)], 9, np.float64, 0.1), FloatingPointError, "G of its outputs"),
    ],
)
def test_bad_factors_are_named(arguments, error, match):
    with pytest.raises(error, match=match):
        KroneckerPreconditioner(*arguments)


def test_statistics_that_were_never_made_for_a_policy_say_so():
    with pytest.raises(TypeError, match="not initialized"):
        FisherFactors.__new__(FisherFactors).statistics()
    with pytest.raises(TypeError, match="not initialized"):
        FisherFactors.__new__(FisherFactors).preconditioner("kfac", damping=0.1)


def test_bad_requests_are_named():
    s = Setting()
    factors = FisherFactors(s.kernel)
    for arguments, match in (
        ({"kind": "cholesky", "damping": 0.1}, "kind: 'cholesky'.* given; want one of 'kfac', 'diagonal'"),
        ({"kind": "kfac", "damping": -0.1}, "damping: .*-0.1"),
        ({"kind": "kfac", "damping": 0.1, "rows": np.array([], np.int64)}, "rows: .*want at least one row"),
        ({"kind": "kfac", "damping": 0.1, "rows": np.array([0, 300])}, "rows: item 1 is 300; .* to 299"),
        ({"kind": "kfac", "damping": 0.1, "rows": np.array([3, 3])}, "rows: item 1 is 3; want increasing"),
    ):
        with pytest.raises(ValueError, match=match):
            factors.preconditioner(**arguments)
    with pytest.raises(RuntimeError, match="no batch is bound"):
        FisherFactors(PolicyKernel((3, 2), "tanh", "gaussian", np.float32)).preconditioner("kfac", damping=0.1)


@pytest.mark.skipif(not FILES, reason="no shared/data/trust_region_problems beside the repository")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_five_preconditioned_products_do_what_25_plain_ones_do(path, dtype):
    case = load(path, dtype)
    engine = make_engine(case.policy, "native")
    engine.bind(case.batch())
    g, F = engine.surrogate_gradient(), engine.fisher_operator()

    def gains(**options):
        x = conjugate_gradient(F, g, rtol=0.0, damping=0.1, reorthogonalize=True, **options).x.astype(np.float64)
        curvature = x @ case.oracle.fisher_product(case.theta, case.observations, x)
        return x @ g / np.sqrt(curvature), x @ g / np.sqrt(curvature + 0.1 * x @ x)

    plain = gains(max_iter=25)
    few = gains(max_iter=5, preconditioner=engine.preconditioner("kfac", damping=0.1))
    assert few[0] >= (1 - 1e-3) * plain[0]  # where both have converged, as after 2,048 steps, they are the same
    assert few[1] >= 0.97 * plain[1]
    diagonal = gains(max_iter=15, preconditioner=engine.preconditioner("diagonal", damping=0.1))
    assert diagonal[1] > 0.8 * plain[1]


@pytest.mark.parametrize("kind", ["kfac", "diagonal"])
def test_the_native_engine_makes_them_for_a_step_by_name(kind):
    case = make_case("categorical", dtype="float32")
    engine = make_engine(case.policy, "native")
    engine.bind(case.batch())
    assert trust_region_step(engine, preconditioner=kind, cg_iterations=5).status == Status.SUCCESS


def test_the_autograd_engine_says_who_makes_them():
    case = make_case("categorical", dtype="float32")
    engine = make_engine(case.policy, "autograd")
    engine.bind(case.batch())
    with pytest.raises(ValueError, match="preconditioner: 'kfac' needs the native engine"):
        trust_region_step(engine, preconditioner="kfac")
