import numpy as np
import pytest

from trpo_fast.state import copied, packed, unpacked

EVERYTHING = {
    "nothing": None,
    "numbers": (1, 2**127, -0.0, float("inf"), True, np.float32(0.1), np.float64(0.1), np.int8(-3), np.bool_(True)),
    "text": ["", "\x00 \u00fc", b"", b"\x00\xff"],
    "arrays": [np.arange(6).reshape(2, 3).astype(dtype) for dtype in ("u1", "i8", "f2", "f4", "f8", "c16", ">i4", "?")],
    "odd": {
        "empty": np.zeros((3, 0)),
        "single": np.array(2.5),
        "strided": np.arange(10)[::3],
        "words": np.array(["ab"]),
    },
    "dict": {"dict": {"array": [1, 2, 3]}},
}


def same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        return all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        assert len(a) == len(b)
        return all(map(same, a, b))
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return repr(a) == repr(b)


def test_plain_data_comes_back_with_every_bit_and_type():
    assert same(EVERYTHING, unpacked(packed(EVERYTHING)))
    assert packed(unpacked(packed(EVERYTHING))).tobytes() == packed(EVERYTHING).tobytes()


def test_an_integer_of_as_many_digits_as_python_writes_comes_back():
    assert unpacked(packed(2**14_284 - 1)) == 2**14_284 - 1


def test_a_copy_shares_no_memory():
    array = np.zeros(3)
    state = {"a": [array, (array,)]}
    again = copied(state)
    array[:] = 1.0
    assert again["a"][0].sum() == again["a"][1][0].sum() == 0.0
    assert same(copied(EVERYTHING), EVERYTHING)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"a": [1, {2}]}, r"state\['a'\]\[1\]: <class 'set'> given"),
        ({"a": np.array([None])}, r"state\['a'\]: an array of object given"),
        ({1: 2}, "state: keys that are no str given"),
        ({"a": [-(10**4300)]}, r"state\['a'\]\[0\]: an integer of over 4,300 digits given"),
        (np.random.default_rng(0), "state: <class 'numpy.random._generator.Generator'> given"),
    ],
)
def test_what_is_no_plain_data_is_named(value, named):
    for take in (copied, packed):
        with pytest.raises(TypeError, match=named):
            take(value)


def test_damaged_bytes_are_refused_or_read_and_never_crash():
    whole = packed(EVERYTHING)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(3000):
        bad = whole.copy()
        bad[rng.integers(len(bad), size=rng.integers(1, 4))] = rng.integers(256)
        try:
            unpacked(bad[: rng.integers(len(bad)) if rng.random() < 0.2 else None])
        except ValueError:
            refused += 1
    assert refused > 1000


@pytest.mark.parametrize(
    "description",
    [
        '{"array": ["<f8", [281474976710655, 9], 0]}',
        '{"array": ["|O", [1], 0]}',
        '{"array": ["<f8", [-1], 0]}',
        '{"array": ["<f8", [2], -8]}',
        '{"array": ["<f8", [2]]}',
        '{"number": ["<f8", [1], 0]}',
        '{"bytes": [0, 99999]}',
        '{"dict": [], "tuple": []}',
        "[" * 100_000,
        "1" * 5000,
    ],
)
def test_descriptions_that_nothing_here_writes_are_refused(description):
    text = description.encode()
    content = len(text).to_bytes(8, "little") + text + bytes(16)
    with pytest.raises(ValueError, match=r"given|there|shape|dtype|writes|deep|Expecting|digits"):
        unpacked(np.frombuffer(content, np.uint8))
