"""A policy of Stable-Baselines3 as kernels over flat buffers that its parameters are views of."""

from __future__ import annotations

import contextlib
from typing import NamedTuple, cast

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
    StateDependentNoiseDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, MlpExtractor
from torch import Tensor, nn

from trpo_fast._core.critic import ValueKernel
from trpo_fast._core.library import MAX_LAYERS, MAX_OUTPUTS
from trpo_fast._core.policy import PolicyKernel
from trpo_fast.policies.flat import FlatParameters

# What the kernels stand in for: whoever overrides one of these means another policy.
_METHODS = (
    "__call__",
    "forward",
    "extract_features",
    "get_distribution",
    "predict_values",
    "_get_action_dist_from_latent",
)
# What the kernels compute, with torch's default where an activation has a parameter.
_ACTIVATIONS: dict[type[nn.Module], tuple[str, dict[str, float | str]]] = {
    nn.Tanh: ("tanh", {}),
    nn.ReLU: ("relu", {}),
    nn.ELU: ("elu", {"alpha": 1.0}),
    nn.LeakyReLU: ("leaky_relu", {"negative_slope": 0.01}),
    nn.Sigmoid: ("sigmoid", {}),
    nn.SiLU: ("silu", {}),
    nn.GELU: ("gelu", {"approximate": "none"}),
    nn.Softplus: ("softplus", {"beta": 1.0, "threshold": 20.0}),
}
Observations = Tensor | dict[str, Tensor]
"""(B, ...), or for each key of a Dict, as Stable-Baselines3's buffers give them."""

_DISTRIBUTIONS: dict[type[object], str] = {
    DiagGaussianDistribution: "gaussian",
    CategoricalDistribution: "categorical",
    MultiCategoricalDistribution: "multicategorical",
    BernoulliDistribution: "bernoulli",
}


def has_hook(parameter: nn.Parameter) -> bool:
    """Whether torch calls something with every gradient of `parameter`, which may change it, too."""
    return bool(parameter._backward_hooks or parameter._post_accumulate_grad_hooks)


class CompiledCritic:
    """The critic of an MLP policy of Stable-Baselines3 as a kernel over a flat float32 buffer.

    For policies whose actor has no kernel, for instance one that explores by gSDE. The critic's parameters become views
    of the buffer, as in `CompiledNetworks`.

    Parameters
    ----------
    policy : stable_baselines3.common.policies.ActorCriticPolicy

    Attributes
    ----------
    critic : ValueKernel
    critic_parameters : float32 (m,)
        Live: ``W1 b1 W2 b2 ...``. Call `bump_versions` after writing.
    critic_tensors : list of nn.Parameter
        The policy's own, in the order of the buffer.

    Raises
    ------
    ValueError
        Saying why the kernel cannot serve the critic of `policy`.
    """

    critic: ValueKernel

    def __init__(self, policy: BasePolicy) -> None:
        self.policy = policy
        self._flat: tuple[FlatParameters, ...] = ()
        self._critic_shape: tuple[object, ...] = ()
        self.refresh()

    def refresh(self) -> None:
        """Read the policy again, with parameters made views where something replaced them.

        Raises
        ------
        ValueError
            Saying why the kernels can no longer serve.
        """
        self._take_critic(_read_critic(self.policy))

    def bump_versions(self) -> None:
        """Tell autograd that the buffers were written, so that a graph recorded before fails loudly."""
        for flat in self._flat:
            flat.bump_versions()

    def rows(self, observations: Observations) -> NDArray[np.float32]:
        """What the networks see of `observations`, shape (B, D): preprocessed as Stable-Baselines3 does, flat.

        Without a copy where they are flat float32 numbers already. The parts of a Dict lie one after the other.
        """
        space = self.policy.observation_space
        if isinstance(observations, Tensor):
            return self._columns(observations, space)
        assert isinstance(space, spaces.Dict)
        return np.concatenate([self._columns(observations[key], space.spaces[key]) for key in self._keys], axis=1)

    def _columns(self, observations: Tensor, space: spaces.Space) -> NDArray[np.float32]:
        if isinstance(space, spaces.Box) and observations.ndim == 2:
            return np.ascontiguousarray(observations.float().numpy())  # what the lines below come to
        features = preprocess_obs(observations, space, normalize_images=self.policy.normalize_images)
        return np.ascontiguousarray(cast(Tensor, features).numpy()).reshape(len(observations), -1)

    def _take_critic(self, network: _Network) -> None:
        _check_parameters(self.policy, network)
        shape = (network.widths, network.activation)
        if shape != self._critic_shape:
            self.critic = ValueKernel(network.widths, network.activation, np.float32)
            self._critic_shape = shape
        flat = FlatParameters(network)
        self._flat = (flat,)
        self.critic_parameters, self.critic_tensors = flat.numpy, list(network.parameters())
        self._keys = network.keys


