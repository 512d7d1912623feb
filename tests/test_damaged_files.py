"""Model files that were damaged, by chance or by hand, through every way that reads them.

Set TRPO_FAST_DAMAGED_FILES for another number of them than 200.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import random
import sys
import tracemalloc
import warnings

import numpy as np
import pytest

from tests.damage import damaged, joined, parts
from trpo_fast import model_file
from trpo_fast.algorithm.config import TRPOConfig
from trpo_fast.algorithm.trpo import TRPO
from trpo_fast.deploy import load_actor
from trpo_fast.model_file import ModelFileError

FILES = int(os.environ.get("TRPO_FAST_DAMAGED_FILES", "200"))
LIMIT = 4 * 2**20  # bytes: some hundred times the file, modules that are imported first included


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Bytes of an agent's file, of a Box, and of another with every kind of space."""
    made = []
    for env in ("Pendulum-v1", "CartPole-v1"):
        path = tmp_path_factory.mktemp("whole") / "a.trpo"
        settings = {"hidden_sizes": (4,), "critic_hidden_sizes": (4,), "warm_up_steps": 2, "critic_epochs": 1}
        agent = TRPO(env, seed=3, num_envs=2, steps_per_env=16, preset=None, **settings).learn(32)
        agent.save(path)
        agent.close()
        made.append(path.read_bytes())
    return made


def test_a_damaged_file_is_refused_by_name_or_is_an_agent_in_little_memory(whole, tmp_path):
    chance, path, taken = random.Random(0), tmp_path / "bad.trpo", 0
    for number in range(FILES):
        path.write_bytes(damaged(whole[number % 2], chance))
        for read in (TRPO.load, load_actor):
            tracemalloc.start()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    read(path)
                taken += 1
            except ModelFileError as error:
                assert "bad.trpo" in str(error) and len(str(error)) < 20_000, number
            except ValueError as error:
                # What is no damage: an agent with networks or functions of its user's own.
                assert "own" in str(error), (number, error)
            finally:
                _, most = tracemalloc.get_traced_memory()
                tracemalloc.stop()
            assert most < LIMIT, (number, most)
    assert 0 < taken < 1.5 * FILES


@pytest.mark.parametrize("read", [TRPO.load, load_actor])
@pytest.mark.parametrize("space", ["observation_space", "action_space"])
@pytest.mark.parametrize(
    "described",
    [
        {"type": "Box", "low": -1.0, "high": 1.0, "shape": [2**26], "dtype": "float64"},
        {"type": "MultiBinary", "n": 2**26},
        {"type": "Discrete", "n": 2**26, "start": 0},
        {"type": "Tuple", "spaces": [{"type": "Box", "low": 0, "high": 1, "shape": [2**20], "dtype": "uint8"}] * 50},
    ],
    ids=lambda described: described["type"],
)
def test_a_space_that_no_network_of_the_file_could_see_takes_no_memory(whole, tmp_path, read, space, described):
    tensors, metadata = read_bytes(whole[0], tmp_path)
    model_file.write(tmp_path / "bad.trpo", tensors, {**metadata, space: described})
    tracemalloc.start()
    with pytest.raises(ModelFileError, match=r"bad\.trpo: .* given; want at most [\d,]{2,5}, with networks"):
        read(tmp_path / "bad.trpo")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 * 2**20


NUMBERS = [entry.name for entry in dataclasses.fields(TRPOConfig) if entry.type == "int"]


@pytest.mark.parametrize("read", [TRPO.load, load_actor])
def test_no_number_of_a_file_s_settings_takes_memory(whole, tmp_path, read):
    tensors, metadata = read_bytes(whole[0], tmp_path)
    assert {"num_envs", "steps_per_env", "critic_batch_size"} <= set(NUMBERS)
    for name in NUMBERS:
        config = {**metadata["config"], name: 2**24}
        model_file.write(tmp_path / "bad.trpo", tensors, {**metadata, "config": config})
        peaks = []
        for _ in range(2):  # the first may import something
            tracemalloc.start()
            read(tmp_path / "bad.trpo")
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert min(peaks) < 2**20, name


