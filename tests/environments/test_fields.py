"""Environments that packages register: modules, wrappers, arguments; the real packages where they are installed."""

from __future__ import annotations

import sys

import gymnasium
import numpy as np
import pytest

from tests.rollout.toys import Walk, copies_of, make_environments
from trpo_fast import TRPO
from trpo_fast.environments import making, packages, registry
from trpo_fast.environments.checks import SimulatorError
from trpo_fast.environments.recipe import EnvironmentRecipe

SMALL = {"num_envs": 2, "steps_per_env": 8, "hidden_sizes": (4,), "critic_hidden_sizes": (4,), "seed": 0}
SMALL |= {"warm_up_steps": 2, "critic_epochs": 1}

MODULE = """
import gymnasium
from tests.rollout.toys import Walk
gymnasium.register("Wandering-v0", Walk)
calls = []

class Longer(gymnasium.Wrapper):
    def reset(self, **options):
        self.unwrapped.limit = 99
        return super().reset(**options)

def register_envs():
    calls.append(1)
    gymnasium.register("Called-v0", Walk)

def broken(env):
    raise RuntimeError("no wrapper today")

def nothing(env):
    return None
"""


@pytest.fixture
def wanders(tmp_path, monkeypatch):
    """Name of a module, not imported yet, that registers an id, another by a call, and has wrappers."""
    (tmp_path / "wanders_for_a_test.py").write_text(MODULE)
    (tmp_path / "fails_for_a_test.py").write_text("raise RuntimeError('not on this machine')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_called", set())
    yield "wanders_for_a_test"
    sys.modules.pop("wanders_for_a_test", None)
    for id in ("Wandering-v0", "Called-v0"):
        gymnasium.registry.pop(id, None)


def test_modules_are_imported_before_an_environment_is_made(wanders):
    with pytest.raises(ValueError, match="no environment 'Wandering-v0' is registered"):
        make_environments("Wandering-v0")
    made = make_environments("Wandering-v0", num_envs=2, modules=[wanders])
    assert [type(env.unwrapped) for env in copies_of(made)] == [Walk, Walk]


def test_a_function_that_registers_is_called_once(wanders):
    recipe = EnvironmentRecipe("Called-v0", modules=[f"{wanders}:register_envs"])
    recipe.make(1)
    recipe.make_again(1, like=recipe.make(1))
    assert sys.modules[wanders].calls == [1]


def test_an_id_that_a_call_would_register_names_the_call(wanders):
    with pytest.raises(ValueError, match=rf"want imports=\['{wanders}:register_envs'\] \(--import {wanders}:reg"):
        make_environments(f"{wanders}:Called-v0")


@pytest.mark.parametrize("name", ["fails_for_a_test", "wanders_for_a_test:absent", "nowhere_at_all"])
def test_a_module_that_cannot_be_imported_is_named_with_the_reason(wanders, name):
    with pytest.raises(
        ValueError, match=rf"imports: '{name}' cannot be imported: (RuntimeError|AttributeError|Module)"
    ):
        make_environments(Walk, modules=[name])


def test_a_module_in_an_id_that_fails_is_named_with_the_reason(wanders):
    with pytest.raises(ValueError, match=r"fails_for_a_test.*cannot be imported: RuntimeError: not on this machine"):
        make_environments("fails_for_a_test:Thing-v0")


def test_wrappers_are_applied_in_order_to_ids_and_callables(wanders):
    def outer(env):
        return gymnasium.wrappers.TransformReward(env, lambda reward: 2 * reward)

    for source in (Walk, f"{wanders}:Wandering-v0"):
        made = make_environments(source, num_envs=2, wrappers=[f"{wanders}:Longer", outer], env_kwargs={"limit": 3})
        made.reset(0)
        for env in copies_of(made):
            assert isinstance(env, gymnasium.wrappers.TransformReward)
            assert type(env.env).__name__ == "Longer"
            assert env.unwrapped.limit == 99


def test_copies_made_again_have_the_wrappers(wanders):
    recipe = EnvironmentRecipe(Walk, wrappers=[f"{wanders}:Longer"])
    again = recipe.make_again(1, like=recipe.make(1))
    assert type(copies_of(again)[0]).__name__ == "Longer"


