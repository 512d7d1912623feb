"""Functions of the user's own in place of the advantages and of the step: when they are called, what of them is
checked, and what files, runs and commands say of them."""

import functools
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.algorithm.conftest import SMALL
from trpo_fast import (
    TRPO,
    AdvantageInputs,
    Batch,
    DirectionSettings,
    Status,
    StepInputs,
    StepSettings,
    TRPOConfig,
    TrustRegionReport,
    find_direction,
    make_engine,
    model_file,
    step_length,
    trust_region_step,
    try_step,
)
from trpo_fast._core.library import in_words
from trpo_fast.algorithm.callbacks import CheckpointCallback
from trpo_fast.cli.main import main
from trpo_fast.deploy import load_actor

UPDATE = 3 * 64


def usual_advantages(inputs):
    return inputs.gae()


def usual_step(engine, inputs):
    return trust_region_step(engine, direction=inputs.direction, step=inputs.step, fisher_rows=inputs.fisher_rows)


def step_in_parts(engine, inputs):
    found = find_direction(engine, settings=inputs.direction, rows=inputs.fisher_rows)
    length = step_length(found, inputs.step)
    search = None if length is None else try_step(engine, length * found.x, inputs.step)
    return TrustRegionReport.of_parts(found, length, search, inputs.step)


def no_step(engine, inputs):
    return TrustRegionReport(Status.NO_IMPROVEMENT, Status.SUCCESS, 0.0, {})


class BoundedCost:
    """A further condition: the surrogate of a cost of each sample, here its own action, may not rise above a limit."""

    def __init__(self, limit):
        self.limit, self.predicted = limit, []

    def __call__(self, engine, inputs):
        batch = inputs.batch
        cost = np.asarray(batch.actions)[:, 0]
        measure = make_engine(engine.policy)
        measure.bind(Batch(batch.observations, batch.actions, cost, batch.log_probs))
        before = measure.evaluate()
        report = inputs.trust_region_step(engine, accept=lambda trial: measure.evaluate()[0] <= self.limit)
        self.predicted.append((report.status, measure.evaluate()[0]))
        assert report.status == Status.SUCCESS or measure.evaluate() == before  # put back, bit for bit
        return report


@pytest.mark.parametrize(
    "own",
    [
        {"advantages": usual_advantages},
        {"step": usual_step},
        {"step": lambda engine, inputs: inputs.trust_region_step(engine)},
        {"step": step_in_parts},
        {"advantages": AdvantageInputs.gae, "step": usual_step},
    ],
    ids=lambda own: ", ".join(f"{name}: {function.__name__}" for name, function in own.items()),
)
@pytest.mark.parametrize("settings", [{}, {"fisher_subsample": 0.5, "max_kl": 2.0, "max_kl_schedule": "linear"}])
def test_functions_that_do_what_is_built_in_give_the_same_bits(make_agent, bits, own, settings):
    usual, changed = make_agent(**settings), make_agent(**settings, **own)
    for agent in (usual, changed):
        agent.learn(3 * UPDATE)
    assert bits(usual) == bits(changed)
    for name in ("status", "kl", "improvement", "backtracks", "step_norm", "max_kl"):
        assert getattr(changed.last_update, name) == getattr(usual.last_update, name)
    assert set(changed.last_update.timings) == set(usual.last_update.timings)


def test_each_is_called_once_an_update_with_what_the_documents_say(make_agent):
    seen = []

    def advantages(inputs):
        seen.append(inputs)
        return np.zeros((64, 3)), np.ones((64, 3))

    def step(engine, inputs):
        seen.append(inputs)
        assert engine is agent.engine and engine.policy is agent.policy
        assert not engine.surrogate_gradient().any()  # of these advantages
        return usual_step(engine, inputs)

    agent = make_agent(advantages=advantages, step=step, max_kl_schedule="linear", fisher_subsample=0.5, gamma=0.9)
    agent.learn(2 * UPDATE)
    first, second = seen[::2], seen[1::2]
    assert [type(one) for one in first] == [AdvantageInputs] * 2 and [type(one) for one in second] == [StepInputs] * 2
    assert first[0].rewards.shape == first[0].values.shape == (64, 3) and first[0].observations.shape == (64, 3, 3)
    assert first[0].rewards.dtype == first[0].values.dtype == first[0].next_values.dtype == np.float32
    assert (first[0].gamma, first[0].gae_lambda) == (0.9, 0.9)
    assert [inputs.step.max_kl for inputs in second] == [0.06, 0.03]
    assert second[0].direction == DirectionSettings(relative_damping=0.1)
    assert second[0].step == StepSettings(max_kl=0.06)
    assert len(second[0].batch) == UPDATE and len(second[0].fisher_rows) == UPDATE // 2
    assert agent.last_update.status == Status.NO_GRADIENT


