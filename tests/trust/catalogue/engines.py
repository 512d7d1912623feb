"""Calls of engines, batches and advantages."""

import numpy as np

import trpo_fast
from tests import reference
from tests.trust.catalogue.declaring import BOX, CHOICES, as_array, call, dtype_of, far, normal, target
from trpo_fast import engines, solvers
from trpo_fast._core import rollout


def engine_of(rng, distribution=None, bound=True):
    """An engine bound to a batch, native or autograd."""
    space = [BOX, CHOICES][rng.integers(2)]
    policy = trpo_fast.MLPPolicy(BOX, space, (4,), seed=int(rng.integers(9)), dtype=str(dtype_of(rng)))
    engine = trpo_fast.make_engine(policy, str(rng.choice(["native", "native", "autograd"])))
    if bound:
        engine.bind(batch_of(rng, space))
    return engine


def batch_of(rng, space=BOX, rows=8):
    actions = rng.integers(2, size=rows) if space is CHOICES else rng.normal(size=(rows, 3))
    return trpo_fast.Batch(rng.normal(size=(rows, 3)), actions, rng.normal(size=rows))


@target("make_engine", 2)
def _(rng):
    arguments = {
        "policy": trpo_fast.MLPPolicy(BOX, CHOICES, (4,), seed=0),
        "engine": str(rng.choice(["auto", "native", "autograd"])),
        "observation_shape": None,
        "linearization": "auto",
    }
    return call(trpo_fast.make_engine, arguments)


@target("Batch", 4)
def _(rng):
    rows, dtype = int(rng.integers(1, 7)), dtype_of(rng)
    arguments = {
        "observations": normal(rng, dtype, rows, 3),
        "actions": normal(rng, dtype, rows, 2) if rng.random() < 0.5 else rng.integers(3, size=rows),
        "advantages": normal(rng, dtype, rows),
        "log_probs": normal(rng, dtype, rows) if rng.random() < 0.5 else None,
        "action_masks": rng.random((rows, 4)) < 0.5 if rng.random() < 0.5 else None,
        "sequences": None,
        "part_starts": (0,),
    }

    def check(answer, advantages, **_):
        return far(answer.advantages, as_array(advantages), np.float32, slack=1e2)

    return call(trpo_fast.Batch, arguments, check=check)


@target("Batch.part")
def _(rng):
    return call(batch_of(rng).part, {"index": 0})


@target("engine.bind", 3)
def _(rng):
    engine = engine_of(rng, bound=False)
    space = BOX if engine.policy.action_space.shape else CHOICES
    arguments = {"engine": engine, "batch": batch_of(rng, space), "total": None, "entropy_coefficient": 0.0}
    return call(lambda engine, **others: type(engine).bind(engine, **others), arguments, kept="engine")


@target("engine.evaluate")
def _(rng):
    engine = engine_of(rng)

    def check(answer, **_):
        return far(answer, (0.0, 0.0), engine.dtype, scale=1.0)

    return call(engine.evaluate, {"kl_direction": str(rng.choice(["new_old", "old_new"]))}, check=check)


@target("engine.fisher_operator", 2)
def _(rng):
    return call(engine_of(rng).fisher_operator, {"rows": rng.permutation(8)[:4] if rng.random() < 0.7 else None})


@target("engine.fisher_operator.matvec", 2)
def _(rng):
    engine = engine_of(rng)
    operator = engine.fisher_operator()
    arguments = {"self": operator, "v": normal(rng, engine.dtype, engine.size), "out": None}
    if rng.random() < 0.5:
        arguments["out"] = np.zeros(engine.size, engine.dtype)
    return call(lambda self, v, out: self.matvec(v, out), arguments, "out")


@target("engine.preconditioner")
def _(rng):
    arguments = {"kind": "kfac", "damping": 0.1, "rows": np.arange(4) if rng.random() < 0.5 else None}
    return call(engine_of(rng).preconditioner, arguments, aliases=("preconditioner", "layer"))


@target("engine.actor", 2)
def _(rng):
    engine = engine_of(rng, bound=False)
    arguments = {
        "action_space": engine.policy.action_space,
        "action_map": "clip",
        "observation_mean": np.zeros(3),
        "observation_scale": np.ones(3),
        "observation_clip": 10.0,
        "seed": 1,
        "stream": 2,
        "narrow": False,
    }
    return call(engine.actor, arguments, aliases=("action space",))


@target("engine.actor.act", 3)
def _(rng):
    engine = engine_of(rng, bound=False)
    continuous = bool(engine.policy.action_space.shape)
    rows, dtype = int(rng.integers(1, 5)), engine.dtype
    actions = np.zeros((rows, 3), dtype) if continuous else np.zeros(rows, np.int64)
    arguments = {
        "self": engine.actor(engine.policy.action_space),
        "observations": rng.normal(size=(rows, 3)),
        "step": 0,
        "normalized": np.zeros((rows, 3), dtype),
        "actions": actions,
        "log_probs": np.zeros(rows, dtype),
        "env_actions": actions.astype("f8") if continuous else actions.copy(),
        "deterministic": False,
        "first_row": 0,
        "action_masks": None if continuous or rng.random() < 0.5 else np.ones((rows, 2), bool),
    }
    return call(
        lambda self, **others: self.act(**others),
        arguments,
        "normalized actions log_probs env_actions",
        kept="self",
        aliases=("observation", "action"),
    )


