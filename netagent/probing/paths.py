"""Which peer is asked when, and what its answers, or their absence, say about the way to it.

Pure: the clock and chance are the caller's. Peers are asked in turn, each once in PERIOD_S, but never more than
PER_TICK questions in a tick: with many peers the turns get longer, and not the cost higher. What got no answer is asked
again in the next tick, LOST_AFTER times, before it is called lost.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple
from zlib import crc32

TICK_S = 1.0
PERIOD_S = 10.0
PER_TICK = 10
LOST_AFTER = 3

LARGE_EVERY = 3
"""Turns between two large questions while they are answered."""

SMOOTHING = 1 / 8
"""Weight of a new round-trip time (RFC 6298, 2.3)."""


class Reach(Enum):
    SILENT = "silent"
    """Never answered: flanneld does not, and a firewall on the peer may keep probes out."""
    REACHABLE = "reachable"
    LOST = "lost"
    """Does not answer any more."""


class Size(Enum):
    SMALL = "small"
    LARGE = "large"
    """As large as a packet of a pod may be."""


class Question(NamedTuple):
    peer: str
    size: Size


@dataclass(slots=True)
class Lane:
    """Questions of one size to one peer."""

    misses: int = 0
    """Without an answer, in a row."""
    answered_at: float | None = None
    failed_at: float | None = None
    """The first of LOST_AFTER misses or more; None while answers come."""

    def answered(self, now: float) -> None:
        self.misses, self.answered_at, self.failed_at = 0, now, None

    def missed(self, asked_at: float) -> None:
        self.misses += 1
        if self.misses == 1:
            self.failed_at = asked_at


@dataclass(slots=True)
class Path:
    """The way to one peer."""

    small: Lane = field(default_factory=Lane)
    large: Lane = field(default_factory=Lane)
    rtt_s: float | None = None
    """Smoothed, of small questions."""
    turns: int = 0

    @property
    def reach(self) -> Reach:
        if self.small.answered_at is None:
            return Reach.SILENT
        return Reach.LOST if self.small.misses >= LOST_AFTER else Reach.REACHABLE

    @property
    def lost_since(self) -> float | None:
        return self.small.failed_at if self.reach is Reach.LOST else None

    @property
    def too_small_since(self) -> float | None:
        """Since when small packets arrive and large ones do not."""
        narrow = self.reach is Reach.REACHABLE and self.large.misses >= LOST_AFTER
        return self.large.failed_at if narrow else None

    def lane(self, size: Size) -> Lane:
        return self.small if size is Size.SMALL else self.large

    @property
    def wants_large(self) -> bool:
        if self.reach is not Reach.REACHABLE or self.small.misses:
            return False
        unproven = self.large.answered_at is None or self.large.misses > 0
        return unproven or self.turns % LARGE_EVERY == 0


@dataclass(frozen=True, slots=True)
class Asked:
    question: Question
    at: float


class Paths:
    def __init__(self, own: str) -> None:
        """`own` is this node's lease: no two nodes take their peers in the same order."""
        self._own = own
        self._paths: dict[str, Path] = {}
        self._turns: deque[str] = deque()
        self._urgent: deque[str] = deque()
        self._asked: dict[int, Asked] = {}
        self._credit = 0.0

    @property
    def all(self) -> Mapping[str, Path]:
        return MappingProxyType(self._paths)

    def follow(self, peers: AbstractSet[str]) -> None:
        """These are the peers; what is known of those that stay, stays."""
        known = self._paths.keys()
        gone = known - peers
        added = sorted(peers - known, key=lambda name: crc32(f"{self._own} {name}".encode()))
        for name in gone:
            del self._paths[name]
        if gone:
            self._turns = deque(name for name in self._turns if name not in gone)
            self._urgent = deque(name for name in self._urgent if name not in gone)
        for name in added:
            self._paths[name] = Path()
            self._turns.append(name)
            self._urgent.append(name)

    def due(self) -> Iterator[Question]:
        """What to ask in this tick; the caller gives each one back to `asked`."""
        self._credit = min(PER_TICK, self._credit + len(self._turns) * TICK_S / PERIOD_S)
        left = PER_TICK
        visited = set()
        while left > 0 and (name := self._next_urgent() or self._next_turn()):
            if name in visited:
                continue
            visited.add(name)
            path = self._paths[name]
            path.turns += 1
            yield Question(name, Size.SMALL)
            left -= 1
            if left and path.wants_large:
                yield Question(name, Size.LARGE)
                left -= 1

    def _next_urgent(self) -> str:
        return self._urgent.popleft() if self._urgent else ""

    def _next_turn(self) -> str:
        if self._credit < 1 or not self._turns:
            return ""
        self._credit -= 1
        self._turns.rotate(-1)
        return self._turns[-1]

    def asked(self, nonce: int, question: Question, now: float) -> None:
        self._asked[nonce] = Asked(question, now)

    def answered(self, nonce: int, peer: str, now: float) -> None:
        """An answer came from a peer; late ones, and such to nothing that was asked, say nothing."""
        asked = self._asked.get(nonce)
        if asked is None or asked.question.peer != peer:
            return
        del self._asked[nonce]
        path = self._paths.get(peer)
        if path is None:
            return
        path.lane(asked.question.size).answered(now)
        if asked.question.size is Size.SMALL:
            rtt_s = now - asked.at
            path.rtt_s = rtt_s if path.rtt_s is None else path.rtt_s + SMOOTHING * (rtt_s - path.rtt_s)

    def expire(self, now: float) -> None:
        """Take what was asked a tick ago, and not answered, as a miss."""
        overdue = [(nonce, asked) for nonce, asked in self._asked.items() if asked.at <= now - TICK_S]
        for nonce, asked in overdue:
            del self._asked[nonce]
            if path := self._paths.get(asked.question.peer):
                self._miss(path, asked)

    def _miss(self, path: Path, asked: Asked) -> None:
        peer, size = asked.question
        if size is Size.LARGE and path.small.misses:
            return  # the way is cut, which says nothing about its width
        lane = path.lane(size)
        lane.missed(asked.at)
        if lane.misses < LOST_AFTER:
            self._urgent.appendleft(peer)
