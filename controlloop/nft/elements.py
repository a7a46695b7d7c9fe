"""Elements of sets and maps as the kernel sends them, in the words of a listing. Pure.

Every field of a concatenation is padded to four bytes (linux/netfilter/nf_tables.h, NFT_REG32_SIZE).
"""

from collections.abc import Iterator
from ipaddress import IPv4Address
from itertools import pairwise

from controlloop.address import host
from controlloop.family import Family
from controlloop.nft.notifications import attributes, text

ELEMENTS, ELEMENT = 3, 1  # NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_LIST_ELEM
KEY, DATA = 1, 2  # NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_DATA
VALUE, VERDICT = 1, 2  # NFTA_DATA_VALUE, NFTA_DATA_VERDICT
VERDICT_CODE, VERDICT_CHAIN = 1, 2
VERDICTS = {0: "drop", 1: "accept", -1: "continue", -3: "jump", -4: "goto", -5: "return"}

PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "ipv6-icmp", 132: "sctp"}
SIZES = {"ipv4_addr": 4, "ipv6_addr": 16, "inet_proto": 4, "inet_service": 4, "integer": 4, "mark": 4}


class UnknownTypeError(ValueError):
    """A type of element that this file cannot put into words."""


def elements(payload: bytes, container_type: str) -> Iterator[tuple[str, str]]:
    """Key and value of each element in a message; the value of a set's is empty.

    `container_type` is as listed: `ipv4_addr . inet_service : verdict`. UnknownTypeError for one that is not read here.
    """
    key_type, _, value_type = container_type.partition(" : ")
    for kind, listed in attributes(payload):
        if kind == ELEMENTS:
            for _, element in attributes(listed):
                parts = dict(attributes(element))
                value = data(parts.get(DATA, b""), value_type) if value_type else ""
                yield data(parts.get(KEY, b""), key_type), value


def data(attribute: bytes, type_text: str) -> str:
    parts = dict(attributes(attribute))
    if VERDICT in parts:
        return verdict(parts[VERDICT])
    return words(parts.get(VALUE, b""), type_text)


def verdict(attribute: bytes) -> str:
    parts = dict(attributes(attribute))
    code = int.from_bytes(parts.get(VERDICT_CODE, b""), "big", signed=True)
    if code not in VERDICTS:
        raise UnknownTypeError(f"verdict {code}")
    chain = text(parts.get(VERDICT_CHAIN, b""))
    return f"{VERDICTS[code]} {chain}".rstrip()


def words(value: bytes, type_text: str) -> str:
    fields = type_text.split(" . ")
    if not all(field in SIZES for field in fields):
        raise UnknownTypeError(type_text)
    ends = [0]
    for field in fields:
        ends.append(ends[-1] + SIZES[field])
    return " . ".join(word(field, value[a:b]) for field, (a, b) in zip(fields, pairwise(ends), strict=True))


def word(field: str, value: bytes) -> str:
    if len(value) < min(SIZES[field], 2):
        raise UnknownTypeError(f"{field} of {len(value)} bytes")
    match field:
        case "ipv4_addr":
            return str(IPv4Address(value))
        case "ipv6_addr":
            return host(Family.V6, int.from_bytes(value))
        case "inet_proto":
            return PROTOCOLS.get(value[0], str(value[0]))
        case "inet_service":
            return str(int.from_bytes(value[:2], "big"))
        case _:
            return str(number(value))


def number(value: bytes) -> int:
    """An index has no byte order of its own, and nft has changed its mind about which to use: it is below 65,536."""
    return min(int.from_bytes(value, "big"), int.from_bytes(value, "little"))
