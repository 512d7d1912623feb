"""Trust Region Policy Optimization.

References
----------
.. [1] Schulman, Levine, Moritz, Jordan, Abbeel, "Trust Region Policy Optimization", ICML 2015.
.. [2] Schulman, Moritz, Levine, Jordan, Abbeel, "High-Dimensional Continuous Control Using Generalized Advantage
   Estimation", ICLR 2016.
"""

from __future__ import annotations

import math
import os
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn, Self

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trpo_fast import streams
from trpo_fast._core.library import in_words, permutation
from trpo_fast.algorithm import agreement, checkpoint, evaluation, loading, presets, training
from trpo_fast.algorithm.acting import AgentActor
from trpo_fast.algorithm.callbacks import CallbackLike, CallbackList, ProgressBar
from trpo_fast.algorithm.config import (
    EPISODES_REMEMBERED,
    POLICIES_OF_OTHERS,
    TRPOConfig,
    checked_timesteps,
    seed_or_drawn,
)
from trpo_fast.algorithm.critic import FIT_PATIENCE, CriticTrainer
from trpo_fast.algorithm.evaluation import EvaluationResult
from trpo_fast.algorithm.hooks import Hooks, StepFunction, StepInputs
from trpo_fast.algorithm.inference import Inference
from trpo_fast.algorithm.logging import Logger
from trpo_fast.algorithm.memory import lack_of_memory_named
from trpo_fast.algorithm.networks import (
    Network,
    check_initial_log_std,
    check_settings,
    make_networks,
    settings_of,
    warn_of_flattened_images,
    warn_of_unreached_sides,
)
from trpo_fast.algorithm.report import Stopwatch, UpdateReport
from trpo_fast.algorithm.schedules import Schedule, checked_schedules, scheduled
from trpo_fast.algorithm.training_environments import TrainingEnvironments
from trpo_fast.engines import AutogradEngine, DistributedEngine, NativeEngine, make_engine
from trpo_fast.engines.distributed import parts_of
from trpo_fast.environments.base import Environments
from trpo_fast.environments.checks import require_same_spaces
from trpo_fast.environments.foreign import is_vector_environment
from trpo_fast.environments.masks import warn_of_left_out_mask
from trpo_fast.environments.recipe import EnvironmentRecipe
from trpo_fast.gymnasium_spaces import action_words, numeric_columns, resolved_action_map
from trpo_fast.normalizers import ObservationNormalizer, RewardScaler
from trpo_fast.ranks import Ranks, as_ranks, count_of, left_on_error, share_of
from trpo_fast.rollout.advantages import AdvantageFunction
from trpo_fast.rollout.collector import Collector
from trpo_fast.rollout.rollout import Rollout
from trpo_fast.run_models import read_latest
from trpo_fast.settings import FLAG, checked
from trpo_fast.solvers.fisher_product import bfloat16_obstacle, require_bfloat16
from trpo_fast.state import State

UPDATES_BETWEEN_CHECKSUMS = 10  # of several ranks' parameters


