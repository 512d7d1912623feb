"""What a rank finds with an engine of sums over parts of a batch that differ in size."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.engines import test_recurrent as recurrent
from tests.engines.cases import KINDS, Case, make_case
from trpo_fast._core import library
from trpo_fast.engines import DistributedEngine, make_engine
from trpo_fast.policies.recurrent import RecurrentPolicy
from trpo_fast.ranks import Ranks
from trpo_fast.rollout.batch import Batch, Sequences
from trpo_fast.solvers import trust_region_step
from trpo_fast.solvers.fisher_product import prepare_fisher

ROWS = 131
BOUNDS = {1: (0, 131), 2: (0, 40, 131), 3: (0, 40, 41, 131), 4: (0, 40, 41, 70, 131)}
SOME = np.r_[3:39:2, 100:131:3]  # of which rank 1 has none, unless it is the last
FIRST = np.arange(2, 37, 3)  # which rank 0 alone has
PARTS = (0, 11, 22, 22, 40, 41, 55, 60, 61, 70, 92, 110, 131)  # of which one is empty
IN_ORDER = ("gaussian", "masked product")
ENTROPY_COEFFICIENT = 0.3
DAMPING = 0.2
STEPS: dict[str, dict[str, Any]] = {
    "plain": {},
    "jacobians": {"fisher_jacobians": "always"},
    "some rows": {"fisher_rows": SOME},
    "first rows": {"fisher_rows": FIRST},
    "backtracked": {"max_kl": 2.0, "damping": 1e-6},
}
CASES = [(kind, "native") for kind in KINDS] + [
    (kind, "autograd") for kind in ("gaussian", "masked categorical", "masked product")
]


def steps_of(name: str) -> dict[str, dict[str, Any]]:
    """Those that this engine takes; the slower one not all."""
    return STEPS if name == "native" else {step: STEPS[step] for step in ("some rows", "backtracked")}


def part_of(case: Case, own: slice) -> Batch:
    """The rows of one rank."""
    masks = None if case.masks is None else case.masks[own]
    return Batch(*(array[own] for array in case.data), action_masks=masks)


def own_rows(rows: np.ndarray, own: slice) -> np.ndarray:
    """Which of the rank's rows are among `rows` of the whole batch."""
    return rows[(rows >= own.start) & (rows < own.stop)] - own.start


def sequences_of(batch: Batch, own: slice) -> Batch:
    """Some sequences of a batch of them."""

    def part(array: Any) -> Any:
        rows = array.reshape(recurrent.T, recurrent.E, *array.shape[1:])[:, own]
        return np.ascontiguousarray(rows).reshape(-1, *array.shape[1:])

    whole = batch.sequences
    assert whole is not None
    sequences = Sequences(
        np.ascontiguousarray(whole.starts[:, own]), np.ascontiguousarray(whole.valid[:, own]), whole.state[own]
    )
    masks = None if batch.action_masks is None else part(batch.action_masks)
    return Batch(part(batch.observations), part(batch.actions), part(batch.advantages), None, masks, sequences)


def recurrent_case() -> tuple[RecurrentPolicy, Batch, np.ndarray]:
    """A recurrent policy, a batch of three sequences with rows that are no samples, a vector."""
    space = recurrent.ACTIONS["categorical"]
    policy = RecurrentPolicy("gru", recurrent.SEEN, space, units=6, hidden_sizes=(5,), dtype="float64", seed=2)
    space.seed(7)
    batch = recurrent.batch_for(policy, space, masked=True, valid=False)
    return policy, batch, np.random.default_rng(4).normal(size=sum(p.numel() for p in policy.parameters()))


def _of_case(ranks: Ranks, kind: str, name: str) -> dict[str, Any]:
    case = make_case(kind)
    bounds = BOUNDS[ranks.size]
    own = slice(bounds[ranks.rank], bounds[ranks.rank + 1])
    engine = DistributedEngine(make_engine(case.policy, name), ranks)
    engine.bind(part_of(case, own))
    v = case.vector()
    found = {"gradient": engine.surrogate_gradient(), "product": engine.fisher_operator() @ v}
    for chosen, rows in (("some", SOME), ("first", FIRST)):
        found[f"product of {chosen}"] = engine.fisher_operator(own_rows(rows, own)) @ v
    found["entropy"] = engine.entropy()
    theta = engine.parameters().copy()
    engine.bind(part_of(case, own), entropy_coefficient=ENTROPY_COEFFICIENT)
    found["gradient with entropy"] = engine.surrogate_gradient()
    case.move()
    for direction in ("new_old", "old_new"):
        found[direction] = engine.evaluate(direction)
    for step, settings in steps_of(name).items():
        engine.parameters()[:] = theta
        engine.parameters_changed()
        engine.bind(part_of(case, own))
        if "fisher_rows" in settings:
            settings = {**settings, "fisher_rows": own_rows(settings["fisher_rows"], own)}
        report = trust_region_step(engine, **settings)
        found[f"step: {step}"] = engine.parameters().copy(), report.status.name, report.cg_iterations, report.backtracks
        if step == "jacobians":
            assert report.fisher_product == "jacobians"
    return found


