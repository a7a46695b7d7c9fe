"""The kernel objects of the overlay, as values.

Pure. Each object knows the key that makes it that object and prints itself the way `ip` and `bridge` would. A state
maps keys to objects; `desired` says what should be, `kernel` what is, and equal objects mean nothing to do.
"""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from controlloop.family import Family, IPAddress, IPNetwork
from netagent.instance import FIRST

# RTPROT_BOOT: what flanneld, and a person with `ip route add`, leave in that column.
PROTOCOL_BOOT = 3

# flanneld's name; there is one of it on a node.
IPIP_DEVICE = "flannel.ipip"

# What the kernel fills in when a route names no metric (IP6_RT_PRIO_USER for IPv6).
METRIC = {Family.V4: 0, Family.V6: 1024}

LAST_METRIC = 2**32 - 1


class Key(NamedTuple):
    """What makes an object that object. Prints as its kind: the object's own text says the rest.

    Addresses stand in it as numbers: a state has thousands of keys, and ipaddress hashes and compares in Python.
    """

    kind: str
    identity: Hashable

    def __str__(self) -> str:
        return self.kind


@dataclass(frozen=True, slots=True)
class VxlanLink:
    name: str
    vni: int
    port: int
    parent: str
    """The underlay interface; empty when the kernel knows none."""
    local: IPAddress | None
    mac: str
    mtu: int
    learning: bool = False
    gbp: bool = False
    alias: str = FIRST.alias
    up: bool = True

    @property
    def key(self) -> Key:
        return Key("link", self.name)

    @property
    def fixed(self) -> Hashable:
        """What the driver settles when it creates the device."""
        return self.vni, self.port, self.parent, self.local, self.gbp

    def __str__(self) -> str:
        words = ["address", self.mac, "vxlan id", self.vni, "local", self.local, "dev", self.parent]
        words += ["dstport", self.port, "learning" if self.learning else "nolearning", *(["gbp"] if self.gbp else [])]
        return f"{link_text(self)} {' '.join(map(str, words))}"


@dataclass(frozen=True, slots=True)
class IpipLink:
    name: str
    local: IPAddress | None
    mtu: int
    alias: str = FIRST.alias
    up: bool = True

    @property
    def key(self) -> Key:
        return Key("link", self.name)

    @property
    def fixed(self) -> Hashable:
        return self.local

    def __str__(self) -> str:
        return f"{link_text(self)} ipip local {self.local}"


@dataclass(frozen=True, slots=True)
class WireguardLink:
    """A device of the kernel's driver, or of wireguard-go, which to the kernel is a TUN device."""

    name: str
    mtu: int
    alias: str = FIRST.alias
    up: bool = True

    @property
    def key(self) -> Key:
        return Key("link", self.name)

    @property
    def fixed(self) -> Hashable:
        return None

    def __str__(self) -> str:
        return f"{link_text(self)} wireguard"


Link = VxlanLink | IpipLink | WireguardLink


def link_text(link: Link) -> str:
    return f"{link.name} mtu {link.mtu} {'up' if link.up else 'down'} alias {link.alias or '-'}"


@dataclass(frozen=True, slots=True)
class WireguardIdentity:
    """Who we are to WireGuard's peers, and where we listen."""

    device: str
    public_key: str
    port: int
    key_file: str = field(default="", compare=False)
    """Where the private key is read from; the device does not say."""

    @property
    def key(self) -> Key:
        return Key("wireguard", self.device)

    def __str__(self) -> str:
        return f"dev {self.device} public-key {self.public_key or '(none)'} listen-port {self.port}"


@dataclass(frozen=True, slots=True)
class WireguardPeer:
    """Whom a key belongs to: where to send, and what may come from there."""

    public_key: str
    endpoint: tuple[IPAddress, int] | None
    allowed: frozenset[IPNetwork]
    device: str
    keepalive_s: int = 0
    preshared_key: str = field(default="", repr=False)

    @property
    def key(self) -> Key:
        return Key("wireguard peer", (self.device, self.public_key))

    def __str__(self) -> str:
        words = [self.public_key, "dev", self.device, "endpoint", endpoint_text(self.endpoint)]
        words += ["allowed-ips", ",".join(sorted(map(str, self.allowed)))]
        words += ["persistent-keepalive", str(self.keepalive_s)] if self.keepalive_s else []
        # The key itself goes into no log.
        return " ".join([*words, *(["preshared-key"] if self.preshared_key else [])])

    @property
    def subnets(self) -> "list[WireguardSubnet]":
        return [WireguardSubnet(each, self.public_key, self.device) for each in self.allowed]


