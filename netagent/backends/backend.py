"""What every kind of overlay answers, and what it is asked about. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from controlloop.family import Family, IPAddress, IPNetwork
from netagent.instance import FIRST, Instance
from netagent.state import Object, Underlay
from subnet_alloc.model import Lease


@dataclass(frozen=True, slots=True)
class Node:
    """What we know of ourselves before any lease."""

    name: str
    backend: "Backend"
    underlay: Mapping[Family, Underlay]
    """One for each family the network has."""
    public_ip: Mapping[Family, IPAddress]
    """Where peers send to; behind NAT not an address of the underlay interface."""
    networks: Mapping[Family, IPNetwork] = field(default_factory=dict)
    """The whole overlay, of which each node has a part."""
    service_cidrs: tuple[IPNetwork, ...] = ()
    """Addresses of Services, where those are known: no peer may claim them."""
    instance: Instance = FIRST
    blackhole: bool = False
    """Whether what no pod of ours has is dropped here; a bridge of the pods does that as well."""


class Backend(Protocol):
    """A value: the options of the network configuration, and what follows from them."""

    @property
    def type(self) -> str:
        """The BackendType of its leases, compared exactly; empty when they name none."""
        ...

    def check(self, node: Node) -> None:
        """OperatorError when this node cannot take part."""
        ...

    def devices(self, families: Iterable[Family]) -> tuple[str, ...]:
        """Names of its devices."""
        ...

    def pod_mtu(self, node: Node) -> int:
        """What a pod may send to any peer, over any family. OperatorError when that is less than a link needs."""
        ...

    def lease_data(self, node: Node) -> Mapping[Family, Any]:
        """BackendData and BackendV6Data of our lease."""
        ...

    def own_objects(self, node: Node, own: Lease) -> list[Object]:
        """What stands in the kernel before any peer."""
        ...

    def peer_objects(self, node: Node, peer: Lease, families: Collection[Family]) -> list[Object]:
        """What one peer needs in the families that we share. ValueError when its lease does not say enough."""
        ...


def where_to_send(peer: Lease, family: Family) -> IPAddress:
    """The peer's public IP; ValueError for one that no peer can have."""
    found = peer.attrs.public_ip.get(family)
    if found is None or found.is_unspecified or found.is_multicast or found.is_loopback:
        raise ValueError(f"public IP {found}: not an address to send to")
    return found
