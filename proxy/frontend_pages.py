"""Single frontends for who asks on the daemon's socket: whose an address is, and what a Service has. Pure.

`/frontends/10.96.0.1/tcp/80`, with 0.0.0.0 or :: for a node port, and `/frontends-of/default/web`;
`/service-names/default/w` for who types a name.
"""

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from controlloop.http_server import Answer, json_answer
from proxy.frontends import Balance, Frontend, Protocol, ServiceName
from proxy.tracker import Tracker

NAMES = 100


class FrontendPages:
    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def by_address(self, page: str) -> Answer:
        try:
            address, protocol, port = page.split("/")
            key = ip_address(address), Protocol(protocol), int(port)
        except ValueError:
            return Answer(404, b"want ADDRESS/PROTOCOL/PORT\n")
        owner = self._tracker.owner(key)
        return _listed(one for one in self._tracker.frontends(owner) if one.key == key) if owner else _listed(())

    def names(self, typed: str) -> Answer:
        """Services that begin so, by name: as many as anybody would read."""
        return json_answer(
            sorted(name for each in self._tracker.services() if (name := str(each)).startswith(typed))[:NAMES]
        )

    def by_service(self, page: str) -> Answer:
        namespace, _, name = page.partition("/")
        return _listed(self._tracker.frontends(ServiceName(namespace, name)))


def _listed(frontends: Iterable[Frontend]) -> Answer:
    items = [document(frontend) for frontend in frontends]
    return json_answer({"apiVersion": "nodenet.io/v1alpha1", "kind": "FrontendList", "items": items})


def document(frontend: Frontend) -> dict[str, Any]:
    return {
        "service": str(frontend.name),
        "port_name": frontend.name.port,
        "address": str(frontend.address),
        "protocol": frontend.protocol.value,
        "port": frontend.port,
        "scope": frontend.scope.value,
        "balance": frontend.balance.value,
        "endpoints": [str(endpoint) for endpoint in frontend.endpoints],
        "weights": weights(frontend),
        "inside": None if frontend.inside is None else [str(endpoint) for endpoint in frontend.inside],
        "sources": [str(network) for network in frontend.sources],
        "refusal": frontend.refusal.value,
        "affinity_s": frontend.affinity_s,
    }


def weights(frontend: Frontend) -> list[int] | None:
    """Of the endpoints in their order; None where each has the same share."""
    return [endpoint.weight for endpoint in frontend.endpoints] if frontend.balance is Balance.WEIGHTED else None
