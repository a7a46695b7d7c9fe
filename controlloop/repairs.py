"""How often we may repair one thing that somebody else keeps breaking.

A fight must cost neither side its processor: the first repairs of an object come at once, then they come slowly, and
the fight is told. Objects are judged one by one, so that a fight over one delays no other.
"""

import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

BURST = 10
PERIOD_S = 5.0

FORGET_ABOVE = 1000
"""Histories kept before the quiet ones among them are forgotten."""


@dataclass(slots=True)
class _History:
    credit: float
    at: float


class RepairLimiter(Generic[K]):
    def __init__(
        self, burst: int = BURST, period_s: float = PERIOD_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Allow each key `burst` repairs at once, and one more for each `period_s` that passes."""
        self._burst, self._period_s, self._clock = burst, period_s, clock
        self._histories: dict[K, _History] = {}
        self._fights: dict[K, int] = {}
        self._forget_at = FORGET_ABOVE

    @property
    def fights(self) -> Mapping[K, int]:
        """Keys whose repair had to wait, with how often; forgotten when the whole burst would be allowed again."""
        for key in [key for key in self._fights if self._at_peace(self._histories[key])]:
            del self._fights[key], self._histories[key]
        return MappingProxyType(self._fights)

    def wait_s(self, key: K) -> float:
        """0: repair it now, it is counted. Otherwise the seconds until it may be repaired."""
        history = self._histories.get(key)
        if history is None:
            self._forget_the_quiet()
            history = self._histories[key] = _History(self._burst, self._clock())
        now = self._clock()
        history.credit = min(self._burst, history.credit + (now - history.at) / self._period_s)
        history.at = now
        if history.credit < 1:
            self._fights[key] = self._fights.get(key, 0) + 1
            return (1 - history.credit) * self._period_s
        history.credit -= 1
        return 0.0

    def _forget_the_quiet(self) -> None:
        if len(self._histories) < self._forget_at:
            return
        for key in list(self._quiet()):
            del self._histories[key]
        # Looking through all of them must not be done for each one that is new.
        self._forget_at = max(FORGET_ABOVE, 2 * len(self._histories))

    def _quiet(self) -> Iterator[K]:
        return (key for key, one in self._histories.items() if key not in self._fights and self._at_peace(one))

    def _at_peace(self, history: _History) -> bool:
        return history.credit + (self._clock() - history.at) / self._period_s >= self._burst
