"""The compiled core's threads as threadpoolctl sees them: listed by ``threadpool_info()``, limited by
``threadpool_limits(n)``, under the name "trpo_fast"."""

from __future__ import annotations

from ._core.library import MAX_THREADS, chosen_num_threads, get_num_threads, set_num_threads


class Followed(int):
    """A number of threads that nobody set: put back after a limit, it goes on to follow the affinity."""


def register_with_threadpoolctl(version: str) -> None:
    """Make the pool known to threadpoolctl, where that is installed.

    It is imported for this, at 3 ms: there is no later moment at which it would ask.
    """
    try:
        import threadpoolctl
    except ImportError:
        return

    class CoreController(threadpoolctl.LibController):
        user_api = internal_api = "trpo_fast"
        filename_prefixes = ("library.",)  # of _core/library, which owns the pool
        check_symbols = ("trpo_get_threads",)

        def get_num_threads(self) -> int:
            return get_num_threads() if chosen_num_threads() else Followed(get_num_threads())

        def set_num_threads(self, num_threads: int) -> None:
            if isinstance(num_threads, Followed):
                set_num_threads(None)
            elif num_threads >= 1:  # OpenBLAS, too, takes 0 for no limit
                set_num_threads(min(num_threads, MAX_THREADS))  # and a limit above what there can be limits nothing

        def get_version(self) -> str:
            return version

    threadpoolctl.register(CoreController)
