"""alloc: a lease and nothing else; whoever configured it forwards by other means. Pure."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from controlloop.family import Family
from netagent.backends.backend import Node
from netagent.state import Object
from subnet_alloc.model import Lease


@dataclass(frozen=True, slots=True)
class Alloc:
    @property
    def type(self) -> str:
        return ""

    def check(self, _node: Node) -> None:
        """Any node can hold a lease."""

    def devices(self, _families: Iterable[Family]) -> tuple[str, ...]:
        return ()

    def pod_mtu(self, node: Node) -> int:
        return min(underlay.mtu for underlay in node.underlay.values())

    def lease_data(self, _node: Node) -> dict[Family, object]:
        return {}

    def own_objects(self, _node: Node, _own: Lease) -> list[Object]:
        return []

    def peer_objects(self, _node: Node, _peer: Lease, _families: Collection[Family]) -> list[Object]:
        return []
