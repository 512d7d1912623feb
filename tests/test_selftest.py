"""The self-test passes here, and every one of its checks fails where the compiled answer is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import trpo_fast
from trpo_fast import selftest
from trpo_fast._core import library

ROOT = Path(trpo_fast.__file__).parent.parent


def test_all_agrees_on_every_instruction_set_without_torch_gymnasium_and_scipy(tmp_path, monkeypatch):
    # Its children are started by module name; what stands in the way there, too, is a package of that name.
    for name in ("torch", "gymnasium", "scipy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise ImportError('{name} is not installed')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    done = subprocess.run(
        [sys.executable, "-m", "trpo_fast.selftest"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for isa in library.available_instruction_sets():
        for dtype in ("float32", "float64"):
            lines = [line for line in done.stdout.splitlines() if line.split()[:2] == [isa, dtype]]
            assert len(lines) == len(selftest.CHECKS)
    assert trpo_fast.__version__ in done.stdout and np.__version__ in done.stdout


def spoiled(cls, method, spoil):
    """`cls` with an answer that is not quite right."""
    right = getattr(cls, method)

    def wrong(self, *args, **kwargs):
        return spoil(right(self, *args, **kwargs))

    return type(cls.__name__, (cls,), {method: wrong})


def off_by(amount):
    return lambda answer: tuple(x * (1 + amount) for x in answer) if type(answer) is tuple else answer * (1 + amount)


def wrong_policy(method):
    return lambda amount: {"PolicyKernel": spoiled(selftest.PolicyKernel, method, off_by(amount))}


def wrong_product(amount):
    operators = spoiled(
        selftest.PolicyKernel,
        "fisher_operator",
        lambda F: SimpleNamespace(matvec=lambda v: off_by(amount)(F.matvec(v))),
    )
    return {"PolicyKernel": operators}


def wrong_on_several_threads(amount):
    def spoil(gradient):
        return off_by(amount if library.get_num_threads() > 1 else 0)(gradient)

    return {"PolicyKernel": spoiled(selftest.PolicyKernel, "surrogate_gradient", spoil)}


def wrong_activations(amount):
    return {
        "library": SimpleNamespace(
            instruction_set=library.instruction_set,
            elementary=lambda name, x: off_by(amount)(library.elementary(name, x)),
        )
    }


def wrong_solution(amount):
    right = selftest.conjugate_gradient

    def solve(*args, **kwargs):
        result = right(*args, **kwargs)
        return result._replace(x=off_by(amount)(result.x))

    return {"conjugate_gradient": solve}


def wrong_restoration(amount):
    def search(objective, theta, step, *, max_kl):
        theta[-1] = np.nextafter(theta[-1], np.inf, dtype=theta.dtype)

    return {"backtracking_line_search": search}


def wrong_advantages(amount):
    right = selftest.rollout.generalized_advantages

    def advantages(rewards, values, following, terminated, truncated, found, returns, **settings):
        right(rewards, values, following, truncated, terminated, found, returns, **settings)  # mixed up

    return {"rollout": SimpleNamespace(generalized_advantages=advantages)}


def wrong_fit(amount):
    class ValueKernel(selftest.ValueKernel):
        def fit(self, *arrays, learning_rate, **settings):
            return super().fit(*arrays, learning_rate=learning_rate * (1 + amount), **settings)

    return {"ValueKernel": ValueKernel}


def wrong_file(amount):
    def read(path):
        tensors, metadata = selftest_model_file.read(path)
        return {name: off_by(amount)(tensor) for name, tensor in tensors.items()}, metadata

    selftest_model_file = selftest.model_file
    return {"model_file": SimpleNamespace(write=selftest_model_file.write, read=read)}


WRONG = {
    "activations": wrong_activations,
    "forward pass": wrong_policy("forward"),
    "log-probabilities": wrong_policy("log_probs"),
    "ratio after acting is 1": wrong_policy("ratios"),
    "gradient": wrong_policy("surrogate_gradient"),
    "Fisher product": wrong_product,
    "improvement and KL": wrong_policy("evaluate"),
    "conjugate gradient": wrong_solution,
    "preconditioner": lambda amount: {
        "KroneckerPreconditioner": spoiled(selftest.KroneckerPreconditioner, "matvec", off_by(amount))
    },
    "rejected step restored": wrong_restoration,
    "advantages": wrong_advantages,
    "critic fit": wrong_fit,
    "recurrent cells": lambda amount: {
        "Cell": spoiled(selftest.Cell, "forward", lambda found: (off_by(amount)(found[0]), found[1]))
    },
    "threads change no bit": wrong_on_several_threads,
    "model file": wrong_file,
}


@pytest.mark.parametrize("check", selftest.CHECKS, ids=lambda check: check.name)
def test_a_check_fails_where_the_answer_is_a_little_wrong(check, monkeypatch):
    assert list(selftest.failures([check])) == []
    for name, wrong in WRONG[check.name](3 * check.float32 or 1e-6).items():
        monkeypatch.setattr(selftest, name, wrong)
    found = list(selftest.failures([check]))
    assert len(found) == 2, found  # in both precisions
    assert all(check.name in line and "off by" in line for line in found)


def nan_behind(answer, last):
    """The same answer but for a NaN in the last of its arrays or numbers, or in all where that is one alone."""
    if type(answer) is tuple:
        return (*answer[:-1], answer[-1] * np.nan) if last else tuple(x * np.nan for x in answer)
    return answer * np.nan


@pytest.mark.parametrize("last", [False, True])
def test_a_check_fails_where_one_of_several_answers_is_nan(last, monkeypatch):
    right, cell, found = library.elementary, selftest.Cell.forward, selftest.rollout.generalized_advantages

    def elementary(name, x):
        return right(name, x) * (np.nan if name == "softplus" or not last else 1)

    def forward(self, *arrays):
        states, more = cell(self, *arrays)
        return states * (np.nan if self.state_items == 32 or not last else 1), more

    def advantages(*arrays, **settings):
        found(*arrays, **settings)
        arrays[6][...] = np.nan  # the returns

    wrong = {
        "activations": (
            "library",
            SimpleNamespace(instruction_set=library.instruction_set, elementary=elementary),
        ),
        "recurrent cells": ("Cell", type("Cell", (selftest.Cell,), {"forward": forward})),
        "advantages": ("rollout", SimpleNamespace(generalized_advantages=advantages)),
        "improvement and KL": (
            "PolicyKernel",
            spoiled(selftest.PolicyKernel, "evaluate", lambda answer: nan_behind(answer, last)),
        ),
    }
    for check in selftest.CHECKS:
        if check.name in wrong:
            with monkeypatch.context() as patch:
                patch.setattr(selftest, *wrong[check.name])
                lines = list(selftest.failures([check]))
            assert len(lines) == 2, check.name
            assert all("off by nan" in line for line in lines)


@pytest.mark.parametrize("answer", [1.0, float("nan"), float("inf")])
def test_a_failed_check_makes_the_exit_code_1_and_says_what_failed(answer, monkeypatch, capsys):
    monkeypatch.setattr(selftest, "CHECKS", [selftest.Check("of mine", lambda _: answer, 0.1, 0.1)])
    assert selftest.main(["--one"]) == 1
    assert f"{library.instruction_set()} float32 of mine: off by" in capsys.readouterr().err


def test_a_check_that_raises_fails_and_the_others_still_run(monkeypatch, capsys):
    def broken(problem):
        raise FloatingPointError("no number")

    checks = [selftest.Check("broken", broken, 1, 1), selftest.Check("fine", lambda _: 0.0, 0, 0)]
    monkeypatch.setattr(selftest, "CHECKS", checks)
    assert selftest.main(["--one"]) == 1
    said = capsys.readouterr()
    assert "broken: FloatingPointError: no number" in said.err
    assert "fine" in said.out


@pytest.mark.parametrize("code", [1, -4])
def test_a_failing_instruction_set_makes_the_exit_code_1(code, monkeypatch, capsys):
    monkeypatch.setattr(selftest.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=code))
    assert selftest.main([]) == 1
    said = capsys.readouterr()
    assert "FAILED on" in said.out
    assert ("ended by signal 4" in said.err) == (code == -4)
