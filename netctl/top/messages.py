"""What ctnetlink tells of translated flows: who was called, who answers, how many bytes. Pure.

A flow's first tuple has the place that was called, its reply's source is the endpoint: so both are known of every
connection to a Service, whatever rules led it there.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from controlloop.family import Family
from proxy.conntrack.messages import (
    ATTRIBUTE,
    CT_DELETE,
    CT_GET,
    CT_NEW,
    GENERIC,
    LAYOUT,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    SUBSYSTEM,
    TYPE_MASK,
    attribute,
    flow,
    message,
    messages,
)

COUNTERS, COUNTERS_REPLY = (9, 10), 10  # CTA_COUNTERS_ORIG, CTA_COUNTERS_REPLY
COUNTER_PAIR = struct.Struct(">4x 4x8x 4xQ")
"""One of them: CTA_COUNTERS_PACKETS, then CTA_COUNTERS_BYTES."""
STATUS, STATUS_MASK = 3, 26
TRANSLATED = struct.pack(">I", 1 << 5)  # IPS_DST_NAT
FAMILY_OF = {family.af: family for family in Family}
BEGUN, ENDED = SUBSYSTEM << 8 | CT_NEW, SUBSYSTEM << 8 | CT_DELETE


class Way(NamedTuple):
    """From a called place to an endpoint. Addresses and ports in network order."""

    protocol: int
    destination: bytes
    port: bytes
    endpoint: bytes
    endpoint_port: bytes


class Seen(NamedTuple):
    kind: int
    """BEGUN, which in a listing is every flow, or ENDED."""
    way: Way
    id: int
    size: int | None
    """Bytes in both directions, with IP headers; None: the kernel does not count this flow's."""


def listing(family: Family) -> bytes:
    """A request for all flows whose destination was translated; kernels that cannot choose give all."""
    only = attribute(STATUS, TRANSLATED) + attribute(STATUS_MASK, TRANSLATED)
    return message(CT_GET, NLM_F_REQUEST | NLM_F_DUMP, 1, GENERIC.pack(family.af, 0, 0) + only)


def seen(datagram: bytes) -> Iterator[Seen]:
    """The flows in it that lead elsewhere than they were sent."""
    for kind, _, at, end in messages(datagram):
        if kind not in (BEGUN, ENDED) or at + GENERIC.size > end:
            continue
        family = FAMILY_OF.get(datagram[at])
        found = flow(family, datagram, at, end) if family else None
        if not family or not found:
            continue
        if (found.endpoint, found.endpoint_port) == (found.destination, found.destination_port):
            continue
        way = Way(found.protocol, found.destination, found.destination_port, found.endpoint, found.endpoint_port)
        size = size_of(datagram, at + GENERIC.size + 2 * LAYOUT[family].size, end)
        yield Seen(kind, way, int.from_bytes(found.id, "big"), size)


def size_of(datagram: bytes, at: int, end: int) -> int | None:
    """Read in one go: a table may hold a million flows, and the kernel writes the bytes behind the packets."""
    found: int | None = None
    while at + ATTRIBUTE.size <= end:
        length, kind = ATTRIBUTE.unpack_from(datagram, at)
        if length < ATTRIBUTE.size or at + length > end:
            break
        if kind & TYPE_MASK in COUNTERS and length == COUNTER_PAIR.size:
            (size,) = COUNTER_PAIR.unpack_from(datagram, at)
            found = (found or 0) + size
            if kind & TYPE_MASK == COUNTERS_REPLY:
                break
        at += length + 3 & ~3
    return found
