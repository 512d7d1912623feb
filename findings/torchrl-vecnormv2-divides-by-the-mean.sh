#!/usr/bin/env bash
# torchrl 0.14.1: VecNormV2 divides observations whose mean is not 0 by about their mean in place of their standard deviation, for the first ten
# thousands of steps.
#
# It keeps decaying averages of x and x^2, both of which begin at 0, and divides them by 1 - decay^t for that (VecNormV2._norm). But the variance is
# taken before: (E[x^2] - E[x]^2) / (1 - decay^t) with the E[x] that is still too small. What is left is std^2 + mean^2 * decay^t: with a temperature
# of 300 +- 1 K and the default decay, 0.9999, the result has a standard deviation of 0.003 in the first thousand steps, 0.04 after 50,000 steps and
# 0.6 only after 110,000. The mean is right, so that the observation is there, as a constant to the eye of a network. decay=1 is right. VecNorm, which
# warns that it is deprecated in favor of this one, is right where observations are float32. With float64, which Gymnasium's MuJoCo tasks return, it
# divides sums in float64 by a count in float32, whose rounding the difference of the two squares multiplies: 300 +- 1 K become +- 100 after 4,000
# steps.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check install --quiet --prefer-binary torch==2.13.0 torchrl==0.14.1 tensordict==0.14.3 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" -W ignore - 2> /dev/null <<'PYTHON'
from importlib.metadata import version

import torch
from tensordict import TensorDict
from torchrl.envs import VecNorm, VecNormV2

print("torchrl", version("torchrl"))
torch.manual_seed(0)
torch.set_num_threads(1)
DECAY, BATCH, STEPS = 0.9999, 64, [100, 1_000, 4_000]


def normalized(transform, mean, dtype):
    """Standard deviations of what comes out after each number of steps, for numbers of `mean` +- 1."""
    found, done = [], 0
    for until in STEPS:
        while done < until:
            last = TensorDict({"observation": mean + torch.randn(BATCH, 1, dtype=dtype)}, [BATCH])
            last = transform._step(last, last) if isinstance(transform, VecNormV2) else transform(last)
            done += 1
        found.append(last["observation"].std().item())
    print(f"{mean} +- 1, {str(dtype)[6:]}, {type(transform).__name__}, decay={transform.decay:g}: "
          f"standard deviation {[round(std, 4) for std in found]}")
    return found


print(f"after {STEPS} steps:")
for mean in (3, 300):
    expected = [(1 + mean**2 * DECAY**t) ** -0.5 for t in STEPS]
    for dtype in (torch.float32, torch.float64):
        found = normalized(VecNormV2(in_keys=["observation"], decay=DECAY), mean, dtype)
        assert all(abs(std / by - 1) < 0.4 for std, by in zip(found, expected)), "VecNormV2 is right now"
    print(f"{mean} +- 1, (1 + mean^2 decay^t)^(-1/2): {[round(std, 4) for std in expected]}")
assert all(0.6 < std < 1.5 for std in normalized(VecNormV2(in_keys=["observation"], decay=1.0), 300, torch.float64))
assert all(0.6 < std < 1.5 for std in normalized(VecNorm(in_keys=["observation"], decay=DECAY), 300, torch.float32))
assert normalized(VecNorm(in_keys=["observation"], decay=DECAY), 300, torch.float64)[-1] > 10, "VecNorm is right now"
far = [50_000, 110_000]
print(f"300 +- 1, expected after {far}: {[round((1 + 300**2 * DECAY**t) ** -0.5, 3) for t in far]}")
PYTHON
# Seen:
#   torchrl 0.14.1
#   after [100, 1000, 4000] steps:
#   3 +- 1, float32, VecNormV2, decay=0.9999: standard deviation [0.3129, 0.3762, 0.3664]
#   3 +- 1, float64, VecNormV2, decay=0.9999: standard deviation [0.3062, 0.4056, 0.3446]
#   3 +- 1, (1 + mean^2 decay^t)^(-1/2): [0.3177, 0.3307, 0.3771]
#   300 +- 1, float32, VecNormV2, decay=0.9999: standard deviation [0.0036, 0.0031, 0.0048]
#   300 +- 1, float64, VecNormV2, decay=0.9999: standard deviation [0.003, 0.0027, 0.0042]
#   300 +- 1, (1 + mean^2 decay^t)^(-1/2): [0.0034, 0.0035, 0.0041]
#   300 +- 1, float64, VecNormV2, decay=1: standard deviation [1.0574, 0.9114, 0.8129]
#   300 +- 1, float32, VecNorm, decay=0.9999: standard deviation [0.9872, 1.0044, 0.9152]
#   300 +- 1, float64, VecNorm, decay=0.9999: standard deviation [1.22, 1.6737, 105.1196]
#   300 +- 1, expected after [50000, 110000]: [0.041, 0.632]
