"""Node annotations <-> lease records, as flannel's Kubernetes mode writes them. Pure.

A Node's podCIDRs are its subnets, its annotations what an etcd lease has as value. A record made of them reads like
one from etcd, so that what follows needs to know nothing of Kubernetes. A family counts when the node says where it
is reached over it: its podCIDRs may hold more than its overlay carries.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

import msgspec

from controlloop.errors import OperatorError, UnavailableError
from controlloop.family import Family, IPAddress, IPNetwork
from subnet_alloc import codec
from subnet_alloc.model import LeaseAttrs
from subnet_alloc.registry import Record

DEFAULT_PREFIX = "flannel.alpha.coreos.com"

SUBNET_MANAGER = "kube-subnet-manager"
BACKEND_TYPE = "backend-type"
BACKEND_DATA = {Family.V4: "backend-data", Family.V6: "backend-v6-data"}
PUBLIC_IP = {Family.V4: "public-ip", Family.V6: "public-ipv6"}
OVERWRITE = {Family.V4: "public-ip-overwrite", Family.V6: "public-ipv6-overwrite"}
WANTED = {Family.V4: "node-public-ip", Family.V6: "node-public-ipv6"}
"""What the administrator writes in place of --public-ip and --public-ipv6."""

DOMAIN = re.compile(r"(?=.{1,253}/)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+/")
NAME = re.compile(r"([a-z0-9][a-z0-9_-]*-)?")
LONGEST_NAME = 63


class Metadata(msgspec.Struct, rename="camel"):
    name: str
    resource_version: str = "0"
    annotations: dict[str, str] = {}


class Spec(msgspec.Struct):
    pod_cidr: str = msgspec.field(default="", name="podCIDR")
    pod_cidrs: list[str] = msgspec.field(default_factory=list, name="podCIDRs")


class Node(msgspec.Struct):
    """What we read of a Node, and nothing else of it."""

    metadata: Metadata
    spec: Spec = msgspec.field(default_factory=Spec)

    @property
    def revision(self) -> int:
        text = self.metadata.resource_version
        return int(text) if text.isdigit() else 0


@dataclass(frozen=True, slots=True)
class Annotations:
    prefix: str
    """With its slash or dash at the end."""

    @classmethod
    def parse(cls, text: str) -> "Annotations":
        """OperatorError unless it is DOMAIN[/[NAME]]: a name below a domain of at least two labels, in lower case."""
        prefix = text if "/" in text else f"{text}/"
        prefix = prefix if prefix.endswith(("/", "-")) else f"{prefix}-"
        domain = DOMAIN.match(prefix)
        name = prefix[domain.end() :] if domain else ""
        longest = max(map(len, (SUBNET_MANAGER, *OVERWRITE.values())))
        if domain is None or not NAME.fullmatch(name) or len(name) + longest > LONGEST_NAME:
            raise OperatorError(f"--kube-annotation-prefix {text}: want DOMAIN.NAME[/[NAME]] in lower case")
        return cls(prefix)

    def of(self, node: Node, name: str) -> str:
        """Empty when the node has no such annotation."""
        return node.metadata.annotations.get(self.prefix + name, "")

    def record(self, node: Node) -> Record | None:
        """None while the node is none of the overlay, or has no podCIDR yet. One whose podCIDRs or addresses make no
        subnets has a key that says so, and that nobody takes for a lease.
        """
        cidrs = pod_cidrs(node)
        if self.of(node, SUBNET_MANAGER) != "true" or not cidrs:
            return None
        return Record(self._key(node, cidrs), self._value(node), node.revision)

    def difference(self, node: Node, attrs: LeaseAttrs) -> dict[str, str | None]:
        """What must be written so that the node says `attrs`; None: the annotation goes. Empty: it does already."""
        desired = self.desired(node, attrs)
        ours = [SUBNET_MANAGER, BACKEND_TYPE, *PUBLIC_IP.values(), *BACKEND_DATA.values()]
        present = node.metadata.annotations
        names = {self.prefix + name: desired.get(name) for name in ours}
        return {name: value for name, value in names.items() if present.get(name) != value}

    def desired(self, node: Node, attrs: LeaseAttrs) -> dict[str, str]:
        """UnavailableError when the administrator's overwrite is no address: he can mend it while we run."""
        annotations = {SUBNET_MANAGER: "true", BACKEND_TYPE: attrs.backend_type}
        for family, address in attrs.public_ip.items():
            annotations[PUBLIC_IP[family]] = str(self.address(node, OVERWRITE, family) or address)
            annotations[BACKEND_DATA[family]] = _json(attrs.backend_data.get(family))
        return annotations

    def address(self, node: Node, names: Mapping[Family, str], family: Family) -> IPAddress | None:
        text = self.of(node, names[family])
        if not text:
            return None
        try:
            address = ip_address(text)
        except ValueError:
            address = None
        if address is None or Family.of(address) is not family or address.is_unspecified or address.is_multicast:
            where = f"node {node.metadata.name}: annotation {self.prefix}{names[family]}"
            raise UnavailableError(f"{where} {text!r} is not an IPv{family.value} address that peers can send to")
        return address

    def _key(self, node: Node, cidrs: list[str]) -> str:
        families = [family for family in Family if self.of(node, PUBLIC_IP[family])]
        try:
            subnets = parse_pod_cidrs(cidrs)
        except codec.MalformedError as error:
            return f"node {node.metadata.name}: {error}"
        chosen = {family: subnets[family] for family in families if family in subnets}
        if not chosen:
            return f"node {node.metadata.name}: no public IP of the family of podCIDR {', '.join(cidrs)}"
        return codec.render_key(chosen)

    def _value(self, node: Node) -> bytes:
        v4, v6 = (self.of(node, PUBLIC_IP[family]) for family in Family)
        fields: dict[str, Any] = {
            codec.PUBLIC_IP[Family.V4]: v4 or codec.NO_PUBLIC_IP,
            codec.PUBLIC_IP[Family.V6]: v6 or None,
            "BackendType": self.of(node, BACKEND_TYPE),
        }
        for family, name in BACKEND_DATA.items():
            if text := self.of(node, name):
                fields[codec.BACKEND_DATA[family]] = _decoded(text)
        return json.dumps(fields, separators=(",", ":")).encode()


def pod_cidrs(node: Node) -> list[str]:
    return node.spec.pod_cidrs or ([node.spec.pod_cidr] if node.spec.pod_cidr else [])


def parse_pod_cidrs(texts: list[str]) -> dict[Family, IPNetwork]:
    """At most one of each family (Kubernetes: Node v1, podCIDRs). MalformedError names what is not."""
    subnets: dict[Family, IPNetwork] = {}
    for text in texts:
        try:
            subnet = ip_network(text) if codec.CIDR.fullmatch(text) else None
        except ValueError:
            subnet = None
        if subnet is None:
            raise codec.MalformedError(f"podCIDR {text!r} is no subnet")
        if Family.of(subnet) in subnets:
            raise codec.MalformedError(f"podCIDRs {', '.join(texts)}: more than one of IPv{subnet.version}")
        subnets[Family.of(subnet)] = subnet
    return subnets


def _json(value: Any) -> str:
    """As Go writes it; `null` where there is nothing to say."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).translate(codec.GO_ESCAPES)


def _decoded(text: str) -> Any:
    """Text that is no JSON stays text: whoever wants an object in its place then names the peer and not the API."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
