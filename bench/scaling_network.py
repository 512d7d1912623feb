"""The cost model beside ranks whose network is slow: namespaces joined by veth, with limited bandwidth and latency.

    python -m bench.scaling_network [--ranks 2 3 4] [--rounds 3] [--updates 3] [--out FILE]         (Linux, as root)

Each rank is in a network namespace of its own, whose sending `tc tbf` limits. They are joined by the kernel's bridge,
or, where there is latency, by bench/relay.py in its place, as netem is not in every kernel. What a message costs
without any limit is measured first, on both, and what an update takes; from these, the limit and the traffic
bench.cost_model predicts each collective and the update. The namespaces are removed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.builds import ROOT
from bench.cost_model import Link, gathering_seconds, sum_seconds
from bench.machine import describe, result_path, share_of_cores, write_figures
from bench.scaling import COPIES, ENVIRONMENT, SIDE, Asked
from trpo_fast.benchmarks import QUIET

RELAY = Path(__file__).with_name("relay.py")
STEPS = 64  # of a copy in a rollout: the wire is what is looked at
PORT = 29_400


class Limit(NamedTuple):
    """Of each rank's link."""

    megabits: float | None
    """A second."""
    milliseconds: float
    """Of latency, one way; 0 without a relay."""

    def __str__(self) -> str:
        rate = "no limit" if self.megabits is None else f"{self.megabits:g} Mbit/s"
        return rate + (f", {self.milliseconds:g} ms" if self.milliseconds else "")


# The two without a limit come first: what the others are predicted from.
BASES = (Limit(None, 0.0), Limit(None, 0.001))
LIMITS = (
    *(Limit(megabits, 0.0) for megabits in (1000.0, 100.0, 10.0)),
    *(Limit(None, milliseconds) for milliseconds in (1.0, 5.0)),
    Limit(100.0, 2.0),
)


class Network:
    """As many namespaces as there are ranks, and one with what joins them."""

    def __init__(self, stack: ExitStack, ranks: int) -> None:
        self._name = f"trpo{os.getpid()}"
        self._ports = [f"port{rank}" for rank in range(ranks)]
        self._stack, self._relay = stack, ExitStack()
        self.hub = self._namespace("hub")
        self.of_ranks = [self._namespace(str(rank)) for rank in range(ranks)]
        _call("ip", "-n", self.hub, "link", "add", "bridge", "type", "bridge")
        _call("ip", "-n", self.hub, "link", "set", "bridge", "up")
        for rank, (own, port) in enumerate(zip(self.of_ranks, self._ports, strict=True)):
            ends = ("link", "add", "eth0", "netns", own, "type", "veth", "peer", "name", port, "netns", self.hub)
            _call("ip", *ends)
            _call("ip", "-n", own, "address", "add", f"10.0.0.{rank + 1}/24", "dev", "eth0")
            _call("ip", "-n", own, "link", "set", "eth0", "up")
            _call("ip", "-n", own, "link", "set", "lo", "up")
            _call("ip", "-n", self.hub, "link", "set", port, "up", "master", "bridge")
        stack.push(self._relay)  # ends before what it relays for

    def _namespace(self, name: str) -> str:
        whole = f"{self._name}-{name}"
        _call("ip", "netns", "add", whole)
        self._stack.callback(_call, "ip", "netns", "delete", whole)
        return whole

    @staticmethod
    def inside(namespace: str) -> tuple[str, ...]:
        """The beginning of a command that runs there."""
        return ("nsenter", f"--net=/run/netns/{namespace}")

    def limit(self, limit: Limit) -> None:
        """Of every rank's link from now on."""
        self._relay.close()
        for own, port in zip(self.of_ranks, self._ports, strict=True):
            joined = ("nomaster",) if limit.milliseconds else ("master", "bridge")
            _call("ip", "-n", self.hub, "link", "set", port, *joined)
            qdisc = ("tc", "-n", own, "qdisc")
            subprocess.run([*qdisc, "delete", "dev", "eth0", "root"], stderr=subprocess.DEVNULL, check=False)
            if limit.megabits is not None:
                # A burst of two frames and no more: what may be sent at once has no bandwidth.
                words = ("rate", f"{limit.megabits}mbit", "burst", "4kb", "limit", "8mb")
                _call(*qdisc, "add", "dev", "eth0", "root", "tbf", *words)
        if limit.milliseconds:
            program = (sys.executable, str(RELAY), str(limit.milliseconds / 1e3), *self._ports)
            relay = self._relay.enter_context(
                subprocess.Popen([*self.inside(self.hub), *program], stdout=subprocess.PIPE, text=True)
            )
            self._relay.callback(relay.kill)
            assert relay.stdout is not None
            if relay.stdout.readline() != "ready\n":
                raise SystemExit("the relay has ended; what it wrote says why")


@contextmanager
def started(ranks: int, env: str) -> Iterator[tuple[Network, Asked]]:
    """The network, and what asks its ranks."""
    with ExitStack() as stack:
        network = Network(stack, ranks)
        task = json.dumps({"env": env, "num_envs": ranks * COPIES, "steps_per_env": STEPS, "pinned": True})
        shared = {**ENVIRONMENT, "WORLD_SIZE": str(ranks), "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": str(PORT)}
        shared |= {"GLOO_SOCKET_IFNAME": "eth0", "PYTHONPATH": str(ROOT)}
        for rank in range(ranks - 1, -1, -1):
            own = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            command = (*network.inside(network.of_ranks[rank]), sys.executable, "-P")
            if rank:
                process = stack.enter_context(
                    subprocess.Popen([*command, str(SIDE), task], env={**os.environ, **own}, stdin=subprocess.DEVNULL)
                )
                stack.callback(process.kill)
            else:
                side = Asked(stack, SIDE, ROOT, own, python=command, arguments=(task,))
                stack.callback(side.end)
        yield network, side