def _in_order(ranks: Ranks, kind: str) -> dict[str, Any]:
    """With parts that are added in their order, as many of the whole batch for any number of ranks."""
    case = make_case(kind)
    count = (len(PARTS) - 1) // ranks.size
    bounds = PARTS[ranks.rank * count : (ranks.rank + 1) * count + 1]
    own = slice(bounds[0], bounds[-1])
    engine = DistributedEngine(make_engine(case.policy, "native"), ranks, parts=count)
    masks = None if case.masks is None else case.masks[own]
    starts = [first - own.start for first in bounds[:-1]]
    batch = Batch(*(array[own] for array in case.data), action_masks=masks, part_starts=starts)
    engine.bind(batch, entropy_coefficient=ENTROPY_COEFFICIENT)
    v = case.vector()
    found: dict[str, Any] = {"gradient with entropy": engine.surrogate_gradient()}
    before = ranks.traffic
    found["product"] = engine.fisher_operator() @ v
    traffic = ranks.traffic.since(before)[:2]
    for chosen, rows in (("some", SOME), ("first", FIRST)):
        found[f"product of {chosen}"] = engine.fisher_operator(own_rows(rows, own)) @ v
    found["entropy"] = np.array(engine.entropy())
    for preconditioner in ("kfac", "diagonal"):
        found[preconditioner] = engine.preconditioner(preconditioner, damping=DAMPING) @ v
    report = trust_region_step(engine, fisher_rows=own_rows(SOME, own), preconditioner="kfac", max_kl=0.1)
    found["trial"] = np.array(engine.evaluate())
    found["step"] = engine.parameters().copy()
    return {"arrays": found, "status": report.status.name, "traffic": traffic}


def _preconditioned(ranks: Ranks) -> dict[str, Any]:
    case = make_case("gaussian")
    bounds = BOUNDS[ranks.size]
    own = slice(bounds[ranks.rank], bounds[ranks.rank + 1])
    engine = DistributedEngine(make_engine(case.policy, "native"), ranks)
    engine.bind(part_of(case, own))
    v, found = case.vector(), {}
    for kind in ("kfac", "diagonal"):
        found[kind] = engine.preconditioner(kind, damping=DAMPING) @ v
    report = trust_region_step(engine, preconditioner="kfac", cg_iterations=10)
    return {**found, "step": (report.status.name, report.cg_residual)}


def _bfloat16(ranks: Ranks) -> dict[str, Any]:
    case = make_case("gaussian", dtype="float32")
    bounds = BOUNDS[ranks.size]
    own = slice(bounds[ranks.rank], bounds[ranks.rank + 1])
    engine = DistributedEngine(make_engine(case.policy, "native"), ranks)
    engine.bind(part_of(case, own))
    v, found = case.vector(), {}
    library.choose_bfloat16("portable")
    for name, rows in (("all", None), ("first", own_rows(FIRST, own))):
        operator = engine.fisher_operator(rows)
        prepare_fisher(operator, 10, precision="bfloat16")
        found[name] = operator @ v
    library.choose_bfloat16(None)
    return found


def _overflow(ranks: Ranks) -> list[str]:
    """A statistic of the last rank alone is beyond what a float32 holds."""
    case = make_case("gaussian", activation="relu", dtype="float32")
    bounds = BOUNDS[ranks.size]
    own = slice(bounds[ranks.rank], bounds[ranks.rank + 1])
    case.observations[-1] = 1e30
    engine = DistributedEngine(make_engine(case.policy, "native"), ranks)
    engine.bind(part_of(case, own))
    statuses = []
    for kind in ("kfac", "diagonal"):
        try:
            engine.preconditioner(kind, damping=DAMPING)
        except FloatingPointError:
            statuses.append(kind)
    return statuses


def _recurrent(ranks: Ranks) -> dict[str, Any]:
    policy, batch, v = recurrent_case()
    bounds = {1: (0, 3), 2: (0, 2, 3), 3: (0, 1, 2, 3)}[ranks.size]
    engine = DistributedEngine(make_engine(policy), ranks)
    engine.bind(sequences_of(batch, slice(bounds[ranks.rank], bounds[ranks.rank + 1])))
    return {"gradient": engine.surrogate_gradient(), "product": engine.fisher_operator() @ v}


def everything(ranks: Ranks) -> dict[str, Any]:
    """All of these, by name."""
    found: dict[str, Any] = {f"{kind}, {name}": _of_case(ranks, kind, name) for kind, name in CASES}
    found |= {"preconditioned": _preconditioned(ranks), "bfloat16": _bfloat16(ranks), "overflow": _overflow(ranks)}
    found["in order"] = {kind: _in_order(ranks, kind) for kind in IN_ORDER}
    if ranks.size <= recurrent.E:
        found["recurrent"] = _recurrent(ranks)
    before = ranks.traffic
    engine = DistributedEngine(make_engine(make_case().policy, "native"), ranks)
    rounds = {}

    def count(what: str) -> None:
        nonlocal before
        rounds[what] = ranks.traffic.since(before)[:2]
        before = ranks.traffic

    case = make_case()
    own = slice(BOUNDS[ranks.size][ranks.rank], BOUNDS[ranks.size][ranks.rank + 1])
    engine.bind(part_of(case, own))
    count("bind")
    engine.bind(part_of(case, own), total=ROWS)
    count("bind with total")
    for what in ("entropy", "surrogate_gradient", "evaluate"):
        getattr(engine, what)()
        count(what)
    operator = engine.fisher_operator()
    count("fisher_operator")
    operator @ case.vector()
    count("product")
    engine.fisher_operator(own_rows(SOME, own))
    count("fisher_operator of rows")
    engine.preconditioner("kfac", damping=DAMPING)
    count("preconditioner")
    found["rounds"] = rounds
    return found
