"""Where netproxy answers: on its unix socket everything, on two TCP ports what kube-proxy's have."""

import asyncio
from collections.abc import Awaitable, Callable

from controlloop.errors import OperatorError
from controlloop.health import HealthServer
from controlloop.http_server import Answer, HttpServer, Reply, Routes, TcpAddress, pages
from controlloop.logs import Log
from controlloop.runtime import runtime_directory
from proxy.config import Listener, Settings

RETRY_S = 5.0

log = Log("servers")

HEALTHZ_PAGES = ("/healthz", "/livez")
METRICS_PAGES = ("/metrics", "/readyz", "/proxyMode", "/configz")


NotServed = Callable[[str, str], Awaitable[None]]


class Servers:
    def __init__(self, settings: Settings, routes: Routes, not_served: NotServed) -> None:
        """`not_served` is told, once each, that `healthz` or `metrics` cannot be served now, and why."""
        self._settings = settings
        self._routes = routes
        self._not_served = not_served

    async def run(self) -> None:
        """Serve until cancelled. OperatorError when the socket cannot be had, or a port that must be there."""
        public = {page: self._routes[page] for page in METRICS_PAGES}
        async with asyncio.TaskGroup() as group:
            group.create_task(HealthServer(runtime_directory() / "netproxy.sock", self._routes).run())
            if self._settings.healthz:
                health = {page: self._routes[page] for page in HEALTHZ_PAGES}
                group.create_task(self._keep("healthz", self._settings.healthz, pages(health)))
            if self._settings.metrics:
                metrics = pages({**public, "/healthz": ok})
                group.create_task(self._keep("metrics", self._settings.metrics, metrics))

    async def _keep(self, page: str, listener: Listener, answer: Callable[[str], Reply]) -> None:
        """kube-proxy's bindAddressHardFail says whether a port in use ends the process or is waited for."""
        tcp = TcpAddress(str(listener.address), listener.port, listener.source)
        told = False
        while True:
            try:
                server = await HttpServer(answer).listen(tcp)
            except OperatorError as error:
                if not told:
                    await self._not_served(page, str(error))
                if self._settings.bind_hard_fail:
                    raise
                if not told:
                    log.warning("not served", error=error, retry_every_s=RETRY_S)
                told = True
                await asyncio.sleep(RETRY_S)
                continue
            async with server:
                await server.serve_forever()


def ok() -> Answer:
    """The metrics port's `/healthz` says that the process lives, and no more."""
    return Answer(200, b"ok")
