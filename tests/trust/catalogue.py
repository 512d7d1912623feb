"""What is called at random: for every public name valid arguments, what it writes, and what its answer must be."""

import dataclasses
import functools
import tempfile
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch

import trpo_fast
from tests import reference
from trpo_fast import engines, policies, solvers, spaces
from trpo_fast._core import acting, library, rollout
from trpo_fast._core.critic import ValueKernel
from trpo_fast._core.operator import CallableOperator, DenseOperator
from trpo_fast._core.policy import PolicyKernel
from trpo_fast._core.preconditioner import KroneckerPreconditioner
from trpo_fast.normalizers import ObservationNormalizer, RewardScaler

BOX, CHOICES = gym.spaces.Box(-1.0, 1.0, (3,)), gym.spaces.Discrete(2)
IMAGES = gym.spaces.Box(0, 255, (36, 36, 1), np.uint8)


@dataclasses.dataclass
class Call:
    """One call, whose arguments are valid until they are spoiled."""

    function: object
    arguments: dict
    written: frozenset = frozenset()
    """Names of arguments that the documentation says are written."""
    check: object = None
    """``check(answer, **arguments)``: what is wrong with the answer, or nothing."""
    dear: frozenset = frozenset()
    """Counts that are obeyed however large they are."""
    kept: frozenset = frozenset()
    """What is not spoiled."""
    raises: tuple = ()
    warns: tuple = ()
    aliases: tuple = ()
    """What errors call an argument besides."""


class Target(NamedTuple):
    """A public name."""

    make: object
    weight: float


TARGETS = {}


def target(name, weight=1.0):
    def register(make):
        TARGETS[name] = Target(make, weight)
        return make

    return register


def call(function, arguments, written="", check=None, dear="", kept="", **others):
    return Call(
        function,
        arguments,
        frozenset(written.split()),
        check,
        frozenset(dear.split()),
        frozenset(kept.split()),
        **others,
    )


def dtype_of(rng):
    return np.dtype(rng.choice(["f4", "f8"]))


def normal(rng, dtype, *shape):
    return rng.normal(size=shape).astype(dtype)


def far(answer, exact, dtype, scale=None, slack=1e4):
    """What is wrong with `answer`, if anything: its distance, in units of rounding of numbers of size `scale`."""
    answer, exact = np.asarray(answer, np.float64), np.asarray(exact, np.float64)
    if answer.shape != exact.shape:
        return f"shape {answer.shape}; want {exact.shape}"
    if not np.isfinite(exact).all():
        return None
    size = np.abs(exact).max(initial=0) if scale is None else scale
    limit = np.finfo(dtype).max
    if size > np.sqrt(limit) or (0 < size < 1 / np.sqrt(limit)):
        return None
    if not np.allclose(answer, exact, rtol=0, atol=slack * np.finfo(dtype).eps * size, equal_nan=False):
        return f"{answer}; want {exact}"
    return None


def as_array(value):
    return np.asarray(value.detach() if isinstance(value, torch.Tensor) else value, np.float64)


# Solvers


@target("conjugate_gradient", 6)
def _(rng):
    dtype, n = dtype_of(rng), int(rng.integers(1, 9))
    matrix = normal(rng, dtype, n, n)
    matrix = matrix @ matrix.T + n * np.eye(n, dtype=dtype)
    kinds = [
        lambda: matrix,
        lambda: DenseOperator(matrix),
        lambda: lambda v: matrix @ v,
        lambda: torch.from_numpy(matrix),
    ]
    arguments = {
        "A": kinds[rng.integers(4)](),
        "b": normal(rng, dtype, n),
        "max_iter": int(rng.integers(0, 30)),
        "rtol": float(10.0 ** -rng.integers(1, 12)),
        "atol": 0.0,
        "damping": float(rng.random()),
        "preconditioner": np.diag(1 / np.diag(matrix)) if rng.random() < 0.3 else None,
        "x0": normal(rng, dtype, n) if rng.random() < 0.3 else None,
        "reorthogonalize": bool(rng.integers(2)),
        "callback": None,
        "progress_tol": 0.0,
    }

    def check(answer, A, b, damping, rtol, atol, x0, **_):
        x, b = as_array(answer.x), as_array(b)
        if not np.isfinite(x).all():
            return f"{answer.status.name}: {x}"
        if answer.status != 0 or not isinstance(A, np.ndarray) or A.dtype.kind not in "f":
            return None
        A = np.asarray(A, np.float64)
        symmetric = A.ndim == 2 and np.array_equal(A, A.T) and np.isfinite(A).all()
        if not symmetric:
            return None
        with np.errstate(all="ignore"):
            residual, size = np.linalg.norm(b - A @ x - float(damping) * x), np.linalg.norm(b)
            rounding = np.finfo(dtype).eps * (np.abs(A).sum() + float(damping)) * np.linalg.norm(x)
            goal = max(float(rtol) * size, float(atol))
            if np.isfinite(residual) and residual > 1.1 * goal + 1e3 * (rounding + np.finfo(dtype).tiny):
                return f"SUCCESS with a residual of {residual}; want {goal}"
        return None

    return call(trpo_fast.conjugate_gradient, arguments, check=check, dear="max_iter")


