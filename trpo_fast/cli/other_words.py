"""What people type who come from Stable-Baselines3 and its zoo, CleanRL or Tianshou, and what it is called here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

_RATE = "--max-kl for the policy, whose step has no learning rate, or --critic-learning-rate for the value function"
_ENV = "the environment by itself, as in: trpo-fast train CartPole-v1"
_TUNE = "trpo-fast tune ENV"
_EVENTS = "it left out: TensorBoard's events are in the run's folder, where tensorboard is installed"
_BATCH = "--steps-per-env times --num-envs, the samples of an update, or --critic-batch-size, those of the critic's"
_RESUME = "--resume RUN, a run's folder"
_OUT = "--out DIR, the run's folder"

_BY_MEANING: Mapping[str, Sequence[str]] = {
    _RATE: ("--lr", "--learning-rate", "--actor-lr", "--policy-lr"),
    "--critic-learning-rate": ("--critic-lr", "--vf-lr"),
    "--num-envs": ("--n-envs", "--num-env", "--training-num", "--env-num"),
    "--steps-per-env, the steps of each environment in a rollout": ("--n-steps", "--num-steps", "--step-per-collect"),
    _BATCH: ("--batch-size", "--minibatch-size", "--num-minibatches"),
    "--timesteps": ("--total-timesteps", "--n-timesteps", "--step-per-epoch", "-n"),
    "--timesteps, which counts steps and not epochs": ("--epoch", "--epochs", "--num-updates"),
    "it left out: there is one algorithm": ("--algo", "--algorithm", "--policy-type"),
    _ENV: ("--env", "--env-id", "--env-name", "--task"),
    "--env-kwargs JSON": ("--env-args",),
    "--max-kl": ("--target-kl", "--delta", "--kl-target", "--max-kl-divergence"),
    "--cg-iterations": ("--cg-max-steps", "--cg-iters", "--max-cg-iters"),
    "--damping": ("--cg-damping", "--damping-coef"),
    "--backtrack-factor": ("--line-search-shrinking-factor", "--backtrack-coeff"),
    "--max-backtracks": ("--line-search-max-iter", "--backtrack-iters"),
    "--fisher-subsample, its inverse": ("--sub-sampling-factor",),
    "--critic-epochs": ("--n-critic-updates", "--optim-critic-iters", "--vf-iters", "--repeat-per-collect"),
    "--critic-epochs, as the policy's step is one": ("--n-epochs", "--update-epochs"),
    "--entropy-coefficient": ("--ent-coef", "--entropy-coef"),
    "it left out: the critic has parameters, and a fit, of its own": ("--vf-coef",),
    "it left out: the bound on the KL, --max-kl, limits the step": ("--clip-range", "--clip-coef", "--max-grad-norm"),
    "--normalize-advantages": ("--normalize-advantage", "--norm-adv", "--advantage-normalization"),
    "--normalize-observations": ("--normalize", "--norm-obs", "--obs-norm"),
    "--scale-rewards": ("--norm-reward", "--rew-norm", "--reward-normalization"),
    "--hidden-sizes 64,64": ("--net-arch", "--hidden-size", "--hidden", "--layers"),
    "--hidden-sizes, --activation, --log-std-init and the like by themselves": ("--policy-kwargs",),
    "--activation": ("--activation-fn",),
    "--gae-lambda": ("--lam", "--gae-lam", "--lambda"),
    "--gamma": ("--discount", "--discount-factor"),
    "--critic-learning-rate-schedule linear (max_kl falls by itself)": ("--anneal-lr", "--lr-decay"),
    "trpo_fast.sb3.TRPO in Python, which has it": ("--use-sde",),
    "it left out, or --quiet": ("--verbose", "-v"),
    "it left out: there is a progress bar, but for --quiet": ("--progress", "--progress-bar", "-P"),
    _EVENTS: ("--tensorboard-log", "-tb"),
    _OUT: ("--log-folder", "--logdir", "--log-dir", "--save-path", "--exp-name", "--run-id", "-f"),
    _RESUME: ("--trained-agent", "--load", "--load-path", "--resume-path", "--resume-id", "-i"),
    "--checkpoint-every": ("--save-freq",),
    "it left out: trpo_fast.EvaluationCallback in Python evaluates during training": ("--eval-freq",),
    "--eval-episodes": ("--n-eval-episodes", "--eval-num", "--test-num"),
    "--episodes": ("--n-episodes", "--num-episodes"),
    "it left out, or --stochastic": ("--deterministic", "--no-deterministic"),
    "--device cuda": ("--cuda", "--gpu"),
    "--import MODULE": ("--gym-packages", "--gym-package"),
    "--vectorization": ("--vec-env", "--vec-env-type"),
    "--threads": ("--num-threads", "--torch-threads"),
    _TUNE: ("--optimize", "--optimize-hyperparameters", "-optimize"),
    "--trials": ("--n-trials", "--max-total-trials"),
    "--workers": ("--n-jobs",),
    "--study FILE": ("--storage", "--study-name", "--optimization-log-path"),
    "it left out: Optuna's TPE draws, and the median prunes": ("--sampler", "--pruner", "--n-startup-trials"),
    "--config FILE, or settings by their own options": (
        *("--hyperparams", "--hyperparameters", "--conf-file", "--yaml-file", "-params"),
    ),
}
OPTIONS: Mapping[str, str] = {word: meaning for meaning, words in _BY_MEANING.items() for word in words}
"""Options of theirs, and what to want in their place."""
COMMANDS: Mapping[str, str] = {
    **dict.fromkeys(("enjoy", "evaluate", "evaluation", "play", "test"), "eval RUN"),
    **dict.fromkeys(("optimize", "tuning", "sweep", "hyperopt"), "tune ENV"),
    **dict.fromkeys(("learn", "run", "fit"), "train ENV"),
    **dict.fromkeys(("resume", "continue"), "train --resume RUN"),
    **dict.fromkeys(("environments", "list"), "envs"),
    "benchmark": "bench",
    "version": "--version",
    "help": "--help",
}
_SIZES = ("--hidden-sizes", "--critic-hidden-sizes")


def separate_sizes(arguments: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """(option, sizes) where sizes of layers follow an option as several words: ``--hidden-sizes 64 64``."""
    words = list(arguments)
    for at, word in enumerate(words):
        if word in _SIZES:
            sizes = []
            for size in words[at + 1 :]:
                if not size.isdecimal():
                    break
                sizes.append(size)
            if len(sizes) > 1:
                yield word, sizes
