"""What a daemon changed lately, and why: `netctl events` reads it.

It holds no more than `size` entries, each of bounded length. Changes of one object in quick succession become one entry
as long as nobody has read it, and many objects that change at once become one entry together: neither a storm nor a
start drives out what was before.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from msgspec import Struct
from msgspec.structs import asdict, replace

from controlloop.http_server import Answer, json_answer
from controlloop.printable import printable

SIZE = 1000
TOGETHER_S = 1.0
"""What happens to one object within so long may become one entry."""
NAMED = 5
"""Facts told one by one, before and after; of those above, only how many."""
STATES = {"not ready": ("not ready", "ready"), "away": ("away", "back")}
MANY, MANY_REPAIRS = 50, 5
"""Objects that are told one by one when they change, or are repaired, at once: who empties a table did one thing."""
KEPT = 50
"""Facts of an entry up to which the next change of its object is reckoned into it."""
KEPT_LENGTH = 200
DIGITS = 18
"""Of the number of an entry, at most."""

Facts = Collection[str]
T = TypeVar("T")


class Verbs(NamedTuple):
    added: str = "added"
    changed: str = "changed"
    removed: str = "removed"

    def of(self, old: object, new: object) -> str:
        return self.changed if old and new else self.added if new else self.removed


VERBS = Verbs()


class Repair(NamedTuple):
    name: str
    """The object's kind and name."""
    old: Facts
    """What it was found to be; empty: it was not there."""
    new: Facts
    by: str = ""
    """Who did it, where that is known."""


class Event(Struct, frozen=True, gc=False):
    sequence: int
    at: float
    """Seconds since the epoch."""
    object: str
    """Its kind and its name: `service default/web`."""
    action: str
    """`added`, `changed`, `removed`, `repaired`, `skipped`..."""
    old: tuple[str, ...]
    """What was true before and is not now, as a person would read it."""
    new: tuple[str, ...]
    trigger: str
    """What made us do it: `lease`, `service`, `slice`, `node`, `drift`, `kernel`, `config`, `startup`, `state`."""
    by: str | None
    """The program that did it, where the kernel tells; of several, the last."""
    times: int
    """Changes that this entry stands for."""


