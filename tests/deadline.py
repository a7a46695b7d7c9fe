"""Waiting for something that must come true: asked again and again until it does, or the deadline passes."""

import time

from controlloop.client import UnreachableError

PATIENCE_S = 60.0
"""What a machine is given that is busy with other things, too. It costs nothing where the answer comes soon."""


def eventually(question, timeout_s=PATIENCE_S):
    """The first true answer. AssertionError with the last answer, or the last error, when the time is up.

    A daemon that does not answer in time, or is not up yet, may do so later.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            last = question()
        except (AssertionError, UnreachableError) as error:
            last = error
        else:
            if last:
                return last
        assert time.monotonic() < deadline, f"not within {timeout_s} s; last: {last!r}"
        time.sleep(0.02)
