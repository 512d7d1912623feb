#!/usr/bin/env bash
# torch 2.13.0, gloo on Linux: a rank whose threads share one core spends most of its time in gloo's receiving thread, which spins.
#
# Gloo's thread `gloo_tcp_loop` waits for sockets (level-triggered epoll), and takes the lock of a connection only if it is free: else it
# returns to epoll, which names the same socket at once. Where the thread that has the lock is preempted by this very thread, on the only
# core that both may use, it goes on so until the scheduler's next tick: 4 ms at 250 Hz for a round that takes a fraction of one. What
# comes over sockets is little, and the processor time of the receiver is many times what it is where the receiver does not preempt:
# SCHED_BATCH, which a process may give its own threads without privileges, is enough. So pin ranks to cores with that, or with two cores each.
# Usage: findings/gloo-receiver-spins-on-a-shared-core.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install --quiet torch==2.13.0 numpy==2.4.6
cd "$folder"
cat > ranks.py <<'PYTHON'
import os
import pathlib
import statistics
import time

import torch
import torch.distributed as dist

rank = int(os.environ["RANK"])
cores = sorted(os.sched_getaffinity(0))
os.sched_setaffinity(0, {cores[rank % len(cores)]})
dist.init_process_group("gloo")
threads = [
    thread for thread in pathlib.Path("/proc/self/task").iterdir()
    if (thread / "comm").read_text().strip() == "gloo_tcp_loop"
]
assert len(threads) == 1
array = torch.zeros(6000)


def rounds() -> tuple[float, float]:
    """Milliseconds: the nine-tenths quantile of a round, and the receiver's processor time of one."""
    took, used = [], -int((threads[0] / "schedstat").read_text().split()[0])
    for _ in range(100):
        began = time.perf_counter()
        dist.all_reduce(array)
        took.append(time.perf_counter() - began)
    used += int((threads[0] / "schedstat").read_text().split()[0])
    return statistics.quantiles(took, n=10)[-1] * 1e3, used / 100 * 1e-6


policies = {"SCHED_OTHER": os.SCHED_OTHER, "SCHED_BATCH": os.SCHED_BATCH}
every = {name: [] for name in policies}
for _ in range(9):  # in turns, as other work on the machine comes and goes
    for name, policy in policies.items():
        os.sched_setscheduler(int(threads[0].name), policy, os.sched_param(0))
        every[name].append(rounds())
found = {name: [statistics.median(column) for column in zip(*rows)] for name, rows in every.items()}
if rank == 0:
    for policy, (slow, used) in found.items():
        print(f"{policy}: nine of ten rounds of 24 kB within {slow:.2f} ms, the receiver computes {used:.2f} ms of a round")
    assert found["SCHED_OTHER"][1] > 2 * found["SCHED_BATCH"][1], found
dist.destroy_process_group()
PYTHON
"$folder/venv/bin/python" -c 'import torch; print("torch", torch.__version__)'
OMP_NUM_THREADS=1 "$folder/venv/bin/torchrun" --standalone --nproc-per-node=2 ranks.py 2> errors || { cat errors; exit 1; }
# Seen (Linux 6.18, two cores):
#   torch 2.13.0+cpu
#   SCHED_OTHER: nine of ten rounds of 24 kB within 12.23 ms, the receiver computes 1.24 ms of a round
#   SCHED_BATCH: nine of ten rounds of 24 kB within 15.99 ms, the receiver computes 0.33 ms of a round
# with other work on both cores; without, nine of ten within 4.25 and 0.54 ms.
