"""Kubernetes objects as the proxy reads them: the fields that decide where a connection goes, and no others.

Pure. Anybody who may write to a source writes the text of an object, so none of it is trusted: a name that leaves here
is a Kubernetes DNS name, an address is an address, and an object with anything else in those places is refused whole.
"""

from collections.abc import Callable
from datetime import datetime
from enum import Enum
from sys import intern
from typing import Annotated, Any, Literal, overload

import msgspec
from msgspec import Meta, Struct, field

from proxy.refusals import refusal

LABEL_PATTERN = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"

Label = Annotated[str, Meta(pattern=rf"\A{LABEL_PATTERN}\Z")]
Subdomain = Annotated[
    str, Meta(pattern=r"\A[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z", max_length=253)
]
"""As the API server checks names: a part between dots may be longer than in DNS."""
PortName = Annotated[str, Meta(pattern=rf"\A({LABEL_PATTERN})?\Z")]
PortNumber = Annotated[int, Meta(ge=0, le=65535)]
"""0 stands for none."""
ProtocolName = Literal["TCP", "UDP", "SCTP"]
TrafficPolicy = Literal["Cluster", "Local"]
Timestamp = Annotated[datetime, Meta(tz=True)]

DEFAULT_NAMESPACE = "default"


class RefusedError(ValueError):
    """The object cannot be used as it is. One line that names the field and what stands there, escaped and cut."""


Refuse = Callable[[str], None]
"""Told, in such a line, what of an object is left out while the rest is used."""


class Kind(Enum):
    SERVICE = "Service"
    ENDPOINT_SLICE = "EndpointSlice"
    ENDPOINTS = "Endpoints"

    # As Family's: it is a part of many keys.
    __hash__ = object.__hash__


class ObjectName(Struct, frozen=True, order=True, gc=False):
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Read(Struct, frozen=True, gc=False, rename="camel"):
    """A part of an object. Unknown fields are left unread; null stands for an absent field, as in the API."""


class Metadata(Read, frozen=True):
    name: Subdomain
    namespace: Label | None = None


class Named(Read, frozen=True):
    """A whole object."""

    metadata: Metadata

    @property
    def object_name(self) -> ObjectName:
        # Tens of thousands of objects are in a handful of namespaces.
        return ObjectName(intern(self.metadata.namespace or DEFAULT_NAMESPACE), self.metadata.name)


class ServiceLabels(Read, frozen=True):
    proxy_name: str | None = field(default=None, name="service.kubernetes.io/service-proxy-name")


class ServiceAnnotations(Read, frozen=True):
    balance: str | None = field(default=None, name="nodenet.io/balance")
    weights: str | None = field(default=None, name="nodenet.io/weights")
    drain_timeout: str | None = field(default=None, name="nodenet.io/drain-timeout")


class ServiceMetadata(Metadata, frozen=True):
    name: Label
    creation_timestamp: Timestamp | None = None
    labels: ServiceLabels | None = None
    annotations: ServiceAnnotations | None = None


class PortSpec(Read, frozen=True):
    port: Annotated[int, Meta(ge=1, le=65535)]
    name: PortName | None = None
    protocol: ProtocolName | None = None
    node_port: PortNumber | None = None


class ClientIPConfig(Read, frozen=True):
    timeout_seconds: Annotated[int, Meta(ge=1, le=86400)] | None = None


class AffinityConfig(Read, frozen=True):
    client_ip: ClientIPConfig | None = field(default=None, name="clientIP")


class ServiceSpec(Read, frozen=True):
    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] | None = None
    cluster_ip: str | None = field(default=None, name="clusterIP")
    cluster_ips: tuple[str, ...] | None = field(default=None, name="clusterIPs")
    external_ips: tuple[str, ...] | None = field(default=None, name="externalIPs")
    ports: tuple[PortSpec, ...] | None = None
    session_affinity: Literal["None", "ClientIP"] | None = None
    session_affinity_config: AffinityConfig | None = None
    internal_traffic_policy: TrafficPolicy | None = None
    external_traffic_policy: TrafficPolicy | None = None
    load_balancer_source_ranges: tuple[str, ...] | None = None
    allocate_load_balancer_node_ports: bool | None = None
    health_check_node_port: PortNumber | None = None


