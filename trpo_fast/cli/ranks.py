"""``trpo-fast train`` under torchrun: rank 0 has the run's folder and prints, the others train along."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.cli.environments import loaded
from trpo_fast.cli.errors import CommandError, describe, is_of_an_answer, user_errors
from trpo_fast.cli.stopping import Stopped, say
from trpo_fast.environments.checks import SimulatorError
from trpo_fast.ranks import RankError, Ranks


def started_ranks(arguments: argparse.Namespace) -> Ranks | None:
    """Those that torchrun started; None where it did not."""
    with user_errors(RuntimeError):
        return Ranks.if_started() if arguments.rank_timeout is None else Ranks.if_started(arguments.rank_timeout)


def described(ranks: Ranks | None) -> dict[str, Any]:
    """What config.json says of them; after a restart the run is found by it."""
    return {} if ranks is None else {"ranks": {"size": ranks.size, "run_id": ranks.run_id}}


def begun_before(arguments: argparse.Namespace, ranks: Ranks | None) -> str | None:
    """The folder of the run to go on with after torchrun has started all ranks anew; None where there is none yet."""
    if ranks is None or not ranks.restarts or arguments.resume:
        return None
    folders = [Path(arguments.out)] if arguments.out else sorted(Path("runs").glob("*"))
    for folder in folders:
        try:
            content = json.loads((folder / "config.json").read_text())
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and content.get("ranks", {}).get("run_id") == ranks.run_id:
            return str(folder)
    return None


def tell(ranks: Ranks | None, value: Any) -> None:
    """Tell the other ranks what the next thing is: the file to go on from, the timesteps to train for."""
    if ranks is not None:
        ranks.of_first(value)


def follow(arguments: argparse.Namespace, ranks: Ranks, make: Callable[[], TRPO]) -> int:
    """What every rank but the first does; the exit code.

    Parameters
    ----------
    make : callable
        The agent of a new run.
    """
    warnings.simplefilter("ignore")  # rank 0 says them
    agent = None
    try:
        file = ranks.of_first(None)
        agent = make() if file is None else loaded(Path(file), arguments, quiet=True, ranks=ranks)
        timesteps = ranks.of_first(None)
        if timesteps:
            agent.learn(timesteps, reset_num_timesteps=False)
        return 0
    except KeyboardInterrupt as interrupt:
        return interrupt.code if isinstance(interrupt, Stopped) else 130
    except RankError:
        return 1  # the rank that it names tells more
    except Exception as error:
        ranks.leave(error)
        own = isinstance(error, CommandError | OSError | SimulatorError) or is_of_an_answer(error)
        if not own:
            traceback.print_exception(error)
        say(f"trpo-fast train: error on rank {ranks.rank}: {describe(error)}", sys.stderr)
        return 1
    finally:
        if agent is not None:
            agent.close()
