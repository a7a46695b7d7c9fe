"""How the tests' API server speaks HTTP: one request in, one answer out, which may break off."""

import json

import h11


class DroppedError(Exception):
    pass


class Answer:
    """Writes one answer, and no more of it than the fault allows."""

    def __init__(self, http, writer):
        self.http = http
        self.writer = writer
        self.limit = None

    async def whole(self, status, body, headers=()):
        length = ("Content-Length", str(len(body)))
        await self._send(h11.Response(status_code=status, headers=[length, *headers]))
        await self._send(h11.Data(data=body))
        await self.end()

    async def begin(self):
        await self._send(h11.Response(status_code=200, headers=[("Transfer-Encoding", "chunked")]))

    async def event(self, kind, content):
        await self.part(json.dumps({"type": kind, "object": content}).encode() + b"\n")

    async def part(self, content):
        await self._send(h11.Data(data=content))

    async def end(self):
        await self._send(h11.EndOfMessage())

    async def _send(self, event):
        content = self.http.send(event)
        if self.limit is not None:
            content, self.limit = content[: self.limit], self.limit - len(content)
        self.writer.write(content)
        await self.writer.drain()
        if self.limit is not None and self.limit <= 0:
            # In good order as far as TCP goes: the client must see that something is missing.
            self.writer.write_eof()
            raise DroppedError


async def receive(http, reader):
    """Head and body of the next request, or None at the end."""
    head, body = None, b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return head, body
        else:
            return None
