"""ipip: one device, and a route for each peer through the peer's own address. IPv4 only. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from controlloop.errors import OperatorError
from controlloop.family import Family
from netagent.backends.backend import Node, where_to_send
from netagent.backends.options import boolean, inner_mtu
from netagent.state import IPIP_DEVICE, METRIC, IpipLink, LinkAddress, Object, Route, direct_route
from subnet_alloc.model import Lease

OVERHEAD = 20  # an IPv4 header


@dataclass(frozen=True, slots=True)
class Ipip:
    direct_routing: bool = False

    @property
    def type(self) -> str:
        return "ipip"

    def check(self, node: Node) -> None:
        if Family.V6 in node.underlay:
            raise OperatorError("Backend.Type ipip: carries IPv4 only; use vxlan, host-gw or wireguard for IPv6")
        self.pod_mtu(node)

    def devices(self, _families: Iterable[Family]) -> tuple[str, ...]:
        return (IPIP_DEVICE,)

    def pod_mtu(self, node: Node) -> int:
        return inner_mtu(node.underlay[Family.V4].mtu, OVERHEAD, Family.V4)

    def lease_data(self, _node: Node) -> dict[Family, object]:
        return {}

    def own_objects(self, node: Node, own: Lease) -> list[Object]:
        address = own.subnets[Family.V4].network_address
        link = IpipLink(IPIP_DEVICE, node.underlay[Family.V4].address, self.pod_mtu(node))
        return [link, LinkAddress(address, Family.V4.bits, IPIP_DEVICE)]

    def peer_objects(self, node: Node, peer: Lease, families: Collection[Family]) -> list[Object]:
        return [self._route(node, peer, family) for family in families]

    def _route(self, node: Node, peer: Lease, family: Family) -> Route:
        subnet, destination, underlay = peer.subnets[family], where_to_send(peer, family), node.underlay[family]
        if self.direct_routing and underlay.connects(destination):
            return direct_route(subnet, destination, underlay.interface)
        return Route(subnet, destination, IPIP_DEVICE, onlink=True, metric=METRIC[family])


def parse_ipip(options: Mapping[str, Any]) -> Ipip:
    return Ipip(boolean(options, "DirectRouting", default=False))