@target("backtracking_line_search", 3)
def _(rng):
    dtype, n = dtype_of(rng), int(rng.integers(1, 6))
    theta = normal(rng, dtype, n)
    start = theta.copy()
    arguments = {
        "objective": lambda theta: (1.0, float(np.sum(np.square(as_array(theta) - start)))),
        "theta": theta,
        "step": normal(rng, dtype, n),
        "max_kl": float(rng.choice([1e-3, 1.0, np.inf])),
        "backtrack_factor": 0.5,
        "max_backtracks": int(rng.integers(20)),
        "accept": None,
    }

    def check(answer, theta, step, max_kl, **_):
        if answer.status == 0:
            return None if answer.kl <= float(max_kl) else f"accepted a KL of {answer.kl}"
        return None

    return call(trpo_fast.backtracking_line_search, arguments, "theta", check, dear="max_backtracks")


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


def settings_of(cls, rng):
    return {field.name: getattr(cls(), field.name) for field in dataclasses.fields(cls)}


STEP = {**settings_of(solvers.DirectionSettings, None), **settings_of(solvers.StepSettings, None)}


@target("trust_region_step", 3)
def _(rng):
    engine = engine_of(rng)
    before = engine.parameters().copy()

    def check(answer, engine, **_):
        moved = not np.array_equal(engine.parameters(), before)
        if moved != (answer.status == 0) and answer.step_norm > 1e-6:
            return f"{answer.status.name}, parameters {'moved' if moved else 'stayed'}"
        return None

    return call(
        trpo_fast.trust_region_step, {"engine": engine, **STEP}, "engine", check, dear="cg_iterations max_backtracks"
    )


@target("find_direction", 2)
def _(rng):
    engine = engine_of(rng)
    arguments = {
        "engine": engine,
        "gradient": normal(rng, engine.dtype, engine.size) if rng.random() < 0.5 else None,
        "settings": solvers.DirectionSettings(),
        "preconditioner": None,
        "rows": np.arange(4) if rng.random() < 0.5 else None,
    }
    return call(trpo_fast.find_direction, arguments)


def direction_of(rng, n=4):
    g = rng.normal(size=n)
    return trpo_fast.Direction(g, g.copy(), curvature=float(g @ g), damping=0.1)


@target("step_length")
def _(rng):
    return call(trpo_fast.step_length, {"direction": direction_of(rng), "settings": solvers.StepSettings()})


@target("try_step", 2)
def _(rng):
    engine = engine_of(rng)
    arguments = {
        "engine": engine,
        "step": normal(rng, engine.dtype, engine.size) / 100,
        "settings": solvers.StepSettings(),
        "accept": None,
    }
    return call(trpo_fast.try_step, arguments, "engine")


@target("Direction")
def _(rng):
    g = normal(rng, dtype_of(rng), 4)
    arguments = {"gradient": g, "x": rng.normal(size=4), "curvature": 1.0, "damping": 0.1}
    arguments |= {"status": solvers.Status.SUCCESS, "iterations": 3, "residual_norm": 0.1, "gradient_norm": np.nan}

    def check(answer, gradient, gradient_norm, **_):
        if gradient_norm is np.nan:
            g = as_array(gradient)
            return far(answer.gradient_norm, np.linalg.norm(g), np.float64, np.abs(g).sum())
        return None

    return call(trpo_fast.Direction, arguments, check=check)


