import dataclasses

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from trpo_fast import TRPO, TRPOConfig
from trpo_fast.algorithm import presets
from trpo_fast.gymnasium_spaces import action_words

PENDULUM = {"log_std_init": 0.0}


@pytest.fixture
def older():
    """Another version of Pendulum, as Gymnasium once had it."""
    gymnasium.register("Pendulum-v0", "gymnasium.envs.classic_control.pendulum:PendulumEnv", max_episode_steps=200)
    yield
    del gymnasium.registry["Pendulum-v0"]


def settings_of(agent):
    agent.close()
    return {name: getattr(agent.config, name) for name in PENDULUM}


@pytest.mark.parametrize("preset", presets.all_presets().values(), ids=lambda preset: preset.name)
def test_every_preset_changes_something(preset):
    """Reading looks at the settings themselves, and tests/test_preset_evidence.py at the figures."""
    assert TRPOConfig(**preset.settings) != TRPOConfig()


@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")  # of Box2D's import
@pytest.mark.parametrize("preset", presets.all_presets().values(), ids=lambda preset: preset.name)
def test_every_preset_is_for_the_actions_that_its_environment_has(preset):
    if preset.name not in gymnasium.registry:
        pytest.skip(f"{preset.name} is not registered here")
    try:
        env = gymnasium.make(preset.name)
    except gymnasium.error.DependencyNotInstalled as missing:
        pytest.skip(f"{preset.name}: {missing}")
    with env:
        assert action_words(env.action_space) == preset.actions


def test_an_id_takes_its_preset_and_the_agent_says_so():
    agent = TRPO("Pendulum-v1", num_envs=2)
    assert agent.preset == "Pendulum-v1"
    assert settings_of(agent) == PENDULUM


@pytest.mark.parametrize(
    ("env", "given"),
    [
        ("Pendulum-v1", {"preset": None}),
        ("Pendulum-v1", {"config": TRPOConfig()}),
        ("Pendulum-v0", {}),  # another version
        (lambda: gymnasium.make("Pendulum-v1"), {}),
        ("make_vec", {}),
    ],
    ids=["None", "a whole config", "another version", "callable", "VectorEnv"],
)
@pytest.mark.filterwarnings("ignore:.*Pendulum-v0.*out of date")
def test_no_preset_is_taken(env, given, older):
    vector = gymnasium.make_vec("Pendulum-v1", num_envs=2) if env == "make_vec" else None
    agent = TRPO(vector or env, **given)
    assert agent.preset is None
    assert settings_of(agent) == {"log_std_init": TRPOConfig().log_std_init}
    if vector is not None:
        vector.close()


class PushedToOneSide(gymnasium.ActionWrapper):
    def __init__(self, env):
        super().__init__(env)
        self.action_space = spaces.Discrete(2)

    def action(self, action):
        return np.array([4.0 * action - 2.0], np.float32)


def test_an_id_with_other_actions_by_a_wrapper_takes_no_preset():
    agent = TRPO("Pendulum-v1", wrappers=[PushedToOneSide])
    assert agent.preset is None
    agent.close()


def test_a_preset_is_taken_by_name_for_a_callable():
    agent = TRPO(lambda: gymnasium.make("Pendulum-v1"), preset="Pendulum-v1")
    assert agent.preset == "Pendulum-v1"
    assert settings_of(agent) == PENDULUM


def test_explicit_settings_win_over_the_preset():
    agent = TRPO("Pendulum-v1", log_std_init=-0.5)
    assert settings_of(agent) == {"log_std_init": -0.5}


def test_a_file_keeps_the_settings_themselves(tmp_path):
    with_preset = TRPO("Pendulum-v1")
    with_preset.save(tmp_path / "agent.trpo")
    again = TRPO.load(tmp_path / "agent.trpo")
    assert again.config == with_preset.config
    assert again.preset is None
    assert settings_of(again) == PENDULUM
    with_preset.close()


