"""Which subnet a new node gets: one of the first hundred free ones, by chance.

Pure; chance is a function that the caller passes in, `random.choice` for example. Choosing among many keeps nodes that
start together from racing for the same subnet, choosing among the first keeps the leases together (flannel).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_network
from itertools import islice

from controlloop.errors import UnavailableError
from controlloop.family import Family, IPNetwork
from subnet_alloc.model import NetworkConfig, SubnetRange

CANDIDATES = 100

Subnets = Mapping[Family, IPNetwork]
Choose = Callable[[Sequence[IPNetwork]], IPNetwork]


class NoFreeSubnetError(UnavailableError):
    """Every subnet is leased. A lease that expires mends it, hence it is worth another try."""


def fits(config: NetworkConfig, subnets: Subnets) -> bool:
    """Whether these subnets could have been leased under this configuration."""
    return subnets.keys() == config.ranges.keys() and all(
        _within(config.ranges[family], subnet) for family, subnet in subnets.items()
    )


def is_free(subnets: Subnets, taken: Iterable[Subnets]) -> bool:
    """Whether none of these subnets overlaps one that is taken."""
    return not any(_overlap(subnets[family], other[family]) for other in taken for family in subnets.keys() & other)


def choose_subnets(config: NetworkConfig, taken: Iterable[Subnets], choose: Choose) -> dict[Family, IPNetwork]:
    """A free subnet of each family. NoFreeSubnetError names the network that is full."""
    leased = list(taken)
    chosen: dict[Family, IPNetwork] = {}
    for family, within in config.ranges.items():
        of_family = [subnets[family] for subnets in leased if family in subnets]
        candidates = free_subnets(within, of_family)
        if not candidates:
            raise NoFreeSubnetError(_full(within, of_family))
        chosen[family] = choose(candidates)
    return chosen


def free_subnets(within: SubnetRange, taken: Iterable[IPNetwork], limit: int = CANDIDATES) -> list[IPNetwork]:
    """The first subnets, in address order, that overlap nothing that is taken.

    Time grows with the number of taken subnets, not with the size of the network.
    """
    make = type(within.subnet_min)
    spans = sorted(_span(subnet) for subnet in taken if subnet.version == within.network.version)
    starts = islice(_free_starts(within, spans), limit)
    return [ip_network((make(start), within.subnet_len)) for start in starts]


def _free_starts(within: SubnetRange, spans: Sequence[tuple[int, int]]) -> Iterator[int]:
    size = 1 << (Family.of(within.network).bits - within.subnet_len)
    position, end = int(within.subnet_min), int(within.subnet_max) + size
    for first, last in spans:
        yield from range(position, min(first, end) - size + 1, size)
        # On to the first boundary after the taken one, but never back: spans may lie within each other.
        position = max(position, -(-(last + 1) // size) * size)
    yield from range(position, end - size + 1, size)


def _span(subnet: IPNetwork) -> tuple[int, int]:
    first = int(subnet.network_address)
    return first, first + (1 << (subnet.max_prefixlen - subnet.prefixlen)) - 1


def _within(allowed: SubnetRange, subnet: IPNetwork) -> bool:
    lowest, highest = int(allowed.subnet_min), int(allowed.subnet_max)
    return subnet.prefixlen == allowed.subnet_len and lowest <= int(subnet.network_address) <= highest


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    (first, last), (other_first, other_last) = _span(one), _span(other)
    return first <= other_last and other_first <= last


def _full(within: SubnetRange, taken: Iterable[IPNetwork]) -> str:
    leased = sum(_overlap(within.network, subnet) for subnet in taken)
    return f"subnet_alloc: {within.network} has no free /{within.subnet_len} ({leased} leased)"
