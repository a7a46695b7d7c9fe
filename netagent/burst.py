"""Single changes, even a few in a row, are made at once; many are taken together."""

import asyncio
import time
from collections import deque


class Burst:
    def __init__(self, runs: int, within_s: float) -> None:
        """So many runs within that time make a burst."""
        self._within_s = within_s
        self._runs: deque[float] = deque(maxlen=runs)

    async def gather(self) -> None:
        """Before each run: in a burst, wait for what else is coming."""
        if len(self._runs) == self._runs.maxlen and time.monotonic() - self._runs[0] < self._within_s:
            await asyncio.sleep(self._within_s)
        self._runs.append(time.monotonic())
