"""Films of episodes without a display."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from trpo_fast.cli import record

PAINTED = """
import gymnasium as gym
import numpy as np


class Painted(gym.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}
    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, render_mode=None, length=9, breaks=99, grows=False):
        self.render_mode, self.length, self.breaks, self.steps, self.grows = render_mode, length, breaks, 0, grows

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.np_random.uniform(-1, 1, 1).astype(np.float32), {}

    def step(self, action):
        self.steps += 1
        observed = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return observed, float(action) + float(observed[0]), False, self.steps == self.length, {}

    def render(self):
        if self.steps >= self.breaks:
            raise OSError("no paint")
        return np.full((31 + self.grows * self.steps, 41, 3), 20 * self.steps, np.uint8)  # odd sides


class Fast(Painted):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 100}


class Unseen(Painted):
    metadata = {"render_modes": ["human"]}


gym.register("Painted-v0", Painted)
gym.register("Unseen-v0", Unseen)
gym.register("Fast-v0", Fast)
"""


@pytest.fixture
def trained(command, small, tmp_path):
    (tmp_path / "painted.py").write_text(PAINTED)

    def train(env="Painted-v0"):
        assert command("train", env, "--import", "painted", "--timesteps", "64", "--out", "run", *small).code == 0

    return train


def shades(path):
    """The first pixel of every picture."""
    with Image.open(path) as film:
        return [
            film.convert("RGB").getpixel((0, 0))[0] // 20
            for film, _ in ((film, film.seek(i)) for i in range(film.n_frames))
        ]


def test_a_film_shows_every_episode_from_its_first_step_to_its_last(command, trained, tmp_path):
    trained()
    result = command("record", "run", "--trust", "--episodes", "2", "--fps", "50")
    assert result.code == 0, result.err
    assert shades(tmp_path / "run" / "episode.gif") == 2 * list(range(10))
    with Image.open(tmp_path / "run" / "episode.gif") as film:
        assert film.size == (41, 31) and film.info["duration"] == 20
    assert "run/episode.gif: 20 pictures, 0.4 s" in result.out
    # Fewer pictures a second leave steps out, not speed; the end is seen.
    command("record", "run", "--trust", "--out", "slow.gif")
    assert shades(tmp_path / "slow.gif") == [0, 2, 4, 6, 8, 9]
    # A GIF has hundredths of a second: thirds take turns.
    assert "6 pictures, 0.2 s" in command("record", "run", "--trust", "--out", "thirds.gif", "--fps", "30").out
    with Image.open(tmp_path / "thirds.gif") as film:
        durations = [film.info["duration"] for i in range(film.n_frames) if film.seek(i) is None]
    assert durations == [30, 40, 30, 30, 40, 30]
    assert not [path for path in tmp_path.rglob("*.new*")]


def test_what_is_filmed_is_what_eval_plays(command, trained):
    trained()
    for options in (["--seed", "3"], ["--seed", "3", "--stochastic"], ["--env-kwargs", '{"length": 4}']):
        played = command("eval", "run", "--trust", "--episodes", "1", *options).out.split()[1]
        assert command("record", "run", "--trust", *options).out.split()[2] == played


def test_an_mp4_is_encoded(command, trained, tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    trained()
    assert command("record", "run", "--trust", "--out", "x.mp4").code == 0
    frames, _ = ffmpeg.count_frames_and_secs(str(tmp_path / "x.mp4"))
    assert frames == 6


def test_a_gif_of_a_fast_task_has_its_speed(command, trained, tmp_path):
    trained("Fast-v0")
    for rate in ("60", "100"):
        out = command("record", "run", "--trust", "--fps", rate, "--out", "x.gif").out
        assert "x.gif: 6 pictures, 0.1 s" in out, out  # every second one of ten, and the end
        with Image.open(tmp_path / "x.gif") as film:
            assert film.info["duration"] == 20


@pytest.mark.parametrize("name", ["x.gif", "x.mp4"])
def test_pictures_of_several_sizes_are_refused(command, trained, tmp_path, name):
    pytest.importorskip("imageio_ffmpeg")
    trained()
    result = command("record", "run", "--trust", "--out", name, "--env-kwargs", '{"grows": true}')
    assert result.code == 2
    assert "env: a picture of 41 x 33 after some of 41 x 31; want pictures of one size" in result.err
    assert not (tmp_path / name).exists()


def test_a_film_that_ffmpeg_could_not_write_leaves_the_one_before(command, trained, tmp_path, monkeypatch):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    trained()
    (tmp_path / "x.mp4").write_text("the one before")
    monkeypatch.setattr(ffmpeg, "count_frames_and_secs", lambda path: (4, 0.2))
    result = command("record", "run", "--trust", "--out", "x.mp4")
    assert result.code == 2 and "ffmpeg wrote 4 of 6 pictures" in result.err
    assert (tmp_path / "x.mp4").read_text() == "the one before"
    assert not [path for path in tmp_path.rglob("*.new*")]


def test_a_film_that_breaks_off_leaves_nothing(command, trained, tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    trained()
    before = set(tmp_path.rglob("*"))
    result = command("record", "run", "--trust", "--out", "x.mp4", "--env-kwargs", '{"breaks": 4}')
    assert result.code == 2 and "no paint" in result.err
    assert {path for path in set(tmp_path.rglob("*")) - before if "__pycache__" not in str(path)} == set()


def test_what_cannot_be_filmed_is_named(command, trained, monkeypatch):
    trained()
    result = command("record", "run", "--trust", "--env-kwargs", '{"breaks": 0}')
    assert result.code == 2 and "env: no picture can be drawn: no paint" in result.err
    result = command("record", "run", "--trust", "--out", "x.avi")
    assert result.code == 2 and "--out: x.avi given; want a name that ends in .gif or .mp4" in result.err
    result = command("record", "run", "--trust", "--out", "nowhere/x.gif")
    assert result.code == 2 and "--out: nowhere/x.gif given; want a name in a folder that exists" in result.err
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    result = command("record", "run", "--trust", "--out", "x.mp4")
    assert result.code == 2 and "an .mp4 needs imageio-ffmpeg: pip install 'trpo-fast[record]'" in result.err


def test_an_environment_without_rgb_array_is_refused(command, trained):
    trained("Unseen-v0")
    result = command("record", "run", "--trust")
    assert result.code == 2
    assert "env: Unseen-v0 has render_modes ['human']; want rgb_array among them to draw pictures" in result.err


@pytest.mark.parametrize(
    ("libraries", "given", "chosen"),
    [({"EGL", "OSMesa"}, {}, "egl"), ({"OSMesa"}, {}, "osmesa"), (set(), {}, None), ({"EGL"}, {"DISPLAY": ":0"}, None)],
)
def test_mujoco_draws_with_what_there_is(libraries, given, chosen, monkeypatch):
    monkeypatch.setattr(record.sys, "platform", "linux")
    monkeypatch.setattr(record.ctypes.util, "find_library", lambda name: name if name in libraries else None)
    monkeypatch.setattr(record.os, "environ", dict(given))
    record.choose_graphics()
    assert record.os.environ.get("MUJOCO_GL") == chosen


def test_mujoco_is_filmed_without_a_display(command, tmp_path, small):
    """In a process of its own, as MuJoCo chooses how to draw when it is imported."""
    assert command("train", "Walker2d-v5", "--timesteps", "64", "--out", "run", *small).code == 0
    if not record.ctypes.util.find_library("EGL") and not record.ctypes.util.find_library("OSMesa"):
        pytest.skip("neither EGL nor OSMesa")
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "MUJOCO_GL")}
    program = [sys.executable, "-m", "trpo_fast", "record", "run", "--max-steps", "11", "--out", "x.gif"]
    size = ["--env-kwargs", '{"width": 64, "height": 48}']
    done = subprocess.run(program + size, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    if done.returncode == 2 and "no picture can be drawn" in done.stderr:
        assert record.INSTALL_GRAPHICS in done.stderr
        pytest.skip("a graphics library that does not work")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "x.gif") as film:
        assert film.size == (64, 48) and np.ptp(np.asarray(film.convert("L"))) > 50
