"""Environments: how they are named and made, stepped together, and what they answer with.

Import from the submodules; `recipe` says what an environment is and makes it, `base` what everything else sees of it.
"""
