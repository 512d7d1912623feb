"""``trpo-fast record``: a film of episodes, without a display."""

from __future__ import annotations

import argparse
import ctypes.util
import itertools
import math
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from trpo_fast.algorithm import evaluation
from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.cli import pages
from trpo_fast.cli.arguments import FPS
from trpo_fast.cli.environments import ANY_CPU, import_from_here, loaded
from trpo_fast.cli.errors import CommandError, describe, user_errors
from trpo_fast.cli.evaluate import unfinished
from trpo_fast.cli.output import say
from trpo_fast.cli.run_folder import latest_of
from trpo_fast.environments.checks import SimulatorError
from trpo_fast.environments.making import make_copy
from trpo_fast.environments.recipe import EnvironmentRecipe

SUFFIXES = (".gif", ".mp4")
GIF_RATE = 50.0
"""Pictures a second that a GIF can have at most: it counts hundredths of a second, and less than two are none."""
PACKAGES = "pip install 'trpo-fast[record]'"
GRAPHICS = (("egl", "EGL"), ("osmesa", "OSMesa"))
"""Values of MUJOCO_GL for drawing without a display, and the libraries that they take."""
INSTALL_GRAPHICS = (
    "MuJoCo draws without a display through EGL or OSMesa: install libegl1 with a driver (on Debian libegl-mesa0), or "
    "libosmesa6, and choose with MUJOCO_GL=egl or MUJOCO_GL=osmesa"
)

Picture = NDArray[np.uint8]
"""(height, width, 3)"""


def run(arguments: argparse.Namespace) -> int:
    """Play episodes one after the other, and write what they look like; two lines on stdout."""
    out = Path(arguments.out) if arguments.out else None
    if out is not None:
        pages.require_suffix(out, SUFFIXES)
    choose_graphics()
    import_from_here()

    def made(path: Path) -> tuple[Path, TRPO]:
        return path, loaded(path, arguments, arguments.env_kwargs, arguments.wrapper, **ANY_CPU)

    with user_errors(SimulatorError):
        path, agent = latest_of(arguments.run, made)
        if agent.recipe is None:
            raise CommandError(f"run: {path} names no environment; want a file of an agent whose environment is an id")
        limit = arguments.max_steps or agent.config.evaluation_max_steps
        film = Film(out or path.with_name("episode.gif"), arguments.fps or FPS, arguments.episodes)
        env = drawing(agent.recipe)
        try:
            result = evaluation.evaluate(
                agent,
                arguments.episodes,
                not arguments.stochastic,
                arguments.seed,
                lambda: Camera(env, film),
                limit,
                copies=1,
            )
            film.finish()
        except Exception:
            if film.error is not None:  # which has become one of the simulator's on its way
                raise film.error from None
            raise
        finally:
            film.close()
            env.close()
    agent.close()
    how = "stochastic" if arguments.stochastic else "deterministic"
    returns = ", ".join(f"{value:,.1f}" for value in result.returns)
    say(f"{agent.recipe.id}: return {returns} in {how} play{unfinished(result, limit)} ({path})")
    say(f"{film.out}: {film.pictures:,} pictures, {film.seconds:.1f} s, {film.out.stat().st_size / 1e6:.1f} MB")
    return 0


def choose_graphics() -> None:
    """Set for drawing without a display, where there is none and nobody has, what MuJoCo and pygame's SDL read once."""
    has_display = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if not sys.platform.startswith("linux") or has_display:
        return
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # which else looks for a display, and says that there is none
    if os.environ.get("MUJOCO_GL"):
        return
    for value, library in GRAPHICS:
        if ctypes.util.find_library(library):
            os.environ["MUJOCO_GL"] = value
            return


