"""What the kernel says when somebody changes an nftables ruleset. Pure.

linux/netfilter/nf_tables.h and nfnetlink.h. iptables-nft writes to nftables too, so its changes are among them.
"""

import struct
from collections.abc import Container, Iterator
from typing import NamedTuple

SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
NEWGEN = 15
NEWTABLE, DELTABLE, NEWCHAIN, DELCHAIN, NEWRULE, DELRULE, NEWSET, DELSET, NEWSETELEM, DELSETELEM = (
    0, 2, 3, 5, 6, 8, 9, 11, 12, 14,
)  # fmt: skip
REMOVALS = frozenset({DELTABLE, DELCHAIN, DELRULE, DELSET, DELSETELEM})
OBJECTS = frozenset({NEWTABLE, NEWCHAIN, NEWRULE, NEWSET, NEWSETELEM}) | REMOVALS
CHAIN_NAME = {NEWCHAIN: 3, DELCHAIN: 3, NEWRULE: 2, DELRULE: 2}
"""Which attribute names the chain, in messages about chains and rules."""
TABLE_NAME = 1
PROCESS_NAME = 3  # NFTA_GEN_PROC_NAME

HEADER = struct.Struct("=IHHII")
GENERIC_HEADER = 4
ATTRIBUTE = struct.Struct("=HH")
TYPE_MASK = 0x3FFF


class Message(NamedTuple):
    """One message about a ruleset."""

    kind: int
    family: int
    """AF_INET and so on; 0 for the end of a transaction."""
    port: int
    """The netlink port of whoever made the change: a program's first socket has its process id."""
    payload: bytes
    """Attributes."""


class Change(NamedTuple):
    table: str
    """Empty for the end of a transaction: what was said before it is one."""
    chain: str = ""
    is_removal: bool = False
    by: str = ""
    """At the end of a transaction: the program that made it, when the kernel says so."""


def messages(datagram: bytes) -> Iterator[Message]:
    """The messages about nftables; whatever else is in the datagram is passed over."""
    at = 0
    while at + HEADER.size <= len(datagram):
        length, kind, _, _, port = HEADER.unpack_from(datagram, at)
        if length < HEADER.size:
            return
        if kind >> 8 == SUBSYSTEM and length >= HEADER.size + GENERIC_HEADER <= len(datagram) - at:
            body = at + HEADER.size
            yield Message(kind & 0xFF, datagram[body], port, datagram[body + GENERIC_HEADER : at + length])
        at += aligned(length)


def changes(datagram: bytes, own_ports: Container[int] = ()) -> Iterator[Change]:
    """Each object that others changed; at the end of each of their transactions one without a table."""
    for message in messages(datagram):
        if message.port in own_ports:
            continue
        if message.kind == NEWGEN:
            yield Change("", by=text(dict(attributes(message.payload)).get(PROCESS_NAME, b"")))
        elif message.kind in OBJECTS:
            yield change_of(message)


def change_of(message: Message) -> Change:
    names = dict(texts(message.payload))
    chain = names.get(CHAIN_NAME.get(message.kind, 0), "")
    return Change(names.get(TABLE_NAME, ""), chain, message.kind in REMOVALS)


def texts(payload: bytes) -> Iterator[tuple[int, str]]:
    """The first attributes, as text: names stand before everything else."""
    for count, (kind, value) in enumerate(attributes(payload)):
        if count == TABLE_NAME + max(CHAIN_NAME.values()):
            return
        yield kind, text(value)


def text(value: bytes) -> str:
    return value.partition(b"\0")[0].decode(errors="replace")


def attributes(payload: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each; a broken one ends them."""
    at = 0
    while at + ATTRIBUTE.size <= len(payload):
        length, kind = ATTRIBUTE.unpack_from(payload, at)
        if length < ATTRIBUTE.size:
            return
        yield kind & TYPE_MASK, payload[at + ATTRIBUTE.size : at + length]
        at += aligned(length)


def aligned(length: int) -> int:
    return length + 3 & ~3
