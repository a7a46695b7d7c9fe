"""Since when something is wrong, to a few seconds: the loop looks each time it turns."""

import time
from collections.abc import Callable, Hashable, Iterable
from typing import Any

PERIOD_S = 1.0
"""A loop that turns all the time looks no more often."""


class Onsets:
    def __init__(
        self,
        wrong: Callable[[], Iterable[Hashable]],
        clock: Callable[[], float] = time.time,
        turned: Callable[[Any, bool], None] = lambda thing, is_wrong: None,  # noqa: ARG005
    ) -> None:
        """`wrong` tells everything that is wrong now, by whatever names it. `turned` is called with each thing that is
        wrong since this look, or right again.
        """
        self._turned = turned
        self._told: dict[Hashable, None] = {}
        self._wrong = wrong
        self._clock = clock
        self._looked_at = float("-inf")
        self._since: dict[Hashable, float] = {}

    def look(self) -> None:
        now = self._clock()
        if abs(now - self._looked_at) < PERIOD_S:
            return
        self._looked_at = now
        self._since = {thing: self._since.get(thing, now) for thing in self._wrong()}
        for thing in [*self._since.keys() - self._told.keys(), *self._told.keys() - self._since.keys()]:
            self._turned(thing, thing in self._since)
        self._told = dict.fromkeys(self._since)

    def since(self, thing: Hashable) -> float:
        """Seconds since the epoch; of what no look has seen yet, now."""
        return self._since.setdefault(thing, self._clock())
