"""vxlan: a device for each family; an FDB entry, a neighbor and a route for each peer. Pure.

With DirectRouting a peer on our own link gets a plain route instead: its packets need no envelope.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from controlloop.family import Family, IPNetwork
from netagent.backends.backend import Node, where_to_send
from netagent.backends.options import boolean, inner_mtu, number
from netagent.state import METRIC, FdbEntry, LinkAddress, Neighbor, Object, Route, VxlanLink, direct_route
from subnet_alloc.codec import option
from subnet_alloc.model import Lease

# The kernel's own default, from before IANA assigned 4789; flannel never sets another, so its overlays speak on it.
KERNEL_PORT = 8472

MAX_VNI = 2**24 - 1  # RFC 7348: 24 bits

# Outer IP, UDP, VXLAN and inner Ethernet header, by the family that carries them.
ENCAP_OVERHEAD = {Family.V4: 50, Family.V6: 70}

DEVICE_PREFIX = {Family.V4: "flannel", Family.V6: "flannel-v6"}


@dataclass(frozen=True, slots=True)
class Vxlan:
    vni: int = 1
    port: int = KERNEL_PORT
    mtu: int = 0
    """MTU of the underlay, headers included; 0: what the interface has."""
    gbp: bool = False
    learning: bool = False
    direct_routing: bool = False

    @property
    def type(self) -> str:
        return "vxlan"

    def check(self, node: Node) -> None:
        self.pod_mtu(node)

    def device(self, family: Family) -> str:
        return f"{DEVICE_PREFIX[family]}.{self.vni}"

    def devices(self, families: Iterable[Family]) -> tuple[str, ...]:
        return tuple(self.device(family) for family in families)

    def device_mtu(self, family: Family, node: Node) -> int:
        # The kernel holds the device to what the interface leaves, so a larger MTU option would only make pods believe
        # in packets that never fit.
        interface = node.underlay[family].mtu
        return inner_mtu(min(self.mtu or interface, interface), ENCAP_OVERHEAD[family], family)

    def pod_mtu(self, node: Node) -> int:
        return min(self.device_mtu(family, node) for family in node.underlay)

    def mac(self, family: Family, node: Node) -> str:
        return vtep_mac(node.name, self.device(family))

    def lease_data(self, node: Node) -> dict[Family, dict[str, Any]]:
        return {family: backend_data(self.vni, self.mac(family, node)) for family in node.underlay}

    def own_objects(self, node: Node, own: Lease) -> list[Object]:
        objects: list[Object] = []
        for family, subnet in own.subnets.items():
            # The subnet's first address, without the subnet: pods' addresses are behind the bridge, not on this device.
            objects.append(self.link(family, node))
            objects.append(LinkAddress(subnet.network_address, family.bits, self.device(family)))
        return objects

    def link(self, family: Family, node: Node) -> VxlanLink:
        underlay = node.underlay[family]
        return VxlanLink(
            name=self.device(family),
            vni=self.vni,
            port=self.port,
            parent=underlay.interface,
            local=underlay.address,
            mac=self.mac(family, node),
            mtu=self.device_mtu(family, node),
            learning=self.learning,
            gbp=self.gbp,
        )

    def peer_objects(self, node: Node, peer: Lease, families: Collection[Family]) -> list[Object]:
        return [each for family in families for each in self._peer_objects(node, peer, family)]

    def _peer_objects(self, node: Node, peer: Lease, family: Family) -> list[Object]:
        destination, subnet, device = where_to_send(peer, family), peer.subnets[family], self.device(family)
        mac = mac_of_backend_data(peer.attrs.backend_data.get(family))
        if mac == self.mac(family, node):
            raise ValueError(f"VtepMAC {mac} is ours: do two nodes have the name {node.name}?")
        if self.direct_routing and node.underlay[family].connects(destination):
            return [direct_route(subnet, destination, node.underlay[family].interface)]
        return [
            FdbEntry(mac, destination, device),
            Neighbor(subnet.network_address, mac, device),
            overlay_route(subnet, device),
        ]


def parse_vxlan(options: Mapping[str, Any]) -> Vxlan:
    return Vxlan(
        vni=number(options, "VNI", default=1, limit=MAX_VNI),
        port=number(options, "Port", default=0, limit=65535) or KERNEL_PORT,
        mtu=number(options, "MTU", default=0, limit=65535),
        gbp=boolean(options, "GBP", default=False),
        learning=boolean(options, "Learning", default=False),
        direct_routing=boolean(options, "DirectRouting", default=False),
    )


def overlay_route(subnet: IPNetwork, device: str) -> Route:
    """The gateway is the subnet's first address. No link covers it, hence onlink; its neighbor entry is ours."""
    return Route(subnet, subnet.network_address, device, onlink=True, metric=METRIC[Family.of(subnet)])


@cache
def vtep_mac(node: str, device: str) -> str:
    """A locally administered unicast MAC that a node keeps over restarts, reboots and the loss of its device: peers
    that learned it need not learn anew.
    """
    digest = hashlib.sha256(f"{node}/{device}".encode()).digest()
    return bytes([digest[0] & 0xFC | 0x02, *digest[1:6]]).hex(":")


MAC = re.compile(
    r"[0-9a-f]{2}([:-])([0-9a-f]{2}\1){4}[0-9a-f]{2}|[0-9a-f]{4}(\.[0-9a-f]{4}){2}", re.IGNORECASE | re.ASCII
)
SEPARATORS = str.maketrans("", "", ":.-")


def parse_mac(text: object) -> str:
    """A unicast MAC in lower-case colon form. ValueError for what cannot be a VTEP's address."""
    if not isinstance(text, str) or not MAC.fullmatch(text):
        raise ValueError("not a MAC address")
    mac = bytes.fromhex(text.translate(SEPARATORS))
    if mac[0] & 1:
        raise ValueError("a multicast address")
    if not any(mac):
        raise ValueError("all zero")
    return mac.hex(":")


def backend_data(vni: int, mac: str) -> dict[str, Any]:
    """What a lease says about its VTEP, in the order flanneld writes it."""
    return {"VNI": vni, "VtepMAC": mac}


def mac_of_backend_data(backend_data: object) -> str:
    """The VTEP's MAC; ValueError says what is wrong with it."""
    if not isinstance(backend_data, Mapping):
        raise ValueError("no VtepMAC")  # noqa: TRY004 - the fault is in a lease's value, not in our call
    text = option(backend_data, "VtepMAC")
    try:
        return parse_mac(text)
    except ValueError as error:
        raise ValueError(f"VtepMAC {text!r}: {error}") from error
