"""The compiled core's threads as threadpoolctl sees them: listed by ``threadpool_info()``, limited by
``threadpool_limits(n)``, under the name "trpo_fast"."""

from __future__ import annotations

from ._core.library import MAX_THREADS, get_num_threads, set_num_threads


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
            return get_num_threads()

        def set_num_threads(self, num_threads: int) -> None:
            count = min(num_threads, MAX_THREADS)  # a limit above what there can be limits nothing
            set_num_threads(count)
            # What was there before a limit comes back as a number. Where that is what there is without any, none is
            # set, so that threads go on to follow the affinity.
            set_num_threads(None)
            if get_num_threads() != count:
                set_num_threads(count)

        def get_version(self) -> str:
            return version

    threadpoolctl.register(CoreController)
