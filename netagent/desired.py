"""What the kernel should hold, from what the leases say.

Pure. The own lease becomes what the backend needs before any peer, a peer's lease what leads to it. IPv4 and IPv6 take
the same path; only `Family` differs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_network

from controlloop.errors import Skipped
from controlloop.family import Family
from netagent.backends.backend import Node
from netagent.instance import FIRST, Instance
from netagent.state import Key, Link, Object, OverlayState, Route, blackhole_route
from netagent.trust import Ground, objection
from subnet_alloc.model import Lease, LeaseAttrs

ANYWHERE = {Family.V4: ip_network("0.0.0.0/0"), Family.V6: ip_network("::/0")}

Grounds = Mapping[Family, Ground]


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
    blackholes = map(blackhole_route, lease.subnets.values()) if node.blackhole else ()
    return marked([*node.backend.own_objects(node, lease), *blackholes], node.instance)


def grounds(node: Node, own: Lease) -> Grounds:
    """What every peer's lease is held against."""
    return {family: ground(node, own, family) for family in own.subnets}


def ground(node: Node, own: Lease, family: Family) -> Ground:
    underlay = node.underlay[family]
    return Ground(
        node.networks.get(family, ANYWHERE[family]),
        own.subnets[family],
        own_addresses=frozenset({underlay.address, node.public_ip[family]}),
        underlay=underlay.connected,
        service_cidrs=node.service_cidrs,
    )


def peer_state(name: str, peer: Lease, node: Node, grounds: Grounds) -> OverlayState | Skipped:
    """What one peer needs; Skipped, under the lease's `name`, when its lease cannot or must not be followed."""
    if peer.attrs.backend_type != node.backend.type:
        return Skipped(name, f'BackendType "{peer.attrs.backend_type}": this overlay is {node.backend.type or "alloc"}')
    families = [family for family in grounds if family in peer.subnets]
    for family in families:
        # The MAC is the backend's to judge: not every kind has one.
        if why := objection(peer.subnets[family], peer.attrs.public_ip.get(family), None, grounds[family]):
            return Skipped(name, why)
    try:
        return marked(node.backend.peer_objects(node, peer, families), node.instance)
    except ValueError as error:
        return Skipped(name, str(error))


def marked(objects: Iterable[Object], instance: Instance) -> dict[Key, Object]:
    """As this instance's own. Backends make the first one's, so that most nodes need no second look at thousands."""
    if instance != FIRST:
        objects = (with_mark(each, instance) for each in objects)
    return {each.key: each for each in objects}


def with_mark(one: Object, instance: Instance) -> Object:
    if isinstance(one, Link):
        return replace(one, alias=instance.alias)
    return replace(one, protocol=instance.protocol) if isinstance(one, Route) else one