def calls_of(function, *arguments):
    """How many functions of Python are called, whatever comes of it."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        function(*arguments)
    except ValueError:
        pass
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.parametrize("read", [TRPO.load, load_actor])
def test_a_long_list_in_a_file_is_not_gone_through_again_and_again(whole, tmp_path, read):
    many = 20_000
    header, said, body = parts(whole[0])
    metadata = said["metadata"]
    (tmp_path / "whole.trpo").write_bytes(whole[0])
    read(tmp_path / "whole.trpo")  # imports what it needs
    usual = calls_of(read, tmp_path / "whole.trpo")
    gone_into = [("config", "hidden_sizes"), ("config", "critic_hidden_sizes"), ("config", "gamma"), ("environment",)]
    gone_into += [("environment", name) for name in ("env_kwargs", "wrappers", "modules")]
    gone_into += [("observation_space", "low"), ("observation_space", "shape"), ("counters",), ("own_networks",)]
    for way in gone_into:
        for long in ([1] * many, ["a"] * many, {str(i): 1 for i in range(many)}):
            changed = copy.deepcopy(metadata)
            where = changed
            for name in way[:-1]:
                where = where[name]
            where[way[-1]] = long
            (tmp_path / "bad.trpo").write_bytes(joined(header, {**said, "metadata": changed}, body))
            assert calls_of(read, tmp_path / "bad.trpo") < usual + 3 * many, way


def test_bytes_of_a_state_are_described_once(whole, tmp_path):
    tensors, metadata = read_bytes(whole[0], tmp_path)
    zeros = bytes(2**16)
    description = json.dumps([{"array": ["|u1", [len(zeros)], 0]}] * 1000).encode()
    description += b" " * (-len(description) % 8)
    content = len(description).to_bytes(8, "little") + description + zeros
    tensors["episodes_under_way"] = np.frombuffer(content, np.uint8)
    model_file.write(tmp_path / "bad.trpo", tensors, metadata)
    tracemalloc.start()
    with pytest.raises(ModelFileError, match=r"episodes_under_way: damaged, 65536 bytes from 0 on are not there"):
        TRPO.load(tmp_path / "bad.trpo")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 * 2**20


@pytest.mark.parametrize("read", [TRPO.load, load_actor])
@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F8_E5M2"])
def test_an_array_of_a_kind_that_numpy_lacks_is_refused_by_name(whole, tmp_path, read, dtype):
    header, said, body = parts(whole[0])
    size = {"BF16": 2}.get(dtype, 1)
    entry = header["episodes.lengths"]
    entry |= {"dtype": dtype, "shape": [(entry["data_offsets"][1] - entry["data_offsets"][0]) // size]}
    (tmp_path / "bad.trpo").write_bytes(joined(header, said, body))
    with pytest.raises(ModelFileError, match=rf"bad\.trpo: episodes\.lengths is of {dtype}; want one of BOOL"):
        read(tmp_path / "bad.trpo")


def read_bytes(content, folder):
    (folder / "whole.trpo").write_bytes(content)
    return model_file.read(folder / "whole.trpo")


def test_a_number_of_hundreds_of_digits_is_refused_in_few_words(whole, tmp_path):
    tensors, metadata = read_bytes(whole[0], tmp_path)
    for change in ({"seed": 10**400}, {"counters": {**metadata["counters"], "num_predictions": 10**400}}):
        model_file.write(tmp_path / "bad.trpo", tensors, {**metadata, **change})
        for read in (TRPO.load, load_actor):
            with pytest.raises(ModelFileError, match=r"401 characters") as raised:
                read(tmp_path / "bad.trpo")
            assert len(str(raised.value)) < 400


def test_an_infinite_array_is_refused(whole, tmp_path):
    tensors, metadata = read_bytes(whole[0], tmp_path)
    tensors["adam.second_moment"] = np.full_like(tensors["adam.second_moment"], np.inf)
    model_file.write(tmp_path / "bad.trpo", tensors, metadata)
    with pytest.raises(ModelFileError, match=r"adam\.second_moment: inf given"):
        TRPO.load(tmp_path / "bad.trpo")
