"""The policy and the critic of an agent: built from the configuration, or given as torch modules."""

from __future__ import annotations

import contextlib
import copy
import math
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, cast

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces.utils import flatten
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Distribution

from trpo_fast._core.library import in_words
from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.engines.binding import checked_step, plain_module
from trpo_fast.engines.checks import check_critic, check_policy, check_recurrent
from trpo_fast.gymnasium_spaces import (
    action_layout,
    described,
    described_actions,
    numeric_columns,
    observation_size,
    unreached_sides,
)
from trpo_fast.policies.cnn import CNNCritic, CNNPolicy
from trpo_fast.policies.distributions import Product, choices_of, divergence, family_of, kind_without
from trpo_fast.policies.mlp import MLPCritic, MLPPolicy
from trpo_fast.policies.multi_input import MultiInputCritic, MultiInputPolicy
from trpo_fast.policies.recurrent import (
    RecurrentCritic,
    RecurrentModule,
    RecurrentPolicy,
    is_recurrent,
)
from trpo_fast.recurrence import CELLS
from trpo_fast.spaces import REACH, ActionLayout, Box, Leaf, leaves
from trpo_fast.spaces.images import fits_bytes, flattened_images, has_images, input_parts, is_image

CONVOLVING = (CNNPolicy, CNNCritic, MultiInputPolicy, MultiInputCritic)

LAYERED = (MLPPolicy, MLPCritic, MultiInputPolicy, MultiInputCritic, RecurrentPolicy, RecurrentCritic)

_PROBES = 5  # rows that a module of one's own is checked on

Network = nn.Module | Callable[[gym.Space[Any], gym.Space[Any], int], nn.Module]
"""A module, or what makes one from (observation_space, action_space, seed); a class for example."""


class Networks(NamedTuple):
    """What an agent trains."""

    policy: nn.Module
    critic: nn.Module
    own: dict[str, str | None]
    """Class of "policy" and of "critic" where they were given, None where they were built here."""
    observation_shape: tuple[int, ...] | None
    """What rows are reshaped to for them: the shape of a Box; None (flat rows) for every other space."""
    raw: NDArray[np.bool_]
    """(D,) columns that they want as they are: those of images, also where a module of one's own sees pixels."""
    bytes: bool
    """Whether they take observations as uint8."""

    @property
    def recurrent(self) -> bool:
        """Whether the policy is."""
        return is_recurrent(self.policy)

    @property
    def kinds(self) -> dict[str, str]:
        """What each is, for settings that depend on it: "recurrent" or "cnn" (one with convolutions) where it is a
        built-in one, else "mlp"."""
        return {name: "mlp" if self.own[name] is not None else _kind(getattr(self, name)) for name in self.own}