@target("fisher_matrix")
def _(rng):
    arguments = {"policy": trpo_fast.MLPPolicy(BOX, CHOICES, (2,), seed=0), "observations": rng.normal(size=(3, 3))}

    def check(answer, **_):
        return far(answer, answer.T, np.float64)

    return call(trpo_fast.fisher_matrix, arguments, check=check)


@target("StepInputs.trust_region_step")
def _(rng):
    engine = engine_of(rng)
    space = BOX if engine.policy.action_space.shape else CHOICES
    arguments = {
        "batch": batch_of(rng, space),
        "direction": solvers.DirectionSettings(),
        "step": solvers.StepSettings(),
        "fisher_rows": None,
    }
    return call(trpo_fast.StepInputs, arguments)


@target("engines.AutogradEngine", 0.5)
def _(rng):
    arguments = {"policy": trpo_fast.MLPPolicy(BOX, CHOICES, (2,), seed=0), "reason": "", "observation_shape": None}
    return call(engines.AutogradEngine, arguments | {"linearization": "auto"})


@target("engines.NativeEngine", 0.5)
def _(rng):
    return call(engines.NativeEngine, {"policy": trpo_fast.MLPPolicy(BOX, CHOICES, (2,), seed=0)})


@target("AdvantageInputs.gae", 3)
def _(rng):
    dtype, shape = dtype_of(rng), (int(rng.integers(1, 6)), int(rng.integers(1, 4)))
    made = {name: normal(rng, dtype, *shape) for name in ("rewards", "values", "next_values", "log_probs")}
    made |= {name: rng.random(shape) < 0.2 for name in ("terminated", "truncated", "valid")}
    made |= {"observations": normal(rng, dtype, *shape, 2), "actions": normal(rng, dtype, *shape, 1)}
    inputs = trpo_fast.AdvantageInputs(**made, gamma=0.9, gae_lambda=0.8)
    arguments = {"inputs": inputs, **{name: None for name in ("rewards", "values", "next_values")}}
    for name in ("rewards", "values", "next_values"):
        if rng.random() < 0.5:
            arguments[name] = normal(rng, dtype, *shape)

    def check(answer, inputs, **others):
        used = {
            name: as_array(getattr(inputs, name) if value is None else value).astype(dtype).astype("f8")
            for name, value in others.items()
        }
        with np.errstate(all="ignore"):
            exact = reference.generalized_advantages(
                *used.values(), inputs.terminated, inputs.truncated, inputs.gamma, inputs.gae_lambda
            )
        return far(answer[0], exact[0], dtype, sum(np.abs(value).sum() for value in used.values()))

    return call(lambda inputs, **others: inputs.gae(**others), arguments, check=check, kept="inputs")


@target("generalized_advantages", 4)
def _(rng):
    dtype, shape = dtype_of(rng), (int(rng.integers(1, 6)), int(rng.integers(1, 4)))
    arguments = {name: normal(rng, dtype, *shape) for name in ("rewards", "values", "next_values")}
    arguments |= {name: rng.random(shape) < 0.3 for name in ("terminated", "truncated")}
    arguments |= {name: np.zeros(shape, dtype) for name in ("advantages", "returns")}
    arguments |= {"gamma": 0.9, "gae_lambda": 0.8}

    def check(answer, rewards, values, next_values, terminated, truncated, advantages, returns, gamma, gae_lambda):
        numbers = float(gamma), float(gae_lambda)
        if not np.isfinite(numbers).all() or max(map(abs, numbers)) > 1:
            return None
        ended = [np.asarray(flags).view(np.uint8) != 0 for flags in (terminated, truncated)]
        inputs = [as_array(value) for value in (rewards, values, next_values)]
        with np.errstate(all="ignore"):
            exact = reference.generalized_advantages(*inputs, *ended, *numbers)
        scale = sum(np.abs(value).sum() for value in inputs)
        return far(advantages, exact[0], dtype, scale) or far(returns, exact[1], dtype, scale)

    return call(rollout.generalized_advantages, arguments, "advantages returns", check)


@target("discounted_returns", 2)
def _(rng):
    arguments = {
        "rewards": rng.normal(size=(4, 2)),
        "done": rng.random((4, 2)) < 0.3,
        "valid": rng.random((4, 2)) < 0.9,
    }
    arguments |= {"carry": rng.normal(size=2), "out": np.zeros((4, 2)), "gamma": 0.9}
    return call(rollout.discounted_returns, arguments, "carry out")


@target("normalize_advantages")
def _(rng):
    dtype = dtype_of(rng)
    given = normal(rng, dtype, int(rng.integers(1, 9)))

    def check(answer, advantages):
        return (
            None
            if not np.size(advantages) or not np.isfinite(advantages).all()
            else far(np.mean(advantages, dtype="f8"), 0.0, advantages.dtype, 1.0)
        )

    return call(rollout.normalize_advantages, {"advantages": given}, "advantages", check)


@target("merge_moments", 2)
def _(rng):
    arguments = {"data": normal(rng, "f8", 4, 2), "mean": rng.normal(size=2), "m2": rng.random(2), "count": 3.0}
    return call(rollout.merge_moments, arguments, "mean m2")
