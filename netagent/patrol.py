"""Goes to look at what changes without a word: WireGuard's peers, of which neither its driver nor wireguard-go tells.

A look is a run of `wg`, 2 ms of a processor with a few peers and more with many. So it is made each second as long as
that is next to nothing, and else more seldom.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import Never

from netagent.state import Key, Object, OverlayState

LOOK_S = 1.0
SHARE = 300
"""Of a processor's time, one part in so many may go into looking."""

Untold = Mapping[Key, Object | None]
"""What is not as desired, as it was found; None: it is not there."""


class Patrol:
    def __init__(self, look: Callable[[OverlayState], Awaitable[Untold]], desired: Callable[[], OverlayState]) -> None:
        self._look = look
        self._desired = desired
        self._found = False

    async def run(self, wake: Callable[[], None]) -> Never:
        """Call `wake` when something differs."""
        while True:
            started = processor_s()
            if await self._look(self._desired()):
                self._found = True
                wake()
            await asyncio.sleep(max(LOOK_S, SHARE * (processor_s() - started)))

    async def take(self) -> Untold:
        """For whoever writes, while it writes nothing. What was found may have been a change of our own half made, so
        this looks again.
        """
        found, self._found = self._found, False
        return await self._look(self._desired()) if found else {}


def processor_s() -> float:
    """What we and the programs that we ran have used so far: a look must not become rare because others are busy."""
    return sum(usage.ru_utime + usage.ru_stime for usage in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))
