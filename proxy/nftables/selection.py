"""Which endpoint a new connection gets: an expression that draws a slot, and the endpoint in each slot. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import shake_128
from itertools import chain, repeat
from math import gcd
from struct import unpack

from controlloop.family import Family
from proxy.frontends import Balance, Endpoint

MOST_SLOTS = 256
"""Weights whose ratio would need more are rounded."""

TABLE_SLOTS = 1024
"""Under consistent hashing. One of N endpoints that goes takes 1/N of the clients along, and at most 5 % more."""

BIDS_FOR_A_SLOT = 8

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
        slots = consistent(endpoints)
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


def consistent(endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    """A table of even shares that changes little when one endpoint comes or goes.

    Each endpoint bids for each slot, by a hash of both. The best bids win first, and nobody wins more than its share.
    Who goes leaves its slots to the next best, and few others move to keep the shares even.
    """
    auction = Auction(endpoints)
    # The best bids decide nearly all slots. Looking at those first changes nothing but the time it takes.
    for limit in BIDS_FOR_A_SLOT * 2**32 // len(endpoints), 2**32:
        auction.hold(limit)
    return tuple(endpoints[auction.winners[slot]] for slot in range(TABLE_SLOTS))


class Auction:
    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.winners: dict[int, int] = {}
        """Bidder by slot."""
        self._bids = [bids(endpoint) for endpoint in endpoints]
        self._won = [0] * len(endpoints)
        self._share, self._extra = divmod(TABLE_SLOTS, len(endpoints))

    def hold(self, limit: int) -> None:
        """Give the free slots to whoever bids best, as far as bids are below `limit`: the lowest is the best."""
        free = [slot for slot in range(TABLE_SLOTS) if slot not in self.winners]
        bidders = [(bidder, row) for bidder, row in enumerate(self._bids) if self._won[bidder] <= self._share]
        offers = ((row[slot], slot, bidder) for bidder, row in bidders for slot in free if row[slot] < limit)
        for _, slot, bidder in sorted(offers):
            if slot not in self.winners and self._may_win(bidder):
                self._extra -= self._won[bidder] == self._share
                self._won[bidder] += 1
                self.winners[slot] = bidder

    def _may_win(self, bidder: int) -> bool:
        above = self._won[bidder] - self._share
        return above < 0 or (above == 0 and self._extra > 0)


def bids(endpoint: Endpoint) -> tuple[int, ...]:
    """One for each slot, of 32 bits."""
    return unpack(f"<{TABLE_SLOTS}I", shake_128(str(endpoint).encode()).digest(4 * TABLE_SLOTS))