def make_networks(
    config: TRPOConfig,
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    seeds: tuple[int, int],
    *,
    policy: Network | None = None,
    critic: Network | None = None,
    kind: str | None = None,
) -> Networks:
    """Policy and critic for the spaces of one environment.

    Parameters
    ----------
    seeds : (int, int)
        Of the initial weights of policy and critic.
    policy, critic : module or callable, optional
        The user's own. A critic that is not given is a GRU or LSTM for a recurrent policy, where `recurrent_critic`
        asks for one; a CNN for images, unless the policy is the MLP of the configuration; and an MLP for everything
        else.
    kind : {"mlp", "cnn"}, optional
        What "auto" meant to the agent that was saved.

    Raises
    ------
    ValueError, TypeError
        The device is not here, or cannot have such a policy.
        What is given is no module, has another dtype than the configuration's, shares parameters with the other, or
        does not return, for rows of zeros, a distribution over the actions, with the KL divergence and the entropy that
        an update needs, or a value for each row; or a check of `trpo_fast.engines.checks` fails.
    """
    dtype, axis = getattr(torch, config.dtype), config.channel_axis
    space = described(observation_space)
    if config.policy != "auto" or kind is None:
        kind = config.policy if config.policy != "auto" else "cnn" if has_images(space, axis) else "mlp"
    convolve = is_image(space, axis) if policy is not None else kind == "cnn"
    if kind in CELLS and config.device == "cuda":
        raise ValueError(f"device: 'cuda' given; want 'auto' or 'cpu' with policy={kind!r}, whose cell is compiled")
    cell: dict[str, Any] = {"units": config.recurrent_size, "activation": config.activation, "dtype": dtype}
    mixed: dict[str, Any] | None = None
    if convolve and not isinstance(space, Leaf):
        mixed = {"activation": config.activation, "channel_axis": axis, "boards": config.policy == "cnn"}
    built: dict[str, nn.Module] = {}
    for (name, given), seed in zip((("policy", policy), ("critic", critic)), seeds, strict=True):
        if given is not None:
            built[name] = _given(name, given, observation_space, action_space, seed, dtype)
        elif name == "critic" and config.recurrent_critic and is_recurrent(built["policy"]) and not convolve:
            cell_kind = kind if kind in CELLS else "gru"
            built[name] = RecurrentCritic(
                cell_kind, observation_space, hidden_sizes=config.critic_hidden_sizes, seed=seed, **cell
            )
        elif name == "critic" and mixed is not None:
            sizes = config.critic_hidden_sizes
            built[name] = MultiInputCritic(observation_space, sizes, **mixed, dtype=dtype, seed=seed)
        elif mixed is not None:
            start = {"log_std_init": config.log_std_init, "dtype": dtype, "seed": seed}
            built[name] = MultiInputPolicy(observation_space, action_space, config.hidden_sizes, **mixed, **start)
        elif name == "critic" and convolve:
            built[name] = CNNCritic(observation_space, channel_axis=axis, dtype=dtype, seed=seed)
        elif name == "critic":
            sizes = config.critic_hidden_sizes
            built[name] = MLPCritic(observation_space, sizes, config.activation, dtype=dtype, seed=seed)
        elif kind in CELLS:
            built[name] = RecurrentPolicy(
                kind,
                observation_space,
                action_space,
                hidden_sizes=config.hidden_sizes,
                log_std_init=config.log_std_init,
                seed=seed,
                **cell,
            )
        elif kind == "cnn":
            built[name] = CNNPolicy(
                observation_space,
                action_space,
                log_std_init=config.log_std_init,
                channel_axis=axis,
                dtype=dtype,
                seed=seed,
            )
        else:
            built[name] = MLPPolicy(
                observation_space,
                action_space,
                hidden_sizes=config.hidden_sizes,
                activation=config.activation,
                log_std_init=config.log_std_init,
                dtype=dtype,
                seed=seed,
            )
        if given is None:
            built[name].to(_device_for(config.device, isinstance(built[name], CONVOLVING)))
    _check_nothing_shared(built["policy"], built["critic"])
    shape = observation_space.shape if isinstance(observation_space, gym.spaces.Box) else None
    rows = torch.zeros(2, *(shape or (observation_size(observation_space),)), dtype=dtype)
    probes = []
    if policy is not None or critic is not None:
        probes = _probes(observation_space, rows, normalized=not convolve)
    if policy is not None:
        _check_policy(built["policy"], rows, action_layout(action_space), config.entropy_coefficient)
        if is_recurrent(built["policy"]):
            check_recurrent("policy", built["policy"], probes)
        else:
            check_policy(built["policy"], probes)
    if critic is not None:
        _check_critic(built["critic"], rows)
        if is_recurrent(built["critic"]):
            check_recurrent("critic", built["critic"], probes)
        else:
            check_critic(built["critic"], probes)
    own = {
        name: _name_of(built[name]) if given else None for name, given in _both(policy is not None, critic is not None)
    }
    raw = np.full(observation_size(observation_space), convolve)
    if mixed is not None:
        for part in input_parts(space, axis, boards=config.policy == "cnn").others:
            raw[part] = False
    return Networks(built["policy"], built["critic"], own, shape, raw, convolve and fits_bytes(space))


def warn_of_unreached_sides(space: gym.Space[Any], config: TRPOConfig) -> None:
    """Say which sides of a Box the built-in policy, clipped to it, is far away from when the training begins."""
    spread = math.exp(min(config.log_std_init, 100.0))  # far above what the engines accept, far below an overflow
    sides = unreached_sides(space, REACH * max(1.0, spread), config.action_map)
    if not sides:
        return
    named = ", ".join(f"{bound:g} of {name}" for name, bound in sides[:3])
    others = f" and {len(sides) - 3} more" if len(sides) > 3 else ""
    boxes = [leaf for leaf in leaves(described_actions(space)) if isinstance(leaf, Box)]
    bounded = all(np.isfinite([leaf.low, leaf.high]).all() for leaf in boxes)
    way_out = "action_map='affine'" if bounded else "a wrapper that gives every side of the box a bound, or rescales it"
    warnings.warn(
        f"action_map: {config.action_map!r} takes what the policy emits, at first of mean 0 and standard deviation "
        f"{spread:g}, as actions of {space}, whose sides {named}{others} are far from that: the policy may learn "
        f"nothing; want {way_out}",
        stacklevel=3,
    )


