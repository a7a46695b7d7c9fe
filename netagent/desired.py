"""What the kernel should hold, from what the leases say.

Pure. The own lease becomes what the backend needs before any peer, a peer's lease what leads to it. IPv4 and IPv6 take
the same path; only `Family` differs.
"""

from collections.abc import Iterable

from controlloop.errors import Skipped
from controlloop.family import Family
from netagent.backends.backend import Node
from netagent.state import Key, Object, OverlayState
from subnet_alloc.model import Lease, LeaseAttrs


def pod_mtu(node: Node) -> int:
    """What a pod may send over any family of the overlay."""
    return node.backend.pod_mtu(node)


def lease_attrs(node: Node) -> LeaseAttrs:
    """What our lease tells the peers."""
    return LeaseAttrs(
        public_ip=node.public_ip,
        backend_type=node.backend.type,
        backend_data=node.backend.lease_data(node),
    )


def own_state(node: Node, lease: Lease) -> OverlayState:
    return keyed(node.backend.own_objects(node, lease))


def peer_state(name: str, peer: Lease, node: Node, own: Lease) -> OverlayState | Skipped:
    """What one peer needs; Skipped, under the lease's `name`, when its lease cannot or must not be followed."""
    if peer.attrs.backend_type != node.backend.type:
        return Skipped(name, f'BackendType "{peer.attrs.backend_type}": this overlay is {node.backend.type or "alloc"}')
    families = [family for family in own.subnets if family in peer.subnets]
    try:
        for family in families:
            refuse_harmful(family, peer, node, own)
        return keyed(node.backend.peer_objects(node, peer, families))
    except ValueError as error:
        return Skipped(name, str(error))


def refuse_harmful(family: Family, peer: Lease, node: Node, own: Lease) -> None:
    """ValueError for a peer that would take our own traffic, or the way to itself, away from us."""
    subnet, underlay, public_ip = peer.subnets[family], node.underlay[family], peer.attrs.public_ip.get(family)
    if subnet.overlaps(own.subnets[family]):
        raise ValueError(f"subnet {subnet} overlaps ours, {own.subnets[family]}")
    if underlay.address in subnet:
        raise ValueError(f"subnet {subnet} covers our underlay address {underlay.address}")
    if public_ip in {underlay.address, node.public_ip[family]}:
        raise ValueError(f"public IP {public_ip} is ours")
    if public_ip and public_ip in subnet:
        raise ValueError(f"public IP {public_ip} lies inside its own subnet {subnet}")


def keyed(objects: Iterable[Object]) -> dict[Key, Object]:
    return {each.key: each for each in objects}
