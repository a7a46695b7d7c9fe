"""What this proxy serves of a Service: its addresses and ports, or nothing.

Pure. Who is left out follows kube-proxy: ExternalName, headless, and Services that another proxy claims by label. A
part that cannot be used (an external address, a source range, an annotation) is left out by name, and the rest is
served; a Service that contradicts itself is refused whole.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from sys import intern

from msgspec import Struct

from controlloop.family import Family, IPAddress, IPNetwork
from proxy.address_text import parse_address, parse_network
from proxy.annotations import Weights, read_balance, read_drain_timeout, read_weights
from proxy.frontends import ANY_NODE_ADDRESS, Balance, Protocol, Scope, ServiceName, ServicePortName
from proxy.objects import (
    AffinityConfig,
    ClientIPConfig,
    LoadBalancerStatus,
    PortSpec,
    Refuse,
    RefusedError,
    Service,
    ServiceAnnotations,
    ServiceLabels,
    ServiceSpec,
    ServiceStatus,
)

DEFAULT_AFFINITY_S = 10800
NOBODY: tuple[IPNetwork, ...] = (IPv4Network("0.0.0.0/32"), IPv6Network("::/128"))
"""Nobody has these addresses: a source range that cannot be read must not let everybody in."""


@dataclass(frozen=True, slots=True)
class Options:
    """What holds for all Services; set once, when the proxy starts."""

    balance: Balance = Balance.RANDOM
    """For Services that ask for none."""
    balances: frozenset[Balance] = frozenset(Balance)
    """Those that the mode supports."""
    external_ranges: tuple[IPNetwork, ...] | None = None
    """Where externalIPs and load balancers' addresses may lie; None: anywhere."""
    drain_s: int | None = None
    """For Services that ask for none (`Frontend.drain_s`)."""


class ServicePort(Struct, frozen=True, gc=False):
    name: ServicePortName
    protocol: Protocol
    port: int
    node_port: int = 0
    """0: none."""


class ProxiedService(Struct, frozen=True, gc=False, kw_only=True):
    """A Service that this proxy serves. A Struct, as there may be tens of thousands of them."""

    name: ServiceName
    created: datetime | None
    ports: tuple[ServicePort, ...]
    cluster_ips: tuple[IPAddress, ...]
    external_ips: tuple[IPAddress, ...]
    load_balancer_ips: tuple[IPAddress, ...]
    source_ranges: tuple[IPNetwork, ...]
    """Who may connect to `load_balancer_ips`, without overlaps. A family with none of them has no limit."""
    internal_local: bool
    external_local: bool
    affinity_s: int
    health_check_port: int
    """0: no load balancer asks this node whether it has endpoints."""
    balance: Balance
    weights: Weights
    drain_s: int | None

    @property
    def families(self) -> tuple[Family, ...]:
        """Those in which the Service has a cluster IP; in another it has nothing."""
        return tuple(dict.fromkeys(Family.of(address) for address in self.cluster_ips))

    @property
    def is_external(self) -> bool:
        """It can be reached from outside the cluster."""
        return bool(self.external_ips or self.load_balancer_ips or any(port.node_port for port in self.ports))

    def exposures(self, port: ServicePort, family: Family) -> Iterator[tuple[Scope, IPAddress, int]]:
        """Each address and number at which a port is served in one family."""
        for scope, addresses in (
            (Scope.CLUSTER_IP, self.cluster_ips),
            (Scope.LOAD_BALANCER, self.load_balancer_ips),
            (Scope.EXTERNAL_IP, self.external_ips),
        ):
            for address in addresses:
                if address.version == family.value:
                    yield scope, address, port.port
        if port.node_port:
            yield Scope.NODE_PORT, ANY_NODE_ADDRESS[family], port.node_port


def read_service(service: Service, options: Options, refuse: Refuse) -> ProxiedService | None:
    """The part of a Service that we serve; None: it is not for us. RefusedError names a field that makes no sense."""
    if not is_proxied(service):
        return None
    object_name, spec = service.object_name, service.spec
    name = ServiceName(object_name.namespace, object_name.name)
    annotations = service.metadata.annotations or ServiceAnnotations()
    cluster_ips = _cluster_ips(spec)
    external_ips, load_balancer_ips = _external(service, cluster_ips, options, refuse)
    balance = _balance(annotations, options, refuse)
    return ProxiedService(
        name=name,
        created=service.metadata.creation_timestamp,
        ports=_ports(name, spec, refuse),
        cluster_ips=cluster_ips,
        external_ips=external_ips,
        load_balancer_ips=load_balancer_ips,
        source_ranges=_source_ranges(spec, refuse),
        internal_local=spec.internal_traffic_policy == "Local",
        external_local=spec.external_traffic_policy == "Local",
        affinity_s=_affinity_s(spec),
        health_check_port=_health_check_port(spec),
        balance=balance,
        weights=read_weights(annotations.weights or "", refuse) if balance is Balance.WEIGHTED else {},
        drain_s=_drain_s(annotations, options, refuse),
    )


def is_proxied(service: Service) -> bool:
    labels = service.metadata.labels or ServiceLabels()
    cluster_ips = _cluster_ip_texts(service.spec)
    # The label counts by being there: its value names the other proxy, and an empty name is still not ours.
    return (
        labels.proxy_name is None
        and service.spec.type != "ExternalName"
        and bool(cluster_ips)
        and "None" not in cluster_ips
    )


def _cluster_ip_texts(spec: ServiceSpec) -> tuple[str, ...]:
    """All cluster IPs; an object that never met an API server may have only the singular field."""
    several = tuple(text for text in spec.cluster_ips or () if text)
    return several or ((spec.cluster_ip,) if spec.cluster_ip else ())


