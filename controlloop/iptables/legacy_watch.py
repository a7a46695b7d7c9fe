"""Notices within half a second that somebody changed tables of iptables-legacy, of which the kernel tells nobody."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from controlloop.drift import Drift
from controlloop.family import Family
from controlloop.iptables.chains import Key, Rules
from controlloop.iptables.fingerprint import Fingerprint

POLL_S = 0.5


class LegacyWatch:
    """A controlloop.drift.Watch that never knows what was changed, and hears of changes to chains of others too."""

    def __init__(self, family: Family, tables: Sequence[str]) -> None:
        self._fingerprint = Fingerprint(family, tables)
        self._last = self._fingerprint.read()
        self._drift: Drift[Key, Rules] = Drift()
        self._wake: Callable[[], None] = lambda: None
        self._timer: asyncio.TimerHandle | None = None
        self._writing = False
        self._closed = False

    def start(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._timer = asyncio.get_running_loop().call_later(POLL_S, self._poll)

    def take(self) -> Drift[Key, Rules]:
        self._look()
        taken, self._drift = self._drift, Drift()
        return taken

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._closed = True
        self._fingerprint.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """What changes within is our own doing; what changed before is noted first."""
        self._look()
        self._writing = True
        try:
            yield
        finally:
            self._last = self._read()
            self._writing = False

    def _poll(self) -> None:
        self._look()
        if self._drift:
            self._wake()
        self._timer = asyncio.get_running_loop().call_later(POLL_S, self._poll)

    def _look(self) -> None:
        if self._writing:
            return
        before, self._last = self._last, self._read()
        self._drift.everything |= before != self._last

    def _read(self) -> tuple[bytes, ...]:
        return self._last if self._closed else self._fingerprint.read()
