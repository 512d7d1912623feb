"""Extension classes whose __init__ did not run, or ran halfway, are refused by name wherever they are used."""

import copy
import importlib
import inspect
import pickle
import pkgutil

import numpy as np
import pytest

import trpo_fast._core
from trpo_fast._core import cg
from trpo_fast._core.acting import Actor, ActorCritic
from trpo_fast._core.critic import ValueKernel
from trpo_fast._core.operator import CallableOperator, DenseOperator, Operator
from trpo_fast._core.policy import FisherOperator, PolicyKernel
from trpo_fast._core.preconditioner import FisherFactors, KroneckerPreconditioner
from trpo_fast._core.recording import Recorder
from trpo_fast._core.recurrent import Cell, CellActor
from trpo_fast._core.stepping import CopyLoop
from trpo_fast.solvers import conjugate_gradient

REFUSED = "not initialized|is abstract|comes from|already initialized"


def classes_of_core():
    modules = [
        importlib.import_module(f"trpo_fast._core.{module.name}")
        for module in pkgutil.iter_modules(trpo_fast._core.__path__)
    ]
    found = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type)
        and value.__module__.startswith("trpo_fast._core")
        and not issubclass(value, Exception)  # a class of Python
    }
    return sorted(found, key=lambda one: one.__qualname__)


CLASSES = classes_of_core()


def by_new_alone(cls):
    return cls.__new__(cls)


def by_a_subclass(cls):
    return type("Forgetful", (cls,), {"__init__": lambda self: None})()


WAYS = [by_new_alone, by_a_subclass]


def policy_kernel():
    return PolicyKernel((3, 4, 2), "tanh", "gaussian", "float64")


def bound_kernel():
    kernel, rng = policy_kernel(), np.random.default_rng(0)
    kernel.bind(rng.normal(size=kernel.size) / 4, rng.normal(size=(5, 3)), rng.normal(size=(5, 2)), rng.normal(size=5))
    return kernel


def actor():
    kernel = policy_kernel()
    return Actor(kernel, np.zeros(kernel.size))


def cell_actor_arguments():
    head, width = policy_kernel(), 9
    parameters = [np.zeros(shape) for shape in ((width, 2), (width, 3), (width,), (width,))]
    return "gru", parameters, head, np.zeros(head.size)


def rollout():
    floats = {"observations": np.zeros((2, 1, 3)), "actions": np.zeros((2, 1, 2)), "log_probs": np.zeros((2, 1))}
    flags = {name: np.zeros((2, 1), bool) for name in ("terminated", "truncated")}
    return {"first_step": 0, "env_action_dtype": "f8", **floats, "rewards": np.zeros((2, 1)), **flags}


def actor_critic_arguments():
    kernel, critic = policy_kernel(), ValueKernel((3, 1), "tanh", "float64")
    return kernel, np.zeros(kernel.size), critic, np.zeros(critic.size)


def copy_loop_arguments():
    return (np.zeros((1, 3)), np.zeros(1), np.zeros(1, bool), np.zeros(1, bool)), {
        "shape": (3,),
        "gather": False,
        "other": print,
    }


# How to make one of each, and the arguments of its __init__.
MADE = {
    "Actor": lambda: (actor(), (policy_kernel(), np.zeros(policy_kernel().size)), {}),
    "ActorCritic": lambda: (ActorCritic(*actor_critic_arguments()), actor_critic_arguments(), {}),
    "CallableOperator": lambda: (CallableOperator(abs, 3, "f8"), (abs, 4, "f4"), {}),
    "Cell": lambda: (Cell("gru", 3, "f8"), ("lstm", 4, "f4"), {}),
    "CellActor": lambda: (CellActor(*cell_actor_arguments()), cell_actor_arguments(), {}),
    "CopyLoop": lambda: (CopyLoop(*copy_loop_arguments()[0], **copy_loop_arguments()[1]), *copy_loop_arguments()),
    "DenseOperator": lambda: (DenseOperator(np.eye(3)), (np.eye(4),), {}),
    "FisherFactors": lambda: (FisherFactors(bound_kernel()), (policy_kernel(),), {}),
    "FisherOperator": lambda: (bound_kernel().fisher_operator(), (), {}),
    "KroneckerPreconditioner": lambda: (KroneckerPreconditioner([], 3, "f8", 0.1), ([], 4, "f8", 0.1), {}),
    "PolicyKernel": lambda: (policy_kernel(), ((3, 2), "tanh", "gaussian", "float64"), {}),
    "Recorder": lambda: (Recorder(actor(), slice(None), **rollout()), (actor(), slice(None)), rollout()),
    "ValueKernel": lambda: (ValueKernel((3, 1), "tanh", "f8"), ((4, 1), "tanh", "f4"), {}),
}


def test_the_table_has_every_class_but_those_that_cannot_be_used():
    assert {cls.__name__ for cls in CLASSES} == set(MADE) | {"Memory", "Operator"}


