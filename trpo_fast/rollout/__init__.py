"""Collecting experience: rollouts and batches.

Import from the submodules; `batch` needs NumPy alone, the collector needs gymnasium.
"""