@pytest.mark.parametrize(
    ("wrappers", "error", "message"),
    [
        ("atari", TypeError, "wrappers must be a sequence of .* got 'atari'"),
        ([3], ValueError, "wrappers: 3 given; want 'module:callable', a callable, or atari, none"),
        (["unknown"], ValueError, "wrappers: 'unknown' given; want 'module:callable'"),
        ([":x"], ValueError, "wrappers: ':x' given; want 'module:callable'"),
        (["none", "atari"], ValueError, r"wrappers: \['none', 'atari'\] given; want 'none' alone"),
        (["wanders_for_a_test:broken"], ValueError, "broken' cannot be applied: RuntimeError: no wrapper today"),
        (["wanders_for_a_test:nothing"], TypeError, "nothing' returned None; want a gymnasium.Env"),
        (["wanders_for_a_test:absent"], ValueError, "absent' cannot be applied: AttributeError"),
    ],
    ids=str,
)
def test_wrappers_that_cannot_be_used_are_named(wanders, wrappers, error, message):
    with pytest.raises(error, match=message):
        make_environments(Walk, wrappers=wrappers)


def test_what_has_no_copies_to_wrap_refuses_wrappers():
    with pytest.raises(ValueError, match=r"wrappers: .* given; want none with vectorization='vector'"):
        make_environments("CartPole-v1", vectorization="vector", wrappers=["gymnasium.wrappers:NormalizeReward"])
    env = gymnasium.make_vec("CartPole-v1", num_envs=1)
    with pytest.raises(ValueError, match="wrappers must be left out with a VectorEnv"):
        make_environments(env, wrappers=["atari"])
    env.close()


def test_an_environment_is_closed_where_a_wrapper_fails(wanders):
    closed = []

    class Closing(Walk):
        def close(self):
            closed.append(self)

    with pytest.raises(ValueError, match="cannot be applied"):
        make_environments(Closing, num_envs=1, wrappers=[f"{wanders}:broken"])
    assert len(closed) == 1


def test_modules_have_to_be_names():
    for modules in ("ale_py", [3], [""], 3):
        with pytest.raises(TypeError, match="imports must be a sequence of names of modules"):
            EnvironmentRecipe("CartPole-v1", modules=modules)


def test_wrong_arguments_of_an_id_are_named_with_it():
    with pytest.raises(ValueError, match=r"env 'CartPole-v1' cannot be made: TypeError: .*'gravitation'"):
        make_environments("CartPole-v1", env_kwargs={"gravitation": 3})


class Mission(Walk):
    """A walk with words, as minigrid's environments have."""

    class Words(gymnasium.Space):
        def __init__(self):
            super().__init__(dtype=str)

        def contains(self, x):
            return isinstance(x, str)

        def sample(self, *_, **__):
            return "go"

    observation_space = gymnasium.spaces.Dict(
        [
            ("mission", Words()),
            ("walk", Walk.observation_space),
            ("more", gymnasium.spaces.Dict(text=gymnasium.spaces.Text(9), n=gymnasium.spaces.Discrete(3))),
        ]
    )
    numbers = gymnasium.spaces.Dict(
        [("walk", Walk.observation_space), ("more", gymnasium.spaces.Dict(n=gymnasium.spaces.Discrete(3)))]
    )

    def _observe(self):
        return {"mission": "go home", "walk": super()._observe(), "more": {"text": "now", "n": self.steps % 3}}


def test_text_in_an_observation_is_left_out_with_one_warning_that_names_it(tmp_path):
    with pytest.warns(UserWarning) as caught:
        agent = TRPO(Mission, **SMALL)
    (warning,) = caught
    assert str(warning.message).startswith("observation['mission'], observation['more']['text']: text")
    assert warning.filename == __file__
    assert agent.observation_space == Mission.numbers
    agent.learn(16)
    assert agent.evaluate(2).returns.shape == (2,)
    agent.save(tmp_path / "a.trpo")
    loaded = TRPO.load(tmp_path / "a.trpo", env=Mission)  # no second warning
    env = Mission()
    observation, _ = env.reset(seed=0)
    np.testing.assert_array_equal(
        loaded.predict(observation, deterministic=True)[0], agent.predict(observation, deterministic=True)[0]
    )