class History:
    def __init__(self, size: int = SIZE, clock: Callable[[], float] = time.time) -> None:
        self._size, self._clock = size, clock
        self._started = clock()
        self._last = 0
        self._read = 0
        """The last entry that somebody has read: it stays as it is."""
        self._events: OrderedDict[int, Event] = OrderedDict()
        self._latest: dict[str, int] = {}
        self._facts: dict[str, tuple[list[str], list[str]]] = {}
        """All that the latest entry of an object stands for, before and after."""
        self._dropped = 0
        """The last entry that had to make room."""

    def note(  # noqa: PLR0913 - a record's fields, by name
        self,
        what: str,
        action: str,
        *,
        trigger: str,
        old: Facts = (),
        new: Facts = (),
        by: str = "",
    ) -> None:
        self._last += 1
        event = Event(
            self._last, self._clock(), printable(what), action, some(old), some(new), trigger, printable(by) or None, 1
        )
        both = kept(old), kept(new)
        if before := self._mergeable(event):
            del self._events[before.sequence]
            both = in_succession(self._facts[event.object], both)
            event = replace(event, old=some(both[0]), new=some(both[1]), times=before.times + 1)
        self._events[event.sequence] = event
        self._latest[event.object] = event.sequence
        self._facts[event.object] = both
        while len(self._events) > self._size:
            self._dropped, oldest = self._events.popitem(last=False)
            if self._latest.get(oldest.object) == self._dropped:
                del self._latest[oldest.object], self._facts[oldest.object]

    def _mergeable(self, event: Event) -> Event | None:
        """The last entry of this object, when this one may stand for both."""
        before = self._events.get(self._latest.get(event.object, 0))
        if before is None or before.sequence <= self._read or before.action != event.action:
            return None
        if max(map(len, self._facts[event.object])) > KEPT:
            return None
        return before if abs(event.at - before.at) <= TOGETHER_S else None

    def noted(
        self,
        kind: str,
        changes: Mapping[str, tuple[T, T]],
        trigger: str,
        facts: Callable[[T, T], tuple[Facts, Facts]],
        verbs: Verbs = VERBS,
    ) -> None:
        """Objects of one kind that changed at once: before and after, by name; what is false is not there.

        `facts` puts both into words, and is asked only for objects that are told one by one.
        """
        if len(changes) > MANY:
            counts = Counter(verbs.of(old, new) for old, new in changes.values())
            self.note(f"{len(changes)} {kind}s", verbs.changed, new=counted(counts), trigger=trigger)
            return
        for name, (old, new) in changes.items():
            lost, gained = difference(*facts(old, new))
            if lost or gained:
                self.note(f"{kind} {name}", verbs.of(old, new), old=lost, new=gained, trigger=trigger)

    def repaired(self, kinds: Mapping[str, int], repairs: Iterable[Repair], where: str = "the overlay") -> None:
        """So many objects of each kind were put right. `repairs` are asked for only as far as they are told."""
        if (number := sum(kinds.values())) > MANY_REPAIRS:
            by = next(iter(repairs)).by
            self.note(f"{number} objects of {where}", "repaired", new=counted(kinds), trigger="drift", by=by)
            return
        for name, old, new, by in repairs:
            lost, gained = difference(old, new)
            self.note(name, "repaired", old=lost, new=gained, trigger="drift", by=by)

    def turned(self, kind: str, name: str, *, is_wrong: bool, reason: str = "") -> None:
        """Something is wrong since now, or right again. `kind`: a finding's code, `not ready`, `away`."""
        begun, over = STATES.get(kind, (f"finding {kind}", f"finding {kind} is over"))
        action = begun if is_wrong else over
        self.note(name, action, new=(reason,) if is_wrong and reason else (), trigger="state")

    def page(self, after: str = "0") -> Answer:
        """`/events` and `/events/SEQUENCE`: all that came behind an entry."""
        if len(after) > DIGITS or not (after.isascii() and after.isdigit()):
            return Answer(404, b"want the number of an event\n")
        return json_answer(self.document(int(after)))

    def document(self, after: int = 0) -> dict[str, Any]:
        """`started` is another one when the daemon was, and numbers begin anew. `lost` counts the changes behind
        `after` that had to make room.
        """
        found = [asdict(event) for sequence, event in self._events.items() if sequence > after]
        self._read = self._last
        return {
            "apiVersion": "nodenet.io/v1alpha1",
            "kind": "EventPage",
            "started": self._started,
            "last": self._last,
            "lost": max(0, self._dropped - after),
            "items": found,
        }


def difference(old: Facts, new: Facts) -> tuple[list[str], list[str]]:
    return [fact for fact in old if fact not in new], [fact for fact in new if fact not in old]


def in_succession(
    first: tuple[list[str], list[str]], second: tuple[list[str], list[str]]
) -> tuple[list[str], list[str]]:
    """What two changes of one object come to: a fact that the one brought and the other took away is not told."""
    (lost, gained), (lost_then, gained_then) = first, second
    before = [*(each for each in lost if each not in gained_then), *(each for each in lost_then if each not in gained)]
    after = [*(each for each in gained if each not in lost_then), *(each for each in gained_then if each not in lost)]
    return list(dict.fromkeys(before)), list(dict.fromkeys(after))


def kept(facts: Facts) -> list[str]:
    """Bounded, and still more than `KEPT` of those that are more."""
    return [fact[:KEPT_LENGTH] for fact, _ in zip(facts, range(KEPT + 1), strict=False)]


def some(facts: Facts) -> tuple[str, ...]:
    shown = tuple(printable(fact) for fact, _ in zip(facts, range(NAMED), strict=False))
    hidden = len(facts) - len(shown)
    return (*shown, f"and {hidden} more") if hidden else shown


def counted(numbers: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(f"{number} {name}" for name, number in sorted(numbers.items()))
