"""Follows what a store holds: a listing, then every change after it, for ever, whatever happens to the store."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Generic, Protocol, TypeVar

from controlloop.errors import CompactedError, UnavailableError
from controlloop.logs import Log
from controlloop.runner import Backoff


class Step(Protocol):
    """A part of a listing, or a change. The revision is what a watch can go on from."""

    @property
    def revision(self) -> Any: ...


T = TypeVar("T", bound=Step)

log = Log("following")


class Following(Generic[T]):
    def __init__(
        self,
        subject: str,
        listing: Callable[[], AsyncGenerator[T, None]],
        watch: Callable[[Any], AsyncGenerator[T, None]],
        unheard_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`listing` gives all there is, in one step or several, and ends. `watch` gives what happens after a revision,
        for ever. Their errors: CompactedError when there is a gap and only a listing helps, UnavailableError otherwise.
        `unheard_s` is 0 while the watch stands: one that is quiet says nothing of a server that is gone.
        """
        self._subject = subject
        self._listing = listing
        self._watch = watch
        self._unheard_s = unheard_s
        self._reason = ""
        self._after: Any = None
        self._outages, self._gaps = Backoff(), Backoff()

    @property
    def away(self) -> str:
        """Why nothing new can be heard at the moment; empty when it can."""
        return self._reason if self._after is None or self._unheard_s() else ""

    async def news(self) -> AsyncGenerator[T, None]:
        """The steps of a listing, then changes; once more a listing where the changes have a gap."""
        while True:
            began = asyncio.get_running_loop().time()
            try:
                async with aclosing(self._steps()) as steps:
                    async for step in steps:
                        yield step
            except CompactedError as error:
                self._after = None
                # This server answers: it is not made to wait for as long as the outage before has taught us to.
                await self._pause(self._gaps, began, f"{self._subject} are listed again", error)
            except UnavailableError as error:
                await self._pause(self._outages, began, f"{self._subject} are not followed", error)

    async def _steps(self) -> AsyncGenerator[T, None]:
        if self._after is None:
            revision: Any = None
            async with aclosing(self._listing()) as parts:
                async for part in parts:
                    revision = part.revision
                    yield part
            self._after, self._reason = revision, ""
        async with aclosing(self._watch(self._after)) as changes:
            async for change in changes:
                self._after, self._reason = change.revision, ""
                yield change

    async def _pause(self, backoff: Backoff, began: float, event: str, error: Exception) -> None:
        # A server that takes every watch and drops it at once is asked ever more slowly all the same.
        if asyncio.get_running_loop().time() - began > backoff.limit:
            self._outages.reset()
            self._gaps.reset()
        wait_s = backoff.next()
        # An outage of hours is a line or two, not one for each try.
        tell = log.debug if str(error) == self._reason else log.warning
        tell(event, error=error, retry_in_s=round(wait_s, 1))
        self._reason = str(error)
        await asyncio.sleep(wait_s)
