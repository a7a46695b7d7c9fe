"""What this proxy serves of a Service: its addresses and ports, or nothing.

Pure. Who is left out follows kube-proxy: ExternalName, headless, and Services that another proxy claims by label.
"""

from dataclasses import dataclass
from datetime import datetime

from controlloop.family import IPAddress
from controlloop.printable import printable
from proxy.frontends import Balance, Protocol, ServiceName, ServicePortName
from proxy.objects import (
    PortSpec,
    RefusedError,
    Service,
    ServiceAnnotations,
    ServiceLabels,
    ServiceSpec,
    parse_address,
)

BALANCE_ANNOTATION = "nodenet.io/balance"


@dataclass(frozen=True, slots=True)
class ServicePort:
    name: ServicePortName
    protocol: Protocol
    port: int


@dataclass(frozen=True, slots=True)
class ProxiedService:
    """A Service that this proxy serves."""

    name: ServiceName
    created: datetime | None
    addresses: tuple[IPAddress, ...]
    ports: tuple[ServicePort, ...]
    balance: Balance
    warning: str = ""
    """What of the Service is not done as written; empty: nothing."""


def read_service(service: Service, default_balance: Balance) -> ProxiedService | None:
    """The part of a Service that we serve; None: it is not for us. RefusedError names a field that makes no sense."""
    if not is_proxied(service):
        return None
    name = ServiceName(service.object_name.namespace, service.object_name.name)
    balance, warning = _balance(service, default_balance)
    return ProxiedService(
        name=name,
        created=service.metadata.creation_timestamp,
        addresses=_addresses(service.spec),
        ports=_ports(name, service.spec.ports or ()),
        balance=balance,
        warning=warning,
    )


def is_proxied(service: Service) -> bool:
    labels = service.metadata.labels or ServiceLabels()
    cluster_ips = _cluster_ips(service.spec)
    # The label counts by being there: its value names the other proxy, and an empty name is still not ours.
    return (
        labels.proxy_name is None
        and service.spec.type != "ExternalName"
        and bool(cluster_ips)
        and "None" not in cluster_ips
    )


def _cluster_ips(spec: ServiceSpec) -> tuple[str, ...]:
    """All cluster IPs; an object that never met an API server may have only the singular field."""
    several = tuple(text for text in spec.cluster_ips or () if text)
    return several or ((spec.cluster_ip,) if spec.cluster_ip else ())


def _addresses(spec: ServiceSpec) -> tuple[IPAddress, ...]:
    # The error names the field that was written.
    field = "spec.clusterIPs" if any(spec.cluster_ips or ()) else "spec.clusterIP"
    parsed = (parse_address(field, text) for text in _cluster_ips(spec))
    return tuple(dict.fromkeys(parsed))


def _ports(service: ServiceName, specs: tuple[PortSpec, ...]) -> tuple[ServicePort, ...]:
    """RefusedError for two ports with one name or one number: the API server refuses them too."""
    names: set[str] = set()
    numbers: set[tuple[Protocol, int]] = set()
    ports = []
    for index, spec in enumerate(specs):
        name, protocol = spec.name or "", Protocol[spec.protocol or "TCP"]
        if name in names:
            raise RefusedError(f"spec.ports[{index}].name: {name or 'no name'} is there twice")
        if (protocol, spec.port) in numbers:
            raise RefusedError(f"spec.ports[{index}].port: {spec.port}/{protocol.value} is there twice")
        names.add(name)
        numbers.add((protocol, spec.port))
        ports.append(ServicePort(ServicePortName(service, name), protocol, spec.port))
    return tuple(ports)


def _balance(service: Service, default: Balance) -> tuple[Balance, str]:
    """How to choose an endpoint, and a warning when the annotation asks for something we do not have."""
    asked = (service.metadata.annotations or ServiceAnnotations()).balance
    if asked is None:
        return default, ""
    try:
        return Balance(asked), ""
    except ValueError:
        known = ", ".join(balance.value for balance in Balance)
        return default, (
            f"annotation {BALANCE_ANNOTATION}: {printable(asked)} is none of {known}; {default.value} is used"
        )