class Ingress(Read, frozen=True):
    """One address of a load balancer, or a name, which means nothing here."""

    ip: str | None = None
    ip_mode: str | None = None


class LoadBalancerStatus(Read, frozen=True):
    ingress: tuple[Ingress, ...] | None = None


class ServiceStatus(Read, frozen=True):
    load_balancer: LoadBalancerStatus | None = None


class Service(Named, frozen=True):
    """v1 Service."""

    metadata: ServiceMetadata
    spec: ServiceSpec
    status: ServiceStatus | None = None
    kind: Literal["Service"] | None = None
    api_version: Literal["v1"] | None = None


class SliceLabels(Read, frozen=True):
    service_name: Label | None = field(default=None, name="kubernetes.io/service-name")
    headless: str | None = field(default=None, name="service.kubernetes.io/headless")


class EndpointAnnotations(Read, frozen=True):
    trigger_time: str | None = field(default=None, name="endpoints.kubernetes.io/last-change-trigger-time")


class SliceMetadata(Metadata, frozen=True):
    labels: SliceLabels | None = None
    annotations: EndpointAnnotations | None = None


class SlicePort(Read, frozen=True):
    name: PortName | None = None
    protocol: ProtocolName | None = None
    port: PortNumber | None = None


class Conditions(Read, frozen=True):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Hint(Read, frozen=True):
    """A zone or a node."""

    name: str


class Hints(Read, frozen=True):
    for_zones: tuple[Hint, ...] | None = None
    for_nodes: tuple[Hint, ...] | None = None


class SliceEndpoint(Read, frozen=True):
    addresses: tuple[str, ...] | None = None
    conditions: Conditions | None = None
    node_name: str | None = None
    zone: str | None = None
    hints: Hints | None = None


class EndpointSlice(Named, frozen=True):
    """discovery.k8s.io/v1 EndpointSlice."""

    metadata: SliceMetadata
    address_type: Literal["IPv4", "IPv6", "FQDN"]
    ports: tuple[SlicePort, ...] | None = None
    endpoints: tuple[SliceEndpoint, ...] | None = None
    kind: Literal["EndpointSlice"] | None = None
    api_version: Literal["discovery.k8s.io/v1"] | None = None


class SubsetAddress(Read, frozen=True):
    ip: str
    node_name: str | None = None


class Subset(Read, frozen=True):
    addresses: tuple[SubsetAddress, ...] | None = None
    not_ready_addresses: tuple[SubsetAddress, ...] | None = None
    ports: tuple[SlicePort, ...] | None = None


class EndpointsMetadata(SliceMetadata, frozen=True):
    name: Label


class Endpoints(Named, frozen=True):
    """v1 Endpoints: what EndpointSlices were before. It belongs to the Service of its own name."""

    metadata: EndpointsMetadata
    subsets: tuple[Subset, ...] | None = None
    kind: Literal["Endpoints"] | None = None
    api_version: Literal["v1"] | None = None


Decoded = Service | EndpointSlice | Endpoints

_DECODERS: dict[Kind, msgspec.json.Decoder[Any]] = {
    Kind.SERVICE: msgspec.json.Decoder(Service),
    Kind.ENDPOINT_SLICE: msgspec.json.Decoder(EndpointSlice),
    Kind.ENDPOINTS: msgspec.json.Decoder(Endpoints),
}


@overload
def decode(kind: Literal[Kind.SERVICE], raw: bytes) -> Service: ...
@overload
def decode(kind: Literal[Kind.ENDPOINT_SLICE], raw: bytes) -> EndpointSlice: ...
@overload
def decode(kind: Literal[Kind.ENDPOINTS], raw: bytes) -> Endpoints: ...
@overload
def decode(kind: Kind, raw: bytes) -> Decoded: ...
def decode(kind: Kind, raw: bytes) -> Decoded:
    """The object in a JSON text. RefusedError names the field that is missing or wrong, and what stands there."""
    try:
        decoded: Decoded = _DECODERS[kind].decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError(refusal(str(error), raw)) from error
    return decoded
