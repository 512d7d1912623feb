"""Which Fisher product a solve takes, and that it says so."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests._core.policies import Setting
from tests.engines.cases import make_case
from trpo_fast import caches
from trpo_fast._core import library
from trpo_fast._core.operator import DenseOperator
from trpo_fast.engines import DistributedEngine, make_engine
from trpo_fast.rollout.batch import Batch
from trpo_fast.solvers import fisher_product
from trpo_fast.solvers.fisher_product import jacobians_pay, prepare_fisher

L2, L3 = 2**20, 36 * 2**20
sizes = st.lists(st.integers(1, 300), min_size=2, max_size=6)


@pytest.fixture
def known_caches(monkeypatch):
    """Those of a machine that tells them, whatever this one does."""
    monkeypatch.setattr(fisher_product, "_cache_sizes", lambda: (L2, L3))


def operator(widths=(5, 16, 16, 2), rows=200, **options):
    return Setting(widths=widths, rows=rows, **options).bind().fisher_operator()


# Where the two products were measured beside each other (docs/benchmarks.md).
@pytest.mark.parametrize(
    ("widths", "rows", "ten", "twenty_five"),
    [
        ((17, 64, 64, 6), 96, False, True),
        ((17, 64, 64, 6), 192, False, False),
        ((17, 64, 64, 6), 480, False, False),
        ((17, 64, 64, 6), 2048, False, False),
        ((3, 64, 64, 1), 2048, True, True),
        ((4, 64, 64, 2), 2048, True, True),
        ((11, 64, 64, 3), 2048, False, True),
        ((11, 64, 64, 3), 8192, False, True),
        ((11, 64, 64, 3), 100_000, False, False),
        ((17, 256, 256, 6), 2048, False, True),
        ((376, 256, 256, 17), 2048, False, False),
        ((128, 64, 64, 18), 2048, False, False),
    ],
)
def test_jacobians_are_taken_where_they_were_measured_to_be_faster(widths, rows, ten, twenty_five):
    assert jacobians_pay(widths, rows, 4, 10, L2, L3) is ten
    assert jacobians_pay(widths, rows, 4, 25, L2, L3) is twenty_five


@given(sizes, st.integers(1, 10**6), st.sampled_from([4, 8]), st.integers(1, 1000))
def test_jacobians_never_pay_where_the_caches_are_not_known(widths, rows, item_size, products):
    assert not jacobians_pay(widths, rows, item_size, products, 0, 0)


@given(sizes, st.integers(1, 5000), st.sampled_from([4, 8]), st.integers(1, 200), st.integers(0, 2**24))
def test_what_pays_still_does_for_more_products_and_for_a_larger_cache(widths, rows, item_size, products, l2):
    if jacobians_pay(widths, rows, item_size, products, l2, L3):
        assert jacobians_pay(widths, rows, item_size, products + 1, l2, L3)
        assert jacobians_pay(widths, rows, item_size, products, 2 * l2, 2 * L3)
        assert len(widths) >= 4


def test_a_single_product_is_never_worth_a_pass_for_each_output():
    assert not jacobians_pay((17, 64, 64, 6), 96, 4, 1, L2, L3)


@pytest.mark.parametrize(("choice", "product"), [("auto", "jacobians"), ("always", "jacobians"), ("never", "weights")])
def test_the_setting_says_which_product_is_used(choice, product, known_caches):
    F = operator()
    assert F.product == "weights"
    assert prepare_fisher(F, 25, choice) == (product, "float64")
    assert F.product == product


def test_few_products_go_through_the_weights_unless_jacobians_are_asked_for(known_caches):
    assert prepare_fisher(operator(), 1)[0] == "weights"
    assert prepare_fisher(operator(), 1, "always")[0] == "jacobians"


def test_one_hidden_layer_has_nothing_to_cache(known_caches):
    assert prepare_fisher(operator(widths=(5, 16, 2)), 1000, "always")[0] == "weights"


def test_an_operator_that_is_not_compiled_says_nothing():
    assert prepare_fisher(DenseOperator(np.eye(3)), 10, "always") == ("", "")


def test_bf16_products_go_through_the_weights_and_say_so(portable_bfloat16):
    F = operator(dtype=np.float32)
    assert prepare_fisher(F, 1000, "always", "bfloat16") == ("weights", "bfloat16")
    assert prepare_fisher(F, 1000, "always", "bfloat16") == ("weights", "bfloat16")  # as it is already


@pytest.mark.parametrize(
    ("A", "why"),
    [
        (DenseOperator(np.eye(3)), "DenseOperator is not of the native engine"),
        (operator(), "the dtype is float64"),
    ],
)
def test_bf16_products_that_there_are_none_of_are_refused_by_name(A, why, portable_bfloat16):
    with pytest.raises(ValueError, match=f"fisher_precision: 'bfloat16' given, but {why}; want 'float32'"):
        prepare_fisher(A, 10, "never", "bfloat16")


def test_a_machine_without_bf16_products_is_told_so(monkeypatch):
    monkeypatch.setattr(library, "bfloat16_obstacle", lambda: "this CPU has no such thing")
    with pytest.raises(ValueError, match="'bfloat16' given, but this CPU has no such thing; want 'float32'"):
        prepare_fisher(operator(dtype=np.float32), 10, "never", "bfloat16")


def test_a_machine_that_does_not_tell_its_caches_decides_against_jacobians(monkeypatch, tmp_path):
    monkeypatch.setattr(caches, "CACHES", tmp_path / "none")
    fisher_product._cache_sizes.cache_clear()
    try:
        assert prepare_fisher(operator(), 1000)[0] == "weights"
    finally:
        fisher_product._cache_sizes.cache_clear()


def test_data_caches_are_told_apart_from_those_of_instructions(monkeypatch, tmp_path):
    for index, (level, kind, size) in enumerate(
        [("1", "Instruction", "64K"), ("1", "Data", "32K"), ("2", "Unified", "1M")]
    ):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, text in {"level": level, "type": kind, "size": size, "shared_cpu_list": "0"}.items():
            (folder / name).write_text(f"{text}\n")
    monkeypatch.setattr(caches, "CACHES", tmp_path)
    assert [caches.data_cache_bytes(level) for level in (1, 2, 3)] == [32 * 2**10, 2**20, 0]


class Ranks:
    """The first of several that have as much each."""

    rank = 0

    def __init__(self, size):
        self.size = size

    def add(self, values):
        values *= self.size


@pytest.mark.parametrize("some", [False, True])
def test_how_products_are_computed_is_decided_for_the_rows_of_all_ranks(some, monkeypatch):
    case = make_case("gaussian")
    whole = len(case.observations) // 4 * 4
    asked = []
    monkeypatch.setattr(fisher_product, "jacobians_pay", lambda widths, rows, *_: asked.append(rows) or False)
    for size in (1, 2, 4):
        own = whole // size
        engine = DistributedEngine(make_engine(case.policy, "native"), Ranks(size), parts=4 // size)
        starts = list(range(0, own, whole // 4))
        engine.bind(Batch(*(array[:own] for array in case.data), part_starts=starts))
        rows = np.arange(0, own, whole // 8) if some else None
        prepare_fisher(engine.fisher_operator(rows), 10)
    assert set(asked) == {8 if some else whole}
    assert len(asked) == 4 + 2 + 1
