"""Agents in threads, fits beside rollouts, forks beside both: what `make trust-threads` runs.

Every scenario checks its answer, too: what a thread computed beside others has the bits that it has alone.
"""

import os
import sys
import threading
import time

import numpy as np

import trpo_fast
from trpo_fast._core import rollout
from trpo_fast._core.critic import ValueKernel
from trpo_fast._core.policy import PolicyKernel


def trained(seed, overlap):
    """The parameters of a small agent after two updates."""
    config = trpo_fast.TRPOConfig(
        num_envs=2, steps_per_env=32, warm_up_steps=0, cg_iterations=3, overlap_critic=overlap
    )
    with trpo_fast.TRPO("CartPole-v1", config=config, preset=None, seed=seed) as agent:
        agent.learn(128)
        return agent.engine.parameters().copy()


def computed(seed, rounds=30):
    """What the compiled core says of one random batch: products, a fit, advantages."""
    rng = np.random.default_rng(seed)
    kernel, critic, answers = (
        PolicyKernel((3, 8, 2), "tanh", "gaussian", "f4"),
        ValueKernel((3, 8, 1), "tanh", "f4"),
        [],
    )
    theta = rng.normal(size=kernel.size).astype("f4")
    arrays = [rng.normal(size=shape).astype("f4") for shape in ((400, 3), (400, 2), (400,))]
    state = [rng.normal(size=critic.size).astype("f4"), *np.zeros((2, critic.size), "f4")]
    for step in range(rounds):
        kernel.bind(theta, *arrays)
        answers.append(kernel.fisher_operator().matvec(theta))
        critic.fit(
            *state,
            arrays[0],
            arrays[2],
            adam_step=step,
            epochs=1,
            batch_size=100,
            learning_rate=1e-3,
            seed=0,
            stream=0,
            first_epoch=step,
        )
        out = np.zeros((2, 20, 20), "f4")
        table, flags = arrays[2].reshape(20, 20), np.zeros((20, 20), bool)
        rollout.generalized_advantages(table, table, table, flags, flags, *out, gamma=0.9, gae_lambda=0.9)
        answers.append(out)
    return np.concatenate([np.ravel(answer) for answer in (*answers, *state)])


def beside(function, several):
    """`function` of each of `several`, in as many threads at once; what was raised is raised."""
    found, errors = {}, []

    def one(argument):
        try:
            found[argument] = function(*argument)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(argument,)) for argument in several]
    for thread in threads:
        thread.start()
    return threads, found, errors


def together(function, several):
    """As `beside`, waited for and compared with the same alone."""
    threads, found, errors = beside(function, several)
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    for argument in several:
        np.testing.assert_array_equal(found[argument], function(*argument))


def forked_beside():
    """Children of a process whose threads compute: each computes, too, and ends by itself."""
    done = threading.Event()

    def compute(seed):
        while not done.is_set():
            computed(seed, 3)

    threads, _, errors = beside(compute, [(1,), (2,)])
    wanted, children = computed(3, 3), []
    for _ in range(5):
        assert all(thread.is_alive() for thread in threads)
        pid = os.fork()
        if pid == 0:
            os._exit(0 if np.array_equal(computed(3, 3), wanted) else 1)
        children.append(pid)
        time.sleep(0.01)
    done.set()
    ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    for thread in threads:
        thread.join()
    assert ends == [0] * 5, ends
    if errors:
        raise errors[0]


SCENARIOS = {
    "the core in two threads": lambda: together(computed, [(1,), (2,)]),
    "two agents in two threads": lambda: together(trained, [(1, False), (2, False)]),
    "two agents, each with its critic's fit beside its rollout": lambda: together(trained, [(1, True), (2, True)]),
    "forks beside the core in two threads": forked_beside,
}


def main():
    """All scenarios, each with its seconds."""
    trpo_fast.set_num_threads(2)
    for name, scenario in SCENARIOS.items():
        start = time.monotonic()
        scenario()
        print(f"{name}: {time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
