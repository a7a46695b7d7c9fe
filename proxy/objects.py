"""Kubernetes objects as the proxy reads them: the fields that decide where a connection goes, and no others.

Pure. Anybody who may write to a source writes the text of an object, so none of it is trusted: a name that leaves here
is a Kubernetes DNS name, an address is an address, and an object with anything else in those places is refused whole.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Annotated, Literal, overload

import msgspec
from msgspec import Meta, Struct, field

from controlloop.family import IPAddress
from controlloop.printable import printable

LABEL_PATTERN = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"

Label = Annotated[str, Meta(pattern=rf"\A{LABEL_PATTERN}\Z")]
Subdomain = Annotated[str, Meta(pattern=rf"\A{LABEL_PATTERN}(\.{LABEL_PATTERN})*\Z", max_length=253)]
PortName = Annotated[str, Meta(pattern=rf"\A({LABEL_PATTERN})?\Z")]
ProtocolName = Literal["TCP", "UDP", "SCTP"]
Timestamp = Annotated[datetime, Meta(tz=True)]

DEFAULT_NAMESPACE = "default"
SHOWN_LENGTH = 400
"""A whole `EndpointSlice namespace/name` fits."""


class RefusedError(ValueError):
    """The object cannot be used as it is. One line that names the field; control characters are shown escaped."""


class Kind(Enum):
    SERVICE = "Service"
    ENDPOINT_SLICE = "EndpointSlice"


@dataclass(frozen=True, slots=True, order=True)
class ObjectName:
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Read(Struct, frozen=True, gc=False, rename="camel"):
    """A part of an object. Unknown fields are left unread; null stands for an absent field, as in the API."""


class ServiceLabels(Read, frozen=True):
    proxy_name: str | None = field(default=None, name="service.kubernetes.io/service-proxy-name")


class ServiceAnnotations(Read, frozen=True):
    balance: str | None = field(default=None, name="nodenet.io/balance")


class ServiceMetadata(Read, frozen=True):
    name: Label
    namespace: Label | None = None
    creation_timestamp: Timestamp | None = None
    labels: ServiceLabels | None = None
    annotations: ServiceAnnotations | None = None


class PortSpec(Read, frozen=True):
    port: Annotated[int, Meta(ge=1, le=65535)]
    name: PortName | None = None
    protocol: ProtocolName | None = None


class ServiceSpec(Read, frozen=True):
    type: str | None = None
    cluster_ip: str | None = field(default=None, name="clusterIP")
    cluster_ips: tuple[str, ...] | None = field(default=None, name="clusterIPs")
    ports: tuple[PortSpec, ...] | None = None


class Service(Read, frozen=True):
    """v1 Service."""

    metadata: ServiceMetadata
    spec: ServiceSpec
    kind: Literal["Service"] | None = None
    api_version: Literal["v1"] | None = None

    @property
    def object_name(self) -> ObjectName:
        return ObjectName(self.metadata.namespace or DEFAULT_NAMESPACE, self.metadata.name)


class SliceLabels(Read, frozen=True):
    service_name: Label | None = field(default=None, name="kubernetes.io/service-name")
    headless: str | None = field(default=None, name="service.kubernetes.io/headless")


class SliceMetadata(Read, frozen=True):
    name: Subdomain
    namespace: Label | None = None
    labels: SliceLabels | None = None


class SlicePort(Read, frozen=True):
    name: PortName | None = None
    protocol: ProtocolName | None = None
    port: Annotated[int, Meta(ge=0, le=65535)] | None = None


class Conditions(Read, frozen=True):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class SliceEndpoint(Read, frozen=True):
    addresses: tuple[str, ...] | None = None
    conditions: Conditions | None = None
    node_name: str | None = None


class EndpointSlice(Read, frozen=True):
    """discovery.k8s.io/v1 EndpointSlice."""

    metadata: SliceMetadata
    address_type: Literal["IPv4", "IPv6", "FQDN"]
    ports: tuple[SlicePort, ...] | None = None
    endpoints: tuple[SliceEndpoint, ...] | None = None
    kind: Literal["EndpointSlice"] | None = None
    api_version: Literal["discovery.k8s.io/v1"] | None = None

    @property
    def object_name(self) -> ObjectName:
        return ObjectName(self.metadata.namespace or DEFAULT_NAMESPACE, self.metadata.name)


_SERVICE = msgspec.json.Decoder(Service)
_ENDPOINT_SLICE = msgspec.json.Decoder(EndpointSlice)


@overload
def decode(kind: Literal[Kind.SERVICE], raw: bytes) -> Service: ...
@overload
def decode(kind: Literal[Kind.ENDPOINT_SLICE], raw: bytes) -> EndpointSlice: ...
@overload
def decode(kind: Kind, raw: bytes) -> Service | EndpointSlice: ...
def decode(kind: Kind, raw: bytes) -> Service | EndpointSlice:
    """The object in a JSON text. RefusedError names the field that is missing or wrong."""
    decoder = _SERVICE if kind is Kind.SERVICE else _ENDPOINT_SLICE
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError(_reason(str(error))) from error


def _reason(text: str) -> str:
    """What msgspec says as `what - at $.path`, turned to start with the field."""
    what, found, path = text.rpartition(" - at `$")
    if not found:
        return printable(text)
    if "matching regex" in what:
        what = "not a DNS name"
    return printable(f"{path.strip('`.')}: {what}")


def parse_address(path: str, text: str) -> IPAddress:
    """The address in the field at `path`. RefusedError for anything no Service or endpoint may have.

    As kube-proxy does, leading zeros are read as decimal (10.020.0.1 is 10.20.0.1) and ::ffff:10.0.0.1 is IPv4. As the
    API server does for endpoints, addresses that mean something else on every node (loopback, link-local, multicast,
    unspecified) are refused.
    """
    try:
        address = _address(text)
    except ValueError:
        raise RefusedError(f"{path}: {printable(text)} is not an IP address") from None
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
        raise RefusedError(f"{path}: {address} is loopback, link-local, multicast or unspecified")
    return address


def _address(text: str) -> IPAddress:
    if ":" not in text:
        return _ipv4(text)
    # IPv6Address takes any text behind a % as a scope, and gives it back when printed into a rule.
    if "%" in text:
        raise ValueError(text)
    address = IPv6Address(text)
    return address.ipv4_mapped or address


def _ipv4(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except AddressValueError:
        return IPv4Address(".".join(part.lstrip("0") or part[-1:] for part in text.split(".")))