class TRPO:
    """An agent trained by Trust Region Policy Optimization [1]_ with generalized advantages [2]_.

    Parameters
    ----------
    env : str, callable or gymnasium.vector.VectorEnv
        An environment id, a function that makes one environment, or environments that are vectorized already.
    num_envs : int, optional
        Environments stepped together; the config's by default, a VectorEnv's own number where one is given.
    vectorization : {"sync", "workers", "async", "vector", "envpool"}, optional
        How an id or a callable becomes several environments: in this process, the default, in processes that own
        several each or one each, the environment's own vectorized version, or EnvPool's.
    num_workers : int, optional
        Processes of "workers"; by default the cores that this process may use.
    env_kwargs : mapping, optional
        Arguments for making each environment.
    wrappers : sequence, optional
        What each environment is wrapped in, the first innermost: ``"module:callable"``, a callable of the environment,
        or a name: ``"atari"``, which ids of ale-py that show images have by default (84 x 84 gray, four frames),
        ``"int-actions"`` (Discrete actions as Python's integers), ``"mask-in-observation"`` (an action mask that is a
        part of a Dict is obeyed, and not observed); ``["none"]`` for none.
    imports : sequence of str, optional
        Modules that register environments, or ``"module:function"`` where a call does: see docs/environments.md.
    seed : int >= 0, optional
        Decides everything random, but for what environments draw from the process's global generators (named in a
        warning; workers have generators of their own); drawn from the system, and kept in ``agent.seed``, where it is
        not given.
    config : TRPOConfig, optional
        Settings; ``overrides`` are fields changed on top, as in ``TRPO("CartPole-v1", gamma=0.98)``.
    preset : str, optional
        Settings that an environment is known to need in place of the defaults, in ``trpo_fast/presets.toml``: "auto",
        those of the id, where there are some and no `config` is given; the name of one, or a file that ``trpo-fast
        tune`` has written (``"hopper.toml"``), for a callable or a VectorEnv whose actions are alike; None, the
        defaults. What is given explicitly wins.
    policy, critic : torch.nn.Module, or callable (observation_space, action_space, seed) -> module, optional
        Networks of your own, see docs/custom_policies.md: the policy's ``forward(observations)`` returns a torch
        distribution of batch shape (B,), the critic's values of shape (B,). Observations have the shape of a Box, and
        are flat rows for any other space. A string as `policy` is the configuration's field.
    ranks : "auto", Ranks or None
        Train on several processes: "auto", on those that torchrun started, where it did; None, on this one alone, as
        for what one of several ranks does that the others do not. Each makes the same agent, with the same arguments,
        and calls the same methods; ``num_envs`` counts the environments of all. See docs/scaling.md.
    advantages : callable, optional
        ``advantages(inputs) -> (advantages, returns)`` in place of GAE: of an :class:`AdvantageInputs`, two arrays
        (T, E); called once an update, before advantages are normalized. See docs/building.md.
    step : callable, optional
        ``step(engine, inputs) -> TrustRegionReport`` in place of :func:`trust_region_step`: of the engine, bound to the
        batch, and a :class:`StepInputs`; called once an update. See docs/building.md.

    Attributes
    ----------
    policy : torch.nn.Module
        MLPPolicy, CNNPolicy, MultiInputPolicy, RecurrentPolicy, or the module given. Its parameters are what is
        trained, on the CPU without a copy. They can be changed, by ``load_state_dict`` for example; the module cannot
        be replaced.
    critic : torch.nn.Module
        Value function; looking at it waits for a fit in progress.
    config : TRPOConfig
    preset : str or None
        Name, or file, of the preset that `config` was made with; None after a load, as a file of an agent keeps the
        settings themselves.
    preset_taken : Preset or None
        What it says, as it was read.
    num_timesteps : int
        Transitions learned from, since :meth:`learn` last counted from 0.
    total_timesteps : int
        Transitions learned from in all; logs and checkpoints go by it.
    horizon : int
        Timesteps at which schedules end, see :meth:`learn`.
    schedules_from : int
        Timesteps at which they began.
    num_predictions : int
        Calls of :meth:`predict`, each with noise of its own; saved, so that a loaded agent does not repeat it.
    last_update : UpdateReport or None
        What the last update did.
    engine : NativeEngine or AutogradEngine
        ``engine.reason`` says why it is this one.
    hooks : Hooks
        The functions given as `advantages` and `step`.
    logger : Logger
        ``agent.logger.record(name, value)`` has a number written with the next row of the log, see
        :class:`~trpo_fast.RunLogger`.
    ranks : Ranks or None
    update_engine : NativeEngine, AutogradEngine or DistributedEngine
        What updates are computed by: `engine`, or the sums of all ranks'.

    Raises
    ------
    ValueError, TypeError
        An unknown environment, an unsupported space or setting, one that does nothing for these networks; the message
        names it and what is wanted.
    MemoryError
        Naming the settings that were chosen too large, here or in :meth:`learn`.
    """

    def __init__(
        self,
        env: Any,
        *others: Any,
        num_envs: int | None = None,
        vectorization: str | None = None,
        env_kwargs: Mapping[str, Any] | None = None,
        seed: int | None = None,
        config: TRPOConfig | None = None,
        policy: str | Network | None = None,
        critic: Network | None = None,
        num_workers: int | None = None,
        wrappers: Sequence[Any] | None = None,
        imports: Sequence[str] = (),
        preset: str | None = presets.AUTO,
        advantages: AdvantageFunction | None = None,
        step: StepFunction | None = None,
        ranks: Ranks | str | None = "auto",
        **overrides: Any,
    ) -> None:
        if others:
            raise TypeError(
                f"env: {env!r} and {', '.join(map(repr, others))} given; want the environment alone, and all else by "
                "name, as in TRPO('CartPole-v1', policy='mlp')"
            )
        if isinstance(env, str) and env in POLICIES_OF_OTHERS:
            raise ValueError(
                f"env: {env!r} given, a policy of Stable-Baselines3; want an environment, as in TRPO('CartPole-v1', "
                f"policy={POLICIES_OF_OTHERS[env]!r})"
            )
        if isinstance(policy, str):
            overrides["policy"], policy = policy, None
        if config is not None and not isinstance(config, TRPOConfig):
            raise TypeError(f"config: {in_words(config)} given; want a TRPOConfig")
        if num_envs is not None:
            overrides["num_envs"] = num_envs
        hooks = Hooks.of(advantages, step)
        recipe = EnvironmentRecipe(
            env, vectorization, {} if env_kwargs is None else env_kwargs, wrappers, imports, num_workers=num_workers
        ).resolved()
        given = (config or TRPOConfig()).replace(**overrides)
        known = presets.candidates(preset)
        self.ranks = as_ranks(ranks)
        environments: Environments | None = None
        try:
            drawn = seed_or_drawn(seed)
            if self.ranks is not None:
                self.ranks.require_same({"seed": seed})
                drawn = int(self.ranks.of_first(drawn))
            seed, obeys_masks = drawn, given.mask_in_observation == "obey"
            # Of a VectorEnv each rank has one of its own.
            own = slice(0, 1) if is_vector_environment(recipe.source) else share_of(self.ranks, given.num_envs)
            environments = recipe.make(own.stop - own.start, seed=seed, obeys_masks=obeys_masks, first=own.start)
            env_id = recipe.source if isinstance(recipe.source, str) else None
            actions = action_words(environments.action_space)
            found = presets.preset_for(preset, known, env_id, actions, whole_config=config is not None)
            config = given if found is None else TRPOConfig().replace(**{**found.settings, **overrides})
            if environments.left_out:
                warnings.warn(
                    f"{', '.join(environments.left_out)}: text, which no network here reads; left out", stacklevel=2
                )
            loading.check_num_envs(num_envs, environments, self.ranks)
            if given.mask_in_observation == "obey":
                warn_of_left_out_mask(
                    environments.observation_space, environments.action_space, left_out=environments.mask_left_out
                )
            config = config.replace(num_envs=count_of(self.ranks, environments.num_envs))
            with lack_of_memory_named(config):
                self._build(
                    config,
                    seed,
                    environments.observation_space,
                    environments.action_space,
                    recipe,
                    policy=policy,
                    critic=critic,
                    preset=found.name if found is not None and preset == presets.AUTO else preset,
                    preset_taken=found,
                    hooks=hooks,
                )
                if self.ranks is not None:
                    agreement.require_same_agents(self.ranks, self, recipe)
                    agreement.take_networks_of_first(self.ranks, self)
                of_preset = set() if found is None else found.settings.keys() - overrides.keys()
                check_settings(config, self.networks, vars(config).keys() - of_preset)
                check_initial_log_std(config, self.networks)
                warn_of_flattened_images(config, self.networks, environments.observation_space)
                if policy is None:
                    warn_of_unreached_sides(self.action_space, self.config)
                self.training_environments.attach(environments)
        except BaseException as error:
            if environments is not None:
                environments.close()
            if self.ranks is not None:
                self.ranks.leave(error)
            raise

    def _build(
        self,
        config: TRPOConfig,
        seed: int,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        recipe: EnvironmentRecipe | None,
        *,
        policy: Network | None = None,
        critic: Network | None = None,
        kind: str | None = None,
        preset: str | None = None,
        preset_taken: presets.Preset | None = None,
        hooks: Hooks,
    ) -> None:
        """Make everything but the environments, which an agent loaded to act may never need."""
        # A module of the user's own may well emit the environment's units.
        wanted = "clip" if policy is not None and config.action_map == "auto" else config.action_map
        config = config.replace(action_map=resolved_action_map(action_space, wanted))
        self.seed = seed
        self.observation_space = observation_space
        self.action_space = action_space
        self.preset = None if preset_taken is None else preset
        self.preset_taken = preset_taken
        self.hooks = hooks
        self.num_timesteps = 0
        self.earlier_timesteps = 0  # before learn last counted from 0 again
        self.horizon = self.schedules_from = 0
        self.num_updates = 0
        self.num_episodes = 0
        self.last_update: UpdateReport | None = None
        # The latest episodes finished in training: (return, length).
        self.recent_episodes: deque[tuple[float, int]] = deque(maxlen=EPISODES_REMEMBERED)

        policy_seed, critic_seed = map(int, np.random.SeedSequence([seed, streams.INITIALIZATION]).generate_state(2))
        self.networks = make_networks(
            config, observation_space, action_space, (policy_seed, critic_seed), policy=policy, critic=critic, kind=kind
        )
        self._config = config = config.resolved(**self.networks.kinds)
        self._direction_settings, self._step_settings = config.direction_settings, config.step_settings
        shape = self.networks.observation_shape
        self.engine = make_engine(self.networks.policy, config.engine, observation_shape=shape)
        for name, value, possible in (
            ("preconditioner", config.preconditioner, [None]),
            ("fisher_jacobians", config.fisher_jacobians, ["auto", "never"]),
        ):
            if value not in possible and self.engine.name != "native":
                raise ValueError(
                    f"{name}: {value!r} given; want {' or '.join(map(repr, possible))} with the autograd engine, which "
                    f"serves this policy ({self.engine.reason})"
                )
        if config.fisher_precision == "bfloat16":
            obstacle: str | None = f"the autograd engine serves this policy ({self.engine.reason})"
            if self.engine.name == "native":
                obstacle = bfloat16_obstacle(dtype=self.engine.dtype)
            require_bfloat16("fisher_precision", obstacle)
        self.update_engine: NativeEngine | AutogradEngine | DistributedEngine = self.engine
        if self.ranks is not None:
            self.update_engine = DistributedEngine(
                self.engine, self.ranks, parts=parts_of(self.ranks, config.num_envs, self.engine)
            )
        self.critic_trainer = CriticTrainer(self.networks.critic, config, seed, observation_shape=shape)
        raw = self.networks.raw
        columns = numeric_columns(observation_space) & ~raw
        self.observation_normalizer = (
            ObservationNormalizer(len(columns), clip=config.observation_clip, columns=columns, unclipped=raw)
            if config.normalize_observations and columns.any()
            else None
        )
        self.reward_scaler = (
            RewardScaler(config.num_envs, config.gamma, clip=config.reward_clip) if config.scale_rewards else None
        )
        self.training_environments = TrainingEnvironments(
            recipe,
            config,
            seed,
            self.engine,
            observation_space,
            action_space,
            self.observation_normalizer,
            self.reward_scaler,
            as_bytes=self.networks.bytes and self.observation_normalizer is None and self.engine.name == "autograd",
            ranks=self.ranks,
        )
        self.callbacks_under_way: CallbackList | None = None  # while learn is
        self._schedules: Mapping[str, Schedule] = {}  # of the latest call of learn
        self._callback_states: State = {}  # of the latest training, by name
        self.logger = Logger()
        self.put_back_to: tuple[checkpoint.Snapshot, bool] | None = None  # see `checkpoint.make_whole`
        self.held_by: dict[str, tuple[int, object]] = {}  # the call of learn that is under way, see `training.alone`
        self.num_predictions = 0
        self.trained_with_masks = False
        self.warned_of_recipe = False  # that files do not say how the environment is made
        self._in_rollout_event = False
        self._inference = Inference(self)

    @property
    def recipe(self) -> EnvironmentRecipe | None:
        """How the environments are made; None for an agent that was loaded without."""
        return self.training_environments.recipe

    @recipe.setter
    def recipe(self, value: EnvironmentRecipe | None) -> None:
        self.training_environments.recipe = value

    @property
    def environments(self) -> Environments | None:
        """Those of the training; None before they are made, and after :meth:`close`."""
        return self.training_environments.environments

    @property
    def collector(self) -> Collector | None:
        """What steps them with the policy; None where they are."""
        return self.training_environments.collector

    @property
    def config(self) -> TRPOConfig:
        """The settings that the agent was made with."""
        return self._config

    @config.setter
    def config(self, value: Any) -> None:  # networks, statistics and buffers have been made by it
        raise AttributeError(
            "config: cannot be replaced, the agent was built by it; want agent.save(path) and "
            "TRPO.load(path, gamma=0.98) to learn on with other settings"
        )

    def learn(
        self,
        total_timesteps: float,
        callback: CallbackLike = None,
        progress_bar: bool = False,
        reset_num_timesteps: bool = True,
        *,
        horizon: float | None = None,
        schedules: Mapping[str, Schedule] | None = None,
    ) -> TRPO:
        """Train for at least ``total_timesteps`` more timesteps: whole rollouts, so up to one rollout more.

        An exception, Ctrl-C included, that comes in an update puts the agent back to where that update began, and
        travels on; the agent can be saved, or learn on, as if the interrupted update had not begun. After Ctrl-C that
        includes the episodes under way, where `inexact` is None; after an exception new ones begin, and `inexact` says
        so from then on. What callbacks changed stays. After Ctrl-C the critic's fit to the last complete update gets
        0.3 s to finish, and more where the exception has an attribute `patience`, seconds; a longer one is stopped and
        abandoned: the critic and Adam are then those before the fit, the policy keeps the update, and `inexact` says so
        from then on.

        Parameters
        ----------
        callback : Callback, function of the agent, or a sequence of these, optional
            Called after every update, of several ranks by each of them, but for what writes or prints
            (``Callback.of_first_rank``); what equals False ends the training, on all, None does not. To end at a goal,
            take :class:`StopAtReturn`: before an episode has ended ``episode_return_mean`` is NaN, and ``nan < goal``
            False.
        progress_bar : bool
            Show a bar with the return of recent episodes, the KL of the last update and steps per second.
        reset_num_timesteps : bool
            Count timesteps from 0 again, and schedules with them. What was learned, Adam, statistics, random streams
            and the episodes under way go on in either case; where timesteps do, the states of callbacks that an earlier
            training or a file has, do so, too.
        horizon : int, optional
            Timesteps, counted as ``num_timesteps`` is, at which schedules of settings end. Give that of the whole
            training where it is made of several calls; it is kept, and saved. By default where this call ends, or the
            horizon of before, where that is later and timesteps go on. A call that goes on behind the horizon of before
            without a new one goes through its schedules anew, from where it begins.
        schedules : mapping of str to callable, optional
            ``schedules={"max_kl": lambda progress: 0.02 * (1 - progress)}``: the value of "max_kl",
            "critic_learning_rate" or "entropy_coefficient" in each update of this call, in place of the config's and
            its schedule, from the part of them that is done, in [0, 1). (Stable-Baselines3's functions get what
            remains, 1 - progress.) As callbacks they are of this call alone: no file has them, and who goes on gives
            them again; of several ranks each gives the same. The log has ``train/max_kl`` and ``train/learning_rate``.

        Raises
        ------
        ValueError
            An unknown name in ``schedules``, or a value that cannot be; ``horizon`` is before the end of this call; or
            the agent was loaded without a function, `advantages` or `step`, that it was trained with.
        RuntimeError
            The agent is learning already: called by a callback, or while another thread is here.
        """
        timesteps = checked_timesteps("total_timesteps", total_timesteps)
        checked("progress_bar", progress_bar, FLAG)
        checked("reset_num_timesteps", reset_num_timesteps, FLAG)
        first_rank = self.ranks is None or self.ranks.first
        callbacks = CallbackList([callback, ProgressBar() if progress_bar else None], first_rank=first_rank)
        given = checked_schedules(schedules)
        if horizon is None:  # else it is a part of a training
            training.warn_of_whole_rollouts(self, timesteps)
        with training.alone(self), left_on_error(self.ranks):
            self._schedules = given
            if self.ranks is not None:
                asked = {"total_timesteps": timesteps, "horizon": horizon, "reset_num_timesteps": reset_num_timesteps}
                looked_at = {name: [function(part / 4) for part in range(4)] for name, function in given.items()}
                self.ranks.require_same({**asked, "num_timesteps": self.num_timesteps, "schedules": looked_at})
                agreement.require_in_step(self.ranks, self)
            training.train(self, timesteps, callbacks, self._update, horizon=horizon, reset=reset_num_timesteps)
        return self

    def _update(self, collector: Collector) -> None:
        """One update, in the order of docs/algorithm.md."""
        config, engine, critic = self.config, self.update_engine, self.critic_trainer
        clock = Stopwatch()
        before = None if self.ranks is None else self.ranks.traffic

        # 1. Trajectories of the current policy. The critic may still be learning from the batch before.
        cuts = self.training_environments.cuts
        rollout = collector.collect()
        self.trained_with_masks |= rollout.action_masks is not None
        if cuts and (self.num_updates + 1) % cuts == 0:
            collector.cut(rollout)
        clock.lap("rollout")
        self._tell_of(rollout)
        clock.add({"critic_wait": critic.wait()})
        if self.ranks is not None and self.num_updates % UPDATES_BETWEEN_CHECKSUMS == 0:
            agreement.require_in_step(self.ranks, self)

        # 2. Advantages and returns, from the value function.
        sequences = rollout.critic_sequences if critic.recurrent else None
        batch, returns, explained_variance = collector.finisher.finish(
            rollout,
            critic.values if sequences is None else lambda _: critic.values(sequences),
            config.gamma,
            config.gae_lambda,
            config.normalize_advantages,
            self.hooks.advantages,
            critic_gae_lambda=config.critic_gae_lambda,
        )
        clock.lap("advantages")

        # 3. Gradient g of the surrogate.  4. Direction x = (F + lambda I)^-1 g.
        # 5. The longest step along x that improves the surrogate inside the trust region.
        now = scheduled(config, self._schedules, training.schedule_progress(self))
        settings = self._step_settings.replace(max_kl=now["max_kl"])
        engine.bind(batch, total=rollout.steps, entropy_coefficient=now["entropy_coefficient"])
        entropy = engine.entropy()
        clock.lap("gradient")
        rows = collector.finisher.own_samples(rollout, self._fisher_rows(rollout.steps))
        inputs = StepInputs(batch, self._direction_settings, settings, rows)
        step = self.hooks.take_step(engine, inputs)
        self._bound_log_std()
        clock.add(step.timings)

        # 6. Value function: least squares on the returns, here or beside the next rollout.
        observations = rollout.samples if sequences is None else sequences
        fit = critic.start(observations, returns, now["critic_learning_rate"])

        self.num_timesteps += rollout.steps
        self.num_updates += 1
        self.num_episodes += len(rollout.episode_returns)
        episodes = zip(rollout.episode_returns.tolist(), rollout.episode_lengths.tolist(), strict=True)
        self.recent_episodes.extend(episodes)
        self.last_update = UpdateReport(
            step,
            rollout.steps,
            settings.max_kl,
            now["critic_learning_rate"],
            entropy,
            explained_variance,
            clock.seconds,
            fit.outcome,
            None if self.ranks is None or before is None else self.ranks.traffic.since(before),
        )

    def _tell_of(self, rollout: Rollout) -> None:
        """Let the callbacks have a look at a rollout."""
        if self.callbacks_under_way is None:
            return
        self._in_rollout_event = True
        try:
            self.callbacks_under_way.on_rollout_end(self, rollout.read_only())
        finally:
            self._in_rollout_event = False

    def _bound_log_std(self) -> None:
        """Keep the standard deviation of a built-in Gaussian policy within the setting, whatever the step left."""
        log_std = None if self.networks.own["policy"] is not None else getattr(self.policy, "log_std", None)
        if log_std is None:
            return
        limit = self.config.log_std_limit
        with torch.no_grad():
            if (log_std.abs() > limit).any():
                log_std.clamp_(-limit, limit)
                self.engine.adopt_parameters()

    def _fisher_rows(self, size: int) -> NDArray[np.int64] | None:
        """The rows of this update's batch that F is averaged over; None for all."""
        count = max(1, round(self.config.fisher_subsample * size))
        if count == size:
            return None
        return np.sort(permutation(size, seed=self.seed, stream=streams.FISHER_ROWS, step=self.num_updates)[:count])

    @property
    def policy(self) -> nn.Module:
        """The policy; the engine trains this very module, so it can be changed but not replaced."""
        return self.networks.policy

    @policy.setter
    def policy(self, value: Any) -> None:
        raise AttributeError(
            "policy: cannot be replaced, the engine trains the module that the agent was built with; "
            "want agent.take_policy(other_agent), which takes another's parameters and the statistics that its "
            "observations are normalized by"
        )

    def take_policy(self, other: TRPO) -> None:
        """Take over the policy of another agent: its parameters and the statistics of observations that belong to them.

        Copies; nothing else of this agent changes. With ``policy.load_state_dict`` alone it would act with statistics
        that the parameters were not learned with.

        Raises
        ------
        TypeError
            `other` is no agent.
        ValueError
            It has a policy of other parameters, or other settings of what is before and behind the policy.
        """
        if not isinstance(other, TRPO):
            raise TypeError(f"other: a {type(other).__name__} given; want a TRPO")
        shapes = [{name: tuple(p.shape) for name, p in agent.policy.named_parameters()} for agent in (self, other)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"other: its policy has parameters {shapes[1]}; want {shapes[0]}, this agent's")
        require_same_spaces(other, self, whose="other", wanted_by="this agent's")
        for name, mine, its in self._ways_of_acting(other):
            if mine != its:
                raise ValueError(f"other: {name} is {its}; want {mine}, this agent's")
        for agent in (self, other):
            checkpoint.make_whole(agent)
        self.policy.load_state_dict(other.policy.state_dict())
        self.engine.adopt_parameters()
        if self.observation_normalizer is not None and other.observation_normalizer is not None:
            self.observation_normalizer.set_state(other.observation_normalizer.get_state())

    def _ways_of_acting(self, other: TRPO) -> Iterator[tuple[str, str, str]]:
        """Name, this agent's, the other's: what makes actions of a policy's parameters besides them."""
        for name in "normalize_observations", "observation_clip", "action_map", "channel_axis", "mask_in_observation":
            yield name, repr(getattr(self.config, name)), repr(getattr(other.config, name))
        settings, others = settings_of(self.policy), settings_of(other.policy)
        for name in sorted({*settings, *others}):
            yield f"the policy's {name}", repr(settings.get(name)), repr(others.get(name))

    def observe(self, observations: Any) -> None:
        """Take observations into the running statistics that the policy's inputs are normalized by.

        For a policy that is to learn from demonstrations before :meth:`learn`: with the statistics of those first, and
        ``warm_up_steps=0``, its inputs stay what they were when training begins. See docs/custom_policies.md.

        Parameters
        ----------
        observations : as for :meth:`predict`
            Several, or one.

        Raises
        ------
        ValueError
            They are not of the agent's space, or it keeps no statistics: ``normalize_observations=False``, or images.
        """
        if self.observation_normalizer is None:
            raise ValueError(
                "observations: given, but this agent keeps no statistics of them, by its settings or space"
            )
        checkpoint.make_whole(self)
        rows, _ = self._inference.layout.finite_rows(observations)
        self.observation_normalizer.merge(rows)

    @property
    def critic(self) -> nn.Module:
        """The value function, after waiting for a fit in progress."""
        self.critic_trainer.wait()
        return self.networks.critic

    @property
    def inexact(self) -> str | None:
        """Why a training that goes on from a file is not, to the bit, the one that did not end; None where it is.

        See docs/runs.md. Where the environments have not been made yet nothing is known but what the file has. While
        `reset_on_checkpoint` cuts episodes it is None, as every checkpoint is exact; a file that is saved between two
        of them says that it is not, and so does an agent that begins there.
        """
        abandoned = checkpoint.abandoned(self.critic_trainer.abandoned_fits)
        if abandoned:
            return abandoned
        environments, collector = self.training_environments, self.collector
        begun_anew = environments.get_state().get("begun_anew")
        goes_on = environments.cuts > 0 and collector is not None and collector.under_way
        return begun_anew if goes_on else environments.inexact_after(self.num_updates, begun_anew)

    @property
    def is_at_a_cut(self) -> bool:
        """Whether `reset_on_checkpoint` ends all episodes between the last update and the next."""
        cuts = self.training_environments.cuts
        return cuts > 0 and self.num_updates % cuts == 0

    @property
    def callback_states(self) -> State:
        """What the callbacks of the training under way, or of the latest, go on from, by name."""
        return self._callback_states if self.callbacks_under_way is None else self.callbacks_under_way.get_state()

    @callback_states.setter
    def callback_states(self, states: State) -> None:
        self._callback_states = states

    @property
    def num_envs(self) -> int:
        """Environments stepped together."""
        return self.config.num_envs

    @property
    def total_timesteps(self) -> int:
        """Transitions learned from in all, whatever :meth:`learn` counts from 0 again."""
        return self.earlier_timesteps + self.num_timesteps

    @property
    def episode_return_mean(self) -> float:
        """Mean undiscounted return of the 100 latest training episodes; nan before the first has ended."""
        return float(np.mean([value for value, _ in self.recent_episodes])) if self.recent_episodes else math.nan

    @property
    def episode_length_mean(self) -> float:
        """Mean length of the 100 latest training episodes, in steps; nan before the first has ended."""
        return float(np.mean([length for _, length in self.recent_episodes])) if self.recent_episodes else math.nan

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[Any, Any]:
        """A sampled action for each observation, or the most likely one with ``deterministic=True``.

        The signature is that of Stable-Baselines3 and of its MaskablePPO. Threads may call it at once: they take turns,
        and each call has noise of its own. While another thread is in :meth:`learn`, an actor of a saved file
        (`load_actor`) is what to act with.

        Parameters
        ----------
        observation : as the environment, or a vector environment with n copies, gives it
            For a Box array_like of shape ``observation_space.shape`` or ``(n, *observation_space.shape)``.
            Normalization is done here.
        state : ndarray, shape (n, S), optional
            Of a recurrent policy: what the call before returned; (1, S) for a single observation. None, the default,
            starts episodes. Of any other policy it is handed back.
        episode_start : bool or array of bool, shape (n,), optional
            Of a recurrent policy: for which observations an episode starts; none by default. Their rows of ``state``
            are not looked at, and may be NaN.
        deterministic : bool
            The mode of the distribution instead of a sample.
        action_masks : optional
            What is allowed, as the environment's ``action_masks()`` or ``info["action_mask"]`` has it: one mask, or n.
            By default ``observation["action_mask"]``, where the agent obeys that and does not see it. An agent that was
            trained with masks warns once where there are none.

        Returns
        -------
        action : ndarray, shape ``action_space.shape`` or ``(n, *action_space.shape)``
            Ready for the environment: inside the bounds of a Box, ``start`` of a discrete space included. A single
            action of a Discrete space is a NumPy integer, which a dict or a list takes as a key. Of a Tuple or Dict
            space a tuple or dict of these, nested as it is; several are arrays in one such structure.
        state : ndarray, shape (n, S), or what was given
        """
        checkpoint.make_whole(self)
        return self._inference.predict(observation, state, episode_start, deterministic, action_masks)

    def values(self, observations: Any) -> Any:
        """What the critic takes the discounted return to be from each observation on, in the environment's unit.

        The critic itself knows scaled rewards, so that its values are divided by the reward scale of this moment. Waits
        for a fit in progress.

        Parameters
        ----------
        observations : as for :meth:`predict`
            Several, or one. Normalization is done here.

        Returns
        -------
        float64 ndarray, shape (n,), or a float64 for one observation

        Raises
        ------
        ValueError, TypeError
            They do not fit the space, or are not finite; or the critic is recurrent, and an observation alone has no
            value.
        """
        checkpoint.make_whole(self)
        return self._inference.values(observations)

    def log_probs(self, observations: Any, actions: Any, action_masks: Any = None) -> Any:
        """Log-probability, or log-density, of each action under the policy as it is.

        Of a Box it is the density of the policy's own number, which an affine map is undone for; an action at a side,
        where draws beyond it are clipped to, counts as that very number.

        Parameters
        ----------
        observations, action_masks : as for :meth:`predict`
            Several observations, or one.
        actions : as the environment, or a vector environment with n copies, takes them
            What :meth:`predict` returns for these observations.

        Returns
        -------
        float64 ndarray, shape (n,), or a float64 for one observation
            -inf for an action that a mask forbids, or the smallest number that the policy's dtype has.

        Raises
        ------
        ValueError, TypeError
            What does not fit the spaces, named; or the policy is recurrent, so that it hangs on what was before.
        """
        checkpoint.make_whole(self)
        return self._inference.log_probs(observations, actions, action_masks)

    def evaluate(
        self,
        episodes: int = 10,
        deterministic: bool = True,
        seed: int | None = None,
        *,
        env: Any = None,
        max_steps: int | None = None,
        progress_bar: bool = False,
    ) -> EvaluationResult:
        """Play whole episodes in environments of their own; the training is not touched, statistics stay frozen.

        The number of episodes of each environment is fixed beforehand, so short ones are not over-represented.

        Parameters
        ----------
        seed : int, optional
            Of environments and noise; the agent's by default. The same seed gives the same episodes.
        env : as in the constructor, optional
            Environments to play in, with the agent's spaces, instead of new ones like those of the training; a
            VectorEnv is used as it is, and left open. Copies that would be one simulator, as several in one process may
            be, become one copy, with a UserWarning.
        max_steps : int, optional
            Steps after which an episode that has not ended is left; the config's ``evaluation_max_steps`` by default.
            Such episodes count with their return until then, are False in ``result.finished``, and are said in a
            UserWarning.
        progress_bar : bool
            Show a bar of episodes where stderr is a terminal.

        Raises
        ------
        ValueError
            The environments have other spaces than the agent, the training's cannot be made again, or ``env`` is the
            VectorEnv of the training in the middle of its episodes.
        """
        checkpoint.make_whole(self)
        return evaluation.evaluate(self, episodes, deterministic, seed, env, max_steps, progress_bar)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the whole agent, all that training needs to go on included, to a safetensors file (atomically).

        Raises ValueError, and writes nothing, where :meth:`load` could not take the file: ``path`` is a folder, or
        parameters have become another dtype or size, or are not finite. TypeError where ``path`` is no path.

        Of several ranks the first one writes, with the environments of all, and the others may call it or not.

        Called by a callback of :meth:`learn`, it has the states of callbacks as they are then, of those that are still
        to be called of this update the ones before it: save in one that comes last (``Callback.runs_last``).
        """
        if self._in_rollout_event:
            raise RuntimeError(
                "save: called in on_rollout_end, between a rollout and its update, where nothing can be gone on from; "
                "want it in on_update"
            )
        if self.ranks is None or self.ranks.first:
            checkpoint.save(self, path)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        env: Any = None,
        *,
        env_kwargs: Mapping[str, Any] | None = None,
        wrappers: Sequence[Any] | None = None,
        imports: Sequence[str] = (),
        trust_environment: bool = False,
        policy: Network | None = None,
        critic: Network | None = None,
        vectorization: str | None = None,
        num_workers: int | None = None,
        advantages: AdvantageFunction | None = None,
        step: StepFunction | None = None,
        ranks: Ranks | str | None = "auto",
        **settings: Any,
    ) -> TRPO:
        """An agent as it was saved.

        Parameters
        ----------
        path : path
            A model file, or the folder of a run or of its checkpoints: the latest model or checkpoint, the one with the
            most timesteps. One that cannot be read is passed over, with a warning.
        env : as in the constructor, optional
            Without it the environment is made again from the id that the file names, once it is needed. Of an id or a
            callable one environment is made now, for its spaces, and those to train in once they are needed.
        env_kwargs, wrappers : as in the constructor, optional
            For making each environment. Those in the file hold where the id is the file's, too; for another environment
            they have to be given where the file has some, and for any where the saved agent had some that a file cannot
            keep.
        imports : sequence of str, optional
            Modules that are imported before an environment is made. A file is not trusted with code: a module that it
            names, by its id, its imports or its wrappers, has to be named here, too.
        trust_environment : bool
            Import whatever the file names.
        policy, critic : as in the constructor
            Modules, or what makes them, where the agent was saved with such; they take over the saved parameters.
        vectorization, num_workers : as in the constructor
            By default as the file says for its own id, and as in the constructor for another environment.
        advantages, step : as in the constructor, optional
            Functions to learn on with. Where the file names one, it has to be given again, or another, before
            :meth:`learn`; acting needs none.
        ranks : as in the constructor
            Every rank reads the file, which may be of another number of ranks, or of none; None for what one rank does
            alone.
        settings
            Fields of the configuration to learn on with; not those that networks and statistics were built by.

        Raises
        ------
        FileNotFoundError, ModelFileError
            No file; or one that is truncated, damaged, foreign, or from a future version. The message names the file,
            what is wrong with it and what is wanted.
        TypeError
            ``path`` is no path, or another argument of a type that it cannot be.
        ValueError
            ``env`` has other spaces than the saved agent; a module is missing, or has other parameters than the saved;
            a setting that cannot be another one, or does not fit the rest; an environment is to be made for which the
            file names code that is not trusted (also later, when it is needed: acting needs none).
        """
        group = as_ranks(ranks)
        read = partial(
            loading.load,
            cls,
            env=env,
            env_kwargs=env_kwargs,
            wrappers=wrappers,
            imports=imports,
            trust_environment=trust_environment,
            policy=policy,
            critic=critic,
            vectorization=vectorization,
            num_workers=num_workers,
            advantages=advantages,
            step=step,
            ranks=group,
            settings=settings,
        )
        with left_on_error(group):
            if group is not None:  # of a folder every rank reads the file that rank 0 would
                chosen = loading.latest_in(path) if group.first else None
                path = group.of_first(chosen) or path
            return read_latest(path, read)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "TRPO: an agent cannot be pickled or copied, since it owns environments, threads and compiled buffers; "
            "want agent.save(path) and TRPO.load(path), or load_actor(path), which can be, to act alone"
        )

    def __repr__(self) -> str:
        env = self.recipe.name if self.recipe else f"{self.observation_space} -> {self.action_space}"
        policy = f"{type(self.policy).__name__} ({self.engine.name} engine, {self.engine.size:,} parameters)"
        return f"TRPO({env}, {policy}, num_envs={self.config.num_envs}, seed={self.seed}, {self.num_timesteps:,} steps)"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the training environments, and end the critic's fit: it gets 0.3 s, then it is abandoned.

        The agent can still act, be saved, and learn on, for which new environments are made. Called at the end of a
        ``with TRPO(...) as agent`` block.
        """
        self.critic_trainer.finish_within(FIT_PATIENCE)
        self.training_environments.close()

    def make_actor(self, seed: int, stream: int, narrow: bool = False) -> AgentActor:
        """The policy, as it is at each call, acting outside the training with noise of its own."""
        return AgentActor(
            self.engine,
            self.action_space,
            self.observation_normalizer,
            action_map=self.config.action_map,
            seed=seed,
            stream=stream,
            narrow=narrow,
        )
