"""Where a Service is served: from its EndpointSlices to the endpoints of one port.

Pure. Conditions, duplicates and the fallback to terminating endpoints follow kube-proxy's cluster policy.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from msgspec import Struct

from controlloop.family import Family, IPAddress
from proxy import objects
from proxy.frontends import Endpoint, Protocol, ServiceName
from proxy.objects import Conditions, EndpointSlice, RefusedError, SliceLabels, parse_address

FAMILIES = {"IPv4": Family.V4, "IPv6": Family.V6}


class Candidate(Struct, frozen=True, gc=False):
    """One address of a slice. A Struct, as there may be a hundred thousand of them."""

    address: IPAddress
    is_local: bool
    ready: bool
    serving: bool
    terminating: bool

    @property
    def rank(self) -> tuple[bool, bool, bool, bool]:
        """Which of two copies of one endpoint counts (the smaller): a terminating copy is older news."""
        return (self.terminating, not self.ready, not self.serving, not self.is_local)


@dataclass(frozen=True, slots=True)
class PortNumber:
    name: str
    protocol: Protocol
    number: int


@dataclass(frozen=True, slots=True)
class ServiceSlice:
    """An EndpointSlice that belongs to a Service, in one family."""

    service: ServiceName
    family: Family
    ports: tuple[PortNumber, ...]
    candidates: tuple[Candidate, ...]


def read_slice(endpoint_slice: EndpointSlice, node_name: str) -> ServiceSlice | None:
    """What a slice says as seen from this node; None: nothing for us, it serves no Service, is headless or has names
    instead of addresses. RefusedError names an address that is none.
    """
    labels = endpoint_slice.metadata.labels or SliceLabels()
    family = FAMILIES.get(endpoint_slice.address_type)
    if labels.service_name is None or labels.headless is not None or family is None:
        return None
    return ServiceSlice(
        service=ServiceName(endpoint_slice.object_name.namespace, labels.service_name),
        family=family,
        ports=tuple(
            PortNumber(port.name or "", Protocol[port.protocol or "TCP"], port.port)
            for port in endpoint_slice.ports or ()
            if port.port
        ),
        candidates=tuple(
            _candidate(f"endpoints[{index}]", endpoint, family, node_name)
            for index, endpoint in enumerate(endpoint_slice.endpoints or ())
            if endpoint.addresses
        ),
    )


def _candidate(path: str, endpoint: objects.SliceEndpoint, family: Family, node_name: str) -> Candidate:
    """Only the first address counts: the API defines no meaning for the others."""
    addresses = endpoint.addresses or ("",)
    address = parse_address(f"{path}.addresses[0]", addresses[0])
    if address.version != family.value:
        raise RefusedError(f"{path}.addresses[0]: {address} is not IPv{family.value}, the slice's addressType")
    conditions = endpoint.conditions or Conditions()
    return Candidate(
        address=address,
        is_local=not endpoint.node_name or endpoint.node_name == node_name,
        ready=conditions.ready is not False,
        serving=conditions.serving is not False,
        terminating=conditions.terminating is True,
    )


def endpoints(slices: Iterable[ServiceSlice], port: str, protocol: Protocol, family: Family) -> tuple[Endpoint, ...]:
    """Who takes connections to a Service's port: all that are ready, or when nobody is, those that terminate but still
    serve. Ordered by (address, port), each once.
    """
    best: dict[tuple[int, int], Candidate] = {}
    for service_slice in slices:
        if service_slice.family is family:
            for number in _numbers(service_slice, port, protocol):
                _keep_best(best, number, service_slice.candidates)
    chosen = [key for key, candidate in best.items() if candidate.ready] or [
        key for key, candidate in best.items() if candidate.serving and candidate.terminating
    ]
    return tuple(Endpoint(best[key].address, key[1], best[key].is_local) for key in sorted(chosen))


def _numbers(service_slice: ServiceSlice, port: str, protocol: Protocol) -> list[int]:
    return [known.number for known in service_slice.ports if known.name == port and known.protocol is protocol]


def _keep_best(best: dict[tuple[int, int], Candidate], number: int, candidates: tuple[Candidate, ...]) -> None:
    for candidate in candidates:
        key = (int(candidate.address), number)
        other = best.get(key)
        if other is None or candidate.rank < other.rank:
            best[key] = candidate
