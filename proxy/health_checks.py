"""Answers load balancers that ask whether this node has endpoints of a Service (healthCheckNodePort).

For each Service of type LoadBalancer with externalTrafficPolicy Local one server, on whatever page it is asked.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from controlloop.errors import OperatorError
from controlloop.http_server import Answer, HttpServer, TcpAddress, json_answer
from controlloop.logs import Log
from proxy.frontends import ServiceName
from proxy.local_endpoints import HealthCheck

log = Log("health checks")

WEIGHT = "X-Load-Balancing-Endpoint-Weight"


@dataclass(slots=True)
class _Served:
    check: HealthCheck
    addresses: tuple[str, ...]
    servers: list[asyncio.Server]

    def close(self) -> None:
        for server in self.servers:
            server.close()


class HealthChecks:
    def __init__(self, proxy_is_healthy: Callable[[], bool]) -> None:
        self._proxy_is_healthy = proxy_is_healthy
        self._served: dict[ServiceName, _Served] = {}
        self.failures: dict[ServiceName, str] = {}
        """Services whose port cannot be had, and why; tried again with each `settle`."""

    async def settle(self, checks: Mapping[ServiceName, HealthCheck], addresses: Sequence[str]) -> None:
        """Let these be all health checks, served at these addresses of the node; an empty one is all of them."""
        checks = dict(checks)  # whoever keeps them goes on while a port is opened
        for service in self._served.keys() - checks.keys():
            self._served.pop(service).close()
        self.failures = {service: reason for service, reason in self.failures.items() if service in checks}
        for service, check in checks.items():
            await self._serve(service, check, tuple(addresses))

    def close(self) -> None:
        for served in self._served.values():
            served.close()
        self._served.clear()

    async def _serve(self, service: ServiceName, check: HealthCheck, addresses: tuple[str, ...]) -> None:
        served = self._served.get(service)
        if served and (served.check.port, served.addresses) == (check.port, addresses):
            served.check = check
            return
        if served:
            served.close()
            del self._served[service]
        try:
            servers = await self._listen(service, check.port, addresses)
        except OperatorError as error:
            if self.failures.get(service) != str(error):
                log.warning("not served", service=service, error=error)
            self.failures[service] = str(error)
            return
        self.failures.pop(service, None)
        self._served[service] = _Served(check, addresses, servers)

    async def _listen(self, service: ServiceName, port: int, addresses: Sequence[str]) -> list[asyncio.Server]:
        """At all addresses or at none."""
        http = HttpServer(lambda _page: self._answer(service))
        async with AsyncExitStack() as opened:
            servers = []
            for address in addresses:
                tcp = TcpAddress(address, port, f"healthCheckNodePort of {service}")
                servers.append(await opened.enter_async_context(await http.listen(tcp)))
            opened.pop_all()
            return servers

    def _answer(self, service: ServiceName) -> Answer:
        """200 where the load balancer should send connections, 503 where not."""
        served = self._served.get(service)
        count = served.check.local_endpoints if served else 0
        healthy = self._proxy_is_healthy()
        return json_answer(
            document(service, count, proxy_is_healthy=healthy),
            200 if count and healthy else 503,
            **{WEIGHT: str(count)},
        )


def document(service: ServiceName, local_endpoints: int, *, proxy_is_healthy: bool) -> dict[str, Any]:
    """kube-proxy's answer, field for field."""
    return {
        "service": {"namespace": service.namespace, "name": service.name},
        "localEndpoints": local_endpoints,
        "serviceProxyHealthy": proxy_is_healthy,
    }
