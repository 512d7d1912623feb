"""Worker processes: the bits of one process, and nothing that hangs or stays."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import trpo_fast
from tests.environments import worker_toys as toys
from tests.environments.pids import gone
from trpo_fast._core.library import usable_cores
from trpo_fast.engines import make_engine
from trpo_fast.environments.in_process import InProcessEnvironments
from trpo_fast.environments.worker_process import WorkerError
from trpo_fast.environments.workers import WorkerEnvironments
from trpo_fast.normalizers import ObservationNormalizer, RewardScaler
from trpo_fast.rollout.collector import Collector

BOX = spaces.Box(-1, 1, (3,), np.float32)
KINDS = {
    "box": (spaces.Box(-2, 2, (4,), np.float32), BOX, None),
    "doubles": (spaces.Box(-2, 2, (2, 2), np.float64), spaces.Box(-1, 1, (2,), np.float64), None),
    "image": (spaces.Box(0, 255, (6, 5, 3), np.uint8), spaces.MultiDiscrete([2, 3]), None),
    "parts": (
        spaces.Dict(
            z=spaces.Discrete(3, start=-1), a=spaces.Tuple((spaces.MultiBinary(2), spaces.Box(-1, 1, (2,), np.float32)))
        ),
        spaces.Discrete(4, start=2),
        None,
    ),
    "masks of a method": (spaces.Discrete(5), spaces.Discrete(3), "method"),
    "masks in infos": (spaces.Discrete(5), spaces.Discrete(3), "info"),
}


def actions_for(environments, rng):
    if environments.action_dtype == np.int64:
        space = environments.action_space
        most = space.n if isinstance(space, spaces.Discrete) else space.nvec
        return rng.integers(0, most, environments.action_shape) + getattr(space, "start", 0)
    return rng.uniform(-1, 1, environments.action_shape).astype(environments.action_dtype)


def trace(environments, steps=40, seed=5, resets=2):
    """Every array of a few episodes, copied."""
    rng = np.random.default_rng(0)
    found = []
    for k in range(resets):
        found.append(
            [environments.reset(None if seed is None else seed + k).copy(), _copied(environments.action_masks)]
        )
        for _ in range(steps):
            *arrays, finals = environments.step(actions_for(environments, rng))
            found.append([*map(np.copy, arrays), *(finals or ()), _copied(environments.action_masks)])
    return found


def _copied(masks):
    return None if masks is None else masks.copy()


def assert_same(found, wanted):
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                assert one.dtype == other.dtype
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_workers_gives_the_bits_of_one_process(kind, made):
    make_one = functools.partial(toys.Drawn, *KINDS[kind])
    wanted = trace(InProcessEnvironments([make_one] * 5))
    assert any(len(step) > 6 for step in wanted)  # final observations
    assert (wanted[0][1] is not None) == kind.startswith("masks")
    for workers in (1, 2, 3):
        environments = made(make_one, 5, workers)
        assert environments.num_workers == workers == len(environments.processes)
        assert [i for part in environments.parts for i in range(part.start, part.stop)] == list(range(5))
        assert_same(trace(environments), wanted)


def test_parts_step_at_their_own_pace(made):
    make_one = functools.partial(toys.Drawn, *KINDS["masks in infos"])
    copies = InProcessEnvironments([make_one] * 5)
    environments = made(make_one, 5, 2)
    rng, steps = np.random.default_rng(1), 30
    actions = rng.integers(0, 3, (steps, 5))
    rows = copies.reset(2).copy()
    np.testing.assert_array_equal(environments.reset(2), rows)
    wanted = []
    for t in range(steps):
        *arrays, finals = copies.step(actions[t])
        wanted.append([*map(np.copy, arrays), finals, copies.action_masks.copy()])
    found = [[] for _ in environments.parts]

    def take(part, result):
        masks = environments.action_masks[environments.parts[part]].copy()
        found[part].append([*map(np.copy, result[:4]), result.final_observations, masks])

    for t in range(steps):  # the first part runs ahead to the end
        environments.send(0, actions[t, environments.parts[0]])
        assert environments.next_part() == 0
        take(0, environments.receive(0))
    for t in range(steps):
        environments.send(1, actions[t, environments.parts[1]])
        take(1, environments.receive(1))
    for part, own in enumerate(environments.parts):
        for ours, theirs in zip(found[part], wanted, strict=True):
            for one, other in zip((*ours[:4], ours[5]), (*theirs[:4], theirs[5]), strict=True):
                np.testing.assert_array_equal(one, other[own])
            rows, indices = theirs[4] or (np.empty((0, 5)), np.empty(0, int))
            here = (own.start <= indices) & (indices < own.stop)
            assert (ours[4] is None) == (not here.any())
            if here.any():
                np.testing.assert_array_equal(ours[4][0], rows[here])
                np.testing.assert_array_equal(ours[4][1], indices[here])


def collector_for(environments, engine="native", **options):
    policy = trpo_fast.MLPPolicy(environments.observation_space, environments.action_space, seed=3)
    normalizer = ObservationNormalizer(environments.observation_size)
    return Collector(
        environments,
        make_engine(policy, engine),
        steps_per_env=20,
        seed=4,
        observation_normalizer=normalizer,
        reward_scaler=RewardScaler(environments.num_envs, 0.9),
        **options,
    )


# Where the environments are, part by part, or all together as torch's rows depend on each other.
@pytest.mark.parametrize("way", ["there", "parts", "together"])
@pytest.mark.parametrize("kind", ["box", "doubles", "parts", "masks of a method", "masks in infos"])
def test_collecting_from_workers_gives_the_bits_of_one_process(kind, way, made, monkeypatch):
    if way == "parts":
        monkeypatch.setattr(WorkerEnvironments, "roll_out", lambda *_, with_state: None)
    make_one = functools.partial(toys.Drawn, *KINDS[kind])
    rollouts = []
    for environments in (InProcessEnvironments([make_one] * 5), made(make_one, 5, 2)):
        collector = collector_for(environments, "autograd" if way == "together" else "native")
        collector.warm_up(7)
        rollouts.append([])
        for _ in range(3):
            one = collector.collect()
            arrays = {**vars(one), **vars(one.sequences)}
            rollouts[-1].append({name: np.copy(array) for name, array in arrays.items() if name != "sequences"})
    for one, other in zip(*rollouts, strict=True):
        assert one.keys() == other.keys()
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name], err_msg=name)
    assert len(one["final_rows"]) > 3


def test_a_rollout_too_large_to_be_kept_twice_is_acted_part_by_part(made, monkeypatch):
    monkeypatch.setattr("trpo_fast.environments.workers._MOST_FOR_A_ROLLOUT", 1000)
    environments = made(toys.Sum, 4, 2)
    collector = collector_for(environments)
    assert environments.roll_out(collector._plan, 0, 20) is None
    wanted = collector_for(InProcessEnvironments([toys.Sum] * 4)).collect()
    np.testing.assert_array_equal(collector.collect().observations, wanted.observations)


@pytest.mark.parametrize("asked", [True, False])
def test_a_rollout_brings_the_state_of_the_copies_where_it_is_asked_for(asked, made):
    environments = made(functools.partial(gymnasium.make, "CartPole-v1"), 3, 2)
    environments.reset(0)
    rolled = environments.roll_out(collector_for(environments)._plan, 0, 5, with_state=asked)
    if asked:
        assert len(rolled.state["copies"]) == 3
        np.testing.assert_equal(rolled.state, environments.get_state())
    else:
        assert rolled.state is None


def first_seed(copies):
    """Of the environments of a collector with the seed 4."""
    entropy = np.random.SeedSequence((4, 2, 0))
    return int(entropy.generate_state(1)[0]) % (2**31 - copies)


# The earliest step, and there the lowest copy, whichever worker is faster.
@pytest.mark.parametrize(("at", "copy"), [({0: 5, 2: 5}, 0), ({1: 7, 3: 4}, 3), ({0: 7, 1: 6, 2: 6}, 1)])
def test_of_copies_that_raise_in_several_workers_the_one_of_one_process_is_heard(made, monkeypatch, at, copy):
    monkeypatch.setattr("trpo_fast.environments.workers.PATIENCE", 100.0)
    make_one = functools.partial(toys.Fails, first_seed(4), at)
    for environments in (InProcessEnvironments([make_one] * 4), made(make_one, 4, 2), made(make_one, 4, 4)):
        with pytest.raises(ArithmeticError, match=f"copy {copy}") as caught:
            collector_for(environments).collect()
        assert caught.value.__notes__[0] == f"environment {copy}, step {at[copy]} after the reset"


def test_what_a_copy_raises_is_heard_where_another_worker_does_not_come_back(made, monkeypatch):
    monkeypatch.setattr("trpo_fast.environments.workers.PATIENCE", 0.0)
    environments = made(functools.partial(toys.FailsOrHangs, first_seed(2)), 2, 2)
    with pytest.raises(ArithmeticError, match="copy 1"):
        collector_for(environments).collect()


def test_what_a_copy_raises_is_heard_where_another_worker_then_ends(made, monkeypatch, tmp_path):
    environments = made(functools.partial(toys.FailsOrExits, first_seed(2), tmp_path / "heard"), 2, 2)
    value_of = environments._processes.value_of

    def heard(part: int):
        value = value_of(part)
        (tmp_path / "heard").touch()
        return value

    monkeypatch.setattr(environments._processes, "value_of", heard)
    monkeypatch.setattr("trpo_fast.environments.workers.PATIENCE", 1000.0)  # so that it is the end that is heard
    with pytest.raises(ArithmeticError, match="copy 1"):
        collector_for(environments).collect()


def test_what_a_copy_raises_in_close_is_heard_where_another_worker_does_not_end(made):
    environments = made(functools.partial(toys.JamsOrRaisesInClose, 0), 2, 2)
    environments.reset(0)
    for part in range(2):
        environments.send(part, np.zeros_like(environments._actions[part]))
    environments.receive(1)
    with pytest.warns(UserWarning, match="environment 1 raised ArithmeticError"):
        environments.close()


def test_the_first_observation_that_is_not_finite_is_named_as_in_one_process(made):
    make_one = functools.partial(toys.Odd, first_seed(4))
    messages = []
    for environments in (InProcessEnvironments([make_one] * 4), made(make_one, 4, 4)):
        with pytest.raises(
            ValueError, match=r"observation of environment 3 at step 5: .* given; want finite"
        ) as caught:
            collector_for(environments).collect()
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@pytest.fixture
def hears_interrupts():
    """A background shell's children are deaf to Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_interrupts")