class CompiledActing(CompiledCritic):
    """What acting computes with: the critic, and of the actor what `actor` says, as kernels over flat float32 buffers.

    Attributes
    ----------
    actor : PolicyKernel
    actor_parameters : float32 (n,)
        Live, as `critic_parameters` are.
    actor_tensors : list of nn.Parameter
        The policy's own, in the order of the buffer.
    distribution : str
        How actions follow from the outputs of `actor`: the kernel's distribution, or "state_dependent".
    """

    actor: PolicyKernel
    distribution: str

    def __init__(self, policy: BasePolicy) -> None:
        self._actor_shape: tuple[object, ...] = ()
        super().__init__(policy)

    def is_current(self) -> bool:
        """Whether the policy has the modules and no hook, and parameters where the buffers have them, as last read.

        Takes two microseconds: acting asks at every step.
        """
        return (
            self._read_addresses() == self._addresses
            and self._children == self._known_children
            and not any(self._hooks)
            and not nn.modules.module._has_any_global_hook()
        )

    def _take_actor(self, network: _Network, distribution: str, nvec: tuple[int, ...] | None) -> None:
        _check_parameters(self.policy, network)
        shape = (network.widths, network.activation, distribution, nvec)
        if shape != self._actor_shape:
            self.actor = PolicyKernel(network.widths, network.activation, distribution, np.float32, nvec)
            self._actor_shape = shape
        flat = FlatParameters(network)
        self._flat += (flat,)
        self.actor_parameters, self.actor_tensors = flat.numpy, list(network.parameters())
        # The dictionaries in which the policy's modules keep parameters, modules and hooks stay the same.
        modules = list(self.policy.modules())
        self._owned = [module._parameters for module in modules if module._parameters]
        self._addresses = self._read_addresses()
        self._children = [module._modules for module in modules if module._modules]
        self._known_children = [children.copy() for children in self._children]
        self._hooks = [hooks for module in modules for hooks in (module._forward_hooks, module._forward_pre_hooks)]

    def _read_addresses(self) -> list[int]:
        return [cast(Tensor, parameter).data_ptr() for owner in self._owned for parameter in owner.values()]


class CompiledNetworks(CompiledActing):
    """The actor and the critic of an MLP policy of Stable-Baselines3, as kernels over flat float32 buffers.

    Every parameter of the policy becomes a view of one of two buffers. It stays the same Parameter, so that the
    policy's optimizer, its ``state_dict`` and whoever else holds it see what is written to the buffer, and the other
    way round.

    Parameters
    ----------
    policy : stable_baselines3.common.policies.ActorCriticPolicy

    Attributes
    ----------
    actor_parameters : float32 (n,)
        Live: ``[log_std] W1 b1 W2 b2 ...``. Call `bump_versions` after writing.
    choices : tuple of int
        Choices of each categorical component; all outputs in one where there is none.
    action_dimensions : int
        A, by which sb3-contrib divides its KL: dimensions of a Box, items of a MultiBinary, otherwise 1.

    Raises
    ------
    ValueError
        Saying why the kernels cannot serve `policy`, and naming the culprit.
    """

    def refresh(self) -> None:
        """Read the policy again: where something replaced its parameters, they become views again, of new buffers.

        ``load_state_dict`` and optimizers write into the views; ``parameter.data = ...`` and ``share_memory`` do not.

        Raises
        ------
        ValueError
            Saying why the kernels can no longer serve the policy.
        """
        actor, critic, self.distribution, nvec = _read(self.policy)
        self._take_critic(critic)
        self._take_actor(actor, self.distribution, nvec)
        self.choices = nvec or (actor.widths[-1],)
        self.action_dimensions = actor.widths[-1] if self.distribution in ("gaussian", "bernoulli") else 1