def test_an_observation_of_text_alone_is_named():
    class Reader(Walk):
        observation_space = gymnasium.spaces.Dict(a=gymnasium.spaces.Text(5))

    with pytest.raises(ValueError, match=r"observation\['a'\]: its space must be .*got Text"):
        make_environments(Reader, num_envs=1)


@pytest.mark.parametrize(
    "part",
    [gymnasium.spaces.Sequence(gymnasium.spaces.Discrete(2)), gymnasium.spaces.Graph(gymnasium.spaces.Box(0, 1), None)],
    ids=["sequence", "graph"],
)
def test_parts_that_hold_numbers_are_refused_and_not_left_out(part):
    class Strange(Walk):
        observation_space = gymnasium.spaces.Dict(a=part, b=Walk.observation_space)

    with pytest.raises(ValueError, match=r"observation\['a'\]: its space must be .*got (Sequence|Graph)"):
        make_environments(Strange, num_envs=1)


def test_keys_that_a_file_cannot_keep_are_refused_when_the_agent_is_made():
    class Keyed(Walk):
        observation_space = gymnasium.spaces.Dict([((0, 1), Walk.observation_space)])

    with pytest.raises(ValueError, match=r"observation: key \(0, 1\) given; want strings or integers as keys"):
        make_environments(Keyed, num_envs=1)

    class Alike(Walk):
        observation_space = gymnasium.spaces.Dict([(0, Walk.observation_space), ("0", Walk.observation_space)])

    with pytest.raises(ValueError, match=r"keys \[0, '0'\] given; want keys that differ as text"):
        make_environments(Alike, num_envs=1)


def test_integers_as_keys_and_parts_without_items_are_saved(tmp_path):
    class Odd(Walk):
        observation_space = gymnasium.spaces.Dict(
            [(1, Walk.observation_space), (0, gymnasium.spaces.Box(0, 1, (0,), np.float32))]
        )

        def _observe(self):
            return {1: super()._observe(), 0: np.zeros(0, np.float32)}

    agent = TRPO(Odd, **SMALL).learn(16)
    agent.save(tmp_path / "a.trpo")
    loaded = TRPO.load(tmp_path / "a.trpo", env=Odd)
    assert list(loaded.observation_space.spaces) == [1, 0]
    assert loaded.observation_space == Odd.observation_space


class Refusing(Walk):
    def reset(self, **_):
        raise LookupError("no simulator")


def test_a_packages_environment_that_cannot_be_reset_is_reported_with_versions(monkeypatch):
    class Distribution:
        def __init__(self, name, version):
            self.name, self.version, self.requires = name, version, []

    monkeypatch.setattr(packages, "is_installed", lambda module: module == __name__)
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


def test_an_older_gymnasium_is_named_with_the_command_when_it_is_imported():
    import subprocess

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


def test_mujocos_warnings_are_printed_once_and_written_nowhere(tmp_path):
    pytest.importorskip("mujoco", reason="mujoco is not installed")
    import subprocess

    program = (
        "from trpo_fast.environments.recipe import EnvironmentRecipe\n"
        "made = EnvironmentRecipe('HalfCheetah-v5').make(3)\n"
        "import mujoco, sys\n"
        "for _ in range(2):\n    mujoco.get_mju_user_warning()('a warning of a test')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    lines = done.stderr.splitlines()
    assert lines.count("mujoco: a warning of a test") == 1
    assert len(set(lines)) == len(lines)
    assert not list(tmp_path.iterdir())


def test_a_handler_of_the_users_for_mujocos_warnings_stays(monkeypatch):
    class MuJoCo:
        handler = print

        @classmethod
        def get_mju_user_warning(cls):
            return cls.handler

        @classmethod
        def set_mju_user_warning(cls, handler):
            cls.handler = handler

    monkeypatch.setitem(sys.modules, "mujoco", MuJoCo)
    making.make_copy(Walk, {}, (), ())
    assert MuJoCo.handler is print
    MuJoCo.handler = None
    making.make_copy(Walk, {}, (), ())
    assert MuJoCo.handler is making._say_once


@pytest.mark.parametrize(
    ("id", "package", "line"),
    [
        ("ALE/Pong-v5", "ale_py", "ale_py:ALE/Pong-v5"),
        ("MiniGrid-Empty-8x8-v0", "minigrid", "minigrid:MiniGrid-Empty-8x8-v0"),
        ("FetchReach-v4", "gymnasium_robotics", "gymnasium_robotics:FetchReach-v4"),
        ("minecart-v0", "mo_gymnasium", "mo_gymnasium:minecart-v0"),
    ],
)
def test_an_id_of_a_package_that_was_not_imported_names_the_line_to_type(id, package, line, monkeypatch):
    if packages.version_of(package.replace("_", "-")) is None:
        pytest.skip(f"{package} is not installed")
    monkeypatch.setattr(gymnasium.envs.registration, "registry", gymnasium.registry)
    for name in [name for name in gymnasium.registry if name.startswith(id.partition("-")[0])]:
        monkeypatch.delitem(gymnasium.registry, name)
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ValueError, match=f"{package} is installed, but was not imported; want '{line}'"):
        make_environments(id)


