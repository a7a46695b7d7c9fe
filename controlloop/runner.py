"""Runs one job whenever somebody wakes it: the heart of a level-triggered daemon.

- Any number of wake-ups while the job runs become one more run. Events carry no change, so none can be lost.
- The first wake-up after a quiet time runs at once: there is no minimum interval; a burst is coalesced by how long
  the job itself takes.
- A run that fails is repeated with back-off; a wake-up meanwhile does not shorten the wait, or a busy cluster would
  turn a broken kernel call into a hot loop.
- Every `resync_s`, however busy it is, the job is told that it is a resync: it then looks at everything.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Never

from controlloop.command import CommandError
from controlloop.errors import UnavailableError, VerificationError
from controlloop.logs import Log

log = Log("runner")

EXPECTED_FAILURES = (UnavailableError, VerificationError, CommandError, OSError)


@dataclass(slots=True)
class Backoff:
    """Seconds to wait before the next try: `first`, doubled after each failure, at most `limit`."""

    first: float = 0.1
    limit: float = 5.0
    current: float = 0.0

    def next(self) -> float:
        self.current = min(self.current * 2, self.limit) if self.current else self.first
        return self.current

    def reset(self) -> None:
        self.current = 0.0


class Runner:
    def __init__(
        self, job: Callable[[bool], Awaitable[None]], *, resync_s: float, turn: Callable[[], None], tick_s: float = 5.0
    ) -> None:
        """Prepare to run `job(resync)`. `turn` is called after each run and every `tick_s` of idling: a sign of life
        that a job which hangs does not give, but one that fails and is retried does. A wake-up is not kept waiting
        for it.
        """
        self._job = job
        self._resync_s = resync_s
        self._turn = turn
        self._tick_s = tick_s
        self._awake = asyncio.Event()
        self._backoff = Backoff()

    def wake(self) -> None:
        self._awake.set()

    async def run(self) -> Never:
        loop = asyncio.get_running_loop()
        resync_at = loop.time()
        while True:
            resync = loop.time() >= resync_at
            self._awake.clear()
            try:
                await self._job(resync)
            except EXPECTED_FAILURES as error:
                wait_s = self._backoff.next()
                log.warning("run failed", error=error, retry_in_s=round(wait_s, 1))
                self._turn()
                await asyncio.sleep(wait_s)
                resync_at = loop.time()
                continue
            self._backoff.reset()
            self._turn()
            if resync:
                resync_at = loop.time() + self._resync_s
            await self._woken_before(resync_at)

    async def _woken_before(self, deadline: float) -> None:
        """Wait for a wake-up, or until the next resync is due: wake-ups in between do not put that off."""
        loop = asyncio.get_running_loop()
        # A job that is woken all the time, and never has to wait itself, must still let the other tasks run.
        await asyncio.sleep(0)
        while not self._awake.is_set() and (remaining := deadline - loop.time()) > 0:
            try:
                async with asyncio.timeout(min(remaining, self._tick_s)):
                    await self._awake.wait()
            except TimeoutError:
                self._turn()
