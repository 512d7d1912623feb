from __future__ import annotations

import subprocess
import sys
import types

import numpy as np
import pytest

from tests.rollout.toys import Walk, make_environments
from trpo_fast.environments import packages
from trpo_fast.environments.checks import SimulatorError


class Refusing(Walk):
    def reset(self, **_):
        raise LookupError("no simulator")


def test_a_packages_environment_that_cannot_be_reset_is_reported_with_versions(monkeypatch):
    class Distribution:
        def __init__(self, name, version):
            self.name, self.version, self.requires = name, version, []

    monkeypatch.setattr(packages, "is_of_a_package", lambda module: module == __name__)
    monkeypatch.setattr(
        packages, "behind", lambda _: [Distribution("dm_control", "1.0.50"), Distribution("mujoco", "4.0.0")]
    )
    made = make_environments(Refusing, num_envs=1)
    with pytest.raises(SimulatorError) as caught:
        made.reset(0)
    assert "environment 0 (Refusing) cannot be reset: LookupError: no simulator" in str(caught.value)
    assert "(with dm-control 1.0.50, mujoco 4.0.0)" in str(caught.value)
    assert "pip install 'mujoco<4'" in str(caught.value)
    assert isinstance(caught.value.__cause__, LookupError)


def test_what_a_users_own_environment_raises_travels_on():
    with pytest.raises(LookupError, match="no simulator"):
        make_environments(Refusing, num_envs=1).reset(0)


def test_packages_behind_an_error_are_those_of_its_traceback():
    try:
        np.linalg.cholesky(np.zeros((2, 2)) - 1)
    except np.linalg.LinAlgError as error:
        assert [distribution.name for distribution in packages.behind(error)] == ["numpy"]
        assert f"(with numpy {np.__version__})" in packages.described(error)
    assert packages.described(AssertionError()) == "AssertionError"


def test_packages_that_hold_gymnasium_back_are_found(monkeypatch):
    class Distribution:
        def __init__(self, name, *requires):
            self.name, self.version, self.requires = name, "2.0", requires

    installed = [
        Distribution("pinned", "numpy", "gymnasium[classic]==1.0.0"),
        Distribution("bounded", "Gymnasium (<1.1,>=0.29)"),
        Distribution("capped", "gymnasium<2.0,>=0.29.1"),
        Distribution("free", "gymnasium>=0.26"),
        Distribution("extra", "gymnasium==0.28; extra == 'old'"),
    ]
    monkeypatch.setattr("importlib.metadata.distributions", lambda: installed)
    held = packages.holding_back("gymnasium", (1, 1))
    assert held == ["bounded 2.0 (Gymnasium (<1.1,>=0.29))", "pinned 2.0 (gymnasium[classic]==1.0.0)"]


@pytest.mark.parametrize(
    ("bound", "holds"),
    [
        *(("<1.1.0", True), ("<1.2", False), ("~=1.0.0", True), ("~=0.29", True), ("~=1.0", False)),
        *(("==1.0.*", True), ("==1.*", False), ("<=1.0", True), ("<=1.1", False), ("==1.1.0", False)),
    ],
)
def test_a_bound_holds_a_package_back_where_it_leaves_out_all_that_is_wanted(monkeypatch, bound, holds):
    one = types.SimpleNamespace(name="bounded", version="2.0", requires=[f"gymnasium{bound}"])
    monkeypatch.setattr("importlib.metadata.distributions", lambda: [one])
    assert bool(packages.holding_back("gymnasium", (1, 1))) == holds


def test_an_older_gymnasium_is_named_with_the_command_when_it_is_imported():
    program = (
        "import gymnasium, gymnasium.vector\n"
        "del gymnasium.vector.AutoresetMode\ngymnasium.__version__ = '1.0.0'\n"
        "from trpo_fast.cli.main import main\nraise SystemExit(main(['train', 'CartPole-v1']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "trpo-fast train: error: gymnasium 1.0.0 is installed; want 1.1 or newer: pip install"
    )
    assert len(done.stderr.splitlines()) == 1


def test_fetch_tasks_on_a_mujoco_that_they_do_not_know_are_reported_with_both_versions():
    pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics is not installed")
    if packages.version_of("gymnasium-robotics") != "1.4.2" or packages.version_of("mujoco") != "4.0.0":
        pytest.skip("another gymnasium-robotics than 1.4.2, or another mujoco than 4.0.0")
    with pytest.raises(
        ValueError, match=r"AssertionError \(with gymnasium-robotics 1.4.2, mujoco 4.0.0\); .*pip install"
    ):
        make_environments("gymnasium_robotics:FetchReach-v4")
