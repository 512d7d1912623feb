"""A sample of the random calls of `make trust-calls`, and that each kind of fault is found."""

import dataclasses
import importlib
import inspect

import numpy as np
import pytest

from tests.test_public_names import PACKAGES
from tests.trust import calls, catalogue
from tests.trust.catalogue import declaring


def test_a_sample_of_random_calls_finds_nothing(tmp_path):
    outcomes = list(calls.run(seed=16, first=0, count=1_500, folder=tmp_path))
    assert len(outcomes) == 1_500
    assert [(call, outcome["fault"]) for call, outcome in outcomes if outcome["fault"]] == []
    assert sum(outcome["refused"] for _, outcome in outcomes) > 500


def answered(check=None, **arguments):
    return declaring.call(lambda **_: None, arguments, check=check)


def raising(error, **arguments):
    def function(**_):
        raise error

    return declaring.call(function, arguments)


def writing(array):
    array += 1


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (raising(RuntimeError("n: 0 given; want more"), n=0), "error of another kind"),
        (raising(ValueError("that is wrong"), n=0), "error that names no argument"),
        (raising(ValueError("nothing of that"), n=0), "error that names no argument"),
        (declaring.call(writing, {"array": np.zeros(3)}), "changed input"),
        (declaring.call(lambda x: np.float64(x) / 0, {"x": 1.0}), "warning"),
        (answered(check=lambda answer, n: "nothing", n=0), "wrong answer"),
    ],
)
def test_each_kind_of_fault_is_found(call, kind):
    assert calls.judge(call, {})[0][0] == kind


def test_what_is_right_is_no_fault():
    assert calls.judge(raising(ValueError("n: 0 given; want more"), n=0), {}) == (None, True)
    assert calls.judge(dataclasses.replace(declaring.call(writing, {"array": np.zeros(3)}), written={"array"}), {}) == (
        None,
        False,
    )


@pytest.mark.parametrize("way", ["crash", "hang"])
def test_a_crash_and_a_hang_cost_one_call(tmp_path, way):
    found = list(calls.run(seed=0, first=0, count=4, folder=tmp_path, module=f"tests.trust.planted_{way}"))
    assert [bool(outcome["fault"]) for _, outcome in found] == [False, False, True, False]
    assert found[2][1]["fault"][0] == "crash or hang"


def public():
    """Names of the packages, and of the methods of their classes that have arguments."""
    for package in PACKAGES:
        if package == "trpo_fast.sb3":  # one class, whose arguments are Stable-Baselines3's to check
            continue
        module = importlib.import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            if callable(value):
                yield name
            for member, method in vars(value).items() if inspect.isclass(value) else ():
                function = getattr(method, "__func__", method)
                if not member.startswith("_") and inspect.isfunction(function) and function.__code__.co_argcount > 1:
                    yield f"{name}.{member}"


def test_every_public_name_is_called_or_is_left_out_for_a_reason():
    targets = set(catalogue.TARGETS)
    for engine in ("AutogradEngine", "NativeEngine"):
        targets |= {name.replace("engine.", f"{engine}.") for name in targets if name.startswith("engine.")}
    known = targets | {part for name in targets for part in (name.partition(".")[0], name.rpartition(".")[2])}
    known |= catalogue.LEFT_OUT.keys()
    whole = {name for name in catalogue.LEFT_OUT if name not in catalogue.CALLBACKS}  # and what they have
    missing = [name for name in public() if name not in known and name.partition(".")[0] not in whole]
    assert not missing, missing


def test_a_count_goes_on_with_the_same_code_alone(tmp_path, monkeypatch):
    def run(seed, first, count, folder):
        return [
            ({"call": i, "target": "one", "done": {}}, {"refused": i == 3, "fault": None})
            for i in range(first, first + count)
        ]

    monkeypatch.setattr(calls, "run", run)
    monkeypatch.setattr(calls, "digest", lambda: "before")
    out = tmp_path / "calls.json"
    calls.count(calls.counted(out, seed=0, first=0), 3, out)
    calls.count(calls.counted(out, seed=0, first=0), 5, out)
    record = calls.counted(out, seed=0, first=0)
    assert (record["calls"], record["refused"], record["calls_of_each"]) == (5, 1, {"one": 5})
    assert calls.counted(out, seed=1, first=0)["calls"] == 0
    monkeypatch.setattr(calls, "digest", lambda: "after")
    assert calls.counted(out, seed=0, first=0)["calls"] == 0
    with pytest.raises(RuntimeError, match="the code was changed"):
        calls.count(record, 6, out)
