"""Whether the loop turns: what feeds the watchdog, and what `/healthz` says."""

import time

from controlloop.http_server import Answer, yes_or_no
from controlloop.notify import Notifier

HANG_S = 60.0
"""A loop that has not turned for so long hangs: one full pass over the largest state takes seconds."""


class Pulse:
    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._turned_at = time.monotonic()

    def turn(self) -> None:
        self._turned_at = time.monotonic()
        self._notifier.watchdog()

    def healthz(self) -> Answer:
        idle_s = time.monotonic() - self._turned_at
        good = idle_s < HANG_S
        return yes_or_no(good=good, text="ok" if good else f"the loop has not turned for {idle_s:.0f} s")
