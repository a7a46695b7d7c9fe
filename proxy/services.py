"""What this proxy serves of a Service: its addresses and ports, or nothing.

Pure. Who is left out follows kube-proxy: ExternalName, headless, and Services that another proxy claims by label. A
part that cannot be used (an external address, a source range, an annotation) is left out by name, and the rest is
served; a Service that contradicts itself is refused whole.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from sys import intern

from msgspec import Struct

from controlloop.family import Family, IPAddress, IPNetwork
from proxy.annotations import Weights, read_balance, read_drain_timeout, read_weights
from proxy.frontends import ANY_NODE_ADDRESS, Balance, Protocol, Scope, ServiceName, ServicePortName
from proxy.objects import (
    AffinityConfig,
    ClientIPConfig,
    PortSpec,
    Refuse,
    RefusedError,
    Service,
    ServiceAnnotations,
    ServiceLabels,
    ServiceSpec,
)
from proxy.service_addresses import cluster_ip_texts, read_addresses, read_source_ranges

DEFAULT_AFFINITY_S = 10800
MOST_FRONTENDS = 20_000
"""One object of a megabyte could ask for hundreds of millions, on every node."""
FAMILIES = {frozenset(family.value for family in some): some for some in ((Family.V4,), (Family.V6,), tuple(Family))}


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
    affinity_limit: str = ""
    """Why client affinity does not hold for every client; empty: it does."""


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
    families: tuple[Family, ...]
    """Those in which the Service has a cluster IP; in another it has nothing."""
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
    addresses = read_addresses(service, options.external_ranges, refuse)
    ports = _ports(name, spec, refuse)
    if len(ports) * len(addresses) > MOST_FRONTENDS:
        raise RefusedError(f"spec: {len(ports)} ports at {len(addresses)} addresses are more than {MOST_FRONTENDS}")
    balance = _balance(annotations, options, refuse)
    return ProxiedService(
        name=name,
        created=service.metadata.creation_timestamp,
        ports=ports,
        families=FAMILIES[frozenset(address.version for address in addresses.cluster)],
        cluster_ips=addresses.cluster,
        external_ips=addresses.external,
        load_balancer_ips=addresses.load_balancer,
        source_ranges=read_source_ranges(spec, refuse),
        internal_local=spec.internal_traffic_policy == "Local",
        external_local=spec.external_traffic_policy == "Local",
        affinity_s=_affinity_s(spec, options, refuse),
        health_check_port=_health_check_port(spec),
        balance=balance,
        weights=read_weights(annotations.weights or "", refuse) if balance is Balance.WEIGHTED else {},
        drain_s=_drain_s(annotations, options, refuse),
    )


def is_proxied(service: Service) -> bool:
    labels = service.metadata.labels or ServiceLabels()
    cluster_ips = cluster_ip_texts(service.spec)
    # The label counts by being there: its value names the other proxy, and an empty name is still not ours.
    return (
        labels.proxy_name is None
        and service.spec.type != "ExternalName"
        and bool(cluster_ips)
        and "None" not in cluster_ips
    )


def _ports(service: ServiceName, spec: ServiceSpec, refuse: Refuse) -> tuple[ServicePort, ...]:
    """RefusedError for two ports with one name or one number: the API server refuses them too."""
    seen: set[tuple[str, str]] = set()
    ports = []
    for index, written in enumerate(spec.ports or ()):
        path, name, protocol = f"spec.ports[{index}]", written.name or "", Protocol[written.protocol or "TCP"]
        node_port = _node_port(path, spec, written, refuse)
        _only_once(seen, path, "name", name or "no name")
        _only_once(seen, path, "port", f"{written.port}/{protocol.value}")
        if node_port:
            _only_once(seen, path, "nodePort", f"{node_port}/{protocol.value}")
        ports.append(ServicePort(ServicePortName(service, intern(name)), protocol, written.port, node_port))
    return tuple(ports)


def _only_once(seen: set[tuple[str, str]], path: str, field: str, text: str) -> None:
    if (field, text) in seen:
        raise RefusedError(f"{path}.{field}: {text} is there twice")
    seen.add((field, text))


def _node_port(path: str, spec: ServiceSpec, written: PortSpec, refuse: Refuse) -> int:
    if not written.node_port or spec.type in ("NodePort", "LoadBalancer"):
        return written.node_port or 0
    refuse(f"{path}.nodePort: {written.node_port} is left out: the type is neither NodePort nor LoadBalancer")
    return 0


def _affinity_s(spec: ServiceSpec, options: Options, refuse: Refuse) -> int:
    if spec.session_affinity != "ClientIP":
        return 0
    if options.affinity_limit:
        refuse(f"spec.sessionAffinity: {options.affinity_limit}")
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