@pytest.mark.parametrize(
    ("env", "given", "message"),
    [
        ("Pendulum-v1", {"preset": "Pendulum-v2"}, "preset: 'Pendulum-v2' given.*did you mean Pendulum-v1"),
        ("Pendulum-v1", {"preset": "nothing like it"}, "preset: 'nothing like it' given.*there are Pendulum-v1"),
        ("Pendulum-v1", {"preset": 3}, "preset: 3 given; want 'auto', None .--preset none., a file of trpo-fast tune"),
        ("Pendulum-v0", {"preset": "Pendulum-v1"}, "given for Pendulum-v0, another version"),
        ("CartPole-v1", {"preset": "Pendulum-v1"}, r"for actions Box\(1,\); the environment has Discrete\(2\)"),
        ("Pendulum-v1", {"preset": "Pendulum-v1", "config": TRPOConfig()}, "given with a config"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*Pendulum-v0.*out of date")
def test_a_preset_that_does_not_fit_is_refused_by_name(env, given, message, older):
    with pytest.raises(ValueError, match=message):
        TRPO(env, **given)


TUNED = presets.Preset(
    "Pendulum-v1",
    "Box(1,)",
    {"max_kl": 1e-05, "hidden_sizes": (8, 8), "observation_clip": float("inf"), "scale_rewards": False},
    'of 3 trials, "quoted"',
)


def test_a_written_preset_is_read_as_it_was_and_an_agent_takes_it(tmp_path):
    path = tmp_path / "tuned.toml"
    path.write_text(presets.rendered(TUNED, "made by hand"))
    assert presets.read_presets(path) == {"Pendulum-v1": TUNED}
    with pytest.raises(ValueError, match=r"preset: '.*\.toml', of Pendulum-v1, given, which is for actions"):
        TRPO("CartPole-v1", preset=str(path))
    agent = TRPO("Pendulum-v1", preset=str(path), num_envs=2, scale_rewards=True)
    agent.close()
    config = agent.config
    assert agent.preset == str(path)
    assert (config.max_kl, config.hidden_sizes, config.observation_clip) == (1e-05, (8, 8), float("inf"))
    assert config.scale_rewards is True and config.log_std_init == -1.0  # not the package's preset


def test_a_file_that_is_not_there_is_named_as_the_argument():
    with pytest.raises(ValueError, match=r"preset: nofile\.toml given, which cannot be read \(No such file"):
        TRPO("CartPole-v1", preset="nofile.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no toml", "preset: .*p.toml: .*line 1"),
        ("", "p.toml is empty; want a table of actions"),
        pytest.param("a = " + "[" * 100_000, "p.toml: nested too deeply", id="nested"),
        ("a = 1", "p.toml: 'a': 1 given; want a table of actions, settings, evidence"),
        ("[a]\nactions='x'\nsettings={}", r"p.toml: 'a': \['actions', 'settings'\] given; want a table"),
        ("[a]\nactions='x'\nsettings=1\nevidence=''", "'a': settings: 1 given; want a dict"),
        ("[a]\nactions='x'\nsettings={gamm=1}\nevidence=''", "'gamm' is no field of TRPOConfig; did you mean gamma"),
        ("[a]\nactions='x'\nsettings={gamma=2}\nevidence=''", "gamma: 2 given; want a number in"),
        ("[a]\nactions='x'\nsettings={num_envs=2}\nevidence=''", "num_envs given; want it left out"),
        ("[a]\nactions='x'\nsettings={}\nevidence=''", "of a, given, which is for actions x; the environment has Dis"),
    ],
)
def test_a_file_that_is_no_preset_for_this_environment_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        TRPO("CartPole-v1", preset=str(path))


@pytest.mark.parametrize(
    "text",
    [
        f"{'9' * 30_000} = 5",
        f'["A-v1"]\nactions = "Discrete(2)"\nevidence = "so"\nsettings = {{ {"x" * 30_000} = 1 }}',
        f'["A-v1"]\nactions = "Discrete(2)"\nevidence = {["9" * 30_000]}\nsettings = {{}}',
    ],
)
def test_what_is_wrong_with_a_file_is_said_shortly(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"preset: .*mine\.toml: ") as caught:
        presets.read_presets(path)
    assert len(str(caught.value)) < 5_000


@pytest.mark.parametrize("words", ['\U0001f680 and \x7f and \x00 and "', "no text: \udcff"])
def test_a_preset_with_any_letters_can_be_read_again(words, tmp_path):
    path = tmp_path / "p.toml"
    path.write_text(presets.rendered(dataclasses.replace(TUNED, evidence=words), "made by hand"), encoding="utf-8")
    (read,) = presets.read_presets(path).values()
    assert read.evidence == words.replace("\udcff", "?")
