#!/usr/bin/env bash
# torch 2.13.0: the first torch.compile(module) of a process, before anything was called or compiled, turns off the validation of
# the arguments of all torch.distributions made from then on, in any module. A Normal with a mean of NaN, which was a ValueError
# before, is made without a word: who counts on that error to end a diverged run does not get it any more.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check install --quiet torch==2.13.0 numpy==2.4.6 2> /dev/null
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch.distributions import Normal


def outcome():
    try:
        return str(Normal(torch.tensor([float("nan")]), 1.0))
    except ValueError as error:
        return f"ValueError: {str(error).split('(')[0].strip()}"


print("torch", torch.__version__)
seen = [outcome()]
torch.compile(torch.nn.Linear(2, 2))
seen.append(outcome())
print("before:", seen[0])
print("after torch.compile(another module):", seen[1])
assert seen[0].startswith("ValueError: Expected parameter loc")
assert seen[1].startswith("Normal(")
PYTHON
# Seen with torch 2.13.0+cpu:
#   before: ValueError: Expected parameter loc
#   after torch.compile(another module): Normal(loc: tensor([nan]), scale: tensor([1.]))
