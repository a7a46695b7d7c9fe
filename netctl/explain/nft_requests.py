"""Questions to nf_tables over netlink, for which nft would read the whole ruleset first. Pure.

linux/netfilter/nf_tables.h; the answers are read by controlloop.nft.elements and notifications.
"""

import struct
import sys
from ipaddress import ip_address
from typing import NamedTuple

from controlloop.nft.elements import PROTOCOLS, SIZES, UnknownTypeError, elements
from controlloop.nft.notifications import HEADER, SUBSYSTEM, TABLE_NAME, attributes, text

GET_TABLE, GET_CHAIN, GET_ELEMENT = 1, 4, 13
REQUEST, DUMP = 1, 0x300
LIST_TABLE, LIST_SET, LIST_ELEMENTS = 1, 2, 3  # NFTA_SET_ELEM_LIST_*
ONE, KEY, VALUE = 1, 1, 1  # NFTA_LIST_ELEM, NFTA_SET_ELEM_KEY, NFTA_DATA_VALUE
NESTED = 0x8000
CHAIN_TABLE, CHAIN_NAME, CHAIN_HOOK = 1, 3, 4  # NFTA_CHAIN_*
HOOK_NUMBER, HOOK_PRIORITY = 1, 2  # NFTA_HOOK_*
HOOKS_BY_NUMBER = ("prerouting", "input", "forward", "output", "postrouting")
"""NF_INET_*; ingress, the sixth, sees whole frames."""
HOOK = struct.Struct("!I")
PRIORITY = struct.Struct("!i")
NUMBERS = {name: number for number, name in PROTOCOLS.items()}


def table_listing(af: int) -> bytes:
    return message(GET_TABLE, DUMP, af, b"")


def table_name(payload: bytes) -> str:
    return text(dict(attributes(payload))[TABLE_NAME])


class NamedChain(NamedTuple):
    """A base chain of nftables, for whose rules nobody asked."""

    table: str
    name: str
    hook: str
    priority: int


def chain_listing(af: int) -> bytes:
    return message(GET_CHAIN, DUMP, af, b"")


def base_chain(payload: bytes) -> NamedChain | None:
    """None: it is one that others jump to."""
    found = dict(attributes(payload))
    if CHAIN_HOOK not in found:
        return None
    at = dict(attributes(found[CHAIN_HOOK]))
    (number,), (priority,) = HOOK.unpack(at[HOOK_NUMBER]), PRIORITY.unpack(at[HOOK_PRIORITY])
    hook = HOOKS_BY_NUMBER[number] if number < len(HOOKS_BY_NUMBER) else ""
    return NamedChain(text(found[CHAIN_TABLE]), text(found[CHAIN_NAME]), hook, priority)


def element_request(af: int, table: str, container: str, kind: str, key: str) -> bytes:
    """UnknownTypeError for a type that is not written here; `kind` and `key` as in netctl.walk.Sight."""
    data = _attribute(VALUE, key_bytes(kind.partition(" : ")[0], key))
    one = _attribute(ONE | NESTED, _attribute(KEY | NESTED, data))
    names = _attribute(LIST_TABLE, table.encode() + b"\0") + _attribute(LIST_SET, container.encode() + b"\0")
    return message(GET_ELEMENT, 0, af, names + _attribute(LIST_ELEMENTS | NESTED, one))


def element_value(payload: bytes, kind: str) -> str:
    return next(value for _, value in elements(payload, kind))


def key_bytes(key_type: str, key: str) -> bytes:
    """Of several fields each is padded to a register of four bytes; the kernel takes a single one at its own size."""
    fields, parts = key_type.split(" . "), key.split(" . ")
    if len(fields) != len(parts):
        raise UnknownTypeError(f"{key} is no {key_type}")
    found = list(map(_field_bytes, fields, parts))
    return b"".join(field + bytes(-len(field) % 4) for field in found) if len(found) > 1 else found[0]


def _field_bytes(field: str, value: str) -> bytes:
    if field not in SIZES:
        raise UnknownTypeError(field)
    match field:
        case "ipv4_addr" | "ipv6_addr":
            return ip_address(value).packed
        case "inet_proto":
            return bytes([NUMBERS[value] if value in NUMBERS else int(value)])
        case "inet_service":
            return int(value).to_bytes(2, "big")
        case _:
            return int(value).to_bytes(4, sys.byteorder)


def message(kind: int, flags: int, af: int, body: bytes) -> bytes:
    """A request to nf_tables; `body` are its attributes."""
    length = HEADER.size + 4 + len(body)
    return HEADER.pack(length, SUBSYSTEM << 8 | kind, REQUEST | flags, 0, 0) + bytes([af, 0, 0, 0]) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