class CompiledTrunk(CompiledActing):
    """The hidden layers of an MLP actor that explores by gSDE, and its critic; torch has what follows them.

    The outputs of `actor` are those of the last hidden layer, before its activation: the noise depends on both sides.

    Attributes
    ----------
    activation : torch.nn.Module
        That of the last hidden layer.
    head : torch.nn.Linear
        From there to the means.

    Raises
    ------
    ValueError
        Saying why the kernels cannot serve the policy, and naming the culprit.
    """

    distribution = "state_dependent"

    def refresh(self) -> None:
        """As of `CompiledNetworks`."""
        trunk, head, critic, self.activation = _read_trunk(self.policy)
        _check_parameters(self.policy, head)
        self.head = cast(nn.Linear, head.layers[0])
        self._take_critic(critic)
        self._take_actor(trunk, "categorical", None)  # any that has no parameter of its own


class _ObstacleError(ValueError):
    """Why a policy cannot be compiled."""


class _Network(nn.Module):
    """Layers of a policy, so that ``named_parameters()`` gives theirs in the order of the kernels."""

    def __init__(
        self, layers: list[nn.Linear], activation: str, keys: tuple[str, ...], log_std: nn.Parameter | None = None
    ) -> None:
        super().__init__()
        if log_std is not None:
            self.log_std = log_std
        self.keys = keys  # of a Dict, in the order in which they are seen
        self.layers = nn.ModuleList(layers)
        self.activation = activation
        self.widths = (layers[0].in_features, *(layer.out_features for layer in layers))


class _Networks(NamedTuple):
    actor: _Network
    critic: _Network
    distribution: str
    nvec: tuple[int, ...] | None


def _read(policy: BasePolicy) -> _Networks:
    """The networks of `policy`; `_ObstacleError` where it is anything but MLPs on flat observations."""
    policy = _checked(policy, _METHODS)
    if isinstance(policy.action_dist, StateDependentNoiseDistribution):
        raise _ObstacleError("it explores by gSDE (use_sde=True)")
    for method in vars(policy.action_dist):
        if hasattr(type(policy.action_dist), method):
            raise _ObstacleError(f"its action_dist has its own {method}")
    distribution = _DISTRIBUTIONS.get(type(policy.action_dist))
    if distribution is None:
        raise _ObstacleError(f"its action_dist is a {type(policy.action_dist).__name__}")
    layers, activation = _layers(policy, "mlp_extractor.policy_net", "action_net")
    log_std = policy.log_std if distribution == "gaussian" else None
    if log_std is not None and not isinstance(log_std, nn.Parameter):
        raise _ObstacleError("log_std is no parameter")
    actor = _Network(layers, activation, _keys(policy), log_std)
    if log_std is not None and log_std.shape != (actor.widths[-1],):
        raise _ObstacleError(f"log_std has shape {tuple(log_std.shape)}, not ({actor.widths[-1]},)")
    choices = policy.action_dist
    nvec = tuple(map(int, choices.action_dims)) if isinstance(choices, MultiCategoricalDistribution) else None
    return _Networks(actor, _critic_of(policy), distribution, nvec)


