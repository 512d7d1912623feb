"""Calls of the compiled core."""

import numpy as np

import trpo_fast
from tests.trust.catalogue.declaring import as_array, call, dtype_of, far, normal, target
from trpo_fast._core import acting, library
from trpo_fast._core.critic import ValueKernel
from trpo_fast._core.policy import PolicyKernel

OUTPUTS = 3
KINDS = {
    "gaussian": {},
    "categorical": {},
    "bernoulli": {},
    "multicategorical": {"nvec": (1, 2)},
    "product": {"parts": [("gaussian", 1, None), ("multicategorical", 2, (2,))]},
}
SHAPES = {"gaussian": (3,), "categorical": (), "bernoulli": (3,), "multicategorical": (2,), "product": (2,)}
"""Of an action."""


def kind_of(rng):
    """A distribution's name, and how it is laid out."""
    distribution = str(rng.choice(list(KINDS)))
    return {"distribution": distribution, "nvec": None, "parts": None} | KINDS[distribution]


def actions_of(distribution, rows, dtype):
    return np.zeros((rows, *SHAPES[distribution]), dtype if distribution in ("gaussian", "product") else np.int64)


@target("PolicyKernel", 2)
def _(rng):
    arguments = {"widths": (3, 4, OUTPUTS), "activation": "tanh", "dtype": str(dtype_of(rng)), "narrow": False}
    return call(PolicyKernel, arguments | kind_of(rng), aliases=("outputs",))


@target("PolicyKernel.bind", 4)
def _(rng):
    dtype, rows = dtype_of(rng), int(rng.integers(1, 9))
    kind = kind_of(rng)
    kernel = PolicyKernel((3, 4, OUTPUTS), "tanh", dtype=dtype, **kind)
    items = {"gaussian": 0, "bernoulli": 6, "product": 2}.get(kernel.distribution, OUTPUTS)
    arguments = {
        "self": kernel,
        "parameters": normal(rng, dtype, kernel.size) / 4,
        "observations": normal(rng, dtype, rows, 3),
        "actions": actions_of(kernel.distribution, rows, dtype),
        "advantages": normal(rng, dtype, rows),
        "log_probs": normal(rng, dtype, rows) if rng.random() < 0.5 else None,
        "total": None,
        "action_masks": np.ones((rows, items), bool) if items and rng.random() < 0.5 else None,
        "entropy_coefficient": 0.0,
        "cache_bytes": None,
    }

    def use(self, **others):
        self.bind(**others)
        answer = self.surrogate_gradient(), self.evaluate(others["parameters"]), self.entropy(), self.log_probs()
        return (*answer, self.fisher_operator().matvec(np.ones(self.size, self.dtype)))

    return call(use, arguments, aliases=("log_std",))


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
    kind = kind_of(rng)
    means = {"gaussian": 3, "product": 1}.get(kind["distribution"], 0)
    arguments = {
        **kind,
        "distribution_parameters": normal(rng, dtype, rows, OUTPUTS),
        "log_std": normal(rng, dtype, means) if means else None,
        "step": 0,
        "actions": actions_of(kind["distribution"], rows, dtype),
        "log_probs": np.zeros(rows, dtype),
        "seed": 1,
        "stream": 2,
        "deterministic": False,
        "first_row": 0,
        "action_masks": None,
    }
    return call(acting.sample, arguments, "actions log_probs", aliases=("outputs",))


@target("gaussian_actions", 1)
def _(rng):
    dtype = dtype_of(rng)
    arguments = {"means": normal(rng, dtype, 3, 2), "log_std": normal(rng, dtype, 2), "noise": normal(rng, dtype, 3, 2)}

    def use(means, log_std, noise):
        drawn = np.array(noise) if isinstance(noise, np.ndarray) else None
        return drawn, acting.gaussian_actions(means, log_std, noise)

    def check(answer, means, log_std, noise):
        means = as_array(means)
        with np.errstate(all="ignore"):
            spread = np.exp(as_array(log_std)) * as_array(answer[0])
        return far(noise, means + spread, dtype, np.abs(means).sum() + np.abs(spread).sum())

    return call(use, arguments, "noise", check)


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
