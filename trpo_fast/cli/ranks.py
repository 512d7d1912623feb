"""``trpo-fast train`` under torchrun: rank 0 has the run's folder and prints, the others train along."""

from __future__ import annotations

import argparse
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trpo_fast._core import library
from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.cli.environments import loaded, require_workers
from trpo_fast.cli.errors import CommandError, describe, errors_of, is_of_an_answer, is_of_environment, user_errors
from trpo_fast.cli.output import say
from trpo_fast.cli.stopping import Stopped
from trpo_fast.environments.checks import SimulatorError
from trpo_fast.ranks import SECONDS, RankError, Ranks
from trpo_fast.settings import checked


def started_ranks(arguments: argparse.Namespace) -> Ranks | None:
    """Those that torchrun started; None where it did not."""
    timeout = arguments.rank_timeout
    with user_errors(RuntimeError):
        if timeout is None:
            return Ranks.if_started()
        with errors_of("--rank-timeout"):
            checked("timeout", timeout, SECONDS)
        ranks = Ranks.if_started(timeout)
    if ranks is None:
        raise CommandError("--rank-timeout: given without ranks; want it under torchrun alone")
    return ranks


def begun_before(ranks: Ranks | None) -> str | None:
    """The folder of the run to go on with after torchrun has started all ranks anew; None where there is none."""
    return ranks.remembered("folder") if ranks is not None and ranks.restarts else None


def remember(ranks: Ranks | None, folder: Path) -> None:
    """Let a restart find the run, which has begun."""
    if ranks is not None:
        ranks.remember("folder", str(folder))


def tell(ranks: Ranks | None, value: Any) -> None:
    """Tell the other ranks what the next thing is: the file to go on from and the threads, then the timesteps."""
    if ranks is not None:
        ranks.of_first(value)


def set_threads(count: int | None) -> None:
    """Threads of the compiled core and of torch."""
    if count is not None:
        with errors_of("--threads"):
            library.set_num_threads(count)
        torch.set_num_threads(count)


def step_as_asked(agent: TRPO, arguments: argparse.Namespace) -> None:
    """Step a resumed run's environments as the options say, which changes no bit."""
    if agent.recipe is not None:
        require_workers(arguments.vectorization or agent.recipe.vectorization, arguments.num_workers)
        with user_errors():
            agent.recipe = agent.recipe.with_changes(None, None, None, arguments.vectorization, arguments.num_workers)


def follow(arguments: argparse.Namespace, ranks: Ranks, make: Callable[[], TRPO]) -> int:
    """What every rank but the first does; the exit code.

    Parameters
    ----------
    make : callable
        The agent of a new run.
    """
    warnings.simplefilter("ignore")  # rank 0 says them
    agent, begun = None, False
    try:
        file, threads = ranks.of_first(None)
        set_threads(threads)
        agent = make() if file is None else loaded(Path(file), arguments, quiet=True, ranks=ranks)
        if file is not None:
            step_as_asked(agent, arguments)
        timesteps = ranks.of_first(None)
        begun = True
        if timesteps:
            agent.learn(timesteps, reset_num_timesteps=False)
        return 0
    except KeyboardInterrupt as interrupt:
        return interrupt.code if isinstance(interrupt, Stopped) else 130
    except RankError as error:
        if re.match("rank 0[^:]*: (its process has|their processes have) ended", str(error)):  # it says all else itself
            say(f"trpo-fast train: rank {ranks.rank}: {error}", sys.stderr)
        return 1
    except Exception as error:
        ranks.leave(error)
        own = isinstance(error, CommandError | OSError | SimulatorError | ValueError) or is_of_an_answer(error)
        if arguments.debug or not (own or is_of_environment(error)):
            traceback.print_exception(error)
        if begun or not own:  # what is wrong before rank 0 finds, too, or is told
            say(f"trpo-fast train: error on rank {ranks.rank}: {describe(error)}", sys.stderr)
        return 1
    finally:
        if agent is not None:
            agent.close()
