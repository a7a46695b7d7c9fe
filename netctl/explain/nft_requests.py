"""Questions to nf_tables over netlink, for which nft would read the whole ruleset first. Pure.

linux/netfilter/nf_tables.h; the answers are read by controlloop.nft.elements and notifications.
"""

import struct
import sys
from ipaddress import ip_address

from controlloop.nft.elements import PROTOCOLS, SIZES, UnknownTypeError, elements
from controlloop.nft.notifications import HEADER, SUBSYSTEM, TABLE_NAME, attributes, text

GET_TABLE, GET_ELEMENT = 1, 13
REQUEST, DUMP = 1, 0x300
LIST_TABLE, LIST_SET, LIST_ELEMENTS = 1, 2, 3  # NFTA_SET_ELEM_LIST_*
ONE, KEY, VALUE = 1, 1, 1  # NFTA_LIST_ELEM, NFTA_SET_ELEM_KEY, NFTA_DATA_VALUE
NESTED = 0x8000
NUMBERS = {name: number for number, name in PROTOCOLS.items()}


def table_listing(af: int) -> bytes:
    return _message(GET_TABLE, DUMP, af, b"")


def table_name(payload: bytes) -> str:
    return text(dict(attributes(payload))[TABLE_NAME])


def element_request(af: int, table: str, container: str, kind: str, key: str) -> bytes:
    """UnknownTypeError for a type that is not written here; `kind` and `key` as in netctl.walk.Sight."""
    data = _attribute(VALUE, key_bytes(kind.partition(" : ")[0], key))
    one = _attribute(ONE | NESTED, _attribute(KEY | NESTED, data))
    names = _attribute(LIST_TABLE, table.encode() + b"\0") + _attribute(LIST_SET, container.encode() + b"\0")
    return _message(GET_ELEMENT, 0, af, names + _attribute(LIST_ELEMENTS | NESTED, one))


def element_value(payload: bytes, kind: str) -> str:
    return next(value for _, value in elements(payload, kind))


def key_bytes(key_type: str, key: str) -> bytes:
    """Each field padded to a register of four bytes."""
    fields, parts = key_type.split(" . "), key.split(" . ")
    if len(fields) != len(parts):
        raise UnknownTypeError(f"{key} is no {key_type}")
    return b"".join(map(_field_bytes, fields, parts))


def _field_bytes(field: str, value: str) -> bytes:
    if field not in SIZES:
        raise UnknownTypeError(field)
    match field:
        case "ipv4_addr" | "ipv6_addr":
            return ip_address(value).packed
        case "inet_proto":
            return bytes([NUMBERS[value] if value in NUMBERS else int(value), 0, 0, 0])
        case "inet_service":
            return int(value).to_bytes(2, "big") + b"\0\0"
        case _:
            return int(value).to_bytes(4, sys.byteorder)


def _message(kind: int, flags: int, af: int, body: bytes) -> bytes:
    length = HEADER.size + 4 + len(body)
    return HEADER.pack(length, SUBSYSTEM << 8 | kind, REQUEST | flags, 0, 0) + bytes([af, 0, 0, 0]) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
