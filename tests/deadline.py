"""Waiting for something that must come true: asked again and again until it does, or the deadline passes."""

import time


def eventually(question, timeout_s=10.0):
    """The first true answer. AssertionError with the last answer, or the last error, when the time is up."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            last = question()
        except AssertionError as error:
            last = error
        else:
            if last:
                return last
        assert time.monotonic() < deadline, f"not within {timeout_s} s; last: {last!r}"
        time.sleep(0.02)
