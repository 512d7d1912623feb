#!/usr/bin/env bash
# torch 2.13.0: a seed does not fix the weights of nn.init.orthogonal_; the number of threads decides their last bits, too.
#
# nn.init.orthogonal_ draws normal numbers, which a seeded generator fixes, and factorizes them by QR, whose sums LAPACK and BLAS
# split by the number of threads. The same seed gives other last bits under torchrun, which sets OMP_NUM_THREADS=1 where it starts
# several processes, than in a process by itself, or on a machine with another number of cores, on one CPU and with one torch.
# A training that begins there parts from its twin. With torch.set_num_threads(1) around the call the bits are the same.
# Usage: findings/torch-orthogonal-init-depends-on-threads.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install --quiet torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch import nn


def weights(threads, size=256):
    torch.set_num_threads(threads)
    weight = torch.empty(size, size, dtype=torch.float64)
    return nn.init.orthogonal_(weight, generator=torch.Generator().manual_seed(0)).clone()


def drawn(threads, size=256):
    torch.set_num_threads(threads)
    return torch.empty(size, size, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(0))


one, again, two = weights(1), weights(1), weights(2)
print("torch", torch.__version__)
print("the numbers drawn, 1 and 2 threads, are equal:", torch.equal(drawn(1), drawn(2)))
print("the weights, twice with 1 thread, are equal:  ", torch.equal(one, again))
print("the weights, 1 and 2 threads, are equal:      ", torch.equal(one, two))
print("they differ by less than 1e-12:               ", bool((one - two).abs().max() < 1e-12))
assert torch.equal(drawn(1), drawn(2)) and torch.equal(one, again)
assert not torch.equal(one, two)
PYTHON
# Seen:
#   torch 2.13.0+cpu
#   the numbers drawn, 1 and 2 threads, are equal: True
#   the weights, twice with 1 thread, are equal:   True
#   the weights, 1 and 2 threads, are equal:       False
#   they differ by less than 1e-12:                True
