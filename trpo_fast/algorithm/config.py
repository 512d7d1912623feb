"""Every setting of the algorithm, its default and the reason for that default: one frozen dataclass.

A field is declared once, with its rule, its meaning and the reason for its value, those of a trust-region step in
`trpo_fast.solvers.settings`; validation, ``help(TRPOConfig)`` and the options of ``trpo-fast train`` are all made from
that declaration.
"""

from __future__ import annotations

import dataclasses
import math
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from trpo_fast._core.library import LARGEST_LAYER, in_words, require_choice
from trpo_fast.algorithm.schedules import SCHEDULED, SCHEDULES
from trpo_fast.recurrence import CELLS
from trpo_fast.settings import (
    COUNT,
    FLAG,
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_COUNT,
    SEED,
    Rule,
    Search,
    checked,
    choice,
    declared,
    document,
    integer,
    linear_range,
    log_range,
    names_near,
    one_of,
    real,
    setting,
)
from trpo_fast.solvers.settings import DirectionSettings, StepSettings
from trpo_fast.spaces import ACTION_MAPS
from trpo_fast.spaces.images import CHANNEL_AXES

Kind = TypeVar("Kind", DirectionSettings, StepSettings)


def _sizes(value: Any) -> tuple[int, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError
    return tuple(_SIZE.convert(size) for size in value)


FINITE = real("a finite number", math.isfinite)
_CLIP = real("a number > 0 (inf: no clipping)", lambda v: v > 0)
_FRACTION = real("a number in [0, 1]", lambda v: 0 <= v <= 1)
_PART = real("a number in (0, 1]", lambda v: 0 < v <= 1)
POSITIVE_INTEGER = integer("an integer >= 1", 1)
_TIMESTEPS = integer("an integer from 1 to 2**63 - 1", 1, 2**63 - 1)  # what a file keeps
EPISODES_REMEMBERED = 100  # as in Stable-Baselines3
RECENT_EPISODES = integer(
    f"an integer from 1 to {EPISODES_REMEMBERED}, the episodes that an agent remembers", 1, EPISODES_REMEMBERED
)
CHECKPOINT_SECONDS = 60.0  # the most training that a killed process loses; two updates, where they take longer
CHECKPOINTS_KEPT = 3
LOG_SINKS = ("csv", "jsonl", "tensorboard", "wandb", "table")


def _sinks(value: Any) -> tuple[str, ...]:
    names = [str(name).strip() for name in (value.split(",") if isinstance(value, str) else value)]
    if not names or not {*names} <= {*LOG_SINKS}:
        raise ValueError
    return tuple(dict.fromkeys(names))


LOG = Rule(f"some of {', '.join(LOG_SINKS)}, with commas between them", _sinks)
# Far beyond what is of use, and small enough that a product of two, in bytes, is a number that memory can refuse.
_SIZE = integer("an integer >= 1, at most 2**24", 1, LARGEST_LAYER)
_SCHEDULE = choice(*SCHEDULES)
_FISHER_IMAGES = 256
_SIZES = Rule("a sequence of integers >= 1, at most 2**24", _sizes)


def checked_timesteps(name: str, value: Any) -> int:
    """A positive number of timesteps, which may be a float like 1e6, as people write it."""
    whole = isinstance(value, float) and value.is_integer()
    timesteps: int = checked(name, int(value) if whole else value, _TIMESTEPS)
    return timesteps


def _by_network(
    network: str,
    mlp: Any,
    cnn: Callable[[TRPOConfig], Any],
    described: str,
    rule: Rule,
    meaning: str,
    *,
    why: str,
    recurrent: Any = None,
    search: Search | None = None,
) -> Any:
    """A setting whose default, None, is `mlp`, or what `cnn`, `described` in words, makes of the configuration.

    That goes by the kind of `network`, "policy" or "critic"; of recurrent ones it is `recurrent`, if given.
    """

    def convert(value: Any) -> Any:
        return None if value is None else rule.convert(value)

    metadata = {
        "rule": Rule(f"{rule.want}, or None", convert),
        "meaning": f"{meaning}; None: {mlp}, and where the {network} is the built-in CNN {described}"
        + ("" if recurrent is None else f", where it is a built-in recurrent one {recurrent}"),
        "why": why,
        "search": search,
        "by_network": (
            network,
            {"mlp": lambda _: mlp, "cnn": cnn, "recurrent": lambda _: mlp if recurrent is None else recurrent},
        ),
        "like": mlp,
    }
    return field(default=None, metadata=metadata)


@dataclass(frozen=True)
class TRPOConfig:
    """Settings of TRPO. A value that cannot work raises ValueError with the field, the value and what is wanted.

    Fields that depend on the kind of network are None until an agent is made; its ``config`` has their values.
    """

    # Rollout
    num_envs: int = setting(
        8,
        _SIZE,
        "environments stepped together",
        why="enough rows for one compiled acting call to cost less than the stepping it serves, few enough for long "
        "segments of each episode; taken from the environment when a VectorEnv is given",
    )
    steps_per_env: int = setting(
        256,
        _SIZE,
        "steps of each environment per update (rollout length)",
        why="8 x 256 = 2,048 samples an update, the batch of the published MuJoCo settings for on-policy methods",
        search=one_of(64, 128, 256, 512),
    )
    warm_up_steps: int = setting(
        256,
        COUNT,
        "steps of each environment before the first rollout, only to start the running statistics; no more than the "
        "training asks for, up to its horizon",
        why="covers whole episodes, so the first reward scale is not that of an episode's beginning: with 32, one of "
        "nine Pendulum-v1 runs never recovered from it; they train nothing and count as no timestep",
    )
    reset_on_checkpoint: int = setting(
        0,
        COUNT,
        "where nothing puts the environments back to the bit (docs/runs.md): updates after each of which all episodes "
        "are cut as truncations and the environments made anew, which is where checkpoints fall then, so that a "
        "resumed run has the bits of one that did not end; 0: never",
        why="it trains another sequence of episodes: longer ones are never seen to their end, and new environments "
        "take their time; every 50 updates, of the default size, cut 8 episodes in 102,400 steps",
    )
    # Trust region
    max_kl: float = declared(
        StepSettings,
        "max_kl",
        default=0.06,
        why="it falls over the training; 0.08 is worse on seed 0 of Ant-v5, and a constant 0.04 leaves last policies "
        "that fall at times (docs/defaults.md); libraries that average the KL over dimensions run larger joint values",
    )
    max_kl_schedule: str = setting(
        "linear",
        _SCHEDULE,
        "how max_kl falls over the training: from its value to 0 linearly or as half a cosine wave, or not at all",
        why="late updates are mostly noise, which small ones average: from 0.04 Walker2d-v5 ends at 4,592, for 4,423 "
        "of a constant 0.04, and Ant-v5 at 3,212 for 2,991, seed 0 of each, and Hopper-v5 at 2,577 for 2,628, two "
        "seeds (docs/defaults.md)",
        search=one_of("constant", "linear"),
    )
    kl_direction: str = declared(StepSettings, "kl_direction")
    damping: float = declared(DirectionSettings, "damping")
    cg_iterations: int = declared(DirectionSettings, "cg_iterations")
    cg_rtol: float = declared(DirectionSettings, "cg_rtol")
    cg_progress_tol: float = declared(DirectionSettings, "cg_progress_tol")
    relative_damping: float = declared(
        DirectionSettings,
        "relative_damping",
        default=0.1,
        why="a constant alone lets the standard deviation collapse: InvertedDoublePendulum-v5 ends at 6,719 to 8,895 "
        "where 0 leaves 64 to 2,552 (docs/defaults.md)",
    )
    preconditioner: str | None = declared(DirectionSettings, "preconditioner")
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
    reorthogonalize: bool = declared(DirectionSettings, "reorthogonalize")
    fisher_jacobians: str = declared(DirectionSettings, "fisher_jacobians")
    fisher_precision: str = declared(DirectionSettings, "fisher_precision")
    step_curvature: str = declared(StepSettings, "step_curvature")
    line_search: bool = declared(StepSettings, "line_search")
    backtrack_factor: float = declared(StepSettings, "backtrack_factor")
    max_backtracks: int = declared(StepSettings, "max_backtracks")
    entropy_coefficient: float = setting(
        0.0,
        NOT_NEGATIVE,
        "weight of the policy's mean entropy (nats) in the objective",
        why="the bound on the KL already slows the loss of entropy; raise it where exploration ends too early",
        search=one_of(0.0, 1e-4, 1e-3, 1e-2),
    )
    # Advantages
    gamma: float = setting(
        0.99,
        _FRACTION,
        "discount factor",
        why="the usual horizon of about 100 steps; with 0.995, its preset, none of ten policies of Hopper-v5 falls "
        "(docs/defaults.md)",
        search=one_of(0.9, 0.95, 0.98, 0.99, 0.995, 0.999),
    )
    gae_lambda: float = setting(
        0.9,
        _FRACTION,
        "lambda of generalized advantage estimation",
        why="less noise in each update than 0.95, which the GAE paper's range (0.92 to 0.98) has in its middle: seed 0 "
        "of Ant-v5 ends at 4,385 for 3,217 (docs/defaults.md)",
        search=one_of(0.8, 0.9, 0.92, 0.95, 0.98, 1.0),
    )
    critic_gae_lambda: float = setting(
        0.95,
        _FRACTION,
        "lambda of the returns that the critic is fitted to, values + advantages with it",
        why="with 0.9 as for the policy what comes late reaches the critic late: a boat of 200 steps an episode runs "
        "aground on 9 seeds of 12 after 100,000 timesteps, on 5 with this, on 3 with 0.95 for both "
        "(docs/defaults.md)",
        search=one_of(0.9, 0.95, 0.98, 1.0),
    )
    normalize_advantages: bool = setting(
        True,
        FLAG,
        "advantages get mean 0 and standard deviation 1 over the batch",
        why="makes damping and the gradient's size independent of the reward's unit",
    )
    # Networks
    policy: str = setting(
        "auto",
        choice("auto", "mlp", "cnn", *CELLS),
        "kind of both networks: mlp sees flat observations, cnn images and boards of two to four axes with finite "
        "bounds, which it divides by the largest and does not normalize, in a Dict or Tuple beside the flattened rest, "
        "which an MLP then sees with what the convolutions give; gru and lstm remember what they saw, by a cell of "
        "that kind between flat observations and the mlp (docs/recurrent.md); auto takes cnn for pixels (uint8 from 0 "
        "to 255: three or four axes, or two from 36 x 36 on) and mlp for everything else",
        why="pixels mean nothing to an MLP without their neighbourhood; whether a table of other numbers has "
        "neighbours, its space does not say",
    )
    channel_axis: str = setting(
        "auto",
        choice(*CHANNEL_AXES),
        "of a CNN: where each image has its channels, or planes; auto goes by the shape (docs/images.md), and refuses "
        "one that does not tell",
        why="a square image, or one with few channels, tells by itself",
    )
    recurrent_size: int = setting(
        64,
        _SIZE,
        "units of the cell of a gru or lstm, policy and critic",
        why="as wide as the hidden layers; it keeps what an episode needs to be told apart",
        search=one_of(32, 64, 128, of="recurrent"),
    )
    recurrent_critic: bool = setting(
        True,
        FLAG,
        "the value function of a recurrent policy has a cell of its own; False: it sees the observation alone",
        why="what the observation does not tell decides the return, too",
    )
    hidden_sizes: tuple[int, ...] = setting(
        (64, 64),
        _SIZES,
        "hidden layers of the policy, where it is an MLP or has one behind its convolutions or its cell",
        why="the network of the published MuJoCo results",
        search=one_of((32, 32), (64, 64), (128, 128), (256, 256)),
    )
    critic_hidden_sizes: tuple[int, ...] = setting(
        (64, 64),
        _SIZES,
        "hidden layers of the value function, where it is an MLP or has one behind its convolutions or its cell",
        why="as the policy's",
        search=one_of((32, 32), (64, 64), (128, 128), (256, 256)),
    )
    activation: str = setting(
        "tanh",
        choice("tanh", "relu", "elu", "leaky_relu", "sigmoid", "silu", "gelu", "softplus"),
        "activation of every hidden layer of MLPs, policy and critic",
        why="smooth, so the quadratic model of the KL holds over a whole step",
        search=one_of("tanh", "relu", "silu"),
    )
    log_std_init: float = setting(
        -1.0,
        FINITE,
        "initial log standard deviation of Gaussian actions",
        why="with a standard deviation of 1 most draws leave a box of [-1, 1] or shake it from side to side: Ant-v5 "
        "learns nothing, and HalfCheetah-v5 two fifths less in 300,000 timesteps (docs/defaults.md). Where only large "
        "actions find anything, as for Pendulum-v1, 0 is better",
        search=linear_range(-2.0, 0.5, of="gaussian"),
    )
    log_std_limit: float = setting(
        20.0,
        real("a number in (0, 43]", lambda v: 0 < v <= 43),
        "largest magnitude of the log standard deviation of Gaussian actions of a policy that is built here: what a "
        "step leaves beyond it is put back to it",
        why="far beyond what any box of actions needs, and far below 43, where float32 ends: an entropy bonus without "
        "a reward against it would get there, and no agent can act or be loaded beyond",
    )
    action_map: str = setting(
        "auto",
        choice(*ACTION_MAPS),
        "how Gaussian actions become those of a Box: affine takes the policy's [-1, 1] to the box, whose sides must be "
        "finite, clip takes its numbers as they are; both end at the bounds, and actions are stored, and their "
        "probabilities taken, before. auto is affine where all sides are finite, and clip elsewhere, for boxes that "
        "are [-1, 1] already and for a policy module of your own; what it chose is what is saved",
        why="noise of one size suits boxes of every size: a normal about 0 clipped to 0..200 or 8..40 is a constant, "
        "and learns nothing (docs/environments.md), and Pendulum-v1 and Pusher-v5, with sides at 2, learn better "
        "mapped (docs/defaults.md)",
    )
    mask_in_observation: str = setting(
        "obey",
        choice("obey", "observe"),
        "what becomes of the part 'action_mask' of a Dict observation that has the shape of a mask of the actions: "
        "obey takes it for the mask, where the environment has no action_masks(), and leaves it out of what the "
        "networks see; observe leaves it in, and nobody obeys it",
        why="environments of several packages have their mask there; a policy that is kept to it learns nothing from "
        "seeing it that its other observations do not say. Agents saved before there was this setting observe",
    )
    # Statistics
    normalize_observations: bool = setting(
        True,
        FLAG,
        "the policy sees (observation - mean) / std with running statistics, frozen during a rollout",
        why="MuJoCo observations differ by orders of magnitude between coordinates: HalfCheetah-v5 ends at 6,255 where "
        "False leaves 4,339. False is for tasks that are solved by keeping still, where starts become outliers: "
        "InvertedDoublePendulum-v5, whose preset it is (docs/defaults.md)",
    )
    observation_clip: float = setting(
        10.0,
        _CLIP,
        "largest magnitude of a normalized observation",
        why="ten standard deviations: only outliers of contact forces and first episodes are cut",
    )
    scale_rewards: bool = setting(
        True,
        FLAG,
        "rewards are divided by the running standard deviation of the discounted return",
        why="one critic learning rate then fits every task; reported returns stay in the environment's unit",
        search=one_of(True, False),
    )
    reward_clip: float = setting(
        10.0, _CLIP, "largest magnitude of a scaled reward", why="as observation_clip: only outliers are cut"
    )
    # Critic
    critic_epochs: int = _by_network(
        "critic",
        20,
        lambda _: 4,
        "4",
        POSITIVE_COUNT,
        "passes of Adam over each batch",
        recurrent=10,
        why="the published settings for MuJoCo, hidden behind the next rollout by overlap_critic, which 20 passes of a "
        "CNN are too long for; 4 learned MinAtar's Breakout as well (docs/images.md)",
        search=one_of(None, 5, 10, 40),
    )
    critic_batch_size: int = setting(
        128,
        _SIZE,
        "samples of one Adam step",
        why="as critic_epochs: 16 steps an epoch at 2,048 samples",
        search=one_of(64, 128, 256, 512),
    )
    critic_precision: str = setting(
        "float32",
        choice("float32", "bfloat16"),
        "of the numbers that products of the fit's hidden layers multiply: bfloat16 rounds them to eight bits and sums "
        "in float32, for an MLP critic in float32 that is trained whole, on CPUs that have AVX512_BF16 or BF16 "
        "instructions; with float32 they are of the networks' dtype. Parameters and Adam never are bfloat16",
        why="as fisher_precision: other numbers than those that the published returns were learned with",
    )
    critic_learning_rate: float = setting(
        1e-3,
        POSITIVE,
        "step size of Adam",
        why="Adam's default, right for returns of unit scale (scale_rewards)",
        search=log_range(1e-4, 1e-2),
    )
    critic_learning_rate_schedule: str = setting(
        "constant",
        _SCHEDULE,
        "how critic_learning_rate falls over the training: to 0 linearly or as half a cosine wave, or not at all",
        why="the critic follows a policy that never stops moving",
        search=one_of("constant", "linear"),
    )
    overlap_critic: bool = setting(
        True,
        FLAG,
        "with two cores or more, fit the critic of the last batch in a second thread while the next rollout steps; the "
        "same bits as without",
        why="the fit has nothing to do with stepping, so its time is hidden where a second core is free",
    )
    # Evaluation
    evaluation_max_steps: int = setting(
        50_000,
        POSITIVE_COUNT,
        "steps after which an evaluation leaves an episode that has not ended, and reports it as unfinished",
        why="many environments have no limit of their own, and a deterministic policy may go round in a circle in them "
        "for ever; the longest usual limit, of Atari games, is 27,000 steps (108,000 frames)",
    )
    # Machinery
    engine: str = setting(
        "auto",
        choice("auto", "native", "autograd"),
        "who computes gradient, Fisher products and KL: compiled kernels, or torch",
        why="auto takes the compiled kernels wherever they can serve the policy",
    )
    device: str = setting(
        "auto",
        choice("auto", "cpu", "cuda"),
        "where networks that are built here compute: auto puts CNNs on a CUDA device where there is one, all else on "
        "the CPU; solver, environments and statistics are on the CPU in any case. Modules of one's own stay where "
        "they are",
        why="the compiled kernels are faster for MLPs than a GPU is, and run on the CPU alone; auto in a file means "
        "what it means on the machine that loads it",
    )
    dtype: str = setting(
        "float32",
        choice("float32", "float64"),
        "precision of both networks and of the solve",
        why="with reorthogonalization float32 follows float64 to 1e-5, at half the memory traffic",
    )

    def __post_init__(self) -> None:
        if isinstance(self.policy, str) and self.policy in POLICIES_OF_OTHERS:
            want = POLICIES_OF_OTHERS[self.policy]
            raise ValueError(f"policy: {self.policy!r} given, Stable-Baselines3's name; want {want!r}")
        for entry in dataclasses.fields(self):
            given = getattr(self, entry.name)
            scheduled = entry.name.removesuffix("_schedule")
            if callable(given) and scheduled in SCHEDULED:
                raise ValueError(
                    f"{entry.name}: {in_words(given)} given; want a function of the progress in learn(..., "
                    f"schedules={{{scheduled!r}: function}})"
                )
            value = checked(entry.name, given, entry.metadata["rule"])
            object.__setattr__(self, entry.name, value)

    def replace(self, **changes: Any) -> TRPOConfig:
        """A copy with some fields changed; an unknown field raises TypeError with the names nearest to it."""
        check_field_names(changes)
        return dataclasses.replace(self, **changes)

    def resolved(self, *, policy: str, critic: str) -> TRPOConfig:
        """A copy in which every None that stands for the kind of a network is a number.

        Parameters
        ----------
        policy, critic : {"mlp", "cnn", "recurrent"}
            Which kind each is; a module of the user's own counts as "mlp".
        """
        kinds, found = {"policy": policy, "critic": critic}, {}
        for entry in dataclasses.fields(self):
            if "by_network" in entry.metadata and getattr(self, entry.name) is None:
                network, defaults = entry.metadata["by_network"]
                found[entry.name] = defaults[require_choice(network, kinds[network], defaults)](self)
        return dataclasses.replace(self, **found)

    @property
    def direction_settings(self) -> DirectionSettings:
        """What the direction of a step is found with."""
        return _part_of(self, DirectionSettings)

    @property
    def step_settings(self) -> StepSettings:
        """How far a step may go, at the beginning of the training where `max_kl_schedule` lets that fall."""
        return _part_of(self, StepSettings)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON has them, infinity as ``"inf"``; :meth:`from_dict` is the inverse."""
        values = dataclasses.asdict(self)
        return {name: _to_json(value) for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TRPOConfig:
        """The config of a mapping as read from JSON; fields that are missing keep their defaults."""
        check_field_names(_mapping(values))
        fields: dict[str, Any] = {
            name: math.inf if isinstance(value, str) and value == "inf" else value for name, value in values.items()
        }
        return cls(**fields)

    @classmethod
    def from_saved(cls, values: Mapping[str, Any]) -> TRPOConfig:
        """As :meth:`from_dict`, of a saved agent or run: a field that it lacks is what there was before the field.

        ValueError where it lacks one that every file has.
        """
        values = with_what_was_before(_mapping(values))
        for entry in dataclasses.fields(cls):
            if entry.name not in values:
                raise ValueError(f"config.{entry.name}: missing; want the value that the agent was trained with")
        return cls.from_dict(values)


def _mapping(values: Any) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise TypeError(f"values: {in_words(values)} given; want a mapping of fields")
    return values


# Fields that files of older versions lack, and what there was before them.
_BEFORE = {
    **{"action_map": "clip", "channel_axis": "auto", "device": "auto", "fisher_jacobians": "never"},
    **{"critic_precision": "float32", "fisher_precision": "float32", "relative_damping": 0.0},
    **{"recurrent_size": 64, "recurrent_critic": True},
    **{"evaluation_max_steps": 50_000, "log_std_limit": 20.0, "reset_on_checkpoint": 0},
    "mask_in_observation": "observe",
}


def with_what_was_before(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a saved agent or run, and what there was before the fields that they lack."""
    values = {**_BEFORE, **values}
    if "gae_lambda" in values:
        values.setdefault("critic_gae_lambda", values["gae_lambda"])  # there was one for both
    return values


BUILT_BY = frozenset(
    {
        *("hidden_sizes", "critic_hidden_sizes", "activation", "log_std_init", "dtype"),
        *("recurrent_size", "recurrent_critic"),
        *("action_map", "channel_axis", "normalize_observations", "observation_clip", "scale_rewards"),
        "mask_in_observation",
    }
)
"""Fields that decide what networks and statistics an agent has, and so what is in its file: fixed once it is made."""


def _part_of(config: TRPOConfig, kind: type[Kind]) -> Kind:
    return kind(**{entry.name: getattr(config, entry.name) for entry in dataclasses.fields(kind)})


def _to_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return "inf" if value == math.inf else value


def seed_or_drawn(seed: Any) -> int:
    """`seed`, checked; None: one drawn from the system."""
    return secrets.randbelow(2**31) if seed is None else int(checked("seed", seed, SEED))


POLICIES_OF_OTHERS = {
    **{"MlpPolicy": "mlp", "CnnPolicy": "cnn", "MultiInputPolicy": "auto"},
    **dict.fromkeys(("MlpLstmPolicy", "CnnLstmPolicy", "MultiInputLstmPolicy"), "lstm"),
}
"""What Stable-Baselines3's names of policies are called here."""
_OTHERS = {
    "n_steps": "steps_per_env, the steps of each environment in a rollout",
    "n_envs": "num_envs",
    "batch_size": "steps_per_env times num_envs, or critic_batch_size, the minibatches of the critic's fit",
    "learning_rate": "max_kl for the policy, whose step has no learning rate, or critic_learning_rate",
    "n_critic_updates": "critic_epochs",
    "target_kl": "max_kl",
    "cg_max_steps": "cg_iterations",
    "cg_damping": "damping",
    "line_search_shrinking_factor": "backtrack_factor",
    "line_search_max_iter": "max_backtracks",
    "sub_sampling_factor": "fisher_subsample, its inverse",
    "normalize_advantage": "normalize_advantages",
    "ent_coef": "entropy_coefficient",
    "vf_coef": "it left out: the critic has parameters, and a fit, of its own",
    "policy_kwargs": "hidden_sizes, activation, log_std_init and the like by themselves",
    "use_sde": "trpo_fast.sb3.TRPO, which has it",
    "verbose": "learn(..., progress_bar=True), or learn(..., callback=RunLogger(folder))",
    "tensorboard_log": "learn(..., callback=RunLogger(folder)), which writes TensorBoard's events, too",
}
"""What fields of other libraries' TRPO are called here."""


def check_field_names(names: Iterable[str]) -> None:
    """Raise TypeError for the first name that is no field of :class:`TRPOConfig`."""
    known = [entry.name for entry in dataclasses.fields(TRPOConfig)]
    for name in names:
        if name not in known:
            near = f"want {_OTHERS[name]}" if name in _OTHERS else names_near(name, known, "the fields are")
            raise TypeError(f"{in_words(name)} is no field of TRPOConfig; {near}")


document(TRPOConfig)
