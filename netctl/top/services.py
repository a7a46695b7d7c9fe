"""Whose the called places are, as netproxy says: read whole once, then what its history says has changed."""

from collections import Counter
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any

from netctl.node import PROXY, Node
from netctl.top.messages import Way
from netctl.top.usage import Count, ServicePort, Target
from proxy.frontends import Protocol

Place = tuple[int, bytes, bytes]
"""Protocol number, address and port in network order. A node port has the address of all zeros."""
NUMBERS = {protocol.value: protocol.number for protocol in Protocol}
MOST = 50
"""Services asked for one by one."""


class Services:
    def __init__(self, node: Node) -> None:
        self._node = node
        self._targets: dict[Place, Target] = {}
        self._places: dict[str, list[Place]] = {}
        self._started: float | None = None
        self._after = 0
        self.owners: dict[ServicePort, list[Target]] = {}
        """All Service ports, with every address of each."""

    def refresh(self) -> None:
        """UnreachableError when netproxy does not answer; what was known stays."""
        page = self._node.page(PROXY, f"/events/{self._after}")
        changed = {each["object"] for each in page["items"]}
        names = {one.removeprefix("service ") for one in changed if one.startswith("service ")}
        # What happened to many at once says no names.
        unnamed = any(one.endswith(" services") for one in changed)
        if page["started"] != self._started or page["lost"] or unnamed or len(names) > MOST:
            self._read_all()
        else:
            for name in names:
                self._replace(name, self._node.page(PROXY, f"/frontends-of/{name}")["items"])
        if names or page["started"] != self._started:
            self._index()
        self._started, self._after = page["started"], page["last"]

    def _read_all(self) -> None:
        by_service: dict[str, list[Mapping[str, Any]]] = {}
        for item in self._node.page(PROXY, "/frontends")["items"]:
            by_service.setdefault(service_of(item), []).append(item)
        self._targets, self._places = {}, {}
        for name, items in by_service.items():
            self._replace(name, items)
        self._index()

    def _replace(self, name: str, items: Iterable[Mapping[str, Any]]) -> None:
        for place in self._places.pop(name, ()):
            self._targets.pop(place, None)
        found = {place_of(item): target_of(item) for item in items}
        self._targets |= found
        if found:
            self._places[name] = list(found)

    def _index(self) -> None:
        self.owners = {}
        for target in self._targets.values():
            self.owners.setdefault(target.owner, []).append(target)

    def target(self, way: Way, endpoint: str) -> Target | None:
        """Which of our places it was that led there; None: it was not we."""
        if target := self._targets.get((way.protocol, way.destination, way.port)):
            return target
        anywhere = self._targets.get((way.protocol, bytes(len(way.destination)), way.port))
        return anywhere if anywhere and endpoint in anywhere.weights else None

    def attribute(self, connections: Counter[Way], sizes: Counter[Way]) -> tuple[dict[ServicePort, Count], int]:
        """Counts by Service port, and how many connections are nobody's."""
        counts: dict[ServicePort, Count] = {}
        nobodys = 0
        for way in connections.keys() | sizes.keys():
            endpoint = endpoint_of(way)
            if target := self.target(way, endpoint):
                count = counts.setdefault(target.owner, Count())
                count.add(target, endpoint, connections[way], sizes[way])
            else:
                nobodys += connections[way]
        return counts, nobodys


def endpoint_of(way: Way) -> str:
    address, port = ip_address(way.endpoint), int.from_bytes(way.endpoint_port, "big")
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def service_of(item: Mapping[str, Any]) -> str:
    """Without the port's name."""
    return str(item["service"]).partition(":")[0]


def place_of(item: Mapping[str, Any]) -> Place:
    return NUMBERS[item["protocol"]], ip_address(item["address"]).packed, item["port"].to_bytes(2, "big")


def target_of(item: Mapping[str, Any]) -> Target:
    owner = ServicePort(service_of(item), item["port_name"], item["protocol"])
    endpoints, inside = item["endpoints"], item["inside"]
    weights = dict(zip(endpoints, item.get("weights") or [1] * len(endpoints), strict=True))
    is_exact = inside is None or set(inside) == set(endpoints)
    return Target(owner, item["balance"], dict.fromkeys(inside or (), 1) | weights, is_exact)