def test_a_step_may_be_made_by_an_optimizer_of_torch(make_agent):
    def step(engine, inputs):
        optimizer = torch.optim.SGD(engine.policy.parameters(), lr=1e-3)
        rows = torch.from_numpy(inputs.batch.observations)
        taken, weights = map(torch.from_numpy, (inputs.batch.actions, inputs.batch.advantages))
        loss = -(engine.policy(rows).log_prob(taken) * weights).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        improvement, kl = engine.evaluate()
        return TrustRegionReport(Status.SUCCESS, Status.SUCCESS, 0.0, {}, kl=kl, improvement=improvement)

    agent = make_agent(step=step)
    agent.learn(UPDATE)
    assert agent.last_update.improvement > 0 and agent.last_update.kl > 0
    assert agent.last_update.timings["solve"] == 0.0


@pytest.mark.parametrize("engine", ["native", "autograd"])
def test_a_bound_on_a_cost_holds_at_every_accepted_step(make_agent, engine):
    free, bounded = BoundedCost(np.inf), BoundedCost(1e-3)
    for step in (free, bounded):
        make_agent(step=step, engine=engine, max_backtracks=4).learn(8 * UPDATE)
    assert max(cost for _, cost in free.predicted) > 2e-3, "the case no longer asks for a bound"
    assert all(cost <= 1e-3 for status, cost in bounded.predicted if status == Status.SUCCESS)
    assert any(status == Status.SUCCESS for status, _ in bounded.predicted)
    assert any(status == Status.CONDITION_VIOLATED for status, _ in bounded.predicted)


class Unwell(Exception):
    pass


def raises(*_):
    raise Unwell("of the function")


def spoils(engine, inputs):
    engine.parameters()[3] = np.nan
    engine.parameters_changed()
    return no_step(engine, inputs)


def timed(timings, engine, inputs):
    return replace(no_step(engine, inputs), timings=timings)


def moves_and_denies_it(engine, inputs):
    usual_step(engine, inputs)
    return no_step(engine, inputs)


@pytest.mark.parametrize(
    ("own", "error", "message"),
    [
        ({"step": raises}, Unwell, "^of the function$"),
        ({"advantages": raises}, Unwell, "^of the function$"),
        ({"step": lambda engine, inputs: None}, TypeError, "step: the function returned NoneType; want a TrustRegion"),
        ({"step": spoils}, ValueError, "step: the function left parameters that cannot be: .*contains nan"),
        ({"step": moves_and_denies_it}, ValueError, "step: .*NO_IMPROVEMENT.*, no step, and changed parameters"),
        (
            {"step": lambda *_: TrustRegionReport(0, Status.SUCCESS, 0.0, {})},
            TypeError,
            "step: .* status 0; want a Status",
        ),
        *(
            ({"step": functools.partial(timed, timings)}, TypeError, f"step: .* timings.*; want {want}")
            for timings, want in ((None, "seconds by name"), ({"solve": "1 ms"}, "a number"))
        ),
        ({"advantages": lambda inputs: 3}, TypeError, r"advantages: the function returned int; want .*\(64, 3\)"),
        (
            {"advantages": lambda inputs: (inputs.values / 0 * 0, inputs.values)},
            ValueError,
            r"advantages: the function returned advantages of nan at \[0, 0\], for environment 0 at step 72",
        ),
    ],
)
def test_a_function_that_breaks_its_word_is_named_and_the_agent_is_as_before_the_update(
    make_agent, bits, own, error, message
):
    usual = {"advantages": usual_advantages, "step": usual_step}
    name, function = next(iter(own.items()))
    calls = []

    def second(*arguments):
        calls.append(1)
        with np.errstate(all="ignore"):
            return (function if len(calls) == 2 else usual[name])(*arguments)

    agent, reference = make_agent(**{name: second}), make_agent()
    reference.learn(UPDATE)
    with pytest.raises(error, match=message.replace("step 72", "step [0-9]+")):
        agent.learn(2 * UPDATE)
    assert agent.num_updates == 1
    assert bits(agent) == bits(reference)
    agent.learn(UPDATE, reset_num_timesteps=False)  # and goes on


