"""Agents' files: sound safetensors with something else in them, through every way that reads them."""

from __future__ import annotations

import copy
import tempfile
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from tests.agents import random_agent
from tests.damage import joined, parts, places
from tests.fuzz.decoding import Input
from trpo_fast import TRPO, model_file, state
from trpo_fast.algorithm import checkpoint
from trpo_fast.deploy import load_actor
from trpo_fast.model_file import ModelFileError

MODULES = ("model_file.py", "saved_state.py", "saved_policy.py", "state.py", "spaces/descriptions.py")
PLANTED = (
    "model_file.py",
    "    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:",
    "    except (TypeError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:",
    "AssertionError",
)
_IMAGE = Box(0, 255, (36, 36, 1), np.uint8)
_SPACES = (
    (Box(-2, 2, (4,), np.float32), Discrete(3), {}),
    (Box(-np.inf, np.inf, (2,), np.float64), Box(-1, 1, (2,), np.float32), {"scale_rewards": True}),
    (Dict(a=MultiDiscrete([2, 3]), b=Tuple([Discrete(2), MultiBinary(2)])), MultiBinary(3), {"dtype": "float64"}),
    (Box(-1, 1, (3,)), MultiDiscrete([2, 2], start=[1, 0]), {"policy": "gru", "recurrent_size": 3}),
    (_IMAGE, Discrete(2), {"policy": "cnn"}),
    (Dict(image=_IMAGE, rest=Box(-1, 1, (2,))), Discrete(2), {"policy": "cnn"}),
)
_DTYPES = ("BF16", "F8_E4M3", "F16", "F64", "F32", "I64", "BOOL", "U8", "?")
_SHAPES = ([], [1], [2**40], [-1], [0], [10**400], [2**62, 2**62, 0], [2**40, 0], [4, 1], "x", None)
_NUMBERS = (np.nan, np.inf, -np.inf, -1.0, 0.0, 1e30)


@cache
def _whole(number: int) -> bytes:
    """The file of an agent."""
    observations, actions, settings = _SPACES[number]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        agent = random_agent(observations, actions, **settings)
        agent.save(Path(folder, "a.trpo"))
        agent.close()
        return Path(folder, "a.trpo").read_bytes()


def _edit(chosen: Input, content: bytes) -> bytes:
    """The file with one thing in it that is another."""
    kind = chosen.take(16)  # more often of what is read last: a container that is no longer one ends it all
    if kind == 0:
        return content[: chosen.take(len(content) + 1)]
    if kind == 1:
        spoilt = bytearray(content)
        for byte in chosen.bytes(8):
            spoilt[chosen.take(len(spoilt))] = byte
        return bytes(spoilt)
    header, said, body = parts(content)
    names = [name for name in header if name != "__metadata__"]
    if kind == 2:
        changed = header[chosen.choose(names)]
        changed["dtype"] = chosen.choose((changed["dtype"], *_DTYPES))
        changed["shape"] = chosen.choose((changed["shape"], *_SHAPES))
        changed["data_offsets"] = chosen.choose((changed["data_offsets"], [0, 2**40], [4, 0], [0, 0], [-1, 4], "x"))
    elif kind < 6:
        entry = header[chosen.choose(names)]
        first, last = entry["data_offsets"]
        if last > first and entry["dtype"] in ("F32", "F64", "I64"):
            array = np.frombuffer(
                body[first:last], f"<{entry['dtype'].lower()[0]}{int(entry['dtype'][1:]) // 8}"
            ).copy()
            with np.errstate(invalid="ignore"):
                array[chosen.take(len(array))] = chosen.choose(_NUMBERS if array.dtype.kind == "f" else (-1, 2**62, 0))
            body = body[:first] + array.tobytes() + body[last:]
    elif kind < 8:
        name = chosen.choose(("episodes_under_way", "callbacks", "critic.more", "policy.more", "x"))
        pack = chosen.bytes(200)
        if chosen.take(4):
            pack = state.packed({"a": [(1, b"xy"), np.arange(3), np.float32(2), {"b": None}], "c": "d"}).tobytes()
            pack = pack.replace(
                *chosen.choose(((b"[0,", b"[8,"), (b"i8", b"O8"), (b"[3]", b"[9]"), (b"dict", b"cold"), (b"", b"")))
            )
        header[name] = {
            "dtype": chosen.choose(("U8", "I8")),
            "shape": [len(pack)],
            "data_offsets": [len(body), len(body) + len(pack)],
        }
        body += pack
    else:
        *way, last = chosen.choose(list(places(said)))
        where = said
        for key in way:
            where = where[key]
        if kind < 11 and isinstance(where, dict):
            del where[last]
        elif kind < 13:
            where[last] = copy.deepcopy(chosen.choose(_parts_of(said)))
        else:
            where[last] = copy.deepcopy(chosen.value())
    return joined(header, said, body)


def _parts_of(said: object) -> list[object]:
    """Values from elsewhere in what a file says."""
    found = []
    for way in list(places(said))[:400]:
        value = said
        for key in way:
            value = value[key]
        found.append(value)
    return found


def run(data: bytes, folder: Path) -> None:
    """One file, read by one reader; AssertionError where what comes of it is neither an agent nor a refusal by name."""
    chosen, path = Input(data), folder / "bad.trpo"
    reader = chosen.take(5)
    content = _whole(chosen.take(len(_SPACES)))
    for _ in range(1 + chosen.take(4)):
        try:
            content = _edit(chosen, content)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError, ArithmeticError):
            break  # an earlier edit left no file to edit
    path.write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if reader == 0:
                model_file.read(path)
            elif reader == 1:
                TRPO.load(path).close()
            elif reader == 2:
                checkpoint.read(path)
            else:
                actor = load_actor(path)
                if reader == 4:
                    str(actor.observation_space), str(actor.action_space)
    except ModelFileError as error:
        assert "bad.trpo" in str(error) and len(str(error)) < 20_000, str(error)[:500]
    except ValueError as error:
        # What is no damage: networks or functions of a user's own, and policies that have no compiled kernels.
        assert "own" in str(error) or "bad.trpo: its policy is" in str(error), error
    if reader in (1, 2) and chosen.left == 0:
        return
    with suppress(ValueError):
        state.unpacked(np.frombuffer(chosen.bytes(200), np.uint8))
