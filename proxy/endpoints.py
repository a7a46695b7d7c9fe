"""Where a Service is served: from its EndpointSlices, or v1 Endpoints, to the candidates for one port.

Pure. Conditions and duplicates follow kube-proxy. An endpoint that cannot be used is left out by name, and the others
of its slice are used.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from sys import intern

import msgspec
from msgspec import Struct

from controlloop.family import Family, IPAddress
from proxy.address_text import parse_address
from proxy.frontends import Protocol, ServiceName
from proxy.objects import (
    Conditions,
    EndpointAnnotations,
    Endpoints,
    EndpointSlice,
    Hint,
    Hints,
    Refuse,
    RefusedError,
    SliceEndpoint,
    SliceLabels,
    SlicePort,
    Subset,
    Timestamp,
)

FAMILIES = {"IPv4": Family.V4, "IPv6": Family.V6}


class Candidate(Struct, frozen=True, gc=False):
    """One address of a slice. A Struct, as there may be a hundred thousand of them."""

    address: IPAddress
    is_local: bool
    """It says that it is on this node."""
    is_placed: bool
    """It says where it is."""
    ready: bool
    serving: bool
    terminating: bool
    zone: str
    zone_hints: tuple[str, ...]
    """The zones whose clients should use it; empty: it has no such hint."""
    node_hint: bool | None
    """Whether clients on this node should use it; None: it has no such hint."""

    @property
    def rank(self) -> tuple[bool | str | tuple[str, ...], ...]:
        """Which of two copies of one endpoint counts (the smaller): a terminating copy is older news."""
        news = (self.terminating, not self.ready, not self.serving, not self.is_local, not self.is_placed)
        return (*news, self.zone, self.zone_hints, str(self.node_hint))


class PortNumber(Struct, frozen=True, gc=False):
    name: str
    protocol: Protocol
    number: int


class ServiceSlice(Struct, frozen=True, gc=False):
    """Endpoints of a Service in one family that have the same ports."""

    service: ServiceName
    family: Family
    ports: tuple[PortNumber, ...]
    candidates: tuple[Candidate, ...]


Places = dict[tuple[int, int], Candidate]
"""Who may serve one port in one family, by (address as a number, port)."""


def read_slice(endpoint_slice: EndpointSlice, node_name: str, refuse: Refuse) -> tuple[ServiceSlice, ...]:
    """What a slice says as seen from this node. Nothing, when it serves no Service, is headless or has names instead
    of addresses.
    """
    labels = endpoint_slice.metadata.labels or SliceLabels()
    family = FAMILIES.get(endpoint_slice.address_type)
    if labels.service_name is None or labels.headless is not None or family is None:
        return ()
    service = ServiceName(endpoint_slice.object_name.namespace, labels.service_name)
    # Only the first address of each counts: the API defines no meaning for the others.
    written = ((f"endpoints[{index}].addresses[0]", each) for index, each in enumerate(endpoint_slice.endpoints or ()))
    candidates = _Reader(node_name, refuse).candidates(written, family)
    return (ServiceSlice(service, family, _ports(endpoint_slice.ports), tuple(candidates)),)


def read_endpoints(endpoints: Endpoints, node_name: str, refuse: Refuse) -> tuple[ServiceSlice, ...]:
    """What v1 Endpoints say as seen from this node: a slice for each subset and family."""
    if (endpoints.metadata.labels or SliceLabels()).headless is not None:
        return ()
    name = endpoints.object_name
    service = ServiceName(name.namespace, name.name)
    slices = []
    for index, subset in enumerate(endpoints.subsets or ()):
        found = _Reader(node_name, refuse).candidates(_subset(f"subsets[{index}]", subset), None)
        for family in Family:
            candidates = tuple(each for each in found if each.address.version == family.value)
            if candidates:
                slices.append(ServiceSlice(service, family, _ports(subset.ports), candidates))
    return tuple(slices)


def _subset(path: str, subset: Subset) -> Iterator[tuple[str, SliceEndpoint]]:
    for field, addresses, conditions in (
        ("addresses", subset.addresses, Conditions()),
        ("notReadyAddresses", subset.not_ready_addresses, Conditions(ready=False, serving=False)),
    ):
        for index, each in enumerate(addresses or ()):
            yield f"{path}.{field}[{index}].ip", SliceEndpoint((each.ip,), conditions, each.node_name)


def trigger_time(annotations: EndpointAnnotations | None) -> datetime | None:
    """When the pod or Service changed that this change came from; it is only measured with, so a bad one is none."""
    text = (annotations or EndpointAnnotations()).trigger_time
    try:
        return msgspec.convert(text, Timestamp) if text else None
    except msgspec.ValidationError:
        return None


def _ports(ports: tuple[SlicePort, ...] | None) -> tuple[PortNumber, ...]:
    return tuple(
        PortNumber(intern(port.name or ""), Protocol[port.protocol or "TCP"], port.port)
        for port in ports or ()
        if port.port
    )


class _Reader:
    """Reads the endpoints of one object; equal hints become one value."""

    def __init__(self, node_name: str, refuse: Refuse) -> None:
        self._node_name = node_name
        self._refuse = refuse
        self._zones: dict[tuple[Hint, ...], tuple[str, ...]] = {}

    def candidates(self, endpoints: Iterable[tuple[str, SliceEndpoint]], family: Family | None) -> list[Candidate]:
        """`endpoints` with the path of their address; `family`: the only one allowed."""
        found = []
        version = family.value if family else None
        for path, endpoint in endpoints:
            if endpoint.addresses:
                try:
                    found.append(self._candidate(path, endpoint, endpoint.addresses[0], version))
                except RefusedError as error:
                    self._refuse(str(error))
        return found

    def _candidate(self, path: str, endpoint: SliceEndpoint, text: str, version: int | None) -> Candidate:
        address = parse_address(path, text)
        if version is not None and address.version != version:
            raise RefusedError(f"{path}: {address} is not IPv{version}, the slice's addressType")
        conditions = endpoint.conditions or Conditions()
        zone_hints, node_hint = self._hints(endpoint.hints) if endpoint.hints else ((), None)
        return Candidate(
            address=address,
            is_local=endpoint.node_name == self._node_name,
            is_placed=bool(endpoint.node_name),
            ready=conditions.ready is not False,
            serving=conditions.serving is not False,
            terminating=conditions.terminating is True,
            zone=intern(endpoint.zone or ""),
            zone_hints=zone_hints,
            node_hint=node_hint,
        )

    def _hints(self, hints: Hints) -> tuple[tuple[str, ...], bool | None]:
        zones = hints.for_zones or ()
        if zones not in self._zones:
            self._zones[zones] = tuple(sorted({intern(zone.name) for zone in zones}))
        nodes = hints.for_nodes
        return self._zones[zones], any(node.name == self._node_name for node in nodes) if nodes else None


def places(slices: Iterable[ServiceSlice], port: str, protocol: Protocol, family: Family) -> Places:
    """Who may serve a Service's port, each once."""
    best: Places = {}
    for service_slice in slices:
        if service_slice.family is family:
            for known in service_slice.ports:
                if known.name == port and known.protocol is protocol:
                    _keep_best(best, known.number, service_slice.candidates)
    return best


def _keep_best(best: Places, number: int, candidates: tuple[Candidate, ...]) -> None:
    for candidate in candidates:
        key = (int(candidate.address), number)
        other = best.get(key)
        if other is None or candidate.rank < other.rank:
            best[key] = candidate
