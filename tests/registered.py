"""Environments by name: their version differs between versions of Gymnasium."""

from gymnasium.envs.registration import find_highest_version


def newest(name):
    """Its id: Taxi-v4 of "Taxi", Taxi-v3 where Gymnasium is older."""
    return f"{name}-v{find_highest_version(None, name)}"
