"""fisher_precision="bfloat16" of an agent: what the report says, what stays exact, and where it is refused."""

import numpy as np
import pytest

from trpo_fast._core import library
from trpo_fast.algorithm.trpo import TRPO


def test_an_agent_learns_with_bf16_products_and_its_report_says_so(make_agent, portable_bfloat16):
    steps = []
    agent = make_agent(fisher_precision="bfloat16")
    agent.learn(2 * 3 * 64, callback=lambda agent: steps.append(agent.last_update.step))
    assert [step.fisher_precision for step in steps] == ["bfloat16"] * 2
    assert {step.fisher_product for step in steps} == {"weights"}
    assert all(step.status == 0 and step.kl <= agent.config.max_kl for step in steps)


def test_first_gradient_is_that_of_float32_to_the_bit(make_agent, portable_bfloat16):
    norms = []
    for precision in ("float32", "bfloat16"):
        agent = make_agent(fisher_precision=precision)
        agent.learn(3 * 64)
        norms.append(agent.last_update.step.gradient_norm)
    assert norms[0] == norms[1]


@pytest.mark.parametrize(
    ("dtype", "engine", "precision"), [("float64", "native", "float64"), ("float32", "autograd", "")]
)
def test_reports_without_bf16_say_what_was_used(make_agent, dtype, engine, precision):
    agent = make_agent(dtype=dtype, engine=engine)
    agent.learn(3 * 64)
    assert agent.last_update.step.fisher_precision == precision


def test_float64_and_the_autograd_engine_are_refused_by_name(make_agent, portable_bfloat16):
    with pytest.raises(
        ValueError, match="fisher_precision: 'bfloat16' given, but the dtype is float64; want 'float32'"
    ):
        make_agent(fisher_precision="bfloat16", dtype="float64")
    with pytest.raises(ValueError, match=r"'bfloat16' given, but the autograd engine serves .*; want 'float32'"):
        make_agent(fisher_precision="bfloat16", engine="autograd")


def test_a_cpu_without_bf16_is_refused_by_name_and_its_files_load_with_float32(make_agent, tmp_path):
    library.choose_bfloat16("portable")
    try:
        agent = make_agent(fisher_precision="bfloat16")
        agent.save(tmp_path / "model.trpo")
    finally:
        library.choose_bfloat16(None)
    if library.bfloat16_products() is not None:
        return
    with pytest.raises(ValueError, match=r"fisher_precision: 'bfloat16' given, but .*; want 'float32'"):
        TRPO.load(tmp_path / "model.trpo")
    other = TRPO.load(tmp_path / "model.trpo", fisher_precision="float32")
    observation = np.zeros(3, np.float32)
    np.testing.assert_array_equal(other.predict(observation)[0], agent.predict(observation)[0])
    other.close()