@target("Direction.from_solution")
def _(rng):
    b = normal(rng, dtype_of(rng), 3)
    arguments = {"solution": trpo_fast.conjugate_gradient(np.eye(3, dtype=b.dtype), b), "gradient": b, "damping": 0.0}
    return call(
        trpo_fast.Direction.from_solution,
        arguments,
        aliases=("x", "status", "iterations", "residual_norm", "curvature"),
    )


@target("DirectionSettings")
def _(rng):
    return call(solvers.DirectionSettings, settings_of(solvers.DirectionSettings, rng))


@target("StepSettings")
def _(rng):
    return call(solvers.StepSettings, settings_of(solvers.StepSettings, rng))


@target("DirectionSettings.replace")
def _(rng):
    return call(solvers.DirectionSettings().replace, settings_of(solvers.DirectionSettings, rng))


@target("StepSettings.replace")
def _(rng):
    return call(solvers.StepSettings().replace, settings_of(solvers.StepSettings, rng))


@target("TrustRegionReport.of_parts")
def _(rng):
    arguments = {"direction": direction_of(rng), "length": 0.5, "search": None, "settings": solvers.StepSettings()}
    return call(solvers.TrustRegionReport.of_parts, arguments)


# Operators


@target("Operator.matvec", 3)
def _(rng):
    dtype, n = dtype_of(rng), int(rng.integers(1, 70))
    matrix = normal(rng, dtype, n, n)
    arguments = {
        "self": DenseOperator(matrix),
        "v": normal(rng, dtype, n),
        "out": np.zeros(n, dtype) if rng.random() < 0.5 else None,
    }

    def check(answer, self, v, out):
        v = as_array(v).reshape(-1)
        return far(answer, matrix.astype("f8") @ v, dtype, np.abs(matrix).max() * np.abs(v).sum())

    return call(lambda self, v, out: self.matvec(v, out), arguments, "out", check)


@target("Operator.matmat", 2)
def _(rng):
    dtype, n = dtype_of(rng), int(rng.integers(1, 9))
    matrix = normal(rng, dtype, n, n)

    def check(answer, self, V):
        V = as_array(V)
        return far(answer, matrix.astype("f8") @ V, dtype, np.abs(matrix).max() * np.abs(V).sum())

    arguments = {"self": DenseOperator(matrix), "V": normal(rng, dtype, n, 3)}
    return call(lambda self, V: self.matmat(V), arguments, check=check)


@target("DenseOperator")
def _(rng):
    return call(DenseOperator, {"matrix": normal(rng, dtype_of(rng), 3, 3)})


@target("CallableOperator")
def _(rng):
    arguments = {"function": lambda v: 2 * v, "size": 3, "dtype": str(dtype_of(rng)), "name": "A"}
    return call(CallableOperator, arguments)


@target("KroneckerPreconditioner", 2)
def _(rng):
    dtype = dtype_of(rng)

    def positive(n):
        half = normal(rng, dtype, n, n)
        return half @ half.T + np.eye(n, dtype=dtype)

    arguments = {"blocks": [(positive(3), positive(2), 0, 6)], "size": 8, "dtype": str(dtype), "damping": 0.1}
    return call(
        KroneckerPreconditioner,
        arguments | {"diagonal": None},
        aliases=("inputs", "outputs", "weight", "bias", "layer"),
        dear="size",
    )


# Engines


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


# Advantages


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
            else far(np.mean(advantages, dtype="f8"), 0.0, dtype, 1.0)
        )

    return call(rollout.normalize_advantages, {"advantages": given}, "advantages", check)


@target("merge_moments", 2)
def _(rng):
    arguments = {"data": normal(rng, "f8", 4, 2), "mean": rng.normal(size=2), "m2": rng.random(2), "count": 3.0}
    return call(rollout.merge_moments, arguments, "mean m2")


# The compiled core