@pytest.mark.parametrize("stuck", [False, True])
def test_an_interrupted_rollout_is_given_up_and_the_next_one_begins_again(stuck, made):
    environments = made(functools.partial(toys.Late, stuck), 4, 2)
    collector = collector_for(environments)
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        collector.collect()
    timer.join()
    began = time.monotonic()
    assert_same(trace(environments, 3), trace(InProcessEnvironments([toys.Sum] * 4), 3))
    assert time.monotonic() - began < 15  # and not the rest of the rollout, too


def test_what_ends_a_rollout_there_is_what_ends_a_step(made):
    killed = collector_for(made(functools.partial(toys.Fifth, "kill"), 4, 2))
    with pytest.raises(WorkerError, match=r"worker . .* was killed by SIGKILL"):
        killed.collect()
    raised = collector_for(made(functools.partial(toys.Fifth, "raise"), 4, 2))
    with pytest.raises(ArithmeticError, match="fifth") as caught:
        raised.collect()
    assert "step 5 after the reset" in "\n".join(caught.value.__notes__)


def test_no_more_simulators_are_made_than_copies(tmp_path, made):
    environments = made(functools.partial(toys.Recorded, str(tmp_path)), 5, 2)
    assert len(list(tmp_path.glob("made-*"))) == 5
    assert {path.name.split("-")[1] for path in tmp_path.iterdir()} == set(map(str, environments.processes))
    environments.close()
    assert len(list(tmp_path.glob("closed-*"))) == 5