def check_settings(config: TRPOConfig, networks: Networks, names: Collection[str]) -> None:
    """Refuse those settings, of these `names`, that are not their defaults and do nothing for these networks."""
    cnns = [name for name, kind in networks.kinds.items() if kind == "cnn"]
    built_in = [module for name, module in _both(networks.policy, networks.critic) if networks.own[name] is None]
    idle: dict[str, str] = {}
    if not hasattr(networks.policy, "log_std"):
        idle |= dict.fromkeys(("log_std_init", "log_std_limit"), "no action here is drawn from a Gaussian")
    if isinstance(networks.policy, CNNPolicy) and "policy" in cnns:
        idle["hidden_sizes"] = "the layers of a CNN go by the size of its images"
    if isinstance(networks.critic, CNNCritic) and "critic" in cnns:
        idle["critic_hidden_sizes"] = "the layers of a CNN go by the size of its images"
    if built_in and not any(isinstance(module, LAYERED) for module in built_in):
        idle["activation"] = "the layers of a CNN have relu"
    if networks.raw.all():
        idle |= dict.fromkeys(("normalize_observations", "observation_clip"), "images are never normalized")
    if not config.normalize_observations:
        idle["observation_clip"] = "observations are not normalized"
    if not config.scale_rewards:
        idle["reward_clip"] = "rewards are not scaled"
    if not cnns:
        idle["channel_axis"] = "there is no CNN here"
    if not any(isinstance(module, RecurrentPolicy | RecurrentCritic) for module in built_in):
        idle["recurrent_size"] = "no gru or lstm is built here"
    if not networks.recurrent or networks.own["critic"] is not None:
        idle["recurrent_critic"] = "it is for the built-in value function of a recurrent policy"
    if networks.recurrent:
        idle["fisher_subsample"] = "the sequences of a recurrent policy are whole"
    if networks.own["policy"] is not None:
        idle |= dict.fromkeys(("hidden_sizes", "log_std_init", "log_std_limit"), "the policy is a module of one's own")
    if networks.own["critic"] is not None:
        idle["critic_hidden_sizes"] = "the critic is a module of one's own"
    if not built_in:
        idle |= dict.fromkeys(("policy", "activation"), "both networks are modules of one's own")
        idle["device"] = "modules of one's own stay where they are"
    for name, why in idle.items():
        value = getattr(config, name)
        if name in names and value not in (getattr(TRPOConfig, name), 1.0 if name == "fisher_subsample" else None):
            raise ValueError(f"{name}: {in_words(value)} given; want it left out: {why}")


def check_initial_log_std(config: TRPOConfig, networks: Networks) -> None:
    """Refuse a standard deviation to begin with that is outside its limit; networks from a file have another by now."""
    start, limit = config.log_std_init, config.log_std_limit
    built_in = networks.own["policy"] is None and hasattr(networks.policy, "log_std")
    if built_in and abs(start) > limit:
        if start == TRPOConfig.log_std_init:
            raise ValueError(f"log_std_limit: {limit} given; want at least {abs(start)}, as log_std_init is {start}")
        raise ValueError(f"log_std_init: {start} given; want it from -{limit:g} to {limit:g}, the log_std_limit")


def warn_of_flattened_images(config: TRPOConfig, networks: Networks, observation_space: gym.Space[Any]) -> None:
    """Say which parts of the observations look like images to a built-in policy that was not asked for by name."""
    if config.policy != "auto" or networks.own["policy"] is not None:
        return
    flat = flattened_images(described(observation_space), config.channel_axis)
    if flat:
        warnings.warn(
            f"observation space: {', '.join(map(str, flat))} looks like an image, and is flattened; want a wrapper "
            "that has its channels first or last, or channel_axis, for a CNN, or a policy of your own, or policy='mlp' "
            "to have it so (docs/images.md)",
            stacklevel=3,
        )


