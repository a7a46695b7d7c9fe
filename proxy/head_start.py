"""At a start with nothing of ours in the kernel: what nothing leads to yet goes in while the rest is being planned.

Planning is Python's work and writing that of another program, so both go on at once. No packet meets what is written
here, until the first sync adds what leads to it.
"""

import asyncio
from collections.abc import Hashable, Mapping
from itertools import islice
from typing import Generic, TypeVar

from controlloop.command import CommandError
from controlloop.delta import Delta
from proxy.backend import Ahead

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

LEAST, MOST = 500, 20_000
"""Objects that are worth a program's start, and what one is given at most, for its memory."""


class HeadStart(Generic[K, V]):
    """Nobody else may write until it is finished."""

    def __init__(self, ahead: Ahead[K, V], constant: Mapping[K, V]) -> None:
        """`constant`: what is planned before any Service is."""
        self._ahead = ahead
        self._waiting: dict[K, V] = {}
        self._written: dict[K, V] = {}
        self._task: asyncio.Task[None] | None = None
        self.may_last = ahead.may_last
        self.go_on(constant)

    def go_on(self, planned: Mapping[K, V]) -> None:
        """More is planned. While a portion is under way, the next one gathers."""
        goes_ahead, written = self._ahead.goes_ahead, self._written
        self._waiting |= {key: value for key, value in planned.items() if goes_ahead(key, value) and key not in written}
        if len(self._waiting) >= LEAST and (self._task is None or _succeeded(self._task)):
            self._task = asyncio.create_task(self._write())

    async def _write(self) -> None:
        while len(self._waiting) >= LEAST:
            portion = dict(islice(self._waiting.items(), MOST))
            for key in portion:
                del self._waiting[key]
            self._written |= portion
            await self._ahead.apply_ahead(Delta(put=portion))

    async def finish(self) -> Mapping[K, V] | None:
        """What went ahead; None: something was refused, and nobody knows what the kernel holds."""
        self._waiting.clear()
        try:
            if self._task:
                await self._task
        except CommandError:
            return None  # the first sync will find whose fault it is
        return self._written


def _succeeded(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.exception()
