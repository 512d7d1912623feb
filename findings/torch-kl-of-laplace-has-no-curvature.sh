#!/usr/bin/env bash
# torch 2.13.0: the second derivative of torch.distributions.kl_divergence between two Laplace distributions at the same location is 0
# by autograd, where it is 1 / scale^2, the Fisher information: |x| has the derivative 0 at 0 there. So F v by two derivatives of the
# KL, as natural-gradient and trust-region code often computes it, is 0 for the location, and a policy's mean never moves. The
# divergence itself is right a little way off. The same construction is right for a Normal.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check install --quiet torch==2.13.0 numpy==2.4.6 2> /dev/null
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch.distributions import Laplace, Normal, kl_divergence


def curvature(family):
    old = family(torch.zeros(1, dtype=torch.float64), 1.0)
    hessian = torch.autograd.functional.hessian(
        lambda loc: kl_divergence(old, family(loc, 1.0)).sum(), torch.zeros(1, dtype=torch.float64)
    )
    return hessian.item()


print("torch", torch.__version__)
step = torch.tensor([1e-3], dtype=torch.float64)
secant = 2 * kl_divergence(Laplace(torch.zeros_like(step), 1.0), Laplace(step, 1.0)).item() / step.item() ** 2
print("second derivative at equal locations: Normal", curvature(Normal), "Laplace", curvature(Laplace))
print(f"2 KL / step^2 of the Laplace at a step of 0.001: {secant:.4f}")
assert (curvature(Normal), curvature(Laplace)) == (1.0, 0.0)
assert abs(secant - 1) < 1e-3
PYTHON
# Seen with torch 2.13.0+cpu:
#   second derivative at equal locations: Normal 1.0 Laplace 0.0
#   2 KL / step^2 of the Laplace at a step of 0.001: 0.9997
