"""In which order a change goes into the kernel.

Pure. Everything that must be there is put before anything goes: a peer with a new MAC is reachable at every moment,
and the kernel, which drops all routes of a device that loses its last address, always sees the next one first. The
exception is a route for whose sake the kernel would refuse another.
"""

from dataclasses import dataclass
from enum import Enum

from controlloop.delta import Delta
from netagent.state import (
    FdbEntry,
    IpipLink,
    Key,
    Link,
    LinkAddress,
    Neighbor,
    Object,
    Route,
    VxlanLink,
    WireguardIdentity,
    WireguardLink,
    WireguardPeer,
    WireguardSubnet,
)

# Each stands on the ones before: a route asks for its gateway's MAC, a MAC for the address behind it.
ORDER = {
    VxlanLink: 0,
    IpipLink: 0,
    WireguardLink: 0,
    LinkAddress: 1,
    WireguardIdentity: 2,
    WireguardPeer: 3,
    WireguardSubnet: 3,
    FdbEntry: 3,
    Neighbor: 4,
    Route: 5,
}


class Verb(Enum):
    ADD = "add"
    CHANGE = "change"
    RECREATE = "recreate"
    """Delete and add. What stood on the device is gone then; only the next dump shows it missing."""
    REMOVE = "delete"


@dataclass(frozen=True, slots=True)
class Operation:
    verb: Verb
    object: Object

    def __str__(self) -> str:
        return f"{self.verb.value} {self.object.key} {self.object}"


def plan(delta: Delta[Key, Object]) -> list[Operation]:
    in_the_way = {key: old for key, old in delta.drop.items() if hinders(old, delta.put.get(key))}
    put = sorted(delta.put.values(), key=rank)
    changes = {key: old for key, old in delta.drop.items() if key not in in_the_way}
    drop = sorted((old for key, old in changes.items() if key not in delta.put), key=rank, reverse=True)
    return [
        *(Operation(Verb.REMOVE, old) for old in in_the_way.values()),
        *(Operation(verb_for(changes.get(new.key), new), new) for new in put),
        *(Operation(Verb.REMOVE, old) for old in drop),
    ]


def hinders(old: Object, new: Object | None) -> bool:
    """For a gateway that is onlink, IPv6 refuses one that another route of the table leads to by another device
    (ip6_route_check_nh_onlink, Linux 6.18).
    """
    if not isinstance(old, Route) or old.prefix.version != 6:
        return False
    if isinstance(new, Route):
        return new.onlink and new.device != old.device
    return old.gateway is None


def rank(value: Object) -> int:
    return ORDER[type(value)]


def verb_for(old: Object | None, new: Object) -> Verb:
    if old is None:
        return Verb.ADD
    if isinstance(new, Link) and (type(old) is not type(new) or old.fixed != new.fixed):
        return Verb.RECREATE
    return Verb.CHANGE
