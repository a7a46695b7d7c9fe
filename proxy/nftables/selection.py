"""Which endpoint a new connection gets: an expression that draws a slot, and the endpoint in each slot. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain, repeat
from math import gcd

from controlloop.family import Family
from proxy.frontends import Balance, Endpoint

MOST_SLOTS = 256
"""Weights whose ratio would need more are rounded."""

TABLE_SLOTS = 2039
"""A prime. With it, one of up to 250 endpoints that goes takes less than 1/N + 5 % of the clients along."""

SEED = "0x6e6f6465"
"""The same on every node and in every version of a rule, or clients would move when a rule is rewritten."""


@dataclass(frozen=True, slots=True)
class Selection:
    how: str
    draw: str
    """An nft expression that yields a number below `len(slots)`."""
    slots: tuple[Endpoint, ...]
    counts: bool = False
    """The rule keeps a counter, so it cannot be shared: two services called in the pattern A B B would lock in step."""


def select(family: Family, balance: Balance, endpoints: Sequence[Endpoint]) -> Selection:
    """How to choose among these, at least one."""
    slots = tuple(endpoints)
    if balance is Balance.WEIGHTED:
        slots = weighted(endpoints)
    # A hash modulo one is refused by the kernel, and there is nothing to choose.
    if len(slots) == 1 or balance in {Balance.RANDOM, Balance.WEIGHTED}:
        return Selection("random", f"numgen random mod {len(slots)}", slots)
    if balance is Balance.ROUND_ROBIN:
        return Selection(balance.value, f"numgen inc mod {len(slots)}", slots, counts=True)
    if balance is Balance.CONSISTENT:
        slots = maglev(endpoints)
    draw = f"jhash {family.nft} saddr mod {len(slots)} seed {SEED}"
    return Selection(balance.value, draw, slots)


def weighted(endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    """Each endpoint as often as its weight says. Where all weights are zero, all are equal."""
    shares = [endpoint.weight for endpoint in endpoints]
    total = sum(shares)
    if not total:
        return tuple(endpoints)
    if total // gcd(*shares) > MOST_SLOTS:
        shares = [share and max(1, round(share * MOST_SLOTS / total)) for share in shares]
    divisor = gcd(*shares)
    repeated = (repeat(one, share // divisor) for one, share in zip(endpoints, shares, strict=True))
    return tuple(chain.from_iterable(repeated))


def maglev(endpoints: Sequence[Endpoint], size: int = TABLE_SLOTS) -> tuple[Endpoint, ...]:
    """A table of `size` slots, a prime, that changes little when one endpoint comes or goes.

    Each endpoint goes through the slots in an order of its own and, when it is its turn, takes the first free one
    (Eisenbud et al., Maglev, NSDI 2016, section 3.4).
    """
    orders = [preferences(endpoint, size) for endpoint in endpoints]
    taken: list[Endpoint | None] = [None] * size
    free = size
    while True:
        for endpoint, order in zip(endpoints, orders, strict=True):
            slot = next(slot for slot in order if taken[slot] is None)
            taken[slot] = endpoint
            free -= 1
            if not free:
                return tuple(one for one in taken if one)


def preferences(endpoint: Endpoint, size: int) -> Iterator[int]:
    digest = blake2b(str(endpoint).encode(), digest_size=16).digest()
    first, step = int.from_bytes(digest[:8]) % size, int.from_bytes(digest[8:]) % (size - 1) + 1
    return ((first + turn * step) % size for turn in range(size))