@pytest.mark.parametrize("name", ["advantages", "step"])
@pytest.mark.parametrize("value", [3, "trust_region_step", StepSettings()])
def test_what_is_no_function_is_named(name, value, make_agent, tmp_path):
    with pytest.raises(TypeError, match=rf"^{name}: {re.escape(in_words(value))} given; want a function \("):
        TRPO("Pendulum-v1", **{name: value})
    make_agent().save(tmp_path / "a.trpo")
    with pytest.raises(TypeError, match=rf"^{name}: .* given; want a function"):
        TRPO.load(tmp_path / "a.trpo", **{name: value})


@pytest.mark.parametrize("own", [{"advantages": usual_advantages}, {"step": BoundedCost(1.0)}])
def test_a_file_names_the_function_and_training_does_not_go_on_without_it(make_agent, bits, tmp_path, own):
    (name, function) = next(iter(own.items()))
    agent = make_agent(**own)
    agent.learn(UPDATE).save(tmp_path / "a.trpo")
    told = f"{__name__}.{'usual_advantages' if name == 'advantages' else 'BoundedCost'}"
    _, metadata = model_file.read(tmp_path / "a.trpo")
    assert metadata["own_hooks"] == {"advantages": None, "step": None, name: told}
    assert name not in metadata["config"]

    loaded = TRPO.load(tmp_path / "a.trpo")  # acting needs no function
    observation = np.zeros(3)
    np.testing.assert_array_equal(loaded.predict(observation)[0], agent.predict(observation)[0])
    load_actor(tmp_path / "a.trpo")(observation)
    with pytest.raises(ValueError, match=rf"^{name}: .* {re.escape(told)}, .* TRPO.load\(path, {name}=\.\.\.\)"):
        loaded.learn(UPDATE)
    assert loaded.environments is None  # refused before anything is made
    loaded.save(tmp_path / "b.trpo")
    assert model_file.read(tmp_path / "b.trpo")[1]["own_hooks"] == metadata["own_hooks"]

    again = TRPO.load(tmp_path / "b.trpo", **{name: function})
    again.learn(UPDATE)
    agent.close()  # new episodes, as after a load
    agent.num_predictions = again.num_predictions
    agent.learn(UPDATE)
    assert bits(again) == bits(agent)
    again.close()


def test_a_file_without_functions_takes_some_and_the_next_one_names_them(make_agent, tmp_path):
    agent = make_agent()
    agent.learn(UPDATE).save(tmp_path / "a.trpo")
    loaded = TRPO.load(tmp_path / "a.trpo", step=functools.partial(usual_step))
    loaded.learn(UPDATE)
    loaded.save(tmp_path / "b.trpo")
    loaded.close()
    assert model_file.read(tmp_path / "a.trpo")[1]["own_hooks"] == {"advantages": None, "step": None}
    assert model_file.read(tmp_path / "b.trpo")[1]["own_hooks"]["step"] == f"{__name__}.usual_step"


def test_a_file_from_before_there_were_functions_is_read(make_agent, tmp_path):
    make_agent().save(tmp_path / "a.trpo")
    arrays, metadata = model_file.read(tmp_path / "a.trpo")
    del metadata["own_hooks"]
    model_file.write(tmp_path / "b.trpo", arrays, metadata)
    assert TRPO.load(tmp_path / "b.trpo").hooks.names == {"advantages": None, "step": None}


