"""The pool through threadpoolctl's eyes."""

import os
import subprocess
import sys

import pytest

import trpo_fast

threadpoolctl = pytest.importorskip("threadpoolctl")


@pytest.fixture(autouse=True)
def restored_threads():
    count = trpo_fast.get_num_threads()
    yield
    trpo_fast.set_num_threads(count)


def listed():
    return [pool for pool in threadpoolctl.threadpool_info() if pool["internal_api"] == "trpo_fast"]


def test_the_pool_is_listed_once_with_threads_and_version():
    trpo_fast.set_num_threads(3)
    (pool,) = listed()
    assert pool["num_threads"] == 3
    assert pool["version"] == trpo_fast.__version__
    assert "_core" in pool["filepath"]


@pytest.mark.parametrize("limits", [1, {"trpo_fast": 1}])
def test_a_limit_holds_inside_its_context_only(limits):
    trpo_fast.set_num_threads(4)
    with threadpoolctl.threadpool_limits(limits):
        assert trpo_fast.get_num_threads() == 1
        assert listed()[0]["num_threads"] == 1
    assert trpo_fast.get_num_threads() == 4


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity to set")
def test_threads_that_followed_the_affinity_follow_it_again_after_a_limit():
    trpo_fast.set_num_threads(None)
    before = os.sched_getaffinity(0)
    with threadpoolctl.threadpool_limits(1):
        assert trpo_fast.get_num_threads() == 1
    try:
        os.sched_setaffinity(0, {min(before)})
        assert trpo_fast.get_num_threads() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_a_limit_beyond_the_most_threads_is_the_most_and_zero_limits_nothing():
    with threadpoolctl.threadpool_limits({"trpo_fast": 10_000}):
        assert trpo_fast.get_num_threads() == 256
    trpo_fast.set_num_threads(3)
    for limit in (0, -1):
        with threadpoolctl.threadpool_limits({"trpo_fast": limit}):
            assert trpo_fast.get_num_threads() == 3
        assert trpo_fast.get_num_threads() == 3


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity to set")
def test_a_number_that_was_set_is_kept_after_a_limit_though_it_is_the_default():
    trpo_fast.set_num_threads(None)
    before, default = os.sched_getaffinity(0), trpo_fast.get_num_threads()
    if default == 1:
        pytest.skip("the affinity cannot take less than one")
    trpo_fast.set_num_threads(default)
    with threadpoolctl.threadpool_limits(1):
        with threadpoolctl.threadpool_limits(default):
            assert trpo_fast.get_num_threads() == default
        assert trpo_fast.get_num_threads() == 1
    try:
        os.sched_setaffinity(0, {min(before)})
        assert trpo_fast.get_num_threads() == default
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize("first", ["import threadpoolctl; threadpoolctl.threadpool_info()", "pass"])
def test_the_order_of_imports_does_not_matter(first):
    program = f"""
{first}
import trpo_fast, threadpoolctl
print([pool["internal_api"] for pool in threadpoolctl.threadpool_info()].count("trpo_fast"))
"""
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "1"


def test_the_package_works_where_threadpoolctl_is_not_installed():
    program = """
import sys
sys.modules["threadpoolctl"] = None
import trpo_fast
print(trpo_fast.get_num_threads() >= 1)
"""
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "True"
