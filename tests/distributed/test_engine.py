"""The engine of sums on 1 to 4 ranks, whose parts of the batch differ in size, against float64 over the whole batch."""

import itertools

import numpy as np
import pytest

from tests import reference
from tests.distributed import engine_scenarios as scenarios
from tests.distributed.conftest import SIZES, sized
from tests.engines import test_recurrent as recurrent
from tests.engines.cases import improvement_scale, make_case, relative_error
from trpo_fast._core import library
from trpo_fast._core.preconditioner import FACTORED_DAMPING
from trpo_fast.engines import make_engine
from trpo_fast.solvers import trust_region_step
from trpo_fast.solvers.fisher_product import prepare_fisher

SIGN_STREAM = 2
pytestmark = pytest.mark.parametrize("size", [sized(size) for size in SIZES])


@pytest.fixture
def engines(of_ranks, size):
    """What they found on each rank."""
    return [found["engines"] for found in of_ranks(size)]


@pytest.mark.parametrize(("kind", "name"), scenarios.CASES)
def test_sums_engines_are_those_of_the_whole_batch(engines, kind, name):
    case = make_case(kind)
    oracle, theta, masks = case.oracle, case.theta, case.masks
    v = case.vector()
    whole = {
        "gradient": oracle.surrogate_gradient(theta, *case.data, masks=masks),
        "product": oracle.fisher_product(theta, case.observations, v, masks=masks),
        "gradient with entropy": oracle.surrogate_gradient(
            theta, *case.data, masks=masks, entropy_coefficient=scenarios.ENTROPY_COEFFICIENT
        ),
    }
    for chosen, rows in (("some", scenarios.SOME), ("first", scenarios.FIRST)):
        own_masks = None if masks is None else masks[rows]
        whole[f"product of {chosen}"] = oracle.fisher_product(theta, case.observations[rows], v, masks=own_masks)
    case.move()
    scale = improvement_scale(case, case.theta, theta)
    for found in engines:
        found = found[f"{kind}, {name}"]
        for what, expected in whole.items():
            assert relative_error(found[what], expected) < case.tolerance, what
        assert found["entropy"] == pytest.approx(oracle.entropy(theta, case.observations, masks), rel=case.tolerance)
        for direction in ("new_old", "old_new"):
            improvement, kl = oracle.evaluate(
                case.theta,
                theta,
                *case.data,
                direction,
                masks=masks,
                entropy_coefficient=scenarios.ENTROPY_COEFFICIENT,
            )
            assert found[direction][0] == pytest.approx(improvement, rel=0, abs=case.tolerance * (1 + scale))
            assert found[direction][1] == pytest.approx(kl, rel=case.tolerance)


@pytest.mark.parametrize(("kind", "name"), scenarios.CASES)
def test_a_step_is_that_of_one_engine_and_has_the_same_bits_on_every_rank(engines, kind, name):
    backtracks = 0
    for step, settings in scenarios.steps_of(name).items():
        case = make_case(kind)
        engine = make_engine(case.policy, name)
        engine.bind(case.batch())
        report = trust_region_step(engine, **settings)
        first, *told = engines[0][f"{kind}, {name}"][f"step: {step}"]
        assert relative_error(first, engine.parameters()) < 1e-8, step
        assert told == [report.status.name, report.cg_iterations, report.backtracks]
        backtracks += report.backtracks
        for other in engines[1:]:
            found, *others = other[f"{kind}, {name}"][f"step: {step}"]
            assert found.tobytes() == first.tobytes()
            assert others == told
    assert backtracks  # of "backtracked": several trials were compared


@pytest.mark.parametrize("kind", scenarios.IN_ORDER)
def test_parts_that_are_added_in_order_give_the_same_bits_on_any_number_of_ranks(of_ranks, engines, size, kind):
    case = make_case(kind)
    oracle, theta, masks, v = case.oracle, case.theta, case.masks, case.vector()
    expected = of_ranks(1)[0]["engines"]["in order"][kind]
    arrays = expected["arrays"]
    gradient = oracle.surrogate_gradient(
        theta, *case.data, masks=masks, entropy_coefficient=scenarios.ENTROPY_COEFFICIENT
    )
    assert relative_error(arrays["gradient with entropy"], gradient) < case.tolerance
    rows = scenarios.SOME
    for name, chosen in (("product", slice(None)), ("product of some", rows), ("product of first", scenarios.FIRST)):
        own_masks = None if masks is None else masks[chosen]
        product = oracle.fisher_product(theta, case.observations[chosen], v, masks=own_masks)
        assert relative_error(arrays[name], product) < case.tolerance, name
    assert arrays["entropy"] == pytest.approx(oracle.entropy(theta, case.observations, masks), rel=case.tolerance)
    assert expected["status"] == "SUCCESS"
    trial = oracle.evaluate(
        arrays["step"], theta, *case.data, masks=masks, entropy_coefficient=scenarios.ENTROPY_COEFFICIENT
    )
    np.testing.assert_allclose(arrays["trial"], trial, rtol=1e-9)
    for found in engines:
        found = found["in order"][kind]
        for name, array in arrays.items():
            assert found["arrays"][name].tobytes() == array.tobytes(), name
        parts = (len(scenarios.PARTS) - 1) // size
        assert found["traffic"] == ((1, 8 * parts * len(theta)) if size > 1 else (0, 0))


