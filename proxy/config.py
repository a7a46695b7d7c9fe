"""What netproxy was told, checked. Pure; every error names the flag and the value."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_network

from controlloop.errors import OperatorError
from controlloop.family import Family, IPNetwork
from proxy.frontends import Balance


class ProxyMode(Enum):
    IPTABLES = "iptables"
    NFTABLES = "nftables"


class SourceKind(Enum):
    ETCD = "etcd"
    FILES = "files"


@dataclass(frozen=True, slots=True)
class Settings:
    source: SourceKind
    etcd_endpoints: tuple[str, ...]
    etcd_prefix: str
    manifests: str
    mode: ProxyMode
    cluster_cidrs: Mapping[Family, IPNetwork]
    node_name: str
    balance: Balance


def choose_source(source: str | None, manifests: str) -> SourceKind:
    """`--manifests DIR` alone means files; nothing at all means etcd."""
    kind = SourceKind(source) if source else SourceKind.FILES if manifests else SourceKind.ETCD
    if kind is SourceKind.FILES and not manifests:
        raise OperatorError("--source files: needs --manifests DIR")
    if kind is SourceKind.ETCD and manifests:
        raise OperatorError(f"--manifests {manifests}: not read with --source etcd")
    return kind


def parse_cluster_cidrs(text: str) -> dict[Family, IPNetwork]:
    """One CIDR, or one for each family with a comma between, as kube-proxy's --cluster-cidr; empty: none known."""
    found: dict[Family, IPNetwork] = {}
    for part in filter(None, text.split(",")):
        try:
            network = ip_network(part.strip())
        except ValueError as error:
            raise OperatorError(f"--cluster-cidr {part}: {error}") from None
        if Family.of(network) in found:
            raise OperatorError(f"--cluster-cidr {text}: two IPv{network.version} networks, at most one can be given")
        found[Family.of(network)] = network
    return found


def split_endpoints(text: str) -> tuple[str, ...]:
    endpoints = tuple(part.strip() for part in text.split(",") if part.strip())
    if not endpoints:
        raise OperatorError(f"--etcd-endpoints {text!r}: at least one URL is needed")
    return endpoints
