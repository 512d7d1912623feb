"""Training beside sb3-contrib in one process: whole updates, standing still, and steps per second.

    python -m bench.compare_sb3 [--env HalfCheetah-v5] [--rounds 9] [--updates 3] [--threads 1] [--out FILE]
    python -m bench.compare_sb3 --threads 2 --overlap-critic --preconditioner kfac --cg-iterations 5

Both train with sb3-contrib's tuned settings for HalfCheetah: 2 environments x 1,024 steps, 25 CG iterations, 20
critic epochs with minibatches of 128, normalized observations and rewards. Rounds alternate between the two, the
first round of each is not counted, and medians are compared. Both have the same number of threads. The critic is
fitted in the same thread unless --overlap-critic is given, which gives trpo_fast one thread more while it steps.

Standing still is what the simulator sees: the time from the end of a rollout's last step to the beginning of the next
rollout's first, by a wrapper around each environment, the same for both.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any, NamedTuple

import gymnasium as gym
import sb3_contrib

import trpo_fast
from bench.machine import describe
from bench.rounds import (
    CG_ITERATIONS,
    CRITIC_EPOCHS,
    ENVIRONMENTS,
    MINIBATCH,
    STEPS,
    alternate,
    check_update,
    learn_sb3,
    medians,
    parse,
    parser_for,
    sb3_model,
    timed,
    write,
)

UPDATE_TIMINGS = ("gradient", "solve", "line_search", "critic_fit")
PRECISIONS = ("fisher_precision", "critic_precision")


class Round(NamedTuple):
    """One call of ``learn``."""

    update_seconds: float  # mean over the round's updates: gradient + solve + line search + critic fit
    still_seconds: float  # mean over the round's pauses between two rollouts, in which no environment steps
    steps_per_second: float  # everything included
    accepted: float  # fraction of the updates whose line search succeeded


class _Clock:
    """When the steps of all environments of one side began and ended."""

    def __init__(self, env: str) -> None:
        self.spans: list[tuple[float, float]] = []
        self._env = env

    def make(self) -> gym.Env[Any, Any]:
        """An environment on this clock."""
        return _Clocked(gym.make(self._env), self.spans)

    def still_seconds(self) -> float:
        """Mean pause between rollouts since the last call."""
        rollout = ENVIRONMENTS * STEPS
        pauses = [
            self.spans[i][0] - self.spans[i - 1][1]
            for i in range(len(self.spans) % rollout + rollout, len(self.spans), rollout)
        ]
        self.spans.clear()
        return statistics.fmean(pauses)


class _Clocked(gym.Wrapper[Any, Any, Any, Any]):
    def __init__(self, env: gym.Env[Any, Any], spans: list[tuple[float, float]]) -> None:
        super().__init__(env)
        self._spans = spans

    def step(self, action: Any) -> Any:
        began = time.perf_counter()
        result = self.env.step(action)
        self._spans.append((began, time.perf_counter()))
        return result


class Ours:
    """trpo_fast with sb3-contrib's settings, or as `config` says."""

    name = "trpo_fast"

    def __init__(self, env: str, seed: int, config: dict[str, Any]) -> None:
        dimensions = _action_dimensions(env)
        self.clock = _Clock(env)
        self.agent = trpo_fast.TRPO(
            self.clock.make,
            num_envs=ENVIRONMENTS,
            vectorization="sync",
            seed=seed,
            steps_per_env=STEPS,
            critic_epochs=CRITIC_EPOCHS,
            critic_batch_size=MINIBATCH,
            # sb3-contrib averages KL over action dimensions: its 0.01 and 0.1 for the joint distribution.
            max_kl=0.01 * dimensions,
            max_kl_schedule="constant",
            damping=0.1 * dimensions,
            relative_damping=0.0,
            step_curvature="damped",
            gae_lambda=0.95,
            critic_gae_lambda=0.95,
            **config,
        )
        self._asked = self.agent.config.max_kl, self.agent.config.damping
        self.reports: list[Any] = []

    def round(self, updates: int) -> Round:
        """Learn for `updates` updates."""
        self.reports.clear()
        steps = updates * ENVIRONMENTS * STEPS
        seconds = timed(
            lambda: self.agent.learn(
                steps,
                callback=lambda agent: self.reports.append(agent.last_update),
                reset_num_timesteps=False,
            )
        )
        for report in self.reports:
            if (report.max_kl, report.cg_damping) != self._asked:
                found = report.max_kl, report.cg_damping
                raise AssertionError(f"max_kl and damping {found}; want {self._asked}, those of sb3-contrib")
        accepted = [report for report in self.reports if report.status == trpo_fast.Status.SUCCESS]
        for report in accepted:
            check_update(report.kl, report.improvement, self.agent.config.max_kl)
        timings = [sum(report.timings[key] for key in UPDATE_TIMINGS) for report in self.reports]
        still = self.clock.still_seconds()
        return Round(statistics.fmean(timings), still, steps / seconds, len(accepted) / updates)