def calls(half):
    """(name, call) of every public method, with arguments that are none."""
    for name in dir(half):
        value = None if name.startswith("_") else getattr(type(half), name)
        if not inspect.isroutine(value):
            continue
        needed = [
            parameter
            for parameter in list(inspect.signature(value).parameters.values())[1:]
            if parameter.default is parameter.empty
        ]
        positional = [None for parameter in needed if parameter.kind is not parameter.KEYWORD_ONLY]
        named = {parameter.name: None for parameter in needed if parameter.kind is parameter.KEYWORD_ONLY}
        yield name, lambda name=name, positional=positional, named=named: getattr(half, name)(*positional, **named)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cls", [cls for cls in CLASSES if not issubclass(cls, Operator)], ids=lambda cls: cls.__name__)
def test_every_method_of_one_that_is_half_made_is_refused_by_name(cls, way):
    half = way(cls)
    for _, call in calls(half):
        with pytest.raises(TypeError, match=f"^{cls.__name__}: not initialized"):
            call()
    for name in dir(half):
        value = getattr(type(half), name)
        if not name.startswith("_") and inspect.isdatadescriptor(value):
            try:
                getattr(half, name)
            except TypeError as error:
                assert str(error) == f"{cls.__name__}: not initialized"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cls", [cls for cls in CLASSES if issubclass(cls, Operator)], ids=lambda cls: cls.__name__)
def test_no_operator_that_is_half_made_multiplies(cls, way):
    half = way(cls)
    assert half.shape == (0, 0)
    empty = np.zeros(0)
    for product in (half.matvec, half.rmatvec, half.__matmul__):
        with pytest.raises(TypeError, match=REFUSED):
            product(empty)
    with pytest.raises(TypeError, match=REFUSED):
        half.matmat(np.zeros((0, 1)))
    with pytest.raises(ValueError, match=r"want.*\(0,\)"):
        half.matvec(np.zeros(3))
    with pytest.raises(ValueError, match=r"A: .*size 0 given; want 3"):
        conjugate_gradient(half, np.ones(3))
    with pytest.raises(ValueError, match=r"preconditioner: .*size 0 given; want 3"):
        conjugate_gradient(np.eye(3), np.ones(3), preconditioner=half)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("kernel", lambda way: Actor(way(PolicyKernel), np.zeros(1))),
        ("kernel", lambda way: ActorCritic(way(PolicyKernel), *actor_critic_arguments()[1:])),
        ("critic", lambda way: ActorCritic(*actor_critic_arguments()[:2], way(ValueKernel), np.zeros(1))),
        ("policy", lambda way: FisherFactors(way(PolicyKernel))),
        ("actor", lambda way: Recorder(way(Actor), slice(None), **rollout())),
    ],
    ids=["Actor", "ActorCritic", "ActorCritic-critic", "FisherFactors", "Recorder"],
)
def test_what_is_half_made_is_refused_by_the_name_of_the_argument(name, use, way):
    with pytest.raises(TypeError, match=f"^{name}: .*initialized"):
        use(way)


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_nothing_is_initialized_twice(make):
    made, positional, named = make()
    with pytest.raises(TypeError, match=REFUSED):
        made.__init__(*positional, **named)


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_a_copy_is_refused_or_is_half_made(make):
    made, *_ = make()
    for duplicate in (
        copy.copy,
        copy.deepcopy,
        *(lambda one, n=n: pickle.loads(pickle.dumps(one, n)) for n in range(6)),
    ):
        try:
            half = duplicate(made)
        except TypeError as error:
            assert "pickle" in str(error) or "copy" in str(error)
            continue
        if isinstance(made, Operator):
            with pytest.raises(TypeError, match=REFUSED):
                half.matvec(np.zeros(0))
        for _, call in () if isinstance(made, Operator) else calls(half):
            with pytest.raises(TypeError, match="not initialized"):
                call()


def test_what_an_init_refused_is_half_made():
    kernel = by_new_alone(PolicyKernel)
    with pytest.raises(ValueError, match="distribution"):
        kernel.__init__((3, 2), "tanh", "poisson", "float64")
    with pytest.raises(TypeError, match="kernel: not initialized"):
        Actor(kernel, np.zeros(8))
    critic = by_new_alone(ValueKernel)
    with pytest.raises(ValueError, match="widths: 2 outputs given; want 1"):
        critic.__init__((3, 2), "tanh", "float64")
    with pytest.raises(TypeError, match="ValueKernel: not initialized"):
        critic.values(np.zeros(8), np.zeros((1, 3)))
    preconditioner = by_new_alone(KroneckerPreconditioner)
    with pytest.raises(FloatingPointError, match="diagonal"):
        preconditioner.__init__([], 3, "float64", 0.1, np.full(3, np.nan))
    with pytest.raises(TypeError, match="KroneckerPreconditioner: not initialized"):
        preconditioner.matvec(np.ones(3))


def test_a_solve_of_nothing_is_refused():
    with pytest.raises(TypeError, match="A"):
        cg.solve(
            None,
            np.ones(3),
            np.zeros(3),
            max_iter=1,
            rtol=0.0,
            atol=0.0,
            damping=0.0,
            progress_tol=0.0,
            preconditioner=None,
            start_from_x=False,
            reorthogonalize=False,
            callback=None,
        )


def test_a_fisher_operator_is_not_made_by_hand():
    with pytest.raises(TypeError, match=r"comes from PolicyKernel.fisher_operator"):
        FisherOperator()
