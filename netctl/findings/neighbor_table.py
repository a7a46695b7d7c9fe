"""How full the kernel's tables of neighbors are, out of what `ip` prints. Pure.

There is one for IPv4 and one for IPv6, and each network namespace of the host has its entries in them. `ip` is asked
because it answers in every namespace; /proc/net/stat and the sysctls are there in the first one only.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from controlloop.family import Family

Json = Mapping[str, Any]

FAMILIES = {"arp_cache": Family.V4, "ndisc_cache": Family.V6}


class NeighborTable(NamedTuple):
    family: Family
    entries: int
    """Of all network namespaces."""
    unlimited: int
    """Entries of this namespace for which there is always room."""
    limit: int
    overflows: int
    """How often there was no room, since the host started."""
    cleared_s: float
    """Seconds since the kernel last threw entries out to make room, or since it started."""

    @property
    def limited(self) -> int:
        """Entries that the limit is for, and those of other namespaces for which it may not be."""
        return self.entries - self.unlimited


def read_neighbor_tables(
    listing: Iterable[Json], neighbors: Mapping[Family, Sequence[Json]], now: float
) -> Iterator[NeighborTable]:
    """`listing`: of `ip -json -s ntable`, in UTC; `neighbors`: of `ip -json neighbor`; `now`: since the epoch."""
    for each in listing:
        # Further items are for single devices, and have no limit.
        if "thresh3" in each and each["name"] in FAMILIES:
            family = FAMILIES[each["name"]]
            unlimited = sum(map(has_no_limit, neighbors[family]))
            cleared_s = now - moment(each["last_flush"], now)
            yield NeighborTable(family, each["entries"], unlimited, each["thresh3"], each["table_fulls"], cleared_s)


def has_no_limit(neighbor: Json) -> bool:
    """Since Linux 5.0."""
    return "PERMANENT" in neighbor["state"] or "extern_learn" in neighbor


def moment(text: str, now: float) -> float:
    """`ip` has no words for what happened within this millisecond."""
    try:
        return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return now
