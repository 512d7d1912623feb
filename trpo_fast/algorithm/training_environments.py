"""The environments that an agent is trained in, with the collector that steps them: made when they are needed first,
closed, made again; and others like them, to evaluate in."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

from trpo_fast.algorithm.agreement import require_same_environments
from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.engines.distributed import parts_of
from trpo_fast.environments.base import Environments
from trpo_fast.environments.infos import MOST
from trpo_fast.environments.recipe import EnvironmentRecipe
from trpo_fast.environments.wrappers import warn_of
from trpo_fast.normalizers import ObservationNormalizer, RewardScaler
from trpo_fast.ranks import Ranks, share_of
from trpo_fast.rollout.collector import Collector, with_new_episodes
from trpo_fast.state import State


class TrainingEnvironments:
    """Of one agent; nothing is made before :meth:`attach` or :meth:`ready`.

    Parameters
    ----------
    recipe : EnvironmentRecipe or None
        How they are made; None for an agent that was loaded without.
    config : TRPOConfig
        Of the agent, resolved.
    as_bytes : bool
        Keep images as uint8 in the rollout.
    ranks : Ranks, optional
        Among which the config's copies are shared out.

    The others are those of :class:`Collector`; the spaces are the agent's, which environments made later must have.

    Attributes
    ----------
    environments : Environments or None
    collector : Collector or None
        Both, or neither.
    """

    def __init__(
        self,
        recipe: EnvironmentRecipe | None,
        config: TRPOConfig,
        seed: int,
        engine: Any,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        observation_normalizer: ObservationNormalizer | None,
        reward_scaler: RewardScaler | None,
        *,
        as_bytes: bool,
        ranks: Ranks | None = None,
    ) -> None:
        self.recipe = recipe
        self.observation_space, self.action_space = observation_space, action_space
        self.environments: Environments | None = None
        self.collector: Collector | None = None
        self._config, self._seed, self._engine = config, seed, engine
        self._normalizer, self._scaler = observation_normalizer, reward_scaler
        self._as_bytes = as_bytes
        self._ranks = ranks
        self._state: State = {"step": 0, "resets": 0, "episodes": None}  # of the collector while there is none
        self._warned_of_spaces = False  # that copies draw from one space
        self._known_inexact: str | None = None  # of a collector before
        self._asked: tuple[str, ...] = ()

    def get_state(self) -> State:
        """What the collector goes on from; see :class:`Collector`."""
        return self._state if self.collector is None else self.collector.get_state()

    def set_state(self, state: State) -> None:
        """What the next collector is to go on from, of an agent without one."""
        self._state = state

    def begin_new_episodes(self, reason: str) -> None:
        """Leave out of the state the episodes under way, which are not those of these environments, for this reason."""
        if self._state["episodes"] is not None:
            self._state = {**self._state, "episodes": None, "begun_anew": f"{reason}, so that new episodes began"}

    def ask(self, names: Sequence[str]) -> None:
        """Have what infos have under these names in the rollouts from now on.

        ValueError where there are too many, or something is no name.
        """
        if len(names) > MOST or not all(isinstance(name, str) for name in names):
            raise ValueError(f"infos: {list(names)!r} given; want {MOST} names at most, strings")
        self._asked = tuple(names)
        if self.environments is not None:
            self.environments.ask(self._asked)

    def put_back(self, state: State, *, new_episodes: bool) -> None:
        """Undo what was done since `state`, see :meth:`Collector.put_back`.

        Where episodes are cut, environments that have stepped since are left for new ones, as another process has.
        """
        if self.collector is not None and not self.cuts:
            self.collector.put_back(state, new_episodes=new_episodes)
            return
        resets = self.get_state()["resets"]
        self.close()
        self._state = with_new_episodes(state, resets) if new_episodes else state

    @property
    def cuts(self) -> int:
        """Updates after each of which all episodes are cut, see `TRPOConfig.reset_on_checkpoint`; 0: never.

        Known once environments have been made.
        """
        if self._inexact is None or self._known_recipe().reason_against_starting_afresh is not None:
            return 0
        return self._config.reset_on_checkpoint

    def inexact_after(self, updates: int, begun_anew: str | None) -> str | None:
        """Why what goes on from the state after so many updates is not, to the bit, what did not end; None where it is.

        With `cuts` that is so after a cut alone. `begun_anew` is that of the state, see :class:`Collector`.
        """
        period = self._config.reset_on_checkpoint
        if begun_anew is not None:
            return begun_anew
        if self.collector is None and self._inexact is None:  # nothing but the state is known
            begun, is_cut = self._state["resets"] > 0, period > 0 and updates % period == 0
            if self._state["episodes"] is not None or is_cut or not begun:
                return None
            return "its episodes are not in the file"
        if self._inexact is None or not period:
            return self._inexact
        reason = self._known_recipe().reason_against_starting_afresh
        if reason is not None:
            return f"{self._inexact}; and reset_on_checkpoint={period} does not help: {reason}"
        return self._between_cuts(updates)

    def _between_cuts(self, updates: int) -> str | None:
        """Where between two cuts it is after so many updates; None at one of them."""
        period = self._config.reset_on_checkpoint
        if updates % period == 0:
            return None
        return f"after update {updates:,}, between two of the cuts that reset_on_checkpoint={period} makes"

    @property
    def _inexact(self) -> str | None:
        """Of the latest collector, as it is known now."""
        return self._known_inexact if self.collector is None else self.collector.inexact

    def attach(self, environments: Environments) -> None:
        """Train in these from now on."""
        collector = Collector(
            environments,
            self._engine,
            steps_per_env=self._config.steps_per_env,
            seed=self._seed,
            observation_normalizer=self._normalizer,
            reward_scaler=self._scaler,
            action_map=self._config.action_map,
            observation_dtype=np.uint8 if self._as_bytes else None,
            ranks=self._ranks,
            learned_parts=parts_of(self._ranks, self._config.num_envs, self._engine) or 1,
        )
        collector.resume(self._state)
        environments.ask(self._asked)
        normalizes, scales = self._normalizer is not None, self._scaler is not None
        warn_of(environments.wrappings, normalizes=normalizes, scales=scales, are_kept=collector.inexact is None)
        self.environments, self.collector = environments, collector  # both or, after an error, neither

    def ready(self, updates: int) -> Collector:
        """The collector, with environments made now where the agent was loaded without them, or closed.

        `updates` is how many the agent has made.

        Raises ValueError where there is no recipe, or where copies in one process are one simulator; a UserWarning says
        so where that was asked for by name.

        After a cut the environments are made anew: what one keeps from episode to episode, a process that begins there
        does not have.
        """
        if self.collector is not None and self.collector.was_cut:
            self.close()
        if self.collector is None:
            # A VectorEnv that a user handed in is still open, and serves again.
            own = share_of(self._ranks, self._config.num_envs)
            count = own.stop - own.start
            environments = self._known_recipe().make_like(count, like=self, seed=self._seed, first=own.start)
            try:
                self.attach(environments)
            except BaseException:
                environments.close()
                raise
        try:
            self._refuse_shared_state()
        except KeyboardInterrupt:
            self.close()  # they may have taken steps, as none has that is looked at for the first time
            raise
        collector = self.collector
        assert collector is not None
        if self.cuts and not collector.under_way and collector.begun_anew is None:
            between = self._between_cuts(updates)
            collector.begun_anew = None if between is None else f"{between}, new episodes began"
        return collector

    def begin(self, updates: int) -> Collector:
        """`ready` for a training that begins: what has ended since the last one, as Ctrl-C in a terminal ends the
        worker processes of an `AsyncVectorEnv`, is made anew."""
        gone = self.environments is not None and self.environments.has_ended
        if self._ranks is not None:  # all take up their episodes again where one has to
            gone = self._ranks.any(gone or self.environments is None)
        if gone:
            self.close()
        collector = self.ready(updates)
        if self._ranks is not None and self.environments is not None:
            require_same_environments(self._ranks, self.environments)
        return collector

    def apart(self, env: Any, count: int, seed: int) -> Environments:
        """Environments for an evaluation; one copy where several in a process would be one simulator, and a warning.

        Parameters
        ----------
        env : as in the constructor of TRPO, or None
            What to make; None for what the training has.
        count : int
            Copies.
        seed : int
            What they will be reset with.
        """
        recipe = self._known_recipe() if env is None else EnvironmentRecipe(env)
        make = partial(recipe.make_again if env is None else recipe.make_like, like=self, seed=self._seed)
        environments = make(count)
        try:
            # Those of the training have been looked at, or will be before it begins.
            if env is not None or self.environments is None or self.collector is None:
                found = environments.shared_state(seed)
            else:
                found = self.environments.shared_state(self.collector.next_seed)
        except BaseException:
            environments.close()
            raise
        if environments.num_envs == 1 or not found.shared:
            return environments
        environments.close()
        warnings.warn(
            f"evaluate: its {count} copies in one process share state: {found.reason}; plays in one copy", stacklevel=4
        )
        return make(1)

    def steps_in(self, env: Any) -> bool:
        """Whether `env` is the vector environment of the training, in the middle of its episodes."""
        under_way = self.collector is not None and self.collector.under_way
        return self.recipe is not None and self.recipe.steps_in(env) and under_way

    def close(self) -> None:
        """Close the environments; others are made where they are needed again, and go on from the same state."""
        if self.collector is not None:
            self._state = self.collector.get_state()
            self._known_inexact = self.collector.inexact
        environments, self.environments, self.collector = self.environments, None, None
        if environments is not None:
            environments.close()

    def _known_recipe(self) -> EnvironmentRecipe:
        if self.recipe is None:
            raise ValueError("env: this agent was loaded without its environment; want TRPO.load(path, env=...)")
        return self.recipe

    def _refuse_shared_state(self) -> None:
        assert self.environments is not None and self.collector is not None
        found = self.environments.shared_state(self.collector.next_seed)
        if found.drawn_from and not self._warned_of_spaces:
            self._warned_of_spaces = True
            names = " and ".join(f"self.{name}" for name in found.drawn_from)
            warnings.warn(
                f"env: its copies draw from {names}, one object for all copies of a process: what each of them draws "
                "depends on the others, on how many share a process, and on no seed of the agent's; want "
                "self.np_random in its place, or a space for each copy that its reset seeds",
                stacklevel=5,
            )
        if not found.shared:
            return
        num_envs = self._config.num_envs
        what = f"env: its {num_envs} copies in one process share state: {found.reason}"
        ways_out = f"vectorization='workers' with num_workers={num_envs}, a process for each copy, or num_envs=1"
        if self._known_recipe().vectorization != "sync":
            raise ValueError(f"{what}; want {ways_out}, or vectorization='sync' to train all the same")
        warnings.warn(f"{what}; better: {ways_out}", stacklevel=5)
