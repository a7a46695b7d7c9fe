"""A small HTTP server: `GET` alone, one request for each connection, bounded in size, time and number.

Nothing can be changed through it.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import h11
import msgspec

from controlloop.errors import OperatorError

MAX_REQUEST_BYTES = 64 * 1024
REQUEST_TIMEOUT_S = 5.0

MAX_CONNECTIONS = 64
"""At once for each server; those above are closed unheard."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


def json_answer(document: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(status, msgspec.json.encode(document) + b"\n", "application/json", headers)


def yes_or_no(*, good: bool, text: str) -> Answer:
    return Answer(200 if good else 503, f"{text}\n".encode())


Reply = Answer | Awaitable[Answer]
"""What takes long is awaited."""

Routes = Mapping[str, Callable[..., Reply]]
"""One whose name ends in `/` answers for all pages below it, and gets the rest of their names."""


@dataclass(frozen=True, slots=True)
class TcpAddress:
    address: str
    """Empty: all of this host."""
    port: int
    source: str
    """The flag or field that names it, for an error's text."""


def pages(routes: Routes) -> Callable[[str], Reply]:
    """Answers each page of `routes`, and 404 with their names for any other."""

    def answer(page: str) -> Reply:
        if page in routes and not page.endswith("/"):
            return routes[page]()
        folder = f"/{page[1:].partition('/')[0]}/"
        if folder in routes and page != folder:
            return routes[folder](page.removeprefix(folder))
        return Answer(404, f"no such page; there are {' '.join(routes)}\n".encode())

    return answer


class HttpServer:
    def __init__(self, answer: Callable[[str], Reply]) -> None:
        """`answer` gets the page that was asked for, without its query."""
        self._answer = answer
        self._connections = 0

    async def listen(self, tcp: TcpAddress) -> asyncio.Server:
        """Serve from now on. OperatorError, with the flag, when the address cannot be had."""
        try:
            return await asyncio.start_server(self.serve, tcp.address or None, tcp.port)
        except OSError as error:
            # asyncio puts the system's words behind a sentence of its own.
            reason = os.strerror(error.errno) if error.errno else error
            raise OperatorError(f"{tcp.source} {tcp.address or '*'} port {tcp.port}: {reason}") from error

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        if self._connections >= MAX_CONNECTIONS:
            writer.close()
            return
        self._connections += 1
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST_BYTES)
                request = await read_request(connection, reader)
                writer.write(respond(connection, await self._answer_to(request), to=request))
                await writer.drain()
        except (TimeoutError, OSError, h11.ProtocolError):
            # A slow, vanished or rude client costs itself its answer and us nothing: what it has not taken is let go.
            writer.transport.abort()
        finally:
            self._connections -= 1
            writer.close()

    async def _answer_to(self, request: h11.Request | None) -> Answer:
        if request is None or request.method != b"GET":
            return Answer(405, b"only GET\n")
        reply = self._answer(request.target.decode("latin-1").partition("?")[0])
        return reply if isinstance(reply, Answer) else await reply


async def read_request(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    request: h11.Request | None = None
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(MAX_REQUEST_BYTES))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            return request


def respond(connection: h11.Connection, answer: Answer, *, to: h11.Request | None) -> bytes:
    headers = [
        ("Content-Type", answer.content_type),
        ("Content-Length", str(len(answer.body))),
        ("Connection", "close"),
        *answer.headers.items(),
    ]
    events = (
        h11.Response(status_code=answer.status, headers=headers),
        # The answer to HEAD tells the length of a body and has none (RFC 9110, 9.3.2).
        h11.Data(data=b"" if to and to.method == b"HEAD" else answer.body),
        h11.EndOfMessage(),
    )
    return b"".join(connection.send(event) or b"" for event in events)