def check_given(own: dict[str, str | None], policy: Network | None, critic: Network | None) -> None:
    """ValueError where the modules of a saved agent are not given again, or are given where it has none of its own."""
    for name, given in _both(policy, critic):
        if own[name] is not None and given is None:
            raise ValueError(
                f"{name}: this agent was saved with a {name} of its own, a {own[name]}; "
                f"want TRPO.load(path, {name}=...) with such a module"
            )
        if own[name] is None and given is not None:
            what = type(given).__name__ if isinstance(given, nn.Module) else repr(given)
            raise ValueError(f"{name}: {what} given; want none, this agent was saved with the built-in {name}")


def check_same_settings(saved: Mapping[str, Mapping[str, Any]], networks: Networks) -> None:
    """ValueError where a module that is given computes something else with the parameters of the saved one."""
    for name, settings in saved.items():
        own = settings_of(getattr(networks, name))
        for setting, value in settings.items():
            if own.get(setting, value) != value:
                raise ValueError(
                    f"{name}: a {type(getattr(networks, name)).__name__} of {setting}={own[setting]!r} given; want "
                    f"{setting}={value!r}, with which this agent was saved"
                )


def settings_of(module: nn.Module) -> dict[str, Any]:
    """Arguments of a network of this package that the shapes of its parameters do not say; of others none."""
    found = {}
    if isinstance(module, LAYERED):
        found = {name: getattr(module, name) for name in ("activation", "squash") if hasattr(module, name)}
    if isinstance(module, CNNPolicy | CNNCritic):
        found["channel_axis"] = "last" if module.image.channels_last else "first"
    return found


def _both(policy: Any, critic: Any) -> tuple[tuple[str, Any], tuple[str, Any]]:
    return ("policy", policy), ("critic", critic)


def _given(
    name: str,
    given: Network,
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    seed: int,
    dtype: torch.dtype,
) -> nn.Module:
    module = given
    if not isinstance(module, nn.Module):
        if not callable(module):
            raise TypeError(f"{name}: {in_words(given)} given; want a torch module, or a callable that makes one")
        module = module(observation_space, action_space, seed)
        if not isinstance(module, nn.Module):
            raise TypeError(f"{name}: the callable returned {type(module).__name__}; want a torch module")
    module = plain_module(module)
    for parameter_name, parameter in module.named_parameters():
        if parameter.dtype != dtype:
            raise ValueError(
                f"{name}: its parameter {parameter_name!r} is {parameter.dtype}; want {dtype}, the config's dtype"
            )
    return module


def _check_nothing_shared(policy: nn.Module, critic: nn.Module) -> None:
    owners = {id(parameter): name for name, parameter in policy.named_parameters()}
    for name, parameter in critic.named_parameters():
        if id(parameter) in owners:
            raise ValueError(
                f"critic: its parameter {name!r} is the policy's {owners[id(parameter)]!r}; want networks that share "
                "nothing, they are trained by different methods"
            )


def _check_policy(policy: nn.Module, rows: Tensor, layout: ActionLayout, entropy_coefficient: float) -> None:
    found = _tried("policy", policy, rows)
    if is_recurrent(policy):
        found, _ = found
    if not isinstance(found, Distribution):
        raise TypeError(f"policy: forward returned {type(found).__name__}; want a torch.distributions.Distribution")
    if tuple(found.batch_shape) != (len(rows),):
        raise ValueError(
            f"policy: forward returned a distribution of batch shape {tuple(found.batch_shape)} for {len(rows)} "
            f"observations; want ({len(rows)},), see torch.distributions.Independent"
        )
    _check_fits(found, layout)
    family = family_of(found)
    if family is not None and any(values.isnan().any() for values in family.coordinates(found)):
        raise ValueError(f"policy: forward returned {found} with NaN for observations of zeros; want finite parameters")
    with torch.no_grad():
        try:
            divergence(found, found)
        except NotImplementedError:
            name = kind_without(found, lambda part: divergence(part, part))
            raise ValueError(
                f"policy: forward returned a {name}, for which torch has no KL divergence; want another distribution, "
                "or one registered with torch.distributions.kl.register_kl"
            ) from None
        try:
            if entropy_coefficient:
                found.entropy()
        except NotImplementedError:
            name = kind_without(found, lambda part: part.entropy())
            raise ValueError(
                f"entropy_coefficient: {entropy_coefficient} given; want 0 for a policy that returns a {name}, whose "
                "entropy torch does not know"
            ) from None


