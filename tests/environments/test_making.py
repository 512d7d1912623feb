from __future__ import annotations

import pytest

from tests.rollout.toys import make_environments


def test_wrong_arguments_of_an_id_are_named_with_it():
    with pytest.raises(ValueError, match=r"env 'CartPole-v1' cannot be made: TypeError: .*'gravitation'"):
        make_environments("CartPole-v1", env_kwargs={"gravitation": 3})
