"""Asks the API server: get, list, watch, patch and create.

Errors of all calls: UnavailableError with the reason, to be tried again with back-off; of its kinds DeniedError needs
an administrator and NotFoundError an object. OperatorError when trying again cannot help.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from secrets import randbelow
from typing import TypeVar

import msgspec

from controlloop.errors import CompactedError, UnavailableError
from controlloop.kubernetes.access import Access
from controlloop.kubernetes.answers import UnauthenticatedError, refusal, retry_after_s
from controlloop.kubernetes.connection import Connection, Request
from controlloop.kubernetes.decode import (
    Change,
    Listing,
    Page,
    Put,
    Unreadable,
    parse_event,
    parse_object,
    parse_page,
    refuse_going_back,
    status_of,
    together,
)
from controlloop.kubernetes.resources import Collection

T = TypeVar("T")

AGENT = "nodenet"
JSON = "application/json"
STRATEGIC_MERGE = "application/strategic-merge-patch+json"

PAGE = 500
LISTING_TRIES = 3
"""A listing that outlives its continue token is begun anew; one that never comes to its end is an outage."""
WATCH_S = 300
"""A watch is asked for this long to twice as long: watches move on to a server that was added or repaired, and those
that began together when one came back do not end together.
"""
WATCH_SLACK_S = 30
MAX_EVENT_BYTES = 16 * 1024 * 1024
MAX_QUIET_S = 60.0
"""The longest Retry-After that is obeyed."""


class ApiClient:
    """Each call has a connection of its own, a listing one for all of its pages."""

    def __init__(self, access: Access, *, timeout_s: float = 15.0, page: int = PAGE, watch_s: int = WATCH_S) -> None:
        """`timeout_s` bounds each step of a call: connecting, waiting for an answer, a silence within it."""
        self._access = access
        self._timeout_s = timeout_s
        self._page = page
        self._watch_s = watch_s
        self._quiet_until = 0.0
        self._open: set[Connection] = set()
        self._unheard_since: dict[Collection, float] = {}

    async def close(self) -> None:
        """End all calls and watches with an UnavailableError. Whoever asks again gets a new connection: that is the
        way on when our own address changed, and those that are open lead nowhere.
        """
        for connection in tuple(self._open):
            await connection.close()

    def unheard_s(self, collection: Collection | None = None) -> float:
        """For how long a watch that was begun (of that collection) has been without a server; 0 while all stand, or
        none was begun.
        """
        times = (since for of, since in self._unheard_since.items() if collection in (None, of))
        since = min(times, default=None)
        return 0.0 if since is None else time.monotonic() - since

    async def get(self, collection: Collection, name: str, shape: type[T]) -> Put[T]:
        request = self._request("GET", collection.object_path(name))
        return await self._object(f"get {collection} {name}", request, shape)

    async def patch(
        self, collection: Collection, name: str, change: object, shape: type[T], *, subresource: str = ""
    ) -> Put[T]:
        """Strategic merge; gives back the object as it is then. It may be sent again: the outcome is the same."""
        path = collection.object_path(name, subresource)
        request = self._request("PATCH", path, msgspec.json.encode(change))
        of = f"{collection}/{subresource}" if subresource else str(collection)
        return await self._object(f"patch {of} {name}", request, shape)

    async def create(self, collection: Collection, content: object) -> None:
        """Send it once: after an UnavailableError it may be there or not."""
        request = self._request("POST", collection.path, msgspec.json.encode(content), JSON)
        async with self._connected(f"create {collection}", request):
            pass

    async def list(self, collection: Collection, shape: type[T]) -> Listing[T]:
        for _ in range(LISTING_TRIES):
            try:
                async with aclosing(self.pages(collection, shape)) as pages:
                    return together([page.listing async for page in pages])
            except CompactedError as error:
                expired = error
        raise UnavailableError(f"list {collection}: expired {LISTING_TRIES} times in a row: {expired}")

    async def pages(self, collection: Collection, shape: type[T]) -> AsyncGenerator[Page[T], None]:
        """A listing page by page, for who keeps less of an object than it says. CompactedError when it expires on the
        way: what was given out is good, and what is still to come is not known.
        """
        verb = f"list {collection}"
        target = collection.target(limit=self._page)
        async with self._connected(verb, self._request("GET", target)) as connection:
            while True:
                page: Page[T] = parse_page(await connection.body(self._timeout_s), shape)
                yield page
                if not page.proceed:
                    return
                target = collection.target(limit=self._page, **{"continue": page.proceed})
                await self._ask(verb, connection, self._request("GET", target))

    async def watch(self, collection: Collection, shape: type[T], after: str) -> AsyncGenerator[Change[T], None]:
        """Changes after a revision, for ever. CompactedError: list again. A watch that the server ends in good order,
        after it said something, goes on by itself.
        """
        verb = f"watch {collection}"
        while True:
            before = after
            async with aclosing(self._watch_once(verb, collection, shape, after)) as changes:
                async for change in changes:
                    refuse_going_back(verb, after, change.revision)
                    after = change.revision or after
                    yield change
            if after == before:
                raise UnavailableError(f"{verb}: the server ended it without a word")

    async def _watch_once(
        self, verb: str, collection: Collection, shape: type[T], after: str
    ) -> AsyncGenerator[Change[T], None]:
        length_s = self._watch_s + randbelow(self._watch_s)
        target = collection.target(
            watch="true", allowWatchBookmarks="true", resourceVersion=after, timeoutSeconds=length_s
        )
        silence_s = length_s + WATCH_SLACK_S
        try:
            async with (
                self._connected(verb, self._request("GET", target)) as connection,
                aclosing(_lines(verb, connection, silence_s)) as lines,
            ):
                self._unheard_since.pop(collection, None)
                async for line in lines:
                    yield parse_event(line, shape, verb)
        finally:
            self._unheard_since.setdefault(collection, time.monotonic())

    async def _object(self, verb: str, request: Request, shape: type[T]) -> Put[T]:
        async with self._connected(verb, request) as connection:
            found = parse_object(await connection.body(self._timeout_s), shape)
        if isinstance(found, Unreadable):
            raise UnavailableError(f"{verb}: {found.reason}")
        return found

    def _request(self, method: str, target: str, body: bytes = b"", content_type: str = STRATEGIC_MERGE) -> Request:
        headers = [("Accept", JSON), ("User-Agent", AGENT)]
        if body:
            headers.append(("Content-Type", content_type))
        return Request(method, target, headers, body)

    @asynccontextmanager
    async def _connected(self, verb: str, request: Request) -> AsyncIterator[Connection]:
        """A connection on which the request is sent and accepted."""
        connection = await self._accepted(verb, request)
        try:
            yield connection
        finally:
            self._open.discard(connection)
            await connection.close()

    async def _accepted(self, verb: str, request: Request) -> Connection:
        try:
            return await self._attempt(verb, request)
        except UnauthenticatedError:
            # What we hold may have been replaced on disk meanwhile: once more, with what is there now.
            self._access.credentials.refused()
            return await self._attempt(verb, request)

    async def _attempt(self, verb: str, request: Request) -> Connection:
        await self._until_welcome()
        connection = await self._access.connect(self._timeout_s)
        try:
            await self._ask(verb, connection, request)
        except BaseException:
            await connection.close()
            raise
        self._open.add(connection)
        return connection

    async def _ask(self, verb: str, connection: Connection, request: Request) -> None:
        head = await connection.send(request, self._timeout_s)
        if head.status < 300:
            return
        quiet_s = retry_after_s(head.retry_after, MAX_QUIET_S)
        self._quiet_until = asyncio.get_running_loop().time() + quiet_s
        raise refusal(verb, head.status, status_of(await connection.body(self._timeout_s)))

    async def _until_welcome(self) -> None:
        """A server that is overloaded said when it wants to hear from us again."""
        await asyncio.sleep(max(0.0, self._quiet_until - asyncio.get_running_loop().time()))


async def _lines(verb: str, connection: Connection, silence_s: float) -> AsyncGenerator[bytes, None]:
    """The lines of a body; one that was begun and not ended is an UnavailableError."""
    rest = b""
    async with aclosing(connection.chunks(silence_s)) as chunks:
        async for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line.strip():
                    yield line
            if len(rest) > MAX_EVENT_BYTES:
                raise UnavailableError(f"{verb}: an event of more than {MAX_EVENT_BYTES} bytes")
    if rest.strip():
        raise UnavailableError(f"{verb}: ended in the middle of an event")
