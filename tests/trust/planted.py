"""Calls of which the third does what a test plants."""

import sys

from tests.trust.catalogue import declaring


def main(calls, third):
    """The command line of `calls`, of which call 2 is `third`."""

    def make_call(seed, index):
        return "planted", declaring.call(third if index == 2 else int, {}), {}

    calls.make_call = make_call
    sys.exit(calls.main())