def test_kfac_and_diagonal_are_those_of_all_ranks_statistics(engines, size):
    case = make_case("gaussian")
    theta, bounds = case.theta, scenarios.BOUNDS[size]
    k = case.oracle.outputs
    summed = None
    for rank, (first, last) in enumerate(itertools.pairwise(bounds)):
        rows = np.arange(last - first)  # signs are drawn for a rank's own row numbers, other ones on every rank
        signs = reference.sign_bits(library.philox, rows, k, SIGN_STREAM, rank)
        cotangents = signs * np.exp(-theta[:k])
        factors = reference.kronecker_factors(case.oracle, theta, case.observations[first:last], cotangents, rows, rows)
        weighted = [(len(rows) / scenarios.ROWS * A, len(rows) / scenarios.ROWS * G) for A, G in factors]
        summed = (
            weighted if summed is None else [(A + a, G + g) for (A, G), (a, g) in zip(summed, weighted, strict=True)]
        )
    v, damping = case.vector(), scenarios.DAMPING
    pieces = [np.full(k, 2.0)]
    for A, G in summed:
        block = np.outer(np.diag(G), np.diag(A))
        pieces += [block[:, :-1].ravel(), block[:, -1]]
    diagonal = v / (np.concatenate(pieces) + damping)
    kfac = reference.kronecker_solve(case.oracle, summed, 2.0, damping, FACTORED_DAMPING * damping, v)
    for found in engines:
        found = found["preconditioned"]
        assert relative_error(found["kfac"], kfac) < 1e-9
        assert relative_error(found["diagonal"], diagonal) < 1e-10
        assert found["kfac"].tobytes() == engines[0]["preconditioned"]["kfac"].tobytes()
        assert found["step"] == engines[0]["preconditioned"]["step"]
        assert found["step"][0] == "SUCCESS"


def test_products_of_bfloat16_numbers_are_added_up_too(engines, portable_bfloat16):
    case = make_case("gaussian", dtype="float32")
    engine = make_engine(case.policy, "native")
    engine.bind(case.batch())
    v = case.vector()
    for name, rows in (("all", None), ("first", scenarios.FIRST)):
        exact = engine.fisher_operator(rows) @ v
        operator = engine.fisher_operator(rows)
        prepare_fisher(operator, 10, precision="bfloat16")
        rounded = operator @ v
        assert 1e-4 < relative_error(rounded, exact) < 4e-3
        for found in engines:
            # Where a rank has other weights for its rows, what is rounded is not the same to the bit.
            assert relative_error(found["bfloat16"][name], rounded) < {"all": 1e-5, "first": 4e-3}[name]
            assert 1e-4 < relative_error(found["bfloat16"][name], exact) < 4e-3


def test_a_statistic_beyond_the_numbers_on_one_rank_is_told_on_every_rank(engines):
    for found in engines:
        assert found["overflow"] == ["kfac", "diagonal"]


def test_recurrent_policies_add_up_over_sequences_with_rows_that_are_no_samples(engines, size):
    if size > recurrent.E:
        assert "recurrent" not in engines[0]
        return
    policy, batch, v = scenarios.recurrent_case()
    gradient, product = recurrent.oracle(policy, batch, v)
    for found in engines:
        assert relative_error(found["recurrent"]["gradient"], gradient) < 1e-10
        assert relative_error(found["recurrent"]["product"], product) < 1e-10


def test_traffic_is_one_round_a_product_and_one_a_trial(engines, size):
    n = len(make_case().policy.flat)
    for found in engines:
        expected = {
            "bind": (1, 8),
            "bind with total": (0, 0),
            "entropy": (1, 8),
            "surrogate_gradient": (1, 8 * n),
            "evaluate": (1, 16),
            "fisher_operator": (0, 0),
            "product": (1, 8 * n),
            "fisher_operator of rows": (1, 8),
            "preconditioner": (1, 8 * (8**2 + 16**2 + 17**2 + 8**2 + 9**2 + 3**2)),  # of widths 7, 16, 8, 3
        }
        assert found["rounds"] == (expected if size > 1 else dict.fromkeys(expected, (0, 0)))
