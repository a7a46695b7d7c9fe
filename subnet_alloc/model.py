"""The nouns of subnet allocation. Frozen values; bytes and text stay in `codec`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from controlloop.family import Family, IPAddress, IPNetwork


@dataclass(frozen=True, slots=True)
class SubnetRange:
    """One family's part of the network configuration."""

    network: IPNetwork
    subnet_len: int
    """Prefix length of each node's subnet."""
    subnet_min: IPAddress
    subnet_max: IPAddress
    """First and last subnet that may be leased, by network address."""


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """What `<prefix>/config` says, defaults filled in (flannel.md 2.2)."""

    ranges: Mapping[Family, SubnetRange]
    backend_type: str
    backend_options: Mapping[str, Any] = field(default_factory=dict)
    """The Backend object without its Type, with key names as written."""
    enable_nftables: bool = False


@dataclass(frozen=True, slots=True)
class LeaseAttrs:
    """What a node tells its peers: the value of a lease."""

    public_ip: Mapping[Family, IPAddress]
    backend_type: str
    backend_data: Mapping[Family, Any] = field(default_factory=dict)
    """Backend data per family as decoded JSON, for VXLAN `{"VNI": 1, "VtepMAC": "82:4b:b6:2f:54:4e"}`."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One node's subnets and what it tells about itself. Compared whole: a lease with a new MAC is a change."""

    subnets: Mapping[Family, IPNetwork]
    attrs: LeaseAttrs
