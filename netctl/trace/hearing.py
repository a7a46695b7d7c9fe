"""Hears what is said of traced packets, and until when all of it is heard: this process may wait for a processor, so
that of a packet nothing is heard does not mean that nothing was said.
"""

import select
import time
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from netctl.trace.journeys import Journeys
from netctl.trace.log_messages import LogEvent
from netctl.trace.trace_messages import TraceEvent

TICK_S = 0.05
Event_co = TypeVar("Event_co", covariant=True)


class Source(Protocol[Event_co]):
    """A socket with what the kernel says on it."""

    overflows: int
    """How often the kernel dropped messages, because we were too slow."""
    is_drained: bool
    """Whether the last reading took all that was there."""

    def fileno(self) -> int: ...

    def read(self) -> Iterable[Event_co]:
        """So much as one turn may take."""
        ...


class Hearing:
    def __init__(
        self,
        journeys: Journeys,
        traced: Source[TraceEvent],
        logged: Source[LogEvent] | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journeys = journeys
        self._traced = traced
        self._logged = logged
        self._clock = clock
        journeys.catch_up(clock())

    @property
    def overflows(self) -> int:
        return self._traced.overflows + (self._logged.overflows if self._logged else 0)

    def read(self) -> None:
        """Wait for a moment, and take in what is there."""
        sources = [each for each in (self._traced, self._logged) if each]
        select.select(sources, [], [], TICK_S)
        asked, missed = self._clock(), self._traced.overflows
        events, said = list(self._traced.read()), list(self._logged.read()) if self._logged else []
        now = self._clock()
        if self._traced.overflows > missed:
            self._journeys.miss()
        for event in events:
            self._journeys.hear(event, now)
        for each in said:
            self._journeys.log(each, now)
        if all(each.is_drained for each in sources):
            self._journeys.catch_up(asked)