class _TimedTRPO(sb3_contrib.TRPO):
    trainings: list[tuple[float, bool]]  # seconds, accepted

    def train(self) -> None:
        seconds = timed(super().train)
        logged = self.logger.name_to_value
        accepted = bool(logged["train/is_line_search_success"])
        if accepted:
            check_update(logged["train/kl_divergence_loss"], logged["train/policy_objective"], self.target_kl)
        self.trainings.append((seconds, accepted))


class Theirs:
    """sb3-contrib's TRPO."""

    name = "sb3-contrib"

    def __init__(self, env: str, seed: int) -> None:
        self.clock = _Clock(env)
        self.model = sb3_model(_TimedTRPO, self.clock.make, seed)

    def round(self, updates: int) -> Round:
        """Learn for `updates` updates."""
        self.model.trainings = []
        seconds = learn_sb3(self.model, updates)
        trainings, accepted = zip(*self.model.trainings, strict=True)
        still = self.clock.still_seconds()
        steps = updates * ENVIRONMENTS * STEPS
        return Round(statistics.fmean(trainings), still, steps / seconds, statistics.fmean(accepted))


def _action_dimensions(env: str) -> int:
    made = gym.make(env)
    shape = made.action_space.shape
    made.close()
    if not shape:
        raise SystemExit(f"--env: {env} given; want one with continuous actions")
    return int(shape[0])


def main(argv: list[str] | None = None) -> int:
    """Print the ratios and write every round as JSON."""
    parser = parser_for("bench.compare_sb3", __doc__)
    parser.add_argument("--overlap-critic", action="store_true", help="fit trpo_fast's critic on a second core")
    parser.add_argument("--preconditioner", help="of trpo_fast's conjugate gradient")
    parser.add_argument("--cg-iterations", type=int, default=CG_ITERATIONS, help="of trpo_fast (25)")
    for precision in PRECISIONS:
        parser.add_argument(f"--{precision.replace('_', '-')}", help="of trpo_fast's products (float32)")
    arguments = parse(parser, argv)
    given = {name: value for name in PRECISIONS if (value := getattr(arguments, name)) is not None}
    config = {
        "cg_iterations": arguments.cg_iterations,
        "overlap_critic": arguments.overlap_critic,
        "preconditioner": arguments.preconditioner,
        **given,
    }
    sides = (Ours(arguments.env, arguments.seed, config), Theirs(arguments.env, arguments.seed))
    rounds, cpu_share = alternate(
        sides, arguments.rounds, arguments.updates, arguments.threads + arguments.overlap_critic
    )
    middle = medians(rounds)
    ours, theirs = middle["trpo_fast"], middle["sb3-contrib"]
    still_ratio = theirs.still_seconds / ours.still_seconds
    update_ratio = theirs.update_seconds / ours.update_seconds
    speed_ratio = ours.steps_per_second / theirs.steps_per_second
    threads = f"{arguments.threads} thread{'s' if arguments.threads > 1 else ''} each"
    if arguments.overlap_critic:
        threads += ", trpo_fast's critic beside its rollout"
    if (arguments.cg_iterations, arguments.preconditioner) != (CG_ITERATIONS, None):
        threads += f", trpo_fast with preconditioner {arguments.preconditioner} and {arguments.cg_iterations} products"
    for name, value in given.items():
        threads += f", trpo_fast with {name.replace('_', ' ')} {value}"
    isa = describe()["instruction_set"]
    print(f"{arguments.env}, {ENVIRONMENTS} x {STEPS}, {threads}, {isa}, medians of {arguments.rounds} rounds")
    for name, median in middle.items():
        accepted = statistics.fmean(one.accepted for one in rounds[name])
        print(
            f"  {name:<12} update {1e3 * median.update_seconds:7.1f} ms   still {1e3 * median.still_seconds:7.1f} ms"
            f"   {median.steps_per_second:8,.0f} steps/s   {accepted:.0%} of updates accepted"
        )
    print(f"  ratio        update {update_ratio:7.2f} x    still {still_ratio:7.2f} x    {speed_ratio:8.2f} x")

    write(
        arguments.out,
        "bench.compare_sb3",
        argv,
        rounds,
        cpu_share,
        threads=threads,
        update_ratio=update_ratio,
        still_ratio=still_ratio,
        steps_per_second_ratio=speed_ratio,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
