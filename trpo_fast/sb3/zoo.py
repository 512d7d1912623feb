"""The drop-in in rl_zoo3: importing this puts it in sb3-contrib's place, under the zoo's name for it, "trpo".

    python -m rl_zoo3.train --algo trpo --env Pendulum-v1 --gym-packages trpo_fast.sb3.zoo

With the name stay the zoo's hyperparameters, its search space and its folders, and as files go both ways, what was
trained with one class is played by, or trained on with, the other.
"""

from rl_zoo3 import ALGOS

from . import TRPO

ALGOS["trpo"] = TRPO