@pytest.mark.parametrize("value", [None, "text", 3, [], {"step": 3}, {"advantages": ["name"]}])
def test_damaged_names_of_functions_are_refused_when_loaded(make_agent, tmp_path, value):
    make_agent().save(tmp_path / "a.trpo")
    arrays, metadata = model_file.read(tmp_path / "a.trpo")
    model_file.write(tmp_path / "bad.trpo", arrays, {**metadata, "own_hooks": value})
    with pytest.raises(model_file.ModelFileError, match=r"bad\.trpo: .*own_hooks: .*; want an object"):
        TRPO.load(tmp_path / "bad.trpo")


def test_the_command_evaluates_such_a_run_and_names_why_it_cannot_resume_it(tmp_path, capsys):
    run = tmp_path / "run"
    agent = TRPO("Pendulum-v1", seed=3, config=TRPOConfig(**SMALL), step=usual_step)
    agent.learn(UPDATE, callback=CheckpointCallback(run / "checkpoints", UPDATE))
    agent.save(run / "model.trpo")
    agent.close()
    content = {"environment": agent.recipe.to_json(), "seed": 3, "config": agent.config.to_dict(), "timesteps": UPDATE}
    (run / "config.json").write_text(json.dumps(content))
    assert main(["eval", str(run), "--episodes", "1"]) == 0
    assert main(["train", "--resume", str(run), "--timesteps", "1000"]) == 2
    error = capsys.readouterr().err
    assert "--resume: " in error and f"step: this agent was trained with a function of its own, {__name__}" in error
    assert "Traceback" not in error


def reports(**fields):
    return TrustRegionReport(**{"status": Status.SUCCESS, "cg_status": Status.SUCCESS, "gradient_norm": 1.0} | fields)


@pytest.mark.parametrize("status", [Status.SUCCESS, Status.NO_IMPROVEMENT])
@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"cg_status": 0}, TypeError, "cg_status 0; want a Status"),
        ({"gradient_norm": None}, TypeError, "gradient_norm None; want a number"),
        ({"gradient_norm": 10**400}, ValueError, "gradient_norm .*; want a number that a float holds"),
        ({"kl": None}, TypeError, "kl None; want a number"),
        ({"improvement": "a"}, TypeError, "improvement 'a'; want a number"),
        ({"cg_iterations": None}, TypeError, "cg_iterations None; want an integer >= 0"),
        ({"backtracks": 1.5}, TypeError, "backtracks 1.5; want an integer >= 0"),
        ({"backtracks": -1}, TypeError, "backtracks -1; want an integer >= 0"),
        ({"fisher_product": 3}, TypeError, "fisher_product 3; want a string"),
        ({"timings": {"solve": None}}, TypeError, r"timings\['solve'\] None; want a number"),
    ],
)
def test_every_field_of_a_report_is_checked_when_the_function_returns(make_agent, status, fields, error, message):
    agent = make_agent(step=lambda *_: reports(**{"status": status, "timings": {}} | fields))
    with pytest.raises(error, match=f"^step: the function reported {message}"):
        agent.learn(UPDATE)


@pytest.mark.parametrize("field", ["gradient_norm", "kl", "improvement", "step_norm"])
def test_nan_is_reported_by_a_step_that_failed_alone(make_agent, field):
    with pytest.raises(ValueError, match=f"^step: the function reported {field} nan with .*SUCCESS"):
        make_agent(step=lambda *_: reports(timings={}, **{field: np.nan})).learn(UPDATE)
    agent = make_agent(step=lambda *_: reports(timings={}, **{"status": Status.NON_FINITE, field: np.nan}))
    agent.learn(UPDATE)
    assert np.isnan(getattr(agent.last_update, field))


def test_numbers_of_a_report_become_pythons_own(make_agent):
    agent = make_agent(step=lambda *_: reports(timings={}, kl=torch.tensor(0.5), cg_iterations=np.int64(3)))
    agent.learn(UPDATE)
    kl, iterations = agent.last_update.kl, agent.last_update.cg_iterations
    assert (type(kl), kl) == (float, 0.5) and (type(iterations), iterations) == (int, 3)
