"""What the kernel should hold, from what the leases say.

Pure. The own lease becomes the device and its address; a peer's lease becomes one FDB entry, one neighbor and one
route. IPv4 and IPv6 take the same path; only `Family` differs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from controlloop.errors import Skipped
from controlloop.family import Family, IPAddress, IPNetwork
from netagent.state import (
    METRIC,
    FdbEntry,
    Key,
    LinkAddress,
    Neighbor,
    Object,
    OverlayState,
    Route,
    Underlay,
    VxlanLink,
)
from netagent.vxlan import (
    BACKEND,
    VxlanOptions,
    backend_data,
    device_name,
    inner_mtu,
    mac_of_backend_data,
    vtep_mac,
)
from subnet_alloc.model import Lease, LeaseAttrs


@dataclass(frozen=True, slots=True)
class Node:
    """What we know of ourselves before any lease."""

    name: str
    options: VxlanOptions
    underlay: Mapping[Family, Underlay]
    """One for each family the network has."""
    public_ip: Mapping[Family, IPAddress]
    """Where peers send to; behind NAT not an address of the underlay interface."""

    def device(self, family: Family) -> str:
        return device_name(family, self.options.vni)

    def mac(self, family: Family) -> str:
        return vtep_mac(self.name, self.device(family))

    def mtu(self, family: Family) -> int:
        return inner_mtu(self.options, family, self.underlay[family].mtu)


def pod_mtu(node: Node) -> int:
    """What a pod may send over any family of the overlay."""
    return min(node.mtu(family) for family in node.underlay)


def lease_attrs(node: Node) -> LeaseAttrs:
    """What our lease tells the peers."""
    return LeaseAttrs(
        public_ip=node.public_ip,
        backend_type=BACKEND,
        backend_data={family: backend_data(node.options.vni, node.mac(family)) for family in node.underlay},
    )


def own_state(node: Node, lease: Lease) -> OverlayState:
    objects: list[Object] = []
    for family, subnet in lease.subnets.items():
        link = vxlan_link(node, family)
        # The subnet's first address, without the subnet: pods' addresses are behind the bridge, not on this device.
        objects += [link, LinkAddress(subnet.network_address, family.bits, link.name)]
    return keyed(objects)


def vxlan_link(node: Node, family: Family) -> VxlanLink:
    underlay = node.underlay[family]
    return VxlanLink(
        name=node.device(family),
        vni=node.options.vni,
        port=node.options.port,
        parent=underlay.interface,
        local=underlay.address,
        mac=node.mac(family),
        mtu=node.mtu(family),
        learning=node.options.learning,
        gbp=node.options.gbp,
    )


def peer_state(name: str, peer: Lease, node: Node, own: Lease) -> OverlayState | Skipped:
    """What one peer needs; Skipped, under the lease's `name`, when its lease cannot or must not be followed."""
    if peer.attrs.backend_type != BACKEND:
        return Skipped(name, f'BackendType "{peer.attrs.backend_type}": this overlay is {BACKEND}')
    objects: list[Object] = []
    try:
        for family in peer.subnets.keys() & own.subnets.keys():
            refuse_harmful(family, peer, node, own)
            objects += peer_objects(family, peer, node)
    except ValueError as error:
        return Skipped(name, str(error))
    return keyed(objects)


def refuse_harmful(family: Family, peer: Lease, node: Node, own: Lease) -> None:
    """ValueError for a peer that would take our own traffic away from us."""
    subnet, underlay = peer.subnets[family], node.underlay[family]
    if subnet.overlaps(own.subnets[family]):
        raise ValueError(f"subnet {subnet} overlaps ours, {own.subnets[family]}")
    if underlay.address in subnet:
        raise ValueError(f"subnet {subnet} covers our underlay address {underlay.address}")
    if peer.attrs.public_ip.get(family) in {underlay.address, node.public_ip[family]}:
        raise ValueError(f"public IP {peer.attrs.public_ip[family]} is ours")


def peer_objects(family: Family, peer: Lease, node: Node) -> list[Object]:
    """ValueError when the lease does not say where to send."""
    destination = peer.attrs.public_ip.get(family)
    if destination is None or destination.is_unspecified or destination.is_multicast or destination.is_loopback:
        raise ValueError(f"public IP {destination}: not an address to send to")
    subnet, device = peer.subnets[family], node.device(family)
    if destination in subnet:
        raise ValueError(f"public IP {destination} lies inside its own subnet {subnet}")
    mac = mac_of_backend_data(peer.attrs.backend_data.get(family))
    if mac == node.mac(family):
        raise ValueError(f"VtepMAC {mac} is ours: do two nodes have the name {node.name}?")
    return [
        FdbEntry(mac, destination, device),
        Neighbor(subnet.network_address, mac, device),
        overlay_route(subnet, device),
    ]


def overlay_route(subnet: IPNetwork, device: str) -> Route:
    """The gateway is the subnet's first address. No link covers it, hence onlink; its neighbor entry is ours."""
    return Route(subnet, subnet.network_address, device, onlink=True, metric=METRIC[Family.of(subnet)])


def keyed(objects: list[Object]) -> dict[Key, Object]:
    return {each.key: each for each in objects}