def test_the_source_of_an_installed_package_is_searched_for_an_id(tmp_path, monkeypatch):
    (tmp_path / "hermits").mkdir()
    (tmp_path / "hermits" / "__init__.py").write_text("register('Hermit-v3', None)")
    info = tmp_path / "hermits-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: hermits\nVersion: 1.0\nRequires-Dist: gymnasium>=1.0\n"
    )
    (info / "RECORD").write_text("hermits/__init__.py,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="hermits is installed, but was not imported; want 'hermits:Hermit-v3'"):
        make_environments("Hermit-v3")


def test_a_package_that_is_missing_is_named_with_what_installs_it():
    if packages.version_of("minigrid") is not None:
        pytest.skip("minigrid is installed")
    with pytest.raises(ValueError, match="minigrid is not installed: pip install minigrid"):
        make_environments("MiniGrid-Empty-8x8-v0")


def test_a_mission_of_minigrid_is_left_out():
    pytest.importorskip("minigrid", reason="minigrid is not installed")
    with pytest.warns(UserWarning, match=r"observation\['mission'\]: text"):
        agent = TRPO("minigrid:MiniGrid-Empty-5x5-v0", **SMALL)
    assert list(agent.observation_space.spaces) == ["direction", "image"]
    agent.learn(16)


def test_ale_py_images_are_four_gray_frames_unless_something_else_is_said():
    pytest.importorskip("ale_py", reason="ale-py is not installed")
    pytest.importorskip("cv2", reason="opencv-python is not installed")
    recipe = EnvironmentRecipe("ale_py:ALE/Pong-v5").resolved()
    assert recipe.wrappers == ("atari",)
    made = recipe.make(1)
    assert made.observation_space == gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    (env,) = copies_of(made)
    assert env.unwrapped._frameskip == 1
    rows = made.reset(0)
    assert rows.shape == (1, 4 * 84 * 84)
    raw = EnvironmentRecipe("ale_py:ALE/Pong-v5", wrappers=["none"]).resolved()
    assert raw.wrappers == ()
    assert raw.make(1).observation_space.shape == (210, 160, 3)
    ram = EnvironmentRecipe("ale_py:ALE/Pong-v5", env_kwargs={"obs_type": "ram"}).resolved()
    assert ram.wrappers == ()
    assert ram.make(1).observation_space.shape == (128,)


def test_ale_py_with_a_frameskip_and_the_wrapper_says_which_of_the_two_skips():
    pytest.importorskip("ale_py", reason="ale-py is not installed")
    with pytest.raises(ValueError, match=r"env_kwargs: frameskip=4 given; want it left out with the wrapper 'atari'"):
        make_environments("ale_py:ALE/Pong-v5", env_kwargs={"frameskip": 4})


def test_fetch_tasks_on_a_mujoco_that_they_do_not_know_are_reported_with_both_versions():
    pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics is not installed")
    if packages.version_of("gymnasium-robotics") != "1.4.2" or packages.version_of("mujoco") != "4.0.0":
        pytest.skip("another gymnasium-robotics than 1.4.2, or another mujoco than 4.0.0")
    with pytest.raises(
        ValueError, match=r"AssertionError \(with gymnasium-robotics 1.4.2, mujoco 4.0.0\); .*pip install"
    ):
        make_environments("gymnasium_robotics:FetchReach-v4")
