#!/usr/bin/env bash
# gymnasium: reset(seed=) of BipedalWalker-v3 does not decide what follows. Its Box2D world is made once and lives across
# episodes, so that the same seed and actions take another course in an environment that has played before: the first
# observation is the same, later ones are not. LunarLander-v3 makes a world for each episode, and is reproduced.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --prefer-binary gymnasium==1.4.0 numpy==2.3.5 box2d==2.3.10 pygame-ce==2.5.8
cd "$work"
SDL_VIDEODRIVER=dummy "$work/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version

import gymnasium
import numpy as np

print("gymnasium", version("gymnasium"), "box2d", version("box2d"))


def episode(env, seed):
    """Observations and rewards of an episode whose start and actions `seed` decides."""
    rng = np.random.default_rng(seed)
    seen = [env.reset(seed=seed)[0].tobytes()]
    for _ in range(200):
        action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        observation, reward, terminated, truncated, _ = env.step(action)
        seen.append(observation.tobytes() + np.float64(reward).tobytes())
        if terminated or truncated:
            break
    return seen


for name, arguments in (("BipedalWalker-v3", {}), ("LunarLander-v3", {"continuous": True})):
    used = gymnasium.make(name, **arguments)
    differing = 0
    for seed in range(20):
        again, new = episode(used, seed), episode(gymnasium.make(name, **arguments), seed)
        differing += again != new
    print(name, "another episode for the same seed in an environment that has played:", differing, "of 20")
    assert (differing > 0) == (name == "BipedalWalker-v3")
PYTHON
