"""Searches for better settings: trials of the ranges that settings declare, on Optuna, in one sqlite file."""
