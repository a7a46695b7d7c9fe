"""What a daemon tells about itself: a small HTTP server on a unix socket in its runtime directory, and on TCP.

`GET /status` is one JSON document that netctl reads, `GET /healthz` says whether the loop turns, `GET /readyz` whether
the kernel holds what is desired, `GET /metrics` what Prometheus collects. Requests are bounded in size and time;
nothing here can be changed from outside.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h11
import msgspec

from controlloop.errors import OperatorError
from controlloop.metrics import CONTENT_TYPE, MetricFamily, exposition

MAX_REQUEST_BYTES = 64 * 1024
REQUEST_TIMEOUT_S = 5.0

PUBLIC_PAGES = ("/healthz", "/readyz", "/metrics")
"""What a TCP port shows: anybody who reaches the node may ask it."""

MAX_CONNECTIONS = 64
"""At once, over all sockets; those above are closed unheard."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


def json_answer(document: Any, status: int = 200) -> Answer:
    return Answer(status, msgspec.json.encode(document) + b"\n", "application/json")


def yes_or_no(*, good: bool, text: str) -> Answer:
    return Answer(200 if good else 503, f"{text}\n".encode())


def metrics_answer(families: Iterable[MetricFamily]) -> Answer:
    return Answer(200, exposition(families), CONTENT_TYPE)


Routes = Mapping[str, Callable[[], Answer]]


@dataclass(frozen=True, slots=True)
class TcpAddress:
    address: str
    port: int
    source: str
    """The flag that names it, for an error's text."""


class HealthServer:
    def __init__(self, path: Path, routes: Routes, tcp: TcpAddress | None = None) -> None:
        self._path = path
        self._routes = routes
        self._tcp = tcp
        self._connections = 0

    async def run(self) -> None:
        """Serve until cancelled. A socket that an earlier process left behind is replaced (see runtime.only_one).

        OperatorError when a socket cannot be made.
        """
        async with AsyncExitStack() as servers:
            if self._tcp:
                await servers.enter_async_context(await self._listen_tcp(self._tcp))
            unix = await servers.enter_async_context(await self._listen_unix())
            servers.callback(partial(self._path.unlink, missing_ok=True))
            await unix.serve_forever()

    async def _listen_unix(self) -> asyncio.Server:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.unlink(missing_ok=True)
            server = await asyncio.start_unix_server(partial(self._serve, self._routes), self._path)
        except PermissionError as error:
            raise OperatorError(
                f"{self._path}: {error.strerror}; this user needs a runtime directory of its own"
            ) from error
        self._path.chmod(0o660)
        return server

    async def _listen_tcp(self, tcp: TcpAddress) -> asyncio.Server:
        public = {page: route for page, route in self._routes.items() if page in PUBLIC_PAGES}
        try:
            return await asyncio.start_server(partial(self._serve, public), tcp.address, tcp.port)
        except OSError as error:
            # asyncio puts the system's words behind a sentence of its own.
            reason = os.strerror(error.errno) if error.errno else error
            raise OperatorError(f"{tcp.source} {tcp.address} port {tcp.port}: {reason}") from error

    async def _serve(self, routes: Routes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= MAX_CONNECTIONS:
            writer.close()
            return
        self._connections += 1
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST_BYTES)
                request = await read_request(connection, reader)
                writer.write(respond(connection, answer_to(request, routes), to=request))
                await writer.drain()
        except (TimeoutError, OSError, h11.ProtocolError):
            pass  # a slow, vanished or rude client costs itself its answer and us nothing
        finally:
            self._connections -= 1
            writer.close()


def answer_to(request: h11.Request | None, routes: Routes) -> Answer:
    if request is None or request.method != b"GET":
        return Answer(405, b"only GET\n")
    route = routes.get(request.target.decode("latin-1").partition("?")[0])
    if route is None:
        return Answer(404, f"no such page; there are {' '.join(routes)}\n".encode())
    return route()


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
    ]
    events = (
        h11.Response(status_code=answer.status, headers=headers),
        # The answer to HEAD tells the length of a body and has none (RFC 9110, 9.3.2).
        h11.Data(data=b"" if to and to.method == b"HEAD" else answer.body),
        h11.EndOfMessage(),
    )
    return b"".join(connection.send(event) or b"" for event in events)
