#!/usr/bin/env bash
# torchrl 0.14.1: with tanh_loc=True and bounds whose middle is not 0, TanhNormal is at the upper bound (or the lower) from the start.
#
# Its update() moves loc to the middle of the bounds, (low + high) / 2, but this is the loc before the tanh: the affine transform after it moves to
# the middle once more. With loc = 0 and bounds of 0 and 10, the action is 9.9995, for a motor of 0 to 1 it is 0.73, and for -20 to -10 it is -20. A
# gradient hardly gets through so flat a tanh. Samples and log_prob are of one distribution, so that nothing fails. With tanh_loc=False, the default,
# or bounds of the same size on both sides, loc = 0 is the middle, as the documented formula, loc = tanh(loc / upscale) * upscale, says it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check install --quiet --prefer-binary torch==2.13.0 torchrl==0.14.1 tensordict==0.14.3 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" -W ignore - 2> /dev/null <<'PYTHON'
from importlib.metadata import version

import torch
from torchrl.modules import TanhNormal

print("torchrl", version("torchrl"))
torch.manual_seed(0)
wrong = {}
for low, high in ((-1.0, 1.0), (-3.0, 3.0), (0.0, 1.0), (0.0, 10.0), (-20.0, -10.0), (0.0, 512.0)):
    for scaled in (False, True):
        loc = torch.zeros(1, requires_grad=True)
        distribution = TanhNormal(loc, torch.ones(1), low=low, high=high, tanh_loc=scaled)
        middle = distribution.deterministic_sample
        (slope,) = torch.autograd.grad(middle, loc)
        samples = distribution.sample((10_000,))
        print(f"bounds {low:g} and {high:g}, tanh_loc={scaled}: action at loc 0 {middle.item():.5g}, its slope {slope.item():.2g}, "
              f"mean of samples {samples.mean():.5g}")
        wrong[low, high, scaled] = abs(middle.item() - (low + high) / 2) / (high - low)
assert {bounds for bounds, by in wrong.items() if by > 0.2} == {
    (low, high, True) for low, high in ((0, 1), (0, 10), (-20, -10), (0, 512))
}, "loc 0 is the middle now"
PYTHON
# Seen:
#   torchrl 0.14.1
#   bounds -1 and 1, tanh_loc=False: action at loc 0 0, its slope 1, mean of samples -0.0090665
#   bounds -1 and 1, tanh_loc=True: action at loc 0 0, its slope 1, mean of samples -0.0067545
#   bounds -3 and 3, tanh_loc=False: action at loc 0 0, its slope 3, mean of samples -0.032194
#   bounds -3 and 3, tanh_loc=True: action at loc 0 0, its slope 3, mean of samples 0.025679
#   bounds 0 and 1, tanh_loc=False: action at loc 0 0.5, its slope 0.5, mean of samples 0.49947
#   bounds 0 and 1, tanh_loc=True: action at loc 0 0.73106, its slope 0.39, mean of samples 0.64791
#   bounds 0 and 10, tanh_loc=False: action at loc 0 5, its slope 5, mean of samples 5.0491
#   bounds 0 and 10, tanh_loc=True: action at loc 0 9.9995, its slope 0.00091, mean of samples 9.9966
#   bounds -20 and -10, tanh_loc=False: action at loc 0 -15, its slope 5, mean of samples -15.008
#   bounds -20 and -10, tanh_loc=True: action at loc 0 -20, its slope 1e-05, mean of samples -20
#   bounds 0 and 512, tanh_loc=False: action at loc 0 256, its slope 2.6e+02, mean of samples 255.98
#   bounds 0 and 512, tanh_loc=True: action at loc 0 512, its slope 0.00052, mean of samples 512
