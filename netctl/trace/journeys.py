"""Puts together what is said of each packet: from many small messages of two sources to whole journeys. Pure.

The kernel names a packet by an id that changes on the way, as when it passes `lo` or needs room for an outer header.
Then the journey is found again by what no translation changes. What legacy tables log has no id, and is found so, too.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from netctl.explain.walk import HOOKS
from netctl.trace.headers import Ends, Headers
from netctl.trace.log_messages import LogEvent
from netctl.trace.trace_messages import TraceEvent
from netctl.trace.trace_table import PICK, STATES, first, last

SETTLED_S = 0.05
"""After its last step, for what the other source still has to say."""
SILENT_S = 0.3
"""A packet of which nothing is heard for so long went nowhere."""
FINAL = ("drop", "stolen")
LOGS = 2000
"""That may wait for their packet."""
STARTS = {first(hook): hook for hook in HOOKS}
ENDS = {last(hook): hook for hook in HOOKS}


@dataclass(slots=True)
class Visit:
    """One hook that the packet came to."""

    hook: str
    came_in: int = 0
    goes_out: int = 0
    before: Headers | None = None
    after: Headers | None = None
    """None: it did not come to the end of the hook."""
    steps: list[TraceEvent] = field(default_factory=list)
    logs: list[LogEvent] = field(default_factory=list)

    @property
    def in_order(self) -> list[TraceEvent | LogEvent]:
        """Which of the two came first nobody says; but what ended the packet came last."""
        is_ended = any(step.verdict in FINAL for step in self.steps)
        return [*self.logs, *self.steps] if is_ended else [*self.steps, *self.logs]


@dataclass(slots=True)
class Journey:
    start: Headers
    after: float
    """It began later than this, in seconds of the monotonic clock, as are the next two."""
    began: float
    heard: float
    visits: list[Visit] = field(default_factory=list)
    state: str = ""
    """Of the connection: `new`, `established`... Empty: not seen."""
    is_incomplete: bool = False
    """Messages were lost while it was on its way, perhaps some of its own."""

    @property
    def came_in(self) -> int:
        return self.visits[0].came_in

    @property
    def is_stopped(self) -> bool:
        """By a rule or policy of nf_tables."""
        return any(step.verdict in FINAL for step in self.visits[-1].steps)

    @property
    def is_at_end(self) -> bool:
        visit = self.visits[-1]
        return visit.after is not None and visit.hook in ("input", "postrouting")

    @property
    def seen_ends(self) -> set[Ends]:
        return {each.ends for visit in self.visits for each in (visit.before, visit.after) if each}


class Journeys:
    """Of the packets that one trace table picked."""

    def __init__(self, table: str, loopback: int) -> None:
        """`loopback`: the index of `lo`."""
        self._table = table
        self._loopback = loopback
        self.takes_new = True
        """Whether packets that are picked now are followed."""
        self.until = float("-inf")
        """All that was said before this time is heard."""
        self._misses = False
        self._by_id: dict[int, Journey] = {}
        self._open: list[Journey] = []
        self._logs: list[tuple[float, LogEvent]] = []

    @property
    def has_open(self) -> bool:
        return bool(self._open)

    def hear(self, event: TraceEvent, now: float) -> None:
        """One message. Of packets that others trace nothing is kept."""
        journey = self._by_id.get(event.packet)
        is_ours = event.family == "inet" and event.table == self._table
        if is_ours and event.headers and (event.chain == PICK or not is_of(journey, event.headers)):
            journey = self._begin(event, event.headers, now)
        if journey is None:
            # What is said of this id from now on is another packet's.
            self._by_id.pop(event.packet, None)
            return
        journey.heard = now
        if is_ours:
            self._note_place(journey, event)
        elif event.handle or event.kind != "rule":
            journey.visits[-1].steps.append(event)

    def miss(self) -> None:
        """The kernel lost messages, which may be of any packet that is on its way or heard of before `catch_up`."""
        self._misses = True
        for journey in self._open:
            journey.is_incomplete = True

    def catch_up(self, until: float) -> None:
        """All is heard that was said before this time."""
        self.until = until
        self._misses = False

    def log(self, event: LogEvent, now: float) -> None:
        self._logs = [*self._logs[-LOGS:], (now, event)]

    def _begin(self, event: TraceEvent, seen: Headers, now: float) -> Journey | None:
        """The journey of an id that is new, or used again."""
        is_picked = event.chain == PICK and event.came_in != self._loopback
        journey = None if is_picked else self._known_again(seen)
        if journey is None:
            if event.chain != PICK or not self.takes_new:
                return None
            journey = Journey(seen, self.until, now, now, is_incomplete=self._misses)
            self._open.append(journey)
        self._by_id[event.packet] = journey
        return journey

    def _known_again(self, seen: Headers) -> Journey | None:
        """The latest one that came to the end of a hook as this packet comes to the next."""
        for journey in reversed(self._open):
            after = journey.visits[-1].after
            if after and (after.mark, after.ends) == (seen.mark, seen.ends):
                return journey
        return None

    def _note_place(self, journey: Journey, event: TraceEvent) -> None:
        if event.target in STATES:
            journey.state = journey.state or event.target
        if event.headers and event.chain in ENDS:
            self._visit(journey, ENDS[event.chain], event).after = event.headers
        elif event.headers:
            hook = STARTS.get(event.chain) or ("prerouting" if event.came_in else "output")
            self._visit(journey, hook, event).before = event.headers

    @staticmethod
    def _visit(journey: Journey, hook: str, event: TraceEvent) -> Visit:
        if not journey.visits or journey.visits[-1].hook != hook:
            journey.visits.append(Visit(hook))
        visit = journey.visits[-1]
        visit.came_in, visit.goes_out = event.came_in or visit.came_in, event.goes_out or visit.goes_out
        return visit

    # -- those that are over --------------------------------------------------------------------------------------

    def over(self) -> Iterator[Journey]:
        """In the order in which they began; each one once.

        Silence counts as far as everything is heard: words that are still unread may be of the same packet.
        """
        done = [each for each in self._open if self._is_over(each)]
        if not done:
            return
        self._open = [each for each in self._open if each not in done]
        self._by_id = {number: each for number, each in self._by_id.items() if each in self._open}
        for journey in done:
            self._add_logs(journey)
            yield journey
        oldest = min((each.began for each in self._open), default=self.until - SILENT_S)
        self._logs = [each for each in self._logs if each[0] >= oldest - SILENT_S]

    def _is_over(self, journey: Journey) -> bool:
        waits_for = SILENT_S
        if journey.is_stopped or (journey.is_at_end and journey.visits[-1].goes_out != self._loopback):
            waits_for = SETTLED_S
        return self.until - journey.heard >= waits_for

    def _add_logs(self, journey: Journey) -> None:
        seen = journey.seen_ends
        for when, event in self._logs:
            fits = event.headers.mark == journey.start.mark and event.headers.ends in seen
            if fits and when >= journey.began - SILENT_S:
                visit = next((each for each in journey.visits if each.hook == event.hook), None)
                if visit:
                    visit.logs.append(event)


def is_of(journey: Journey | None, seen: Headers) -> bool:
    """An id may have been another packet's before."""
    return journey is not None and journey.start.mark == seen.mark