@dataclass(frozen=True, slots=True)
class WireguardSubnet:
    """Whose a subnet is: WireGuard gives each to one peer alone. It comes and goes with its peer."""

    subnet: IPNetwork
    public_key: str
    device: str

    @property
    def key(self) -> Key:
        network = self.subnet.network_address
        return Key("wireguard subnet", (self.device, network.version, int(network), self.subnet.prefixlen))

    def __str__(self) -> str:
        return f"{self.subnet} dev {self.device} peer {self.public_key}"


def endpoint_text(endpoint: tuple[IPAddress, int] | None) -> str:
    if endpoint is None:
        return "(none)"
    address, port = endpoint
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"


@dataclass(frozen=True, slots=True)
class LinkAddress:
    address: IPAddress
    prefix_len: int
    device: str

    @property
    def key(self) -> Key:
        return Key("address", (self.device, self.address.version, int(self.address), self.prefix_len))

    def __str__(self) -> str:
        return f"{self.address}/{self.prefix_len} dev {self.device}"


@dataclass(frozen=True, slots=True)
class FdbEntry:
    """Which underlay address is behind a MAC. The VXLAN driver holds one for each unicast MAC."""

    mac: str
    destination: IPAddress
    device: str

    @property
    def key(self) -> Key:
        return Key("fdb", (self.device, self.mac))

    def __str__(self) -> str:
        return f"{self.mac} dev {self.device} dst {self.destination} self permanent"


@dataclass(frozen=True, slots=True)
class Neighbor:
    address: IPAddress
    mac: str
    device: str

    @property
    def key(self) -> Key:
        return Key("neighbor", (self.device, self.address.version, int(self.address)))

    def __str__(self) -> str:
        return f"{self.address} dev {self.device} lladdr {self.mac} PERMANENT"


@dataclass(frozen=True, slots=True)
class Route:
    """A unicast or a blackhole route of the main table."""

    prefix: IPNetwork
    gateway: IPAddress | None
    device: str
    onlink: bool
    metric: int
    protocol: int = FIRST.protocol
    blackhole: bool = False
    """Whether what goes there is dropped; such a route has no device."""

    @property
    def key(self) -> Key:
        network = self.prefix.network_address
        return Key("route", (network.version, int(network), self.prefix.prefixlen, self.metric))

    def __str__(self) -> str:
        words = ["blackhole", str(self.prefix)] if self.blackhole else [str(self.prefix), *self._way()]
        words += [f"proto {self.protocol}", *([f"metric {self.metric}"] if self.metric else [])]
        return " ".join(words)

    def _way(self) -> Iterator[str]:
        if self.gateway:
            yield f"via {self.gateway}"
        yield f"dev {self.device}"
        if self.onlink:
            yield "onlink"


def direct_route(subnet: IPNetwork, gateway: IPAddress, interface: str) -> Route:
    """A route to a peer that stands on the same link as we do."""
    return Route(subnet, gateway, interface, onlink=False, metric=METRIC[Family.of(subnet)])


def blackhole_route(subnet: IPNetwork) -> Route:
    """What no pod has is dropped, and does not come back from the default gateway. Any other route goes before it."""
    return Route(subnet, None, "", onlink=False, metric=LAST_METRIC, blackhole=True)


Object = Link | LinkAddress | WireguardIdentity | WireguardPeer | WireguardSubnet | FdbEntry | Neighbor | Route
OverlayState = Mapping[Key, Object]


@dataclass(frozen=True, slots=True)
class Underlay:
    """The interface that carries the overlay's packets."""

    interface: str
    mtu: int
    address: IPAddress
    connected: frozenset[IPNetwork] = frozenset()
    """What it reaches without a gateway."""

    def connects(self, address: IPAddress) -> bool:
        return any(address in network for network in self.connected)

    def __str__(self) -> str:
        return f"{self.interface} {self.address} mtu {self.mtu}"