@target("PolicyKernel", 2)
def _(rng):
    arguments = {"widths": (3, 4, 2), "activation": "tanh", "distribution": "gaussian", "dtype": str(dtype_of(rng))}
    return call(PolicyKernel, arguments | {"nvec": None, "parts": None, "narrow": False}, aliases=("outputs",))


@target("PolicyKernel.bind", 4)
def _(rng):
    dtype, rows = dtype_of(rng), int(rng.integers(1, 9))
    kernel = PolicyKernel((3, 4, 2), "tanh", str(rng.choice(["gaussian", "categorical"])), dtype)
    discrete = kernel.distribution == "categorical"
    arguments = {
        "self": kernel,
        "parameters": normal(rng, dtype, kernel.size) / 4,
        "observations": normal(rng, dtype, rows, 3),
        "actions": rng.integers(2, size=rows) if discrete else normal(rng, dtype, rows, 2),
        "advantages": normal(rng, dtype, rows),
        "log_probs": normal(rng, dtype, rows) if rng.random() < 0.5 else None,
        "total": None,
        "action_masks": np.ones((rows, 2), bool) if discrete and rng.random() < 0.5 else None,
        "entropy_coefficient": 0.0,
        "cache_bytes": None,
    }

    def use(self, **others):
        self.bind(**others)
        answer = self.surrogate_gradient(), self.evaluate(others["parameters"]), self.entropy(), self.log_probs()
        return (*answer, self.fisher_operator().matvec(np.ones(self.size, self.dtype)))

    return call(use, arguments)


@target("PolicyKernel.forward", 2)
def _(rng):
    dtype, rows = dtype_of(rng), int(rng.integers(1, 9))
    kernel = PolicyKernel((3, 2), "tanh", "categorical", dtype)
    arguments = {
        "self": kernel,
        "parameters": normal(rng, dtype, kernel.size),
        "observations": normal(rng, dtype, rows, 3),
    }

    def check(answer, self, parameters, observations):
        theta, x = as_array(parameters), as_array(observations)
        exact = x @ theta[:6].reshape(2, 3).T + theta[6:]
        return far(answer, exact, dtype, np.abs(x).sum() * np.abs(theta).max() + np.abs(theta).max())

    return call(lambda self, **others: self.forward(**others), arguments, check=check)


@target("PolicyKernel.subset", 2)
def _(rng):
    kernel = PolicyKernel((3, 2), "tanh", "gaussian", "f8")
    kernel.bind(rng.normal(size=kernel.size), rng.normal(size=(6, 3)), rng.normal(size=(6, 2)), rng.normal(size=6))
    return call(kernel.subset, {"rows": rng.permutation(6)[:3], "cache_bytes": None})


@target("sample", 3)
def _(rng):
    dtype, rows = dtype_of(rng), int(rng.integers(1, 6))
    distribution = str(rng.choice(["gaussian", "categorical", "bernoulli"]))
    gaussian = distribution == "gaussian"
    shape = (rows,) if distribution == "categorical" else (rows, 2)
    arguments = {
        "distribution": distribution,
        "distribution_parameters": normal(rng, dtype, rows, 2),
        "log_std": normal(rng, dtype, 2) if gaussian else None,
        "step": 0,
        "actions": np.zeros(shape, dtype if gaussian else np.int64),
        "log_probs": np.zeros(rows, dtype),
        "seed": 1,
        "stream": 2,
        "deterministic": False,
        "first_row": 0,
        "nvec": None,
        "parts": None,
        "action_masks": None,
    }
    return call(acting.sample, arguments, "actions log_probs", kept="deterministic")


@target("gaussian_actions", 1)
def _(rng):
    dtype = dtype_of(rng)
    arguments = {"means": normal(rng, dtype, 3, 2), "log_std": normal(rng, dtype, 2), "noise": normal(rng, dtype, 3, 2)}
    drawn = arguments["noise"].astype("f8")

    def check(answer, means, log_std, noise):
        if noise.dtype != dtype or not np.isfinite(drawn).all():
            return None
        return None

    return call(acting.gaussian_actions, arguments, "noise", check)


@target("ValueKernel", 1)
def _(rng):
    return call(ValueKernel, {"widths": (3, 4, 1), "activation": "tanh", "dtype": str(dtype_of(rng))})


