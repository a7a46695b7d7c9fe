"""In which order a change goes into the kernel.

Pure. Everything that must be there is put before anything goes: a peer with a new MAC is reachable at every moment,
and the kernel, which drops all routes of a device that loses its last address, always sees the next one first.
"""

from dataclasses import dataclass
from enum import Enum
from operator import attrgetter

from controlloop.delta import Delta
from netagent.state import FdbEntry, Key, LinkAddress, Neighbor, Object, Route, VxlanLink

# Each stands on the ones before: a route asks for its gateway's MAC, a MAC for the address behind it.
ORDER = {VxlanLink: 0, LinkAddress: 1, FdbEntry: 2, Neighbor: 3, Route: 4}

# What the driver fixes when it creates a device.
fixed_at_creation = attrgetter("vni", "port", "parent", "local", "gbp")


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
    put = sorted(delta.put.values(), key=rank)
    drop = sorted((value for key, value in delta.drop.items() if key not in delta.put), key=rank, reverse=True)
    additions = [Operation(verb_for(delta.drop.get(value.key), value), value) for value in put]
    return additions + [Operation(Verb.REMOVE, value) for value in drop]


def rank(value: Object) -> int:
    return ORDER[type(value)]


def verb_for(old: Object | None, new: Object) -> Verb:
    if old is None:
        return Verb.ADD
    if isinstance(new, VxlanLink) and fixed_at_creation(old) != fixed_at_creation(new):
        return Verb.RECREATE
    return Verb.CHANGE