def _cluster_ips(spec: ServiceSpec) -> tuple[IPAddress, ...]:
    # The error names the field that was written.
    field = "spec.clusterIPs" if any(spec.cluster_ips or ()) else "spec.clusterIP"
    return tuple(dict.fromkeys(parse_address(field, text) for text in _cluster_ip_texts(spec)))


def _external(
    service: Service, cluster_ips: tuple[IPAddress, ...], options: Options, refuse: Refuse
) -> tuple[tuple[IPAddress, ...], tuple[IPAddress, ...]]:
    """externalIPs, and the addresses of its load balancer. An address that is both belongs to the load balancer, so
    that its source ranges hold.
    """
    families = {address.version for address in cluster_ips}

    def usable(texts: Iterable[tuple[str, str]]) -> Iterator[IPAddress]:
        for field, text in texts:
            try:
                yield _external_address(field, text, families, options.external_ranges)
            except RefusedError as error:
                refuse(str(error))

    balancer = [each for each in dict.fromkeys(usable(_ingress(service))) if each not in cluster_ips]
    written = ((f"spec.externalIPs[{index}]", text) for index, text in enumerate(service.spec.external_ips or ()))
    external = [each for each in dict.fromkeys(usable(written)) if each not in (*cluster_ips, *balancer)]
    return tuple(external), tuple(balancer)


def _ingress(service: Service) -> Iterator[tuple[str, str]]:
    """(field, text) of the load balancer's addresses, without those that it wants to see the packets of itself."""
    if service.spec.type != "LoadBalancer":
        return
    status = (service.status or ServiceStatus()).load_balancer or LoadBalancerStatus()
    for index, ingress in enumerate(status.ingress or ()):
        if ingress.ip and ingress.ip_mode != "Proxy":
            yield f"status.loadBalancer.ingress[{index}].ip", ingress.ip


def _external_address(
    field: str, text: str, families: Collection[int], ranges: tuple[IPNetwork, ...] | None
) -> IPAddress:
    address = parse_address(field, text)
    if address.version not in families:
        raise RefusedError(f"{field}: {address} is left out, as the Service has no IPv{address.version} cluster IP")
    if ranges is not None and not any(address in network for network in ranges):
        raise RefusedError(f"{field}: {address} is left out, as it is in none of the ranges for external addresses")
    return address


def _source_ranges(spec: ServiceSpec, refuse: Refuse) -> tuple[IPNetwork, ...]:
    if spec.type != "LoadBalancer":
        return ()
    ranges: list[IPNetwork] = []
    for index, text in enumerate(spec.load_balancer_source_ranges or ()):
        try:
            ranges.append(parse_network(f"spec.loadBalancerSourceRanges[{index}]", text))
        except RefusedError as error:
            refuse(f"{error}; nobody is let in for it")
            ranges.extend(NOBODY)
    four = (network for network in ranges if isinstance(network, IPv4Network))
    six = (network for network in ranges if isinstance(network, IPv6Network))
    return (*collapse_addresses(four), *collapse_addresses(six))


def _ports(service: ServiceName, spec: ServiceSpec, refuse: Refuse) -> tuple[ServicePort, ...]:
    """RefusedError for two ports with one name or one number: the API server refuses them too."""
    seen: set[str | tuple[str, str, int]] = set()
    ports = []
    for index, written in enumerate(spec.ports or ()):
        protocol = Protocol[written.protocol or "TCP"]
        node_port = _node_port(f"spec.ports[{index}]", spec, written, refuse)
        name = written.name or ""
        _only_once(seen, f"spec.ports[{index}].name", name, name or "no name")
        for field, number in (("port", written.port), ("nodePort", node_port)):
            if number:
                shown = f"{number}/{protocol.value}"
                _only_once(seen, f"spec.ports[{index}].{field}", (field, protocol.value, number), shown)
        ports.append(ServicePort(ServicePortName(service, intern(name)), protocol, written.port, node_port))
    return tuple(ports)


def _only_once(seen: set[str | tuple[str, str, int]], field: str, key: str | tuple[str, str, int], shown: str) -> None:
    if key in seen:
        raise RefusedError(f"{field}: {shown} is there twice")
    seen.add(key)


def _node_port(field: str, spec: ServiceSpec, written: PortSpec, refuse: Refuse) -> int:
    if not written.node_port or spec.type in ("NodePort", "LoadBalancer"):
        return written.node_port or 0
    refuse(f"{field}.nodePort: {written.node_port} is left out: the type is neither NodePort nor LoadBalancer")
    return 0


def _affinity_s(spec: ServiceSpec) -> int:
    if spec.session_affinity != "ClientIP":
        return 0
    config = (spec.session_affinity_config or AffinityConfig()).client_ip or ClientIPConfig()
    return config.timeout_seconds or DEFAULT_AFFINITY_S


def _health_check_port(spec: ServiceSpec) -> int:
    is_asked = spec.type == "LoadBalancer" and spec.external_traffic_policy == "Local"
    return (spec.health_check_node_port or 0) if is_asked else 0


def _balance(annotations: ServiceAnnotations, options: Options, refuse: Refuse) -> Balance:
    if annotations.balance is not None:
        try:
            return read_balance(annotations.balance, options.balances)
        except RefusedError as error:
            refuse(f"{error}; {options.balance.value} is used")
    return options.balance


def _drain_s(annotations: ServiceAnnotations, options: Options, refuse: Refuse) -> int | None:
    if annotations.drain_timeout is not None:
        try:
            return read_drain_timeout(annotations.drain_timeout)
        except RefusedError as error:
            refuse(str(error))
    return options.drain_s