def _read_trunk(policy: BasePolicy) -> tuple[_Network, _Network, _Network, nn.Module]:
    """Hidden layers of the actor, its last, critic, and last hidden activation, of a `policy` that explores by gSDE."""
    policy = _checked(policy, _METHODS)
    if type(policy.action_dist) is not StateDependentNoiseDistribution:
        raise _ObstacleError("it does not explore by gSDE (use_sde=False)")
    hidden = "mlp_extractor.policy_net"
    layers, activation = _hidden_layers(policy, hidden)
    if not layers:
        raise _ObstacleError(f"{hidden} has no layer")
    _check_limits(hidden, layers)
    *_, last = policy.get_submodule(hidden).children()
    _check_type("action_net", policy.action_net, nn.Linear)
    head = [cast(nn.Linear, policy.action_net)]
    _check_limits("action_net", head)
    trunk = _Network(layers, activation, _keys(policy))
    return trunk, _Network(head, activation, (), policy.log_std), _critic_of(policy), last


def is_perceptron(policy: BasePolicy) -> bool:
    """Whether `policy` would be served by kernels, at least while it acts, if it was on the CPU."""
    for read in (_read, _read_trunk):
        with contextlib.suppress(_ObstacleError):
            read(policy)
            return True
    return False


def _read_critic(policy: BasePolicy) -> _Network:
    """The critic of `policy`; `_ObstacleError` where it is anything but an MLP on flat observations."""
    return _critic_of(_checked(policy, ("predict_values",)))


def _critic_of(policy: ActorCriticPolicy) -> _Network:
    keys = _extracted_keys("vf_features_extractor", policy.vf_features_extractor)
    return _Network(*_layers(policy, "mlp_extractor.value_net", "value_net"), keys)


def _keys(policy: ActorCriticPolicy) -> tuple[str, ...]:
    """Of a Dict, in the order in which actor and critic see them; empty for other spaces."""
    keys = _extracted_keys("pi_features_extractor", policy.pi_features_extractor)
    if keys != _extracted_keys("vf_features_extractor", policy.vf_features_extractor):
        raise _ObstacleError("vf_features_extractor has its keys in another order than pi_features_extractor")
    return keys


def _checked(policy: BasePolicy, methods: tuple[str, ...]) -> ActorCriticPolicy:
    """`policy`, whose `methods` are those of Stable-Baselines3 and whose modules nothing listens to."""
    kind = type(policy)
    if not isinstance(policy, ActorCriticPolicy):
        raise _ObstacleError(f"{kind.__name__} is not an ActorCriticPolicy")
    for method in methods:
        if getattr(kind, method) is not getattr(ActorCriticPolicy, method) or method in vars(policy):
            raise _ObstacleError(f"{kind.__name__} has its own {method}")
    _check_type("mlp_extractor", policy.mlp_extractor, MlpExtractor)
    for name, module in policy.named_modules():
        for method in ("forward", "forward_actor", "forward_critic"):
            if module is not policy and method in vars(module):
                raise _ObstacleError(f"{name} has its own {method}")
        # Those of gradients too: the kernels know no backward pass that they could be called in.
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:
            raise _ObstacleError(f"{name or kind.__name__} has a hook")
    if nn.modules.module._has_any_global_hook():
        raise _ObstacleError("torch has a hook on every module")
    return policy


def _extracted_keys(name: str, extractor: nn.Module) -> tuple[str, ...]:
    """The keys of the Dict that `extractor` lays flat, as it has them; empty where that is no Dict."""
    if type(extractor) is CombinedExtractor:
        for key, part in extractor.extractors.items():
            _check_flatten(f"{name}.extractors.{key}", part)
        return tuple(extractor.extractors)
    _check_type(name, extractor, FlattenExtractor)
    _check_flatten(f"{name}.flatten", cast(FlattenExtractor, extractor).flatten)
    return ()


