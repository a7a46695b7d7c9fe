"""What the kernel says when somebody changes an nftables ruleset. Pure.

linux/netfilter/nf_tables.h and nfnetlink.h. iptables-nft writes to nftables too, so its changes are among them.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
NEWGEN = 15
REMOVALS = frozenset({2, 5, 8, 11, 14})  # of a table, chain, rule, set, element
OBJECTS = frozenset({0, 3, 6, 9, 12}) | REMOVALS
CHAIN_NAME = {3: 3, 5: 3, 6: 2, 8: 2}
"""Which attribute names the chain, in messages about chains and rules."""
TABLE_NAME = 1

HEADER = struct.Struct("=IHHII")
GENERIC_HEADER = 4
ATTRIBUTE = struct.Struct("=HH")
TYPE_MASK = 0x3FFF


class Change(NamedTuple):
    table: str
    """Empty for the end of a transaction: what was said before it is one."""
    chain: str = ""
    is_removal: bool = False


def changes(datagram: bytes) -> Iterator[Change]:
    """Each object that was changed; at the end of each transaction one without a table."""
    at = 0
    while at + HEADER.size <= len(datagram):
        length, kind, *_ = HEADER.unpack_from(datagram, at)
        if length < HEADER.size:
            return
        message = kind & 0xFF
        if kind >> 8 == SUBSYSTEM and message == NEWGEN:
            yield Change("")
        elif kind >> 8 == SUBSYSTEM and message in OBJECTS:
            names = texts(datagram[at + HEADER.size + GENERIC_HEADER : at + length])
            chain = names.get(CHAIN_NAME.get(message, 0), "")
            yield Change(names.get(TABLE_NAME, ""), chain, message in REMOVALS)
        at += aligned(length)


def texts(payload: bytes) -> dict[int, str]:
    """The first attributes by type, as text: names stand before everything else."""
    found: dict[int, str] = {}
    at = 0
    while at + ATTRIBUTE.size <= len(payload) and len(found) < TABLE_NAME + max(CHAIN_NAME.values()):
        length, kind = ATTRIBUTE.unpack_from(payload, at)
        if length < ATTRIBUTE.size:
            break
        value = payload[at + ATTRIBUTE.size : at + length]
        found.setdefault(kind & TYPE_MASK, value.partition(b"\0")[0].decode(errors="replace"))
        at += aligned(length)
    return found


def aligned(length: int) -> int:
    return length + 3 & ~3
