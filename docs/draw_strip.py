"""A strip of pictures of a learned policy at work, for README.md and the gallery.

    MUJOCO_GL=osmesa python docs/draw_strip.py MODEL Walker2d-v5 docs/walker2d.png [--frames 8] [--every 8]

MODEL is what ``trpo-fast train`` saves. The policy plays one deterministic episode; pictures are taken every
so many steps from a step on. Rendering without a display needs Mesa's off-screen library (libosmesa6) or EGL;
classic control needs pygame.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import trpo_fast

HEIGHT, WIDTH, BETWEEN = 240, 150, 2  # of a picture, and white between two, in pixels
WHITE = 255
COLORS = 64  # flat shades: more would be bytes only


def pictures(
    model: Path, env_id: str, frames: int, every: int, start: int, seed: int, camera: str | None
) -> tuple[list[NDArray[np.uint8]], float]:
    """The pictures ``(HEIGHT, WIDTH, 3)``, and the return of the whole episode."""
    agent = trpo_fast.TRPO.load(model)
    look: dict[str, Any] = {"camera_name": camera, "height": HEIGHT, "width": 2 * HEIGHT} if camera else {}
    environment = gymnasium.make(env_id, render_mode="rgb_array", **look)
    found: list[NDArray[np.uint8]] = []
    total, ended, step = 0.0, False, 0
    observation, _ = environment.reset(seed=seed)
    try:
        while not ended:
            if step >= start and (step - start) % every == 0 and len(found) < frames:
                whole: Any = environment.render()
                width = min(WIDTH * whole.shape[0] // HEIGHT, whole.shape[1])
                left = (whole.shape[1] - width) // 2
                part = Image.fromarray(whole[:, left : left + width])
                found.append(np.array(part.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)))
            action, _ = agent.predict(observation, deterministic=True)
            observation, reward, terminated, truncated, _ = environment.step(action)
            total, ended, step = total + float(reward), terminated or truncated, step + 1
    finally:
        environment.close()
        agent.close()
    if len(found) < frames:
        raise SystemExit(f"{model}: the episode ended after {step} steps; want {start + frames * every}")
    return found, total


def main(argv: Sequence[str] | None = None) -> int:
    """Write the strip."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("env", help="its environment's id")
    parser.add_argument("out", type=Path)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--every", type=int, default=8, help="steps between two pictures")
    parser.add_argument("--start", type=int, default=300, help="step of the first picture")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--camera", default="track", help='of MuJoCo\'s; "" for environments without; most stay behind')
    options = parser.parse_args(argv)
    found, total = pictures(
        options.model, options.env, options.frames, options.every, options.start, options.seed, options.camera
    )
    gap = np.full((HEIGHT, BETWEEN, 3), WHITE, np.uint8)
    strip = np.concatenate([part for picture in found for part in (picture, gap)][:-1], axis=1)
    Image.fromarray(strip).quantize(COLORS, dither=Image.Dither.NONE).save(options.out, optimize=True)
    print(f"{options.out}: {options.out.stat().st_size:,} bytes, an episode of return {total:,.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