def drawing(recipe: EnvironmentRecipe) -> gymnasium.Env[Any, Any]:
    """One copy of what the recipe makes that draws pictures; CommandError where it has none to draw."""
    if not isinstance(recipe.source, str) or recipe.vectorization == "envpool":
        raise CommandError(f"env: {recipe.name} of EnvPool draws no pictures; want an id of Gymnasium's")
    recipe = recipe.with_changes(None, None, None, vectorization="sync").resolved()
    making = recipe.source, recipe.wrappers or (), recipe.modules
    looked_at = make_copy(making[0], recipe.env_kwargs, *making[1:])
    modes = looked_at.metadata.get("render_modes", [])
    looked_at.close()
    if "rgb_array" not in modes:
        raise CommandError(f"env: {recipe.name} has render_modes {modes}; want rgb_array among them to draw pictures")
    env = make_copy(making[0], {**recipe.env_kwargs, "render_mode": "rgb_array"}, *making[1:])
    set_up(env)
    return env


def set_up(env: gymnasium.Env[Any, Any]) -> None:
    """Let MuJoCo draw what is to be seen, in less time where there is no graphics card.

    It looks through the camera of the model that goes along, where there is one and nobody chose another: Gymnasium's
    default stays where it was put, and a robot that walks is soon out of its picture. Shadows are drawn with a
    sixteenth of the points, which are most of the time that a picture takes on a CPU.
    """
    renderer = getattr(env.unwrapped, "mujoco_renderer", None)
    if renderer is None:
        return
    import mujoco

    quality = renderer.model.vis.quality
    quality.shadowsize = min(quality.shadowsize, 1024)
    camera = mujoco.mj_name2id(renderer.model, mujoco.mjtObj.mjOBJ_CAMERA, "track")
    if camera >= 0 and renderer.camera_id == -1:
        renderer.camera_id = camera