def test_by_default_there_is_a_worker_for_every_core_and_none_without_a_copy(made):
    assert made(toys.Sum, 8, None).num_workers == min(8, usable_cores())
    assert made(toys.Sum, 2, 5).num_workers == 2
    with pytest.raises(ValueError, match="num_workers: 0 given; want at least 1"):
        WorkerEnvironments([toys.Sum], 0)


def test_a_constructor_that_fails_says_so_in_its_own_words_and_leaves_nothing(tmp_path):
    before = os.listdir("/dev/fd")
    with pytest.raises(LookupError, match="the third door is locked") as caught:
        WorkerEnvironments([functools.partial(toys.Recorded, str(tmp_path), failing=3)] * 8, 2)
    assert any("copies 0 to 3" in note and "Traceback" in note for note in caught.value.__notes__)
    made = {path.name.partition("-")[2] for path in tmp_path.glob("made-*")}
    pids = {int(name.partition("-")[0]) for name in made}
    assert len(pids) == 2 and all(map(gone, pids))
    closed = {path.name.partition("-")[2] for path in tmp_path.glob("closed-*")}
    assert len(made) == 6 and len(closed) == 4  # two of the first three of each worker
    assert os.listdir("/dev/fd") == before


def test_an_environments_exception_keeps_its_type_and_names_environment_step_and_worker(made):
    environments = made(toys.Raises, 5, 2)
    environments.reset(0)
    actions = np.zeros((5, 1), np.float32)
    environments.step(actions)
    actions[3] = 1
    with pytest.raises(KeyError, match="no such door") as caught:
        environments.step(actions)
    notes = "\n".join(caught.value.__notes__)
    assert "environment 3, step 2 after the reset" in notes
    assert f"worker 1 (process {environments.processes[1]}, copies 2 to 4)" in notes
    assert "raise {**errors, **stops}[self.kind]" in notes  # the worker's traceback
    processes = environments.processes
    assert_same(trace(environments, 3), trace(InProcessEnvironments([toys.Raises] * 5), 3))
    assert environments.processes == processes