def _check_fits(found: Distribution, layout: ActionLayout, where: str = "") -> None:
    """ValueError where a distribution is not one over the actions of `layout`; of a Product it names the part."""
    parts = found.parts if isinstance(found, Product) else ()
    if layout.parts and len(parts) == len(layout.parts):
        for index, pair in enumerate(zip(parts, layout.parts, strict=True)):
            _check_fits(*pair, f" in part {index} of the Product")
    elif layout.parts or not _fits(found, layout):
        wanted = " x ".join(map(_layout_words, layout.parts or (layout,)))
        choices = choices_of(found)
        counts = f" and {len(parts)} parts" if parts else "" if choices is None else f" and choices {choices}"
        raise ValueError(
            f"policy: forward returned {found} of event shape {tuple(found.event_shape)}{counts}{where}; want one over "
            f"the actions of the environment, which are {'a trpo_fast.policies.Product over ' * bool(layout.parts)}"
            f"{wanted}{' there' * bool(where)}"
        )


def _layout_words(layout: ActionLayout) -> str:
    return f"{layout.distribution} of shape {layout.shape}" + (f" and choices {layout.nvec}" if layout.nvec else "")


def _fits(found: Distribution, layout: ActionLayout) -> bool:
    """Whether a distribution is one over single actions of `layout`."""
    choices, wanted = choices_of(found), layout.nvec or (2,) * (layout.mask_size // 2)
    fits = math.prod(found.event_shape) == math.prod(layout.shape) and choices in (None, wanted)
    with contextlib.suppress(NotImplementedError):  # a distribution of the user's own may not say where it lives
        support = found.support
        fits = fits and (support is None or support.is_discrete == (layout.distribution != "gaussian"))
    return fits


def _check_critic(critic: nn.Module, rows: Tensor) -> None:
    found = _tried("critic", critic, rows)
    if is_recurrent(critic):
        found, _ = found
    if not isinstance(found, Tensor):
        raise TypeError(f"critic: forward returned {type(found).__name__}; want a Tensor of values")
    if tuple(found.shape) != (len(rows),):
        raise ValueError(
            f"critic: forward returned shape {tuple(found.shape)} for {len(rows)} observations; want ({len(rows)},)"
        )
    if not found.isfinite().all():
        raise ValueError("critic: forward returned values that are not finite for observations of zeros; want numbers")


def _probes(space: gym.Space[Any], zeros: Tensor, *, normalized: bool) -> list[Tensor]:
    """Rows for the checks of a module, most like those that it will see first: some that it takes have to be there."""
    own = copy.deepcopy(space)  # whose generator is left alone
    own.seed(0)
    numeric = numeric_columns(space)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            samples = np.array([flatten(own, own.sample()) for _ in range(_PROBES)], np.float64)
    except (OverflowError, ValueError):  # sides so far apart that nothing can be drawn between them
        samples = np.zeros((_PROBES, len(numeric)))
    drawn = samples.copy()
    drawn[:, numeric] = np.random.default_rng(0).normal(size=(_PROBES, int(numeric.sum())))
    tables = [drawn, samples] if normalized else [samples, drawn]
    shape = (_PROBES, *zeros.shape[1:])
    return [torch.from_numpy(table).to(zeros.dtype).reshape(shape) for table in tables] + [zeros]


def _tried(name: str, module: nn.Module, rows: Tensor) -> Any:
    try:
        with torch.no_grad():
            if not is_recurrent(module):
                return module(rows.to(_device(module)))
            state = cast(RecurrentModule, module).initial_state(1)
            if not isinstance(state, Tensor) or state.ndim != 2 or len(state) != 1:
                raise ValueError(f"initial_state(1) returned {state!r}, want a Tensor of shape (1, S)")
            starts = torch.tensor([[True], [False]], device=_device(module))
            return checked_step(module(rows[:, None].to(_device(module)), state, starts), name, tuple(state.shape))
    except (ValueError, RuntimeError) as error:
        shape = tuple(rows.shape)
        raise ValueError(f"{name}: forward failed for observations of zeros of shape {shape}: {error}") from error


def _device_for(device: str, convolves: bool) -> torch.device:
    """Where a network that is built here goes."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: 'cuda' given; want 'auto' or 'cpu': torch finds no CUDA device here")
    if device == "auto":
        device = "cuda" if convolves and torch.cuda.is_available() else "cpu"
    return torch.device(device)


def _device(module: nn.Module) -> torch.device:
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def _kind(module: nn.Module) -> str:
    if isinstance(module, RecurrentPolicy | RecurrentCritic):
        return "recurrent"
    return "cnn" if isinstance(module, CONVOLVING) else "mlp"


def _name_of(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
