"""Waiting for something that must come true: asked again and again until it does, or the deadline passes."""

import time

from controlloop.client import UnreachableError

PATIENCE_S = 60.0
"""What a machine is given that is busy with other things, too. It costs nothing where the answer comes soon."""


def eventually(question, timeout_s=PATIENCE_S, *, that=bool):
    """The first answer of which `that` holds. AssertionError with the last answer, or the last error, when time is up.

    A daemon that does not answer in time, or is not up yet, may do so later. Ask for what can be read in a failure, and
    put the condition into `that`: of a comparison that is false nobody learns what was there.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            last = question()
            if that(last):
                return last
        except (AssertionError, UnreachableError) as error:
            last = error
        assert time.monotonic() < deadline, f"not within {timeout_s} s; last: {last!r}"
        time.sleep(0.02)


def becomes(question, wanted, timeout_s=PATIENCE_S):
    """Until the answer is this one. AssertionError with both when time is up."""
    try:
        eventually(question, timeout_s, that=lambda answer: answer == wanted)
    except AssertionError as error:
        raise AssertionError(f"{error}; wanted: {wanted!r}") from None
