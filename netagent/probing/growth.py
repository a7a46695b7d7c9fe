"""A counter that only matters while it grows fast. Pure."""

from collections import deque

WINDOW_S = 60.0
MANY = 10
"""Errors within WINDOW_S that are no accident."""


class Growth:
    """How much a counter grew within WINDOW_S, and since when it grows so fast."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self.since: float | None = None

    @property
    def amount(self) -> int:
        return max(0, self._seen[-1][1] - self._seen[0][1]) if self._seen else 0

    def note(self, now: float, value: int) -> None:
        while self._seen and self._seen[0][0] < now - WINDOW_S:
            self._seen.popleft()
        self._seen.append((now, value))
        if self.amount < MANY:
            self.since = None
        elif self.since is None:
            self.since = self._seen[0][0]