@target("ValueKernel.fit", 4)
def _(rng):
    dtype, rows = dtype_of(rng), int(rng.integers(1, 9))
    kernel = ValueKernel((3, 2, 1), "tanh", dtype)
    arguments = {"self": kernel, "parameters": normal(rng, dtype, kernel.size)}
    arguments |= {name: np.zeros(kernel.size, dtype) for name in ("first_moment", "second_moment")}
    arguments |= {"observations": normal(rng, dtype, rows, 3), "returns": normal(rng, dtype, rows), "adam_step": 0}
    arguments |= {"epochs": 2, "batch_size": 3, "learning_rate": 0.01, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
    arguments |= {"weight_decay": 0.0, "seed": 0, "stream": 0, "first_epoch": 0, "order": None, "losses": None}
    if rng.random() < 0.3:
        keys = {"seed": None, "stream": None, "first_epoch": None}
        arguments |= keys | {"order": np.array([rng.permutation(rows) for _ in range(2)])}
    arguments |= {"stop": None, "threads": None}

    def use(self, **others):
        return self.fit(**others)

    return call(use, arguments, "parameters first_moment second_moment losses", dear="epochs")


@target("ValueKernel.values", 2)
def _(rng):
    dtype, rows = dtype_of(rng), int(rng.integers(1, 9))
    kernel = ValueKernel((3, 1), "tanh", dtype)
    arguments = {"self": kernel, "parameters": normal(rng, dtype, 4), "observations": normal(rng, dtype, rows, 3)}
    arguments["out"] = np.zeros(rows, dtype) if rng.random() < 0.5 else None

    def check(answer, self, parameters, observations, out):
        theta, x = as_array(parameters), as_array(observations)
        exact = x @ theta[:3] + theta[3]
        return far(answer, exact, dtype, np.abs(x).sum() * np.abs(theta).max() + np.abs(theta).max())

    return call(lambda self, **others: self.values(**others), arguments, "out", check)


@target("library.normal", 1)
def _(rng):
    function = [library.normal, library.uniform][rng.integers(2)]
    arguments = {"rows": 3, "count": 2, "seed": 0, "stream": 0, "step": 0, "first_row": 0}

    def check(answer, rows, count, **_):
        return None if answer.shape == (rows, count) and np.isfinite(answer).all() else f"{answer}"

    return call(function, arguments, check=check, dear="rows count")


@target("library.permutation", 1)
def _(rng):
    def check(answer, size, **_):
        return None if sorted(answer) == list(range(int(size))) else f"{answer}"

    return call(library.permutation, {"size": 5, "seed": 0, "stream": 0, "step": 0}, check=check, dear="size")


@target("set_num_threads", 0.5)
def _(rng):
    def use(count):
        before = trpo_fast.get_num_threads()
        try:
            trpo_fast.set_num_threads(count)
        finally:
            trpo_fast.set_num_threads(before)

    return call(use, {"count": int(rng.integers(1, 5))})


# Policies


def network(rng, cls, observation_space, action_space=None, **others):
    arguments = {"observation_space": observation_space}
    if action_space is not None:
        arguments |= {"action_space": action_space, "log_std_init": 0.0}
    dtypes = ["float32", "float64", torch.float32]
    arguments |= others | {"dtype": dtypes[rng.integers(3)], "seed": int(rng.integers(3))}
    return call(cls, arguments, dear="hidden_sizes units", aliases=("space", "observation", "action"))


MLP = {"hidden_sizes": (4,), "activation": "tanh"}


@target("MLPPolicy", 3)
def _(rng):
    return network(rng, trpo_fast.MLPPolicy, BOX, [BOX, CHOICES][rng.integers(2)], **MLP)


@target("MLPCritic")
def _(rng):
    return network(rng, trpo_fast.MLPCritic, BOX, **MLP)


@target("CNNPolicy", 0.3)
def _(rng):
    return network(rng, policies.CNNPolicy, IMAGES, CHOICES, channel_axis="auto")


@target("CNNCritic", 0.3)
def _(rng):
    return network(rng, policies.CNNCritic, IMAGES, channel_axis="auto")


@target("MultiInputPolicy", 0.3)
def _(rng):
    space = gym.spaces.Dict({"image": IMAGES, "numbers": BOX})
    return network(rng, policies.MultiInputPolicy, space, CHOICES, **MLP, channel_axis="auto", boards=False)


@target("MultiInputCritic", 0.3)
def _(rng):
    space = gym.spaces.Dict({"image": IMAGES, "numbers": BOX})
    return network(rng, policies.MultiInputCritic, space, **MLP, channel_axis="auto", boards=False)


@target("RecurrentPolicy", 0.5)
def _(rng):
    kind = str(rng.choice(["gru", "lstm"]))
    return network(rng, policies.RecurrentPolicy, BOX, CHOICES, kind=kind, units=4, **MLP)


@target("RecurrentCritic", 0.5)
def _(rng):
    return network(rng, policies.RecurrentCritic, BOX, kind="gru", units=4, **MLP)


@target("FlatParameters", 0.5)
def _(rng):
    return call(policies.FlatParameters, {"module": torch.nn.Linear(2, 2)}, "module")


@target("Product")
def _(rng):
    several = [
        torch.distributions.Categorical(logits=torch.zeros(2, 3)),
        torch.distributions.Categorical(logits=torch.ones(2, 2)),
    ]
    return call(policies.Product, {"parts": several})


# Agents: one of each child


@functools.cache
def agent(kind="CartPole-v1"):
    return trpo_fast.TRPO(kind, num_envs=2, seed=0, preset=None)


@target("TRPO.predict", 3)
def _(rng):
    count = int(rng.integers(1, 4))
    arguments = {
        "observation": rng.normal(size=(count, 4) if rng.random() < 0.5 else 4),
        "state": None,
        "episode_start": None,
        "deterministic": bool(rng.integers(2)),
        "action_masks": None,
    }

    def check(answer, observation, **_):
        actions = np.asarray(answer[0])
        wanted = np.shape(observation)[:-1]
        return None if actions.shape == wanted and np.isin(actions, (0, 1)).all() else f"{actions}; want shape {wanted}"

    return call(agent().predict, arguments, check=check, aliases=("action mask", "masks"))


@target("TRPO.values", 2)
def _(rng):
    return call(agent().values, {"observations": rng.normal(size=(3, 4))}, aliases=("observation",))


@target("TRPO.log_probs", 2)
def _(rng):
    arguments = {"observations": rng.normal(size=(3, 4)), "actions": rng.integers(2, size=3), "action_masks": None}

    def check(answer, **_):
        return None if (np.asarray(answer) <= 0).all() else f"{answer}"

    return call(agent().log_probs, arguments, check=check, aliases=("observation", "action", "action mask"))


@target("TRPO.observe")
def _(rng):
    return call(
        trpo_fast.TRPO("CartPole-v1", num_envs=1, seed=0, preset=None).observe,
        {"observations": rng.normal(size=(3, 4))},
        aliases=("observation",),
    )


@target("TRPO.evaluate", 0.1)
def _(rng):
    arguments = {"episodes": 1, "deterministic": True, "seed": 0, "max_steps": 20, "progress_bar": False}
    return call(agent().evaluate, arguments, dear="episodes max_steps", kept="progress_bar")


@target("TRPO.save", 0.2)
def _(rng):
    def use(path):
        with tempfile.TemporaryDirectory() as folder:
            agent().save(f"{folder}/{path}" if type(path) is str else path)

    return call(use, {"path": "model.trpo"}, raises=(OSError,))


@target("TRPO.load", 0.3)
def _(rng):
    arguments = {"path": "nowhere.trpo", "env": None, "env_kwargs": None, "wrappers": None, "imports": ()}
    return call(trpo_fast.TRPO.load, arguments | {"trust_environment": False}, raises=(OSError,))


@target("TRPO.take_policy", 0.3)
def _(rng):
    own = trpo_fast.TRPO("CartPole-v1", num_envs=1, seed=1, preset=None)
    return call(own.take_policy, {"other": agent()})


@target("TRPO.learn", 0.1)
def _(rng):
    own = trpo_fast.TRPO(
        "CartPole-v1",
        num_envs=1,
        seed=1,
        preset=None,
        config=trpo_fast.TRPOConfig(num_envs=1, steps_per_env=16, warm_up_steps=0),
    )
    arguments = {
        "total_timesteps": 16,
        "callback": None,
        "reset_num_timesteps": True,
        "horizon": None,
        "schedules": None,
    }
    return call(own.learn, arguments, dear="total_timesteps", warns=(UserWarning,))


@target("TRPO.make_actor", 0.5)
def _(rng):
    return call(agent().make_actor, {"seed": 0, "stream": 0, "narrow": False})


@target("TRPO", 1)
def _(rng):
    arguments = {
        "env": "CartPole-v1",
        "num_envs": 2,
        "vectorization": None,
        "env_kwargs": None,
        "seed": 0,
        "config": trpo_fast.TRPOConfig(),
        "policy": None,
        "critic": None,
        "num_workers": None,
        "wrappers": None,
        "imports": (),
        "preset": None,
    }

    def use(**others):
        with trpo_fast.TRPO(**others):
            pass

    return call(use, arguments, dear="num_envs num_workers", warns=(UserWarning,))


CONFIG = {field.name: field.default for field in dataclasses.fields(trpo_fast.TRPOConfig)}


@target("TRPOConfig", 3)
def _(rng):
    return call(trpo_fast.TRPOConfig, dict(CONFIG))


@target("TRPOConfig.replace", 1)
def _(rng):
    return call(trpo_fast.TRPOConfig().replace, dict(CONFIG))


@target("TRPOConfig.from_dict", 1)
def _(rng):
    names = [name for name in trpo_fast.TRPOConfig().to_dict()]
    return call(
        trpo_fast.TRPOConfig.from_dict, {"values": trpo_fast.TRPOConfig().to_dict()}, aliases=tuple(names), kept=""
    )


# Callbacks


@target("CheckpointCallback")
def _(rng):
    arguments = {"folder": "checkpoints", "every": 100, "seconds": None, "keep": 2, "best": False}
    return call(trpo_fast.CheckpointCallback, arguments)


@target("EvaluationCallback")
def _(rng):
    arguments = {"every": 100, "episodes": 2, "deterministic": True, "seed": 0, "env": None, "max_steps": None}
    arguments |= {"best_path": None, "last_path": None, "at_start": False, "stop_at_return": None, "patience": None}
    return call(trpo_fast.EvaluationCallback, arguments)


@target("EveryNTimesteps")
def _(rng):
    return call(trpo_fast.EveryNTimesteps, {"every": 100, "callback": trpo_fast.Callback()})


@target("StopAtReturn")
def _(rng):
    return call(trpo_fast.StopAtReturn, {"value": 1.0, "episodes": 3})


@target("RunLogger", 0.5)
def _(rng):
    return call(trpo_fast.RunLogger, {"folder": None, "tensorboard": None, "log": "csv"})


# Normalizers, which models are saved with


@target("ObservationNormalizer")
def _(rng):
    arguments = {"size": 3, "clip": 10.0, "epsilon": 1e-8}
    return call(ObservationNormalizer, arguments, dear="size")


@target("RewardScaler")
def _(rng):
    return call(RewardScaler, {"num_envs": 2, "gamma": 0.9, "clip": 10.0, "epsilon": 1e-8}, dear="num_envs")


# Spaces


def space_of(rng):
    """One of trpo_fast.spaces, parts within."""
    leaves = [
        spaces.Box(-np.ones(3), np.ones(3)),
        spaces.Discrete(3, 1, np.dtype("i8")),
        spaces.MultiDiscrete(np.array([2, 3]), np.array([0, 1])),
        spaces.MultiBinary(2),
    ]
    leaf = leaves[rng.integers(4)]
    way = rng.random()
    if way < 0.2:
        return spaces.Dict({"a": leaf, "b": leaves[rng.integers(4)]})
    return spaces.Tuple((leaf, leaves[rng.integers(4)])) if way < 0.4 else leaf


def of_a_space(name, function, **others):
    @target(name, 0.5)
    def _(rng):
        return call(function, {"space": space_of(rng), **others}, kept="space")


of_a_space("action_layout", spaces.action_layout, action_map="clip")
of_a_space("resolved_action_map", spaces.resolved_action_map, action_map="auto")
of_a_space("unreached_sides", spaces.unreached_sides, reach=3.0, action_map="clip")


@target("from_json", 3)
def _(rng):
    space = space_of(rng)

    def check(answer, description, most):
        return None if spaces.to_json(answer)["type"] == description["type"] else repr(answer)

    return call(
        spaces.from_json,
        {"description": spaces.to_json(space), "most": 1000},
        check=check,
        aliases=("description of a space",),
    )


@target("ObservationLayout.finite_rows", 3)
def _(rng):
    space = space_of(rng)
    layout, member = spaces.ObservationLayout(space), sample_of(rng, space)
    return call(layout.finite_rows, {"observation": member}, aliases=("observation",))


@target("ActionStructure.rows", 1)
def _(rng):
    space = spaces.Tuple((spaces.Box(-np.ones(3), np.ones(3)), spaces.Discrete(3, 0, np.dtype("i8"))))
    actions = (rng.normal(size=(2, 3)), rng.integers(3, size=2))
    return call(spaces.ActionStructure(space).rows, {"actions": actions, "count": 2}, aliases=("action",))


@target("MaskFormat.rows", 2)
def _(rng):
    masks = np.ones((3, 4), bool)
    masks[:, 0] = False
    arguments = {"masks": masks, "present": None, "name": "environment", "when": "", "first": 0}
    return call(
        spaces.MaskFormat(spaces.Discrete(4, 0, np.dtype("i8"))).rows,
        arguments,
        kept="present name when first",
        aliases=("action mask",),
    )


def sample_of(rng, space):
    if isinstance(space, spaces.Dict):
        return {key: sample_of(rng, part) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(sample_of(rng, part) for part in space.spaces)
    if isinstance(space, spaces.Box):
        return rng.normal(size=space.shape)
    if isinstance(space, spaces.Discrete):
        return np.int64(1 + rng.integers(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return space.start + rng.integers(space.nvec)
    return rng.integers(2, size=space.shape).astype(np.int8)


@target("engines.AutogradEngine", 0.5)
def _(rng):
    arguments = {"policy": trpo_fast.MLPPolicy(BOX, CHOICES, (2,), seed=0), "reason": "", "observation_shape": None}
    return call(engines.AutogradEngine, arguments | {"linearization": "auto"})


@target("engines.NativeEngine", 0.5)
def _(rng):
    return call(engines.NativeEngine, {"policy": trpo_fast.MLPPolicy(BOX, CHOICES, (2,), seed=0)})


PLAIN = "plain data that this package makes, or an argument of others here"
LEFT_OUT = {
    **dict.fromkeys(
        ["CGResult", "EvaluationResult", "LineSearchResult", "Trial", "TrustRegionReport", "UpdateReport"], PLAIN
    ),
    **dict.fromkeys(
        ["Case", "Figure", "Limit", "Peak", "Report", "Timing", "ActionLayout", "Part", "Leaf", "Space"], PLAIN
    ),
    **dict.fromkeys(["Box", "Dict", "Discrete", "MultiBinary", "MultiDiscrete", "Tuple"], PLAIN),
    **dict.fromkeys(["Callback", "ProgressBar", "instruction_set", "get_num_threads", "header"], "no arguments"),
    **dict.fromkeys(["Ranks", "RankError", "DistributedEngine"], "several processes: tests/distributed"),
    **dict.fromkeys(["Status", "WrongAnswer"], "Python's own enumeration and exception"),
    **dict.fromkeys(
        [
            "ExactPolicy",
            "HardProblem",
            "PolicyProblem",
            "describe_machine",
            "duration",
            "exact_solution",
            "line",
            "make_cases",
            "measure",
            "measure_bandwidth",
            "measure_peak",
            "multiply_add_limits",
            "relative_error",
            "run",
            "timed",
        ],
        "measures for as long as it is told to, on problems that it made itself",
    ),
    **dict.fromkeys(
        ["each_of", "mask_in", "flat_size", "leaves", "named_leaves", "nested", "numeric_columns", "to_json"],
        "takes a space that was checked before",
    ),
}
"""Public names that are not called at random, and why."""
