"""critic_precision="bfloat16" of an agent: what it changes, what stays exact, and where it is refused."""

import numpy as np
import pytest

from trpo_fast._core import library
from trpo_fast.algorithm.trpo import TRPO


def test_a_fit_of_bf16_products_changes_the_critic_and_not_the_first_step(make_agent, portable_bfloat16):
    ends = {}
    for precision in ("float32", "bfloat16"):
        agent = make_agent(critic_precision=precision)
        agent.learn(3 * 64)
        agent.critic_trainer.wait()
        critic = agent.critic.flat.numpy.copy()
        ends[precision] = agent.engine.parameters().tobytes(), critic, agent.last_update.value_loss
    (step, critic, loss), (other_step, other_critic, other_loss) = ends.values()
    assert step == other_step
    assert not np.array_equal(critic, other_critic)
    assert other_loss == pytest.approx(loss, rel=0.05)


def test_bits_do_not_depend_on_whether_the_fit_runs_beside_the_rollout(make_agent, bits, portable_bfloat16):
    ends = []
    for overlap in (True, False):
        agent = make_agent(critic_precision="bfloat16", overlap_critic=overlap)
        agent.learn(2 * 3 * 64)
        ends.append(bits(agent))
    assert ends[0] == ends[1]


def test_a_critic_that_torch_fits_and_float64_are_refused_by_name(make_agent, portable_bfloat16):
    with pytest.raises(ValueError, match="critic_precision: 'bfloat16' given, but the dtype is float64; want"):
        make_agent(critic_precision="bfloat16", dtype="float64")
    agent = make_agent(critic_precision="bfloat16")
    for parameter in agent.critic.layers[0].parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ValueError, match=r"critic_precision: 'bfloat16' given, but torch fits .*; want"):
        agent.learn(3 * 64)
    with pytest.raises(ValueError, match=r"critic_precision: 'bfloat16' given, but torch fits .*; want"):
        agent.learn(3 * 64)  # the kernel that was refused is not taken the next time


def test_a_cpu_without_bf16_is_refused_by_name_and_its_files_load_with_float32(make_agent, tmp_path):
    library.choose_bfloat16("portable")
    try:
        make_agent(critic_precision="bfloat16").save(tmp_path / "model.trpo")
    finally:
        library.choose_bfloat16(None)
    if library.bfloat16_products() is None:
        with pytest.raises(ValueError, match=r"critic_precision: 'bfloat16' given, but .*; want 'float32'"):
            TRPO.load(tmp_path / "model.trpo")
    TRPO.load(tmp_path / "model.trpo", critic_precision="float32").close()