class Camera(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Takes a picture after every step that the film has one of."""

    def __init__(self, env: gymnasium.Env[Any, Any], film: Film) -> None:
        super().__init__(env)
        self._film = film
        self._rate = float(env.metadata.get("render_fps") or FPS)
        self._steps = 0
        film.rate = min(film.rate, self._rate)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's, with the first picture of an episode."""
        answer = self.env.reset(seed=seed, options=options)
        self._steps = 0
        self._film.begin_episode()
        self._film.take(self.env)
        return answer

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's, with a picture where one is due, and at the end of an episode."""
        answer = self.env.step(action)
        before, self._steps = self._steps, self._steps + 1
        part = self._film.rate / self._rate
        if answer[2] or answer[3] or math.floor(self._steps * part) > math.floor(before * part):
            self._film.take(self.env)
        return answer


class Film:
    """Pictures of so many episodes on their way into a file.

    Parameters
    ----------
    out : Path
        With one of SUFFIXES. Written beside its place, and put there by :meth:`finish`.
    rate : float
        Pictures a second at most.
    episodes : int
        Those that begin later are not taken.

    Attributes
    ----------
    seconds : float
        How long it is, once it is finished.
    """

    def __init__(self, out: Path, rate: float, episodes: int) -> None:
        if not out.absolute().parent.is_dir():
            raise CommandError(f"--out: {out} given; want a name in a folder that exists")
        is_gif = out.suffix.lower() == ".gif"
        self.out, self.rate = out, min(rate, GIF_RATE) if is_gif else rate
        self.pictures, self.seconds = 0, 0.0
        self._shape: tuple[int, ...] | None = None
        self.error: CommandError | None = None
        self._left = episodes
        self._begun = out.with_name(f".{out.name}.new{out.suffix}")
        self._bar = tqdm(unit=" pictures", disable=None, leave=False)  # none where stderr is no terminal
        self._reel: Reel = Gif() if is_gif else Mp4(self._begun)

    def begin_episode(self) -> None:
        """Count one."""
        self._left -= 1

    def take(self, env: gymnasium.Env[Any, Any]) -> None:
        """Add what an environment looks like; CommandError, kept in ``error``, where it cannot be drawn."""
        if self._left < 0:
            return
        try:
            picture: Any = env.render()
            if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.shape[2:] != (3,):
                raise ValueError(f"render gave {type(picture).__name__}; want an array (height, width, 3) of uint8")
        except Exception as error:  # of anyone's drawing
            hint = f"; {INSTALL_GRAPHICS}" if hasattr(env.unwrapped, "mujoco_renderer") else ""
            self.error = CommandError(f"env: no picture can be drawn: {describe(error)}{hint}")
            raise self.error from error
        if self._shape not in (None, picture.shape):
            self.error = CommandError(
                f"env: a picture of {picture.shape[1]} x {picture.shape[0]} after some of {self._shape[1]} x "
                f"{self._shape[0]}; want pictures of one size"
            )
            raise self.error
        self._shape = picture.shape
        self._reel.add(np.ascontiguousarray(picture), self.rate)
        self.pictures += 1
        self._bar.update()

    def finish(self) -> None:
        """Put the file in its place; CommandError where it cannot be written."""
        try:
            self.seconds = self._reel.write(self._begun, self.rate)
            os.replace(self._begun, self.out)
        except OSError as error:
            raise CommandError(f"--out: {self.out} cannot be written: {describe(error)}") from error

    def close(self) -> None:
        """Leave nothing but what was finished."""
        self._bar.close()
        self._reel.close()
        self._begun.unlink(missing_ok=True)


class Reel(Protocol):
    """Pictures in the form of one kind of file."""

    def add(self, picture: Picture, rate: float) -> None:
        """Append one."""

    def write(self, path: Path, rate: float) -> float:
        """Have all of them in a file; its seconds."""

    def close(self) -> None:
        """End what encodes, also before all is written."""


class Gif:
    """Pictures of 256 colors each, in memory until they are written."""

    def __init__(self) -> None:
        try:
            from PIL import Image
        except ImportError:
            raise CommandError(f"films need Pillow: {PACKAGES}") from None
        self._image, self._pictures = Image, list[Any]()

    def add(self, picture: Picture, rate: float) -> None:
        """Choose its colors."""
        image = self._image.fromarray(picture)
        # Dots that stand in for missing colors would be new in every picture, and bytes.
        self._pictures.append(image.quantize(256, self._image.Quantize.MEDIANCUT, dither=self._image.Dither.NONE))

    def write(self, path: Path, rate: float) -> float:
        """Write all of them, to be played again and again."""
        first, *others = self._pictures
        # In hundredths of a second; browsers play less than two as ten.
        ends = [round(100 * number / rate) for number in range(len(self._pictures) + 1)]
        hundredths = [max(2, end - begin) for begin, end in itertools.pairwise(ends)]
        durations = [10 * one for one in hundredths]
        first.save(path, save_all=True, append_images=others, duration=durations, loop=0, optimize=False)
        return sum(hundredths) / 100

    def close(self) -> None:
        """Nothing runs."""


class Mp4:
    """H.264, encoded by ffmpeg as the pictures come."""

    def __init__(self, path: Path) -> None:
        try:
            import imageio_ffmpeg
        except ImportError:
            raise CommandError(f"--out: an .mp4 needs imageio-ffmpeg: {PACKAGES}; a .gif does not") from None
        self._write_frames, self._path = imageio_ffmpeg.write_frames, path
        self._count = imageio_ffmpeg.count_frames_and_secs
        self._encoder: Generator[None, Any, None] | None = None
        self._pictures = 0

    def add(self, picture: Picture, rate: float) -> None:
        """Encode it."""
        height, width = picture.shape[:2]
        even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")  # as H.264 wants it
        if self._encoder is None:
            size = even.shape[1], even.shape[0]
            self._encoder = self._write_frames(
                str(self._path), size, fps=rate, macro_block_size=2, ffmpeg_log_level="error"
            )
            self._encoder.send(None)
        self._encoder.send(np.ascontiguousarray(even))
        self._pictures += 1

    def write(self, path: Path, rate: float) -> float:
        """Wait for the end of it, and count its pictures: nothing else says whether ffmpeg could write them."""
        self.close()
        try:
            found = self._count(str(path))[0]
        except Exception:  # of a file that it cannot read
            found = 0
        if found != self._pictures:
            raise OSError(f"ffmpeg wrote {found} of {self._pictures} pictures; is there room for them?")
        return self._pictures / rate

    def close(self) -> None:
        """End the encoder."""
        if self._encoder is not None:
            self._encoder.close()