def test_an_exception_that_cannot_be_made_again_leaves_its_words(made):
    environments = made(functools.partial(toys.Raises, "Lost"), 2, 2)
    environments.reset(0)
    with pytest.raises(WorkerError, match="Lost: key and door") as caught:
        environments.step(np.array([[0], [1]], np.float32))
    assert "environment 1, step 1 after the reset" in caught.value.__notes__


@pytest.mark.parametrize(
    ("kind", "words"), [("KeyboardInterrupt", "KeyboardInterrupt"), ("CancelledError", "CancelledError: no more")]
)
def test_what_an_environment_raises_that_is_no_exception_is_named_and_the_worker_goes_on(made, kind, words):
    environments = made(functools.partial(toys.Raises, kind), 3, 2)
    environments.reset(0)
    with pytest.raises(WorkerError) as caught:
        environments.step(np.array([[0], [0], [1]], np.float32))
    assert str(caught.value) == words
    notes = "\n".join(caught.value.__notes__)
    assert "environment 2, step 1 after the reset" in notes and "worker 1 (process" in notes
    processes = environments.processes
    environments.reset(0)
    assert environments.processes == processes


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("exit", "exited with code 3"),
        ("_exit", "exited with code 4"),
        ("segfault", "was killed by SIGSEGV"),
        ("kill", "was killed by SIGKILL, as the system does where memory runs out"),
    ],
)
def test_a_worker_that_ends_is_named_and_reset_makes_new_ones(how, words, made):
    environments = made(functools.partial(toys.Exits, how), 5, 2)
    first = environments.processes
    environments.reset(0)
    actions = np.zeros((5, 1), np.float32)
    actions[4] = 1
    with pytest.raises(WorkerError, match=rf"^worker 1 \(process {first[1]}, copies 2 to 4\) {words}"):
        environments.step(actions)
    assert_same(trace(environments, 3), trace(InProcessEnvironments([toys.Sum] * 5), 3))
    assert not set(first) & set(environments.processes) and all(map(gone, first))


