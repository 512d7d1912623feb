#!/usr/bin/env bash
# gymnasium 1.4.0: VectorizeTransformAction with a function that keeps the space writes the transformed actions into the array that step() was called
# with.
#
# Where the action space is the same before and after (func for noise, smoothing, a dead zone, mirrored or swapped actions), it takes that array as
# the place for its result (self.same_out). Who keeps what was given to step(), as every rollout does, has other actions than the policy drew: their
# probabilities are those of actions that nobody drew, and an array that is given twice is transformed twice. With tensor.numpy() it is the tensor
# that changes. The wrapper of the same name around each environment, and the vector wrapper with another space, leave the array alone.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check install --quiet --prefer-binary gymnasium==1.4.0 numpy==2.3.5
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version

import gymnasium
import numpy as np
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import TransformAction
from gymnasium.wrappers.vector import VectorizeTransformAction

print("gymnasium", version("gymnasium"))
COPIES, STEPS = 4, 1000


def halved(action):
    return 0.5 * action


def one():
    return gymnasium.make("Pendulum-v1")


wide = gymnasium.spaces.Box(-4, 4, (1,), np.float32)
vectors = {
    "each environment wrapped": SyncVectorEnv([lambda: TransformAction(one(), halved, None)] * COPIES),
    "vector wrapped, same space": VectorizeTransformAction(SyncVectorEnv([one] * COPIES), TransformAction, func=halved, action_space=None),
    "vector wrapped, other space": VectorizeTransformAction(SyncVectorEnv([one] * COPIES), TransformAction, func=halved, action_space=wide),
}
ends, ratios = {}, {}
for name, env in vectors.items():
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    drawn, kept = [], []
    for _ in range(STEPS):  # a policy that draws from a standard normal distribution, and keeps what it drew for learning
        actions = rng.standard_normal((COPIES, 1)).astype(np.float32)
        drawn.append(actions.copy())
        kept.append(actions)
        observations = env.step(actions)[0]
    ends[name] = observations
    drawn, kept = np.array(drawn), np.array(kept)
    ratios[name] = np.exp((drawn**2 - kept**2) / 2)  # probability of what was kept by that of what was drawn
    print(f"{name}: kept actions have a standard deviation of {kept.std():.3f}, drawn ones {drawn.std():.3f};",
          f"their probabilities differ by a factor of {ratios[name].mean():.2f} on average, {ratios[name].max():.0f} at most")
actions = np.ones((COPIES, 1), np.float32)
for _ in range(3):
    vectors["vector wrapped, same space"].step(actions)
print("ones, given three times:", actions.ravel().tolist())
assert (actions == 0.125).all(), "the array stays as it is now"
assert all(np.array_equal(end, observations) for end in ends.values())  # the environments themselves get the same actions
assert {name: bool((ratio != 1).any()) for name, ratio in ratios.items()} == {name: "same" in name for name in vectors}
PYTHON
# Seen:
#   gymnasium 1.4.0
#   each environment wrapped: kept actions have a standard deviation of 0.998, drawn ones 0.998; their probabilities differ by a factor of 1.00 on average, 1 at most
#   vector wrapped, same space: kept actions have a standard deviation of 0.499, drawn ones 0.998; their probabilities differ by a factor of 1.92 on average, 299 at most
#   vector wrapped, other space: kept actions have a standard deviation of 0.998, drawn ones 0.998; their probabilities differ by a factor of 1.00 on average, 1 at most
#   ones, given three times: [0.125, 0.125, 0.125, 0.125]
