"""Every setting of the algorithm, its default and the reason for that default: one frozen dataclass.

A field is declared once, with its rule, its meaning and the reason for its value; validation, ``help(TRPOConfig)`` and
the options of ``trpo-fast train`` are all made from that declaration.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trpo_fast._core.library import as_double, in_words
from trpo_fast.algorithm.schedules import SCHEDULES
from trpo_fast.spaces import ACTION_MAPS
from trpo_fast.spaces.images import CHANNEL_AXES


@dataclass(frozen=True)
class Rule:
    """What a field accepts: ``convert`` returns the stored value or raises ValueError; ``want`` says it in words."""

    want: str
    convert: Callable[[Any], Any]


def checked(name: str, value: Any, rule: Rule) -> Any:
    """``value`` as ``rule`` stores it; ValueError naming ``name``, the value and what is wanted."""
    try:
        return rule.convert(value)
    except ValueError:
        raise ValueError(f"{name}: {in_words(value)} given; want {rule.want}") from None


def _real(want: str, accepts: Callable[[float], bool]) -> Rule:
    def convert(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise ValueError
        number = as_double(value, want)  # ValueError where none is as large
        if not accepts(number):  # NaN fails every comparison, so it is never accepted
            raise ValueError
        return number

    return Rule(want, convert)


def _integer(want: str, least: int, most: float = math.inf) -> Rule:
    def convert(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not least <= int(value) <= most:
            raise ValueError
        return int(value)

    return Rule(want, convert)


def _choice(*names: str | None) -> Rule:
    def convert(value: Any) -> str | None:
        if not (value is None or isinstance(value, str)) or value not in names:
            raise ValueError
        return value

    return Rule("one of " + ", ".join(map(repr, names)), convert)


def _sizes(value: Any) -> tuple[int, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ValueError
    return tuple(_SIZE.convert(size) for size in value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


_POSITIVE = _real("a finite number > 0", lambda v: 0 < v < math.inf)
_NOT_NEGATIVE = _real("a finite number >= 0", lambda v: 0 <= v < math.inf)
FINITE = _real("a finite number", math.isfinite)
_CLIP = _real("a number > 0 (inf: no clipping)", lambda v: v > 0)
_FRACTION = _real("a number in [0, 1]", lambda v: 0 <= v <= 1)
_PART = _real("a number in (0, 1]", lambda v: 0 < v <= 1)
_INNER_FRACTION = _real("a number in (0, 1)", lambda v: 0 < v < 1)
POSITIVE_INTEGER = _integer("an integer >= 1", 1)
RECENT_EPISODES = _integer("an integer from 1 to 100, the episodes that an agent remembers", 1, 100)
SEED = _integer("an integer from 0 to 2**32 - 1", 0, 2**32 - 1)
COUNTER = _integer("an integer from 0 to 2**63 - 1", 0, 2**63 - 1)
_COUNT = _integer("an integer >= 0, below 2**31", 0, 2**31 - 1)  # the core's counters are C integers
_POSITIVE_COUNT = _integer("an integer >= 1, below 2**31", 1, 2**31 - 1)
# Far beyond what is of use, and small enough that a product of two, in bytes, is a number that memory can refuse.
_SIZE = _integer("an integer >= 1, at most 2**24", 1, 2**24)
_FLAG = Rule("True or False", _flag)
_SCHEDULE = _choice(*SCHEDULES)
_FISHER_IMAGES = 256
_SIZES = Rule("a sequence of integers >= 1, at most 2**24", _sizes)


def _setting(default: Any, rule: Rule, meaning: str, *, why: str) -> Any:
    return field(default=default, metadata={"rule": rule, "meaning": meaning, "why": why})


def _by_network(
    network: str, mlp: Any, cnn: Callable[[TRPOConfig], Any], described: str, rule: Rule, meaning: str, *, why: str
) -> Any:
    """A setting whose default, None, is `mlp`, or what `cnn`, `described` in words, makes of the configuration.

    That goes by the kind of `network`, "policy" or "critic".
    """

    def convert(value: Any) -> Any:
        return None if value is None else rule.convert(value)

    metadata = {
        "rule": Rule(f"{rule.want}, or None", convert),
        "meaning": f"{meaning}; None: {mlp}, and where the {network} is the built-in CNN {described}",
        "why": why,
        "by_network": (network, {"mlp": lambda _: mlp, "cnn": cnn}),
        "like": mlp,
    }
    return field(default=None, metadata=metadata)


@dataclass(frozen=True)
class TRPOConfig:
    """Settings of TRPO. A value that cannot work raises ValueError with the field, the value and what is wanted.

    Fields that depend on the kind of network are None until an agent is made; its ``config`` has their values.
    """

    # Rollout
    num_envs: int = _setting(
        8,
        _SIZE,
        "environments stepped together",
        why="enough rows for one compiled acting call to cost less than the stepping it serves, few enough for long "
        "segments of each episode; taken from the environment when a VectorEnv is given",
    )
    steps_per_env: int = _setting(
        256,
        _SIZE,
        "steps of each environment per update (rollout length)",
        why="8 x 256 = 2,048 samples an update, the batch of the published MuJoCo settings for on-policy methods",
    )
    warm_up_steps: int = _setting(
        256,
        _COUNT,
        "steps of each environment before the first rollout, only to start the running statistics",
        why="covers whole episodes, so the first reward scale is not that of an episode's beginning: with 32, one of "
        "nine Pendulum-v1 runs never recovered from it; they train nothing and count as no timestep",
    )
    # Trust region
    max_kl: float = _setting(
        0.02,
        _POSITIVE,
        "trust region delta: largest mean KL, summed over action dimensions, of one update (nats)",
        why="the paper's 0.01 is cautious for joint KL with many action dimensions; libraries that average KL over "
        "dimensions run several times larger joint values by default",
    )
    max_kl_schedule: str = _setting(
        "constant",
        _SCHEDULE,
        "how max_kl falls over the training: from its value to 0 linearly or as half a cosine wave, or not at all",
        why="the trust region already adapts each step to the policy; a decay is for a last polish",
    )
    kl_direction: str = _setting(
        "new_old",
        _choice("new_old", "old_new"),
        "which KL is bounded: new_old is KL(pi_theta || pi_old), old_new the TRPO paper's KL(pi_old || pi_theta)",
        why="the constraint of the text this library implements; both have the same Hessian at theta_old",
    )
    damping: float = _setting(
        0.1,
        _NOT_NEGATIVE,
        "lambda of (F + lambda I) x = g",
        why="the value of the TRPO implementations that published results; it bounds the step along directions that "
        "the samples say nothing about",
    )
    cg_iterations: int = _setting(
        10,
        _SIZE,
        "largest number of conjugate-gradient iterations, one Fisher product each",
        why="over ten seeds of Hopper, HalfCheetah and Walker2d (docs/learning.md) training returns are at "
        "least those of 25 iterations on all three, 1.2 times on HalfCheetah, at less cost; the intervals of the final "
        "policies overlap",
    )
    cg_rtol: float = _setting(
        1e-10,
        _NOT_NEGATIVE,
        "goal of the solve: ||g - A x|| / ||g||; 0 spends all iterations",
        why="small enough that only a solved system (tiny policies) stops early",
    )
    cg_progress_tol: float = _setting(
        0.0,
        _NOT_NEGATIVE,
        "stop the solve when the last 10 iterations (or a tenth of all) lowered x'(F + lambda I)x/2 - g'x by less than "
        "this part of it each; 0: never",
        why="needs at least ten iterations to judge by; for solves of many iterations, 5e-4 is Martens's choice (2010)",
    )
    preconditioner: str | None = _setting(
        None,
        _choice("kfac", "diagonal", None),
        "of the solve, native engine only: Kronecker-factored blocks (kfac) or the diagonal of F, from the batch "
        "itself; None: plain CG",
        why="in the same study five kfac products, which solve as well as 25 plain ones, did best on Hopper and worst "
        "on HalfCheetah (2,609 against 4,504 with 10 plain ones): a better solve is not always a better update",
    )
    fisher_subsample: float = _by_network(
        "policy",
        1.0,
        lambda config: min(1.0, max(0.1, _FISHER_IMAGES / (config.num_envs * config.steps_per_env))),
        f"a tenth, or {_FISHER_IMAGES} samples where that is more",
        _PART,
        "part of the batch that F is averaged over, drawn anew for every update; gradient and line search use all",
        why="a Fisher product of a whole batch is cheap for an MLP; for a CNN ten of them cost more than all else but "
        "the critic (docs/images.md), and a tenth of few samples does not know the KL of a step: with 3 of 32 the line "
        "search gave up",
    )
    reorthogonalize: bool = _setting(
        True,
        _FLAG,
        "keep CG's residuals orthogonal explicitly",
        why="float32 CG loses orthogonality after about ten products on real policies; the repair costs under 1%",
    )
    step_curvature: str = _setting(
        "fisher",
        _choice("fisher", "damped"),
        "curvature of the step size sqrt(2 delta / curvature): fisher is x'Fx, damped x'(F + lambda I)x",
        why="the quadratic model of the KL is x'Fx, so the first trial aims exactly at max_kl",
    )
    line_search: bool = _setting(
        True,
        _FLAG,
        "backtrack until the step improves within the trust region; False takes the full step as it is: natural policy "
        "gradient with a step normalized by max_kl",
        why="it is what makes the bound on the KL hold; without it, max_kl is only what the quadratic model promises",
    )
    backtrack_factor: float = _setting(
        0.8,
        _INNER_FRACTION,
        "ratio of one trial step of the line search to the one before",
        why="the factor of the published implementations; KL is quadratic in the step, so one backtrack takes 36% off",
    )
    max_backtracks: int = _setting(
        10,
        _COUNT,
        "backtracks before the step is given up; 0 tries the full step only",
        why="0.8^10 is a tenth of the step; a direction that fails there is better dropped with its batch",
    )
    entropy_coefficient: float = _setting(
        0.0,
        _NOT_NEGATIVE,
        "weight of the policy's mean entropy (nats) in the objective",
        why="the bound on the KL already slows the loss of entropy; raise it where exploration ends too early",
    )
    # Advantages
    gamma: float = _setting(0.99, _FRACTION, "discount factor", why="the usual horizon of about 100 steps")
    gae_lambda: float = _setting(
        0.95,
        _FRACTION,
        "lambda of generalized advantage estimation",
        why="the middle of the range that the GAE paper found best (0.92 to 0.98)",
    )
    normalize_advantages: bool = _setting(
        True,
        _FLAG,
        "advantages get mean 0 and standard deviation 1 over the batch",
        why="makes damping and the gradient's size independent of the reward's unit",
    )
    # Networks
    policy: str = _setting(
        "auto",
        _choice("auto", "mlp", "cnn"),
        "kind of both networks: mlp sees flat observations, cnn images and boards of two to four axes with finite "
        "bounds, which it divides by the largest and does not normalize; auto takes cnn for pixels (uint8 from 0 to "
        "255: three or four axes, or two from 36 x 36 on) and mlp for everything else",
        why="pixels mean nothing to an MLP without their neighbourhood; whether a table of other numbers has "
        "neighbours, its space does not say",
    )
    channel_axis: str = _setting(
        "auto",
        _choice(*CHANNEL_AXES),
        "of a CNN: where each image has its channels, or planes; auto goes by the shape (docs/images.md), and refuses "
        "one that does not tell",
        why="a square image, or one with few channels, tells by itself",
    )
    hidden_sizes: tuple[int, ...] = _setting(
        (64, 64),
        _SIZES,
        "hidden layers of the policy, where it is an MLP",
        why="the network of the published MuJoCo results",
    )
    critic_hidden_sizes: tuple[int, ...] = _setting(
        (64, 64), _SIZES, "hidden layers of the value function, where it is an MLP", why="as the policy's"
    )
    activation: str = _setting(
        "tanh",
        _choice("tanh", "relu", "elu", "leaky_relu", "sigmoid"),
        "activation of every hidden layer of MLPs, policy and critic",
        why="smooth, so the quadratic model of the KL holds over a whole step",
    )
    log_std_init: float = _setting(
        0.0,
        FINITE,
        "initial log standard deviation of Gaussian actions",
        why="standard deviation 1 covers the usual action range of [-1, 1]; with -0.5, HalfCheetah-v5 learned better "
        "gaits but four of four Hopper-v5 runs stopped exploring and stayed below 2,100",
    )
    action_map: str = _setting(
        "auto",
        _choice(*ACTION_MAPS),
        "how Gaussian actions become those of a Box: affine takes the policy's [-1, 1] to the box, whose sides must be "
        "finite, clip takes its numbers as they are; both end at the bounds, and actions are stored, and their "
        "probabilities taken, before. auto is affine where all sides are finite and one of them is farther than 3 from "
        "0 or has 0 beyond it, and clip elsewhere and for a policy module of your own; what it chose is what is saved",
        why="a standard normal clipped to 0..200 or 8..40 is a constant, and learns nothing "
        "(docs/environments.md has both maps on raw-unit environments); boxes up to [-3, 3] stay as they were measured",
    )
    # Statistics
    normalize_observations: bool = _setting(
        True,
        _FLAG,
        "the policy sees (observation - mean) / std with running statistics, frozen during a rollout",
        why="MuJoCo observations differ by orders of magnitude between coordinates",
    )
    observation_clip: float = _setting(
        10.0,
        _CLIP,
        "largest magnitude of a normalized observation",
        why="ten standard deviations: only outliers of contact forces and first episodes are cut",
    )
    scale_rewards: bool = _setting(
        True,
        _FLAG,
        "rewards are divided by the running standard deviation of the discounted return",
        why="one critic learning rate then fits every task; reported returns stay in the environment's unit",
    )
    reward_clip: float = _setting(
        10.0, _CLIP, "largest magnitude of a scaled reward", why="as observation_clip: only outliers are cut"
    )
    # Critic
    critic_epochs: int = _by_network(
        "critic",
        20,
        lambda _: 4,
        "4",
        _POSITIVE_COUNT,
        "passes of Adam over each batch",
        why="the published settings for MuJoCo, hidden behind the next rollout by overlap_critic, which 20 passes of a "
        "CNN are too long for; 4 learned MinAtar's Breakout as well (docs/images.md)",
    )
    critic_batch_size: int = _setting(
        128, _SIZE, "samples of one Adam step", why="as critic_epochs: 16 steps an epoch at 2,048 samples"
    )
    critic_learning_rate: float = _setting(
        1e-3, _POSITIVE, "step size of Adam", why="Adam's default, right for returns of unit scale (scale_rewards)"
    )
    critic_learning_rate_schedule: str = _setting(
        "constant",
        _SCHEDULE,
        "how critic_learning_rate falls over the training: to 0 linearly or as half a cosine wave, or not at all",
        why="the critic follows a policy that never stops moving",
    )
    overlap_critic: bool = _setting(
        True,
        _FLAG,
        "fit the critic of the last batch in a second thread while the next rollout steps; the same bits as without",
        why="the fit has nothing to do with stepping, so its time is hidden where a second core is free",
    )
    # Evaluation
    evaluation_max_steps: int = _setting(
        50_000,
        _POSITIVE_COUNT,
        "steps after which an evaluation leaves an episode that has not ended, and reports it as unfinished",
        why="many environments have no limit of their own, and a deterministic policy may go round in a circle in them "
        "for ever; the longest usual limit, of Atari games, is 27,000 steps (108,000 frames)",
    )
    # Machinery
    engine: str = _setting(
        "auto",
        _choice("auto", "native", "autograd"),
        "who computes gradient, Fisher products and KL: compiled kernels, or torch",
        why="auto takes the compiled kernels wherever they can serve the policy",
    )
    device: str = _setting(
        "auto",
        _choice("auto", "cpu", "cuda"),
        "where networks that are built here compute: auto puts CNNs on a CUDA device where there is one, all else on "
        "the CPU; solver, environments and statistics are on the CPU in any case. Modules of one's own stay where "
        "they are",
        why="the compiled kernels are faster for MLPs than a GPU is, and run on the CPU alone; auto in a file means "
        "what it means on the machine that loads it",
    )
    dtype: str = _setting(
        "float32",
        _choice("float32", "float64"),
        "precision of both networks and of the solve",
        why="with reorthogonalization float32 follows float64 to 1e-5, at half the memory traffic",
    )

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            value = checked(entry.name, getattr(self, entry.name), entry.metadata["rule"])
            object.__setattr__(self, entry.name, value)

    def replace(self, **changes: Any) -> TRPOConfig:
        """A copy with some fields changed; an unknown field raises TypeError with the names nearest to it."""
        check_field_names(changes)
        return dataclasses.replace(self, **changes)

    def resolved(self, **kinds: str) -> TRPOConfig:
        """A copy in which every None that stands for the kind of a network is a number.

        Parameters
        ----------
        policy, critic : {"mlp", "cnn"}
            Which kind each is; a module of the user's own counts as "mlp".
        """
        found = {}
        for entry in dataclasses.fields(self):
            if "by_network" in entry.metadata and getattr(self, entry.name) is None:
                network, defaults = entry.metadata["by_network"]
                found[entry.name] = defaults[kinds[network]](self)
        return dataclasses.replace(self, **found)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able mapping of every field; :meth:`from_dict` is its inverse. (JSON has no infinity: ``"inf"``.)"""
        values = dataclasses.asdict(self)
        return {name: _to_json(value) for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TRPOConfig:
        """The config of a mapping as read from JSON; fields that are missing keep their defaults."""
        check_field_names(values)
        fields: dict[str, Any] = {name: math.inf if value == "inf" else value for name, value in values.items()}
        return cls(**fields)

    @classmethod
    def from_saved(cls, values: Mapping[str, Any]) -> TRPOConfig:
        """As :meth:`from_dict`, of a saved agent or run: a field that it lacks is what there was before the field."""
        return cls.from_dict({"action_map": "clip", **values})


BUILT_BY = frozenset(
    {
        *("hidden_sizes", "critic_hidden_sizes", "activation", "log_std_init", "dtype"),
        *("action_map", "channel_axis", "normalize_observations", "observation_clip", "scale_rewards"),
    }
)
"""Fields that decide what networks and statistics an agent has, and so what is in its file: fixed once it is made."""


def _to_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return "inf" if value == math.inf else value


def names_near(name: str, known: Collection[str], otherwise: str) -> str:
    """Names of `known` that `name` may have been meant to be; all of them, after `otherwise`, where none is near."""
    near = difflib.get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"{otherwise} {', '.join(known)}"


def check_field_names(names: Iterable[str]) -> None:
    """Raise TypeError for the first name that is no field of :class:`TRPOConfig`."""
    known = [entry.name for entry in dataclasses.fields(TRPOConfig)]
    for name in names:
        if name not in known:
            raise TypeError(f"{name!r} is no field of TRPOConfig; {names_near(name, known, 'the fields are')}")


TRPOConfig.__doc__ = f"{TRPOConfig.__doc__}\n\nAttributes\n----------\n" + "\n".join(
    f"{entry.name} : {entry.type}, default {entry.default!r}\n"
    f"    {entry.metadata['meaning']}. Want: {entry.metadata['rule'].want}.\n"
    f"    Why {entry.default!r}: {entry.metadata['why']}."
    for entry in dataclasses.fields(TRPOConfig)
)
