"""The compiled loop over copies against the same loop in plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trpo_fast._core.stepping import CopyLoop

F32 = np.dtype(np.float32)


class Arrays:
    """What a loop writes, filled with what it must not leave."""

    def __init__(self, n=2, shape=(3,), dtype=np.float32):
        self.rows = np.full((n, int(np.prod(shape))), 77, dtype)
        self.rewards = np.full(n, 77.0)
        self.terminated, self.truncated = np.ones(n, bool), np.ones(n, bool)
        self.shape, self.handed = shape, []

    def loop(self, answers, gather=False, dtype=F32):
        """A loop whose copies give `answers`, one each at every step."""
        made = CopyLoop(
            self.rows,
            self.rewards,
            self.terminated,
            self.truncated,
            shape=self.shape,
            gather=gather,
            other=lambda i, answer: self.handed.append((i, answer)),
        )
        made.methods = [lambda action, answer=answer: answer for answer in answers]
        made.dtype = dtype
        return made


def usual(value, reward=1.5, shape=(3,), dtype=np.float32, info=None):
    return np.full(shape, value, dtype), reward, False, np.False_, {} if info is None else info


def test_answers_of_the_usual_form_are_written():
    arrays = Arrays()
    loop = arrays.loop([usual(1, 0.5, info={"a": 1}), usual(2, np.float32(0.25))])
    loop.step([None, None])
    np.testing.assert_array_equal(arrays.rows, [[1, 1, 1], [2, 2, 2]])
    np.testing.assert_array_equal(arrays.rewards, [0.5, 0.25])
    assert not arrays.terminated.any()
    assert not arrays.truncated.any()
    assert loop.infos == [{"a": 1}, {}]
    assert arrays.handed == []


@pytest.mark.parametrize(
    "answer",
    [
        None,
        usual(1)[:4],
        list(usual(1)),
        ([1.0, 1.0, 1.0], *usual(1)[1:]),
        usual(1, dtype=np.float64),
        usual(1, shape=(1, 3)),
        usual(1, reward=None),
        usual(1, reward=np.ones(2)),
        (*usual(1)[:2], True, False, {}),
        (*usual(1)[:2], False, np.True_, {}),
        (*usual(1)[:2], np.zeros(2, bool), False, {}),
    ],
    ids=repr,
)
def test_anything_else_is_handed_on_as_it_came_and_nothing_is_written(answer):
    arrays = Arrays()
    arrays.loop([usual(1), answer]).step([None, None])
    ((i, handed),) = arrays.handed
    assert i == 1
    assert handed is answer
    assert arrays.rewards[1] == 77
    assert arrays.terminated[1]
    assert (arrays.rows[1] == 77).all()
    assert (arrays.rows[0] == 1).all()


def test_without_a_known_dtype_every_answer_is_handed_on():
    arrays = Arrays()
    arrays.loop([usual(1), usual(2)], dtype=None).step([None, None])
    assert [i for i, _ in arrays.handed] == [0, 1]


@given(
    shape=st.lists(st.integers(1, 4), max_size=3).map(tuple),
    row=st.sampled_from([np.float32, np.float64, np.uint8]),
    seen=st.sampled_from([np.float32, np.float64, np.uint8, np.int64, np.bool_]),
    layout=st.sampled_from(["c", "fortran", "reversed", "read-only"]),
)
@settings(max_examples=60, deadline=None)
def test_observations_of_any_layout_and_dtype_become_the_rows_that_numpy_makes_of_them(shape, row, seen, layout):
    if row is np.uint8 and seen in (np.float32, np.float64, np.int64):
        return  # values that a row of bytes cannot hold
    rng = np.random.default_rng(0)
    values = [rng.integers(0, 2, shape).astype(seen) for _ in range(3)]
    change = {
        "c": lambda a: a,
        "fortran": lambda a: np.asfortranarray(a) if a.ndim else a,
        "reversed": lambda a: a[::-1] if a.ndim else a,
        "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    }[layout]
    given = [np.asarray(change(value)) for value in values]
    arrays = Arrays(3, shape, row)
    loop = arrays.loop([(value, 0.0, False, False, {}) for value in given], dtype=given[0].dtype)
    loop.step([None] * 3)
    assert arrays.handed == []
    np.testing.assert_array_equal(arrays.rows, [value.ravel() for value in given])


def test_observations_with_parts_are_kept_and_no_row_is_written():
    arrays = Arrays()
    answers = [({"a": 1}, 1.0, False, False, {}), ((2, 3), 2.0, False, False, {})]
    loop = arrays.loop(answers, gather=True, dtype=True)
    loop.step([None, None])
    assert loop.observations == [{"a": 1}, (2, 3)]
    assert (arrays.rows == 77).all()


def test_each_copy_gets_its_own_action_and_an_exception_says_where():
    arrays, seen = Arrays(), []
    loop = arrays.loop([])

    def failing(action):
        raise RuntimeError("of the environment")

    loop.methods = [lambda action: seen.append(action) or usual(1), failing]
    with pytest.raises(RuntimeError, match="of the environment"):
        loop.step(np.array([[1, 2], [3, 4]]))
    assert loop.at == 1
    np.testing.assert_array_equal(seen, [[1, 2]])


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_actions_or_copies_is_refused(count):
    loop = Arrays().loop([usual(1), usual(2)])
    with pytest.raises(ValueError, match=f"actions: {count} given; want one for each of 2 copies"):
        loop.step([None] * count)
    loop.methods = loop.methods[:1]
    with pytest.raises(ValueError, match="actions: 2 given"):
        loop.step([None] * 2)
    with pytest.raises(ValueError, match=r"rewards: .*want .* of shape \(2,\)"):
        CopyLoop(
            np.zeros((2, 3)), np.zeros(3), np.zeros(2, bool), np.zeros(2, bool), shape=(3,), gather=False, other=print
        )
