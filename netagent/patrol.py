"""Goes to look at what changes without a word: WireGuard's peers, of which neither its driver nor wireguard-go tells.

A look is a question to wireguard-go, and a run of `wg` only when the answer is another one than before; with the
kernel's driver it is a run of `wg` each time. Six in a second are made as long as that is next to nothing, and else
fewer.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import Never

from netagent.state import Key, Object, OverlayState

LOOK_S = 0.15
SHARE = 300
"""Of a processor's time, one part in so many may go into looking. wireguard-go takes twice as much to answer."""
USUAL = 10
"""The cheapest of so many looks is what a look usually takes: to find out what changed takes dearer ones, which must
not keep the next from coming soon.
"""

Untold = Mapping[Key, Object | None]
"""What is not as desired, as it was found; None: it is not there."""


class Patrol:
    def __init__(self, look: Callable[[OverlayState], Awaitable[Untold]], desired: Callable[[], OverlayState]) -> None:
        self._look = look
        self._desired = desired
        self._found = False
        self._spent_s: deque[float] = deque(maxlen=USUAL)

    async def run(self, wake: Callable[[], None]) -> Never:
        """Call `wake` when something differs."""
        while True:
            started = processor_s()
            if await self._look(self._desired()):
                self._found = True
                wake()
            await asyncio.sleep(self._pause_s(processor_s() - started))

    def _pause_s(self, spent_s: float) -> float:
        """Until the next look, behind one that took so much."""
        self._spent_s.append(spent_s)
        return max(LOOK_S, SHARE * min(self._spent_s))

    async def take(self) -> Untold:
        """For whoever writes, while it writes nothing. What was found may have been a change of our own half made, so
        this looks again.
        """
        found, self._found = self._found, False
        return await self._look(self._desired()) if found else {}


def processor_s() -> float:
    """What we and the programs that we ran have used so far: a look must not become rare because others are busy."""
    return sum(usage.ru_utime + usage.ru_stime for usage in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))