def _check_flatten(place: str, module: nn.Module) -> None:
    _check_type(place, module, nn.Flatten)
    flatten = cast(nn.Flatten, module)
    if (flatten.start_dim, flatten.end_dim) != (1, -1):
        raise _ObstacleError(f"{place} is a {flatten}")


def _hidden_layers(policy: ActorCriticPolicy, hidden: str) -> tuple[list[nn.Linear], str]:
    """Linear layers of one network but for the last, and the name of the activation behind each."""
    sequence = policy.get_submodule(hidden)
    _check_type(hidden, sequence, nn.Sequential)
    layers: list[nn.Linear] = []
    activations = []
    for index, module in enumerate(sequence.children()):
        place = f"{hidden}.{index}"
        if index % 2 == 0:
            _check_type(place, module, nn.Linear)
            layers.append(cast(nn.Linear, module))
        else:
            activations.append(_activation(place, module))
    if len(activations) != len(layers):
        raise _ObstacleError(f"{hidden} ends without an activation")
    if len(set(activations)) > 1:
        raise _ObstacleError(f"{hidden} has several activations: {', '.join(dict.fromkeys(activations))}")
    return layers, (activations or ["tanh"])[0]  # without a hidden layer it does not matter


def _layers(policy: ActorCriticPolicy, hidden: str, last: str) -> tuple[list[nn.Linear], str]:
    """Linear layers of one network, and the name of the activation between them."""
    layers, activation = _hidden_layers(policy, hidden)
    output = policy.get_submodule(last)
    _check_type(last, output, nn.Linear)
    layers.append(cast(nn.Linear, output))
    _check_limits(f"{hidden} with {last}", layers)
    return layers, activation


def _check_limits(place: str, layers: list[nn.Linear]) -> None:
    for layer in layers:
        if layer.bias is None:
            raise _ObstacleError(f"{place} has a layer without bias: {layer}")
    if len(layers) > MAX_LAYERS:
        raise _ObstacleError(f"{place} has {len(layers)} layers, more than {MAX_LAYERS}")
    if layers[-1].out_features > MAX_OUTPUTS:
        raise _ObstacleError(f"{place} has {layers[-1].out_features:,} outputs, more than {MAX_OUTPUTS:,}")


def _activation(place: str, module: nn.Module) -> str:
    if type(module) not in _ACTIVATIONS:
        names = ", ".join(kind.__name__ for kind in _ACTIVATIONS)
        raise _ObstacleError(f"{place} is a {type(module).__name__}, not one of {names}")
    activation, settings = _ACTIVATIONS[type(module)]
    for setting, value in settings.items():
        if getattr(module, setting) != value:
            raise _ObstacleError(f"{place} has {setting} {getattr(module, setting)!r}, not {value!r}")
    return activation


def _check_type(place: str, module: nn.Module, wanted: type[nn.Module]) -> None:
    if type(module) is not wanted:
        raise _ObstacleError(f"{place} is a {type(module).__name__}, not a {wanted.__name__}")


def _check_parameters(policy: BasePolicy, network: _Network) -> None:
    owners: dict[int, list[str]] = {}
    for name, parameter in policy.named_parameters(remove_duplicate=False):
        owners.setdefault(parameter.data_ptr(), []).append(name)
    own = set(network.parameters())
    for name, parameter in policy.named_parameters():
        if parameter not in own:
            continue
        if not parameter.requires_grad:
            raise _ObstacleError(f"parameter {name} is frozen")
        if parameter.device.type != "cpu":
            raise _ObstacleError(f"parameter {name} is on {parameter.device}")
        if parameter.dtype != torch.float32:
            raise _ObstacleError(f"parameter {name} is {parameter.dtype}, not torch.float32")
        if has_hook(parameter):
            raise _ObstacleError(f"parameter {name} has a hook")
        first, *others = owners[parameter.data_ptr()]
        if others:
            raise _ObstacleError(f"parameter {others[0]} is tied to {first}")
