"""Asks nf_tables for the elements of a set or map. For 50,000 of them nft would need a second and 100 MB."""

import errno
import socket
import struct
from collections.abc import Callable, Iterable
from typing import TypeVar

from controlloop.family import Family
from controlloop.nft.counters import Count, counts
from controlloop.nft.elements import many_elements
from controlloop.nft.monitor import NETLINK_NETFILTER
from controlloop.nft.notifications import HEADER, SUBSYSTEM, messages

GET_ELEMENTS = 13  # NFT_MSG_GETSETELEM
REQUEST_DUMP = 0x301
ERROR, DONE = 2, 3
TABLE, SET = 1, 2  # NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_ELEM_LIST_SET
DATAGRAM = 64 * 1024
TIMEOUT_S = 10.0
GENERATION = slice(HEADER.size + 2, HEADER.size + 4)
"""Where each message of an answer has the low bits of the ruleset's generation (nfgenmsg, res_id)."""
READINGS = 3

V = TypeVar("V")


def elements_of(family: Family, table: str, container: str, container_type: str) -> dict[str, str]:
    """Key to value, in the words of a listing; empty when there is no such container. Blocks.

    While the ruleset changes, the kernel passes over elements that stay: of 50,000 about 100. So it does when the set
    has grown before, and is put in another order: of 12,000 it passed over 2,000 on a busy machine, and told as many
    twice. Then it is read again, and what none of several readings has is not there. What went meanwhile may still be
    among the others.
    ValueError for a type that cannot be put into words.
    """
    together: dict[str, str] = {}
    for _ in range(READINGS):
        found, is_torn = read_once(family, table, container, lambda payload: many_elements(payload, container_type))
        if not is_torn:
            return found
        together |= found
    return together


def counts_of(family: Family, table: str, container: str, key_type: str) -> dict[str, Count]:
    """Key to what its element counted. Blocks. While the ruleset changes, some may be left out (see `elements_of`)."""
    return read_once(family, table, container, lambda payload: counts(payload, key_type))[0]


def read_once(
    family: Family, table: str, container: str, read: Callable[[bytes], Iterable[tuple[str, V]]]
) -> tuple[dict[str, V], bool]:
    """Elements, as `read` finds them in each message, and whether the ruleset or their order changed meanwhile."""
    found: dict[str, V] = {}
    told = 0
    generations: set[bytes] = set()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as talk:
        talk.settimeout(TIMEOUT_S)
        talk.send(request(family, table, container))
        while True:
            datagram = talk.recv(DATAGRAM)
            for message in messages(datagram):
                pairs = list(read(message.payload))
                told += len(pairs)
                found.update(pairs)
            if is_last(datagram):
                return found, len(generations) > 1 or told > len(found)
            generations.add(datagram[GENERATION])


def request(family: Family, table: str, container: str) -> bytes:
    body = bytes([family.af, 0, 0, 0]) + attribute(TABLE, table) + attribute(SET, container)
    return HEADER.pack(HEADER.size + len(body), SUBSYSTEM << 8 | GET_ELEMENTS, REQUEST_DUMP, 1, 0) + body


def attribute(kind: int, name: str) -> bytes:
    value = name.encode() + b"\0"
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def is_last(datagram: bytes) -> bool:
    """OSError when the kernel refuses; that there is no such container is no refusal."""
    at = 0
    while at + HEADER.size <= len(datagram):
        length, kind, *_ = HEADER.unpack_from(datagram, at)
        if kind == DONE or length < HEADER.size:
            return True
        if kind == ERROR:
            code = -struct.unpack_from("=i", datagram, at + HEADER.size)[0]
            if code not in (0, errno.ENOENT):
                raise OSError(code, f"elements: {errno.errorcode.get(code, code)}")
            return True
        at += length + 3 & ~3
    return False
