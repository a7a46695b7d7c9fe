"""HTTP/1.1 on one connection, one request after the other. h11 speaks, asyncio carries.

Everything that goes wrong on the way is an UnavailableError that says where and why.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import h11

from controlloop.errors import UnavailableError

CHUNK_BYTES = 256 * 1024
MAX_BODY_BYTES = 256 * 1024 * 1024
"""A page of 500 objects of the largest size that etcd takes, with room to spare for none of them being that large."""

# A peer that vanished without a word is noticed within 25 s: a watch may be silent for a minute when all is well.
KEEPALIVE = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Server:
    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: str
    headers: Headers
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Head:
    """What comes before the body."""

    status: int
    retry_after: str


class Connection:
    """Use it inside one event loop and `close` it there."""

    def __init__(
        self, server: Server, headers: Headers, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """`headers` go with each request."""
        self._server = server
        self._headers = headers
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)

    @classmethod
    async def open(
        cls, server: Server, tls: ssl.SSLContext | None, tls_name: str, headers: Headers, timeout_s: float
    ) -> "Connection":
        name = (tls_name or server.host) if tls else None
        with reasons(server):
            async with asyncio.timeout(timeout_s):
                streams = await asyncio.open_connection(server.host, server.port, ssl=tls, server_hostname=name)
        raw: socket.socket = streams[1].get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE:
            raw.setsockopt(socket.IPPROTO_TCP, option, value)
        return cls(server, headers, *streams)

    async def close(self) -> None:
        self._writer.transport.abort()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def send(self, request: Request, timeout_s: float) -> Head:
        """Give back the head of the answer; its body must be read before the next request."""
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        with reasons(self._server):
            async with asyncio.timeout(timeout_s):
                self._writer.write(self._bytes(request))
                await self._writer.drain()
                event = await self._event()
                if not isinstance(event, h11.Response):
                    raise UnavailableError(f"{self._server}: the connection ended before an answer")
                return Head(event.status_code, _header(event, b"retry-after"))

    async def chunks(self, timeout_s: float) -> AsyncGenerator[bytes, None]:
        """The body as it comes. A silence of `timeout_s`, or an end before the end, is an UnavailableError."""
        with reasons(self._server):
            while True:
                async with asyncio.timeout(timeout_s):
                    event = await self._event()
                if not isinstance(event, h11.Data):
                    return
                yield bytes(event.data)

    async def body(self, timeout_s: float) -> bytes:
        parts = bytearray()
        async for chunk in self.chunks(timeout_s):
            parts += chunk
            if len(parts) > MAX_BODY_BYTES:
                raise UnavailableError(f"{self._server}: an answer of more than {MAX_BODY_BYTES} bytes")
        return bytes(parts)

    async def _event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(CHUNK_BYTES))
            elif not isinstance(event, h11.InformationalResponse):
                return event

    def _bytes(self, request: Request) -> bytes:
        headers = [("Host", str(self._server).partition("://")[2]), *self._headers, *request.headers]
        if request.body:
            headers.append(("Content-Length", str(len(request.body))))
        events: list[h11.Event] = [h11.Request(method=request.method, target=request.target, headers=headers)]
        if request.body:
            events.append(h11.Data(data=request.body))
        return b"".join(self._http.send(event) or b"" for event in [*events, h11.EndOfMessage()])


@contextmanager
def reasons(server: Server) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise UnavailableError(f"{server}: no answer in time") from error
    except ssl.SSLCertVerificationError as error:
        raise UnavailableError(f"{server}: certificate not accepted: {error.verify_message}") from error
    except OSError as error:
        raise UnavailableError(f"{server}: {error.strerror or error}") from error
    except h11.RemoteProtocolError as error:
        raise UnavailableError(f"{server}: broken answer: {error}") from error


def _header(response: h11.Response, wanted: bytes) -> str:
    return next((value.decode("latin-1") for name, value in response.headers if name == wanted), "")
