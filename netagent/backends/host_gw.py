"""host-gw: each peer is the gateway to its subnet, on a link that all nodes share. Pure."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from controlloop.errors import OperatorError
from controlloop.family import Family
from netagent.backends.backend import Node, where_to_send
from netagent.state import Object, direct_route
from subnet_alloc.model import Lease


@dataclass(frozen=True, slots=True)
class HostGw:
    @property
    def type(self) -> str:
        return "host-gw"

    def check(self, node: Node) -> None:
        for family, underlay in node.underlay.items():
            if node.public_ip[family] != underlay.address:
                raise OperatorError(
                    f"Backend.Type host-gw: peers route to the public IP {node.public_ip[family]}, "
                    f"which must be the address of {underlay.interface}, {underlay.address}"
                )

    def devices(self, _families: Iterable[Family]) -> tuple[str, ...]:
        return ()

    def pod_mtu(self, node: Node) -> int:
        return min(underlay.mtu for underlay in node.underlay.values())

    def lease_data(self, _node: Node) -> dict[Family, object]:
        return {}

    def own_objects(self, _node: Node, _own: Lease) -> list[Object]:
        return []

    def peer_objects(self, node: Node, peer: Lease, families: Collection[Family]) -> list[Object]:
        return [
            direct_route(peer.subnets[family], where_to_send(peer, family), node.underlay[family].interface)
            for family in families
        ]
