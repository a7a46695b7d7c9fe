"""Puts a few addresses into sets of a table, and takes some out, in one transaction and without a program.

A peer that comes or goes is such a change, and every node makes it: nft takes 5 ms of a processor for what is 100 bytes
to the kernel. All other changes, and those that the kernel refuses, are nft's.
"""

import os
import socket
import struct
from collections.abc import Iterable, Mapping

from controlloop.command import own_processes
from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.nft.dump import DATAGRAM, ERROR, SET, TABLE, TIMEOUT_S, attribute
from controlloop.nft.elements import ELEMENT, ELEMENTS, KEY
from controlloop.nft.elements import VALUE as KEY_BYTES
from controlloop.nft.monitor import NETLINK_NETFILTER
from controlloop.nft.notifications import ATTRIBUTE, DELSETELEM, HEADER, NEWSETELEM, SUBSYSTEM
from controlloop.nft.state import Container, Key, Value

MOST = 1000
"""Addresses in one message, whose length has to fit into 16 bits."""
TYPES = ("ipv4_addr", "ipv6_addr")
REQUEST, CREATE, ACKNOWLEDGE = 1, 0x400, 4
BATCH_BEGIN, BATCH_END = 0x10, 0x11  # NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END (linux/netfilter/nfnetlink.h)
NESTED = 0x8000

Addresses = dict[str, list[str]]
"""By the set."""


def only_addresses(delta: Delta[Key, Value], constant: Mapping[Key, Value]) -> bool:
    """Whether `change` can make this change; `constant` has the containers."""
    keys = [*delta.put, *delta.drop]
    kinds = {(key.kind, key.name) for key in keys}
    return 0 < len(keys) <= MOST and all(
        kind == "element" and is_set_of_addresses(constant.get(Key("container", name))) for kind, name in kinds
    )


def is_set_of_addresses(container: Value | None) -> bool:
    """And nothing else: its elements are neither counted nor put in by packets."""
    return (
        isinstance(container, Container)
        and container.kind == "set"
        and container.type in TYPES
        and not (container.is_dynamic or container.counts)
    )


def change(family: Family, table: str, delta: Delta[Key, Value]) -> None:
    """OSError when the kernel refuses; then nothing is changed."""
    steps = [(DELSETELEM, REQUEST, delta.drop), (NEWSETELEM, REQUEST | CREATE, delta.put)]
    bodies = [
        (kind, flags | ACKNOWLEDGE, body_of(family, table, name, addresses))
        for kind, flags, keys in steps
        for name, addresses in by_set(keys).items()
    ]
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as talk:
        talk.settimeout(TIMEOUT_S)
        talk.bind((0, 0))
        # Who watches the table is told of the change, and must know that it is ours.
        own_processes.append(talk.getsockname()[0])
        talk.send(batch(bodies))
        for _ in bodies:
            refuse_error(talk.recv(DATAGRAM))


def by_set(keys: Iterable[Key]) -> Addresses:
    found: Addresses = {}
    for key in keys:
        found.setdefault(key.name, []).append(key.element)
    return found


def body_of(family: Family, table: str, name: str, addresses: Iterable[str]) -> bytes:
    raw = (socket.inet_pton(family.af, each) for each in addresses)
    listed = b"".join(nested(ELEMENT, nested(KEY, sized(KEY_BYTES, each))) for each in raw)
    return bytes([family.af, 0, 0, 0]) + attribute(TABLE, table) + attribute(SET, name) + nested(ELEMENTS, listed)


def sized(kind: int, value: bytes) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value


def nested(kind: int, value: bytes) -> bytes:
    return sized(kind | NESTED, value)


def batch(bodies: Iterable[tuple[int, int, bytes]]) -> bytes:
    """One transaction of messages: type, flags and body of each."""
    frame = struct.pack(">BBH", 0, 0, SUBSYSTEM)
    parts = [(BATCH_BEGIN, REQUEST, frame)]
    parts += [(SUBSYSTEM << 8 | kind, flags, body) for kind, flags, body in bodies]
    parts += [(BATCH_END, REQUEST, frame)]
    return b"".join(
        HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + body
        for sequence, (kind, flags, body) in enumerate(parts, start=1)
    )


def refuse_error(answer: bytes) -> None:
    """The kernel answers each message, in a datagram of its own, when the whole transaction is decided."""
    _, kind, *_ = HEADER.unpack_from(answer)
    code = -struct.unpack_from("=i", answer, HEADER.size)[0] if kind == ERROR else 0
    if code:
        raise OSError(code, os.strerror(code))
