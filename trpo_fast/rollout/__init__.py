"""Collecting experience: environments, rollouts, batches.

Import from the submodules; `batch` needs NumPy alone, the others need gymnasium.
"""