@pytest.mark.usefixtures("hears_interrupts")
@pytest.mark.parametrize("toy", [toys.Slow, toys.Stuck])
def test_after_an_interrupted_step_reset_begins_again(toy, made):
    environments = made(toy, 4, 2)
    environments.reset(0)
    actions = np.ones((4, 1), np.float32)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        while True:
            environments.step(actions)
    timer.join()
    assert_same(trace(environments, 3), trace(InProcessEnvironments([toys.Sum] * 4), 3))


@pytest.mark.parametrize("call", ["reset", "step"])
def test_after_an_interruption_in_the_middle_of_an_answer_reset_begins_again(call, made, monkeypatch):
    environments = made(toys.Sum, 2, 2)
    environments.reset(0)
    read = os.read

    def read_and_interrupt(descriptor, count):
        monkeypatch.undo()
        read(descriptor, count)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "read", read_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        environments.reset(0) if call == "reset" else environments.step(np.ones((2, 1), np.float32))
    assert_same(trace(environments, 3), trace(InProcessEnvironments([toys.Sum] * 2), 3))


def test_copies_of_different_spaces_are_refused_across_workers():
    makers = [functools.partial(toys.Drawn, spaces.Box(-1, high, (2,)), BOX) for high in (1, 1, 2, 2)]
    with pytest.raises(ValueError, match=r"environment 2: observation_space .*as environment 0 has it"):
        WorkerEnvironments(makers, 2)


def test_masks_that_only_some_workers_give_allow_everything_elsewhere():
    plain = functools.partial(toys.Drawn, *KINDS["masks in infos"][:2])
    masked = functools.partial(plain, "info")
    makers = [plain, plain, masked, masked]
    environments = WorkerEnvironments(makers, 2)
    try:
        assert_same(trace(environments), trace(InProcessEnvironments(makers)))
        assert environments.action_masks[:2].all()
    finally:
        environments.close()


def test_copies_draw_from_global_generators_of_their_own_however_they_are_shared_out(made):
    one, other, again = (trace(made(toys.Global, 4, workers), 5) for workers in (1, 3, 3))
    assert np.ptp(one[-1][1]) > 0
    assert_same(one, other)
    assert_same(again, other)


def test_what_begins_to_draw_late_is_reproduced_by_its_seed_and_the_number_of_workers(made):
    one, again = (trace(made(toys.LateGlobal, 4, 2)) for _ in range(2))
    assert not np.array_equal(one[-1][0], trace(made(toys.Sum, 4, 2))[-1][0])
    assert_same(one, again)


def test_copies_of_one_worker_that_share_state_are_found_and_one_copy_each_shares_none(made):
    found = made(toys.Shared, 4, 2).shared_state(3)
    assert found.shared and "Shared" in found.reason
    assert made(toys.Shared, 2, 2).shared_state(3).shared is False
    used = made(toys.Shared, 4, 2)
    used.reset(0)
    assert used.shared_state(3).shared is None


def test_a_space_that_copies_of_one_worker_draw_from_is_named(made):
    assert made(toys.Gambler, 4, 2).shared_state(3).drawn_from == ("action_space",)


def test_wrappings_of_all_copies_are_known_here(made):
    environments = made(lambda: gymnasium.wrappers.NormalizeReward(toys.Sum()), 3, 2)
    assert [(one.observations, one.rewards) for one in environments.wrappings] == [(False, True)] * 3


def test_a_worker_that_was_killed_between_steps_is_named_by_the_next_call(made):
    environments = made(toys.Sum, 4, 2)
    environments.reset(0)
    os.kill(environments.processes[0], signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"worker 0 .* was killed by SIGKILL"):
        for _ in range(1000):
            environments.step(np.zeros((4, 1), np.float32))
    environments.send(1, np.zeros((2, 1), np.float32))
    part = environments.next_part()
    if part == 0:
        with pytest.raises(WorkerError, match="worker 0"):
            environments.receive(part)


def test_a_forked_process_cannot_use_its_parents_workers(made):
    environments = made(toys.Sum, 2, 2)
    environments.reset(0)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            environments.reset(0)
        except RuntimeError as error:
            code = 0 if "belong to process" in str(error) else 2
        environments.close()  # which must not end them
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    environments.step(np.zeros((2, 1), np.float32))
