"""The kernel's side of the table of counts."""

from collections.abc import Iterable

from controlloop.family import Family
from controlloop.nft.dump import counts_of
from proxy.counting.rules import CONNECTIONS, TRAFFIC, constant_objects, types
from proxy.nftables.constant import ADDRESS_TYPE
from proxy.nftables.kernel import TableBackend
from proxy.node import Surroundings

TABLE = "netproxy-counters"


class CountingBackend(TableBackend):
    """The table `netproxy-counters` of one family."""

    def __init__(self, family: Family) -> None:
        constant = dict(constant_objects(Surroundings(family)))
        super().__init__(family, TABLE, lambda: constant)


def read_counts(families: Iterable[Family]) -> dict[tuple[str, tuple[int, str]], int]:
    """By metric (`connections`, `bytes`), version of IP and called place (`rules.place`). Blocks. OSError."""
    found = {}
    for family in families:
        for name, type_ in types(CONNECTIONS, ADDRESS_TYPE[family]):
            for place, count in counts_of(family, TABLE, name, type_).items():
                found["connections", (family.value, place)] = count.packets
        for name, type_ in types(TRAFFIC, ADDRESS_TYPE[family]):
            for place, count in counts_of(family, TABLE, name, type_).items():
                found["bytes", (family.value, place)] = count.bytes
    return found
