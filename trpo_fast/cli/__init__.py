"""The command line; :mod:`trpo_fast.cli.main` is where it begins."""
