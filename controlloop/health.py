"""What a daemon tells about itself: on a unix socket in its runtime directory all of it, on TCP what anybody may know.

`GET /status` is one JSON document that netctl reads, `GET /healthz` says whether the loop turns, `GET /readyz` whether
the kernel holds what is desired, `GET /metrics` what Prometheus collects.
"""

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from controlloop.errors import OperatorError
from controlloop.http_server import Answer, HttpServer, Routes, TcpAddress, pages
from controlloop.metrics import CONTENT_TYPE, MetricFamily, exposition

PUBLIC_PAGES = ("/healthz", "/readyz", "/metrics")
"""What a TCP port shows: anybody who reaches the node may ask it."""


def metrics_answer(families: Iterable[MetricFamily]) -> Answer:
    return Answer(200, exposition(families), CONTENT_TYPE)


class HealthServer:
    def __init__(self, path: Path, routes: Routes, tcp: TcpAddress | None = None) -> None:
        self._path = path
        self._routes = routes
        self._tcp = tcp

    async def run(self) -> None:
        """Serve until cancelled. A socket that an earlier process left behind is replaced (see runtime.only_one).

        OperatorError when a socket cannot be made.
        """
        async with AsyncExitStack() as servers:
            if self._tcp:
                public = {page: route for page, route in self._routes.items() if page in PUBLIC_PAGES}
                await servers.enter_async_context(await HttpServer(pages(public)).listen(self._tcp))
            unix = await servers.enter_async_context(await self._listen_unix())
            servers.callback(partial(self._path.unlink, missing_ok=True))
            await unix.serve_forever()

    async def _listen_unix(self) -> asyncio.Server:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.unlink(missing_ok=True)
            server = await asyncio.start_unix_server(HttpServer(pages(self._routes)).serve, self._path)
        except PermissionError as error:
            raise OperatorError(
                f"{self._path}: {error.strerror}; this user needs a runtime directory of its own"
            ) from error
        self._path.chmod(0o660)
        return server
