"""What a daemon tells about itself: a small HTTP server on a unix socket in its runtime directory.

`GET /status` is one JSON document that netctl reads, `GET /healthz` says whether the loop turns, `GET /readyz` whether
the kernel holds what is desired. Requests are bounded in size and time; nothing here can be changed from outside.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h11
import msgspec

from controlloop.errors import OperatorError

MAX_REQUEST_BYTES = 64 * 1024
REQUEST_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


def json_answer(document: Any, status: int = 200) -> Answer:
    return Answer(status, msgspec.json.encode(document) + b"\n", "application/json")


def yes_or_no(*, good: bool, text: str) -> Answer:
    return Answer(200 if good else 503, f"{text}\n".encode())


Routes = Mapping[str, Callable[[], Answer]]


class HealthServer:
    def __init__(self, path: Path, routes: Routes) -> None:
        self._path = path
        self._routes = routes

    async def run(self) -> None:
        """Serve until cancelled. A socket that an earlier process left behind is replaced (see runtime.only_one)."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.unlink(missing_ok=True)
            server = await asyncio.start_unix_server(self._serve, self._path)
        except PermissionError as error:
            raise OperatorError(
                f"{self._path}: {error.strerror}; this user needs a runtime directory of its own"
            ) from error
        self._path.chmod(0o660)
        try:
            await server.serve_forever()
        finally:
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST_BYTES)
                request = await read_request(connection, reader)
                writer.write(respond(connection, self._answer(request), to=request))
                await writer.drain()
        except (TimeoutError, OSError, h11.ProtocolError):
            pass  # a slow, vanished or rude client costs itself its answer and us nothing
        finally:
            writer.close()

    def _answer(self, request: h11.Request | None) -> Answer:
        if request is None or request.method != b"GET":
            return Answer(405, b"only GET\n")
        route = self._routes.get(request.target.decode("latin-1").partition("?")[0])
        if route is None:
            return Answer(404, f"no such page; there are {' '.join(self._routes)}\n".encode())
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
