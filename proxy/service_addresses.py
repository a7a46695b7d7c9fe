"""Where a Service is served, and who may come there: its addresses and source ranges. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from msgspec import Struct

from controlloop.family import IPAddress, IPNetwork
from proxy.address_text import parse_address, parse_network, without_overlaps
from proxy.objects import LoadBalancerStatus, Refuse, RefusedError, Service, ServiceSpec, ServiceStatus

NOBODY: tuple[IPNetwork, ...] = (IPv4Network("0.0.0.0/32"), IPv6Network("::/128"))
"""Nobody has these addresses: a source range that cannot be read must not let everybody in."""


class Addresses(Struct, frozen=True, gc=False):
    """No address is there twice. One that is both the load balancer's and an external one is the load balancer's, so
    that its source ranges hold.
    """

    cluster: tuple[IPAddress, ...]
    load_balancer: tuple[IPAddress, ...]
    external: tuple[IPAddress, ...]

    def __len__(self) -> int:
        return len(self.cluster) + len(self.load_balancer) + len(self.external)


def cluster_ip_texts(spec: ServiceSpec) -> tuple[str, ...]:
    """All cluster IPs; an object that never met an API server may have only the singular field."""
    several = tuple(text for text in spec.cluster_ips or () if text)
    return several or ((spec.cluster_ip,) if spec.cluster_ip else ())


def read_addresses(service: Service, ranges: tuple[IPNetwork, ...] | None, refuse: Refuse) -> Addresses:
    """`ranges`: where addresses that are not the cluster's own may lie; None: anywhere. One that cannot be used is told
    to `refuse`; RefusedError for a bad cluster IP.
    """
    # The error names the field that was written.
    field = "spec.clusterIPs" if any(service.spec.cluster_ips or ()) else "spec.clusterIP"
    cluster = tuple(dict.fromkeys(parse_address(field, text) for text in cluster_ip_texts(service.spec)))
    reader = _ExternalReader({address.version for address in cluster}, ranges, refuse)
    balancer = reader.read(_ingress(service), taken=set(cluster))
    return Addresses(cluster, balancer, reader.read(_external_ips(service.spec), taken={*cluster, *balancer}))


@dataclass(frozen=True, slots=True)
class _ExternalReader:
    versions: set[int]
    ranges: tuple[IPNetwork, ...] | None
    refuse: Refuse

    def read(self, texts: Iterable[tuple[str, str]], taken: set[IPAddress]) -> tuple[IPAddress, ...]:
        found: dict[IPAddress, None] = {}
        for field, text in texts:
            try:
                found[self._usable(field, text)] = None
            except RefusedError as error:
                self.refuse(str(error))
        return tuple(address for address in found if address not in taken)

    def _usable(self, field: str, text: str) -> IPAddress:
        address = parse_address(field, text)
        if address.version not in self.versions:
            raise RefusedError(f"{field}: {address} is left out, as the Service has no IPv{address.version} cluster IP")
        if self.ranges is not None and not any(address in network for network in self.ranges):
            reason = "is left out, as it is in none of the ranges for external addresses"
            raise RefusedError(f"{field}: {address} {reason}")
        return address


def _external_ips(spec: ServiceSpec) -> Iterator[tuple[str, str]]:
    """(field, text) of each."""
    for index, text in enumerate(spec.external_ips or ()):
        yield f"spec.externalIPs[{index}]", text


def _ingress(service: Service) -> Iterator[tuple[str, str]]:
    """(field, text) of the load balancer's addresses, without those whose packets it wants to see itself."""
    if service.spec.type != "LoadBalancer":
        return
    status = (service.status or ServiceStatus()).load_balancer or LoadBalancerStatus()
    for index, ingress in enumerate(status.ingress or ()):
        if ingress.ip and ingress.ip_mode != "Proxy":
            yield f"status.loadBalancer.ingress[{index}].ip", ingress.ip


def read_source_ranges(spec: ServiceSpec, refuse: Refuse) -> tuple[IPNetwork, ...]:
    """Who may come to the load balancer's addresses, by family, sorted and without overlaps; empty: everybody."""
    if spec.type != "LoadBalancer":
        return ()
    ranges: list[IPNetwork] = []
    for index, text in enumerate(spec.load_balancer_source_ranges or ()):
        try:
            ranges.append(parse_network(f"spec.loadBalancerSourceRanges[{index}]", text))
        except RefusedError as error:
            refuse(f"{error}; nobody is let in for it")
            ranges.extend(NOBODY)
    return without_overlaps(ranges)