def measure(ranks: int, env: str, rounds: int, updates: int) -> dict[str, Any]:
    """What each limit makes of the collectives and of an update, measured and predicted."""
    with started(ranks, env) as (network, side):
        described, do = side.answer(), side.do

        def figures(limit: Limit) -> dict[str, Any]:
            network.limit(limit)
            time.sleep(0.5)
            repeats = 7 if limit.megabits == min(one.megabits or 1e9 for one in LIMITS) else 21
            done = [do("train", updates=updates) for _ in range(rounds)]
            small = do("collectives", numbers=2, dtype="float64", repeats=3 * repeats)
            vector = do("collectives", numbers=described["parameters"], dtype="float32", repeats=repeats)
            traffic = {
                phase: [statistics.median(one["traffic"][phase][i] for one in done) for i in range(3)]
                for phase in done[0]["traffic"]
            }
            return {
                "scalars": small,
                "vector": vector,
                "update": statistics.median(one["seconds"] for one in done),
                "traffic": traffic,
            }

        bases = [figures(limit) for limit in BASES]
        return {
            "agent": described,
            "without_limit": [{"limit": str(limit), **base} for limit, base in zip(BASES, bases, strict=True)],
            "limits": [
                {
                    **{"limit": str(limit), "measured": (found := figures(limit))},
                    "predicted": predict(ranks, limit, bases[limit.milliseconds > 0], found["traffic"]),
                }
                for limit in LIMITS
            ],
        }


def reduction_seconds(link: Link, ranks: int, size: float) -> float:
    """As gloo does it."""
    return sum_seconds(link, ranks, size, "ring")


def predict(ranks: int, limit: Limit, base: dict[str, Any], traffic: dict[str, list[float]]) -> dict[str, float]:
    """Seconds of a reduced vector, of gathered ones, and of an update, from what they were without a limit."""
    free = free_link(ranks, base)
    link = Link(
        free.latency + limit.milliseconds / 1e3,
        free.bandwidth if limit.megabits is None else min(free.bandwidth, limit.megabits * 1e6 / 8),
    )

    def wire(link: Link) -> float:
        total = 0.0
        for phase, (rounds, size, _) in traffic.items():
            if not rounds:
                continue
            # All else is gathered: the rollout, and the sums of parts.
            of_one = reduction_seconds if phase == "stop" else gathering_seconds
            total += rounds * of_one(link, ranks, size / rounds)
        return total

    vector = base["vector"]
    return {
        "reduction": reduction_seconds(link, ranks, vector["bytes"]),
        "gathering": gathering_seconds(link, ranks, vector["gathered_bytes"]),
        "update": base["update"] + wire(link) - wire(free),
    }


def free_link(ranks: int, base: dict[str, Any]) -> Link:
    """Latency and bandwidth of the link without a limit, by what its reductions and gatherings took."""
    latency = base["scalars"]["reduction"] / reduction_seconds(Link(1.0, float("inf")), ranks, 16)
    of_latency = gathering_seconds(Link(latency, float("inf")), ranks, 0)
    spent = base["vector"]["gathering"] - of_latency
    carried = (ranks - 1) * base["vector"]["gathered_bytes"]
    return Link(latency, carried / spent if spent > 0 else float("inf"))


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}; want Linux, iproute2, and to be root")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, predict, print and write."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.scaling_network", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--env", default="HalfCheetah-v5")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--rounds", type=int, default=3, help="of each limit (default 3)")
    parser.add_argument("--updates", type=int, default=3, help="of a round (default 3)")
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args(argv)
    if min(arguments.ranks) < 2 or max(arguments.ranks) > 16:
        parser.error(f"--ranks: {arguments.ranks} given; want numbers from 2 to 16")
    machine, cores = describe(), len(os.sched_getaffinity(0))
    shares = [share_of_cores(cores)]
    found = {}
    for ranks in arguments.ranks:
        found[str(ranks)] = measured = measure(ranks, arguments.env, arguments.rounds, arguments.updates)
        shares.append(share_of_cores(cores))
        for one in measured["limits"]:
            told, seen = one["predicted"], one["measured"]
            print(
                f"  {ranks} ranks, {one['limit']:17} predicted / measured, ms: "
                f"reduction {told['reduction'] * 1e3:.2f} / {seen['vector']['reduction'] * 1e3:.2f}, "
                f"gathering {told['gathering'] * 1e3:.1f} / {seen['vector']['gathering'] * 1e3:.1f}, "
                f"update {told['update'] * 1e3:.0f} / {seen['update'] * 1e3:.0f}",
                flush=True,
            )
    share = statistics.median(shares)
    result = {
        "command": " ".join(["python -m bench.scaling_network", *(sys.argv[1:] if argv is None else argv)]),
        "machine": machine,
        "cpu_share": share,
        "quiet": share >= QUIET,
        "env": arguments.env,
        "ranks": found,
    }
    write_figures(arguments.out or result_path("scaling_network"), result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
