"""Environments: how they are named and made, stepped together, and what they answer with.

Import from the submodules; `recipe` says what an environment is and makes it, `base` what everything else sees of it.
"""

import gymnasium.vector

from trpo_fast.environments import packages

if not hasattr(gymnasium.vector, "AutoresetMode"):  # here, as everything that needs it comes by
    found = packages.holding_back("gymnasium", (1, 1))
    raise ImportError(
        f"gymnasium {gymnasium.__version__} is installed; want 1.1 or newer: pip install 'gymnasium>=1.1'"
        + (f". Installed packages that hold it back: {', '.join(found)}" if found else "")
    )
