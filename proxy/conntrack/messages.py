"""The words of ctnetlink: requests for a listing and for deletions, and flows from answers. Pure.

linux/netfilter/nfnetlink_conntrack.h. A table may hold a million flows, so the layout in which the kernel writes a
flow is read with one `unpack`; whatever is written differently is passed over: it is no flow with ports.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from controlloop.family import Family
from proxy.frontends import Protocol

SUBSYSTEM = 1  # NFNL_SUBSYS_CTNETLINK
CT_NEW, CT_GET, CT_DELETE = 0, 1, 2
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3

TUPLE_ORIG, TUPLE_REPLY, FILTER, ID = 1, 2, 25, 12  # CTA_TUPLE_ORIG and so on
FILTER_ORIG_FLAGS = 1
FILTER_PROTOCOL = 1 << 3  # CTA_FILTER_FLAG(CTA_PROTO_NUM), kernel 5.8
NESTED = 0x8000

HEADER = struct.Struct("=IHHII")
GENERIC = struct.Struct("=BBH")
ATTRIBUTE = struct.Struct("=HH")
TYPE_MASK = 0x3FFF


def _tuple_layout(address: str) -> struct.Struct:
    """CTA_TUPLE_IP with source and destination, then CTA_TUPLE_PROTO with number, source port, destination port."""
    return struct.Struct(f"=4x 4x 4x{address} 4x{address} 4x 4xB3x 4x2s2x 4x2s2x")


LAYOUT = {Family.V4: _tuple_layout("4s"), Family.V6: _tuple_layout("16s")}
"""Of a whole CTA_TUPLE_ORIG or CTA_TUPLE_REPLY, its own header included."""


class Flow(NamedTuple):
    """One flow: how its first packet came, and where its answers come from."""

    protocol: int
    source: bytes
    source_port: bytes
    destination: bytes
    destination_port: bytes
    """Ports are in network order, as they came."""
    endpoint: bytes
    endpoint_port: bytes
    """The reply's source: after translation, the endpoint."""
    id: bytes


def listing(family: Family, protocol: Protocol | None, sequence: int) -> bytes:
    """A request for all flows of a family; with a protocol only those, which the kernel then picks out."""
    body = GENERIC.pack(family.af, 0, 0)
    if protocol is not None:
        number = attribute(1, struct.pack("=B", protocol.number))
        body += attribute(TUPLE_ORIG | NESTED, attribute(2 | NESTED, number))
        body += attribute(FILTER | NESTED, attribute(FILTER_ORIG_FLAGS, struct.pack("=I", FILTER_PROTOCOL)))
    return message(CT_GET, NLM_F_REQUEST | NLM_F_DUMP, sequence, body)


def deletion(family: Family, flow: Flow, sequence: int) -> bytes:
    """Forget this flow and no later one with the same ports: its id is told, too."""
    source, destination = (1, 2) if family is Family.V4 else (3, 4)
    addresses = attribute(source, flow.source) + attribute(destination, flow.destination)
    ports = attribute(2, flow.source_port) + attribute(3, flow.destination_port)
    protocol = attribute(1, struct.pack("=B", flow.protocol))
    how = attribute(1 | NESTED, addresses) + attribute(2 | NESTED, protocol + ports)
    body = GENERIC.pack(family.af, 0, 0) + attribute(TUPLE_ORIG | NESTED, how) + attribute(ID, flow.id)
    return message(CT_DELETE, NLM_F_REQUEST | NLM_F_ACK, sequence, body)


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), SUBSYSTEM << 8 | kind, flags, sequence, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def messages(datagram: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Type, sequence, start and end of the body of each message."""
    at = 0
    while at + HEADER.size <= len(datagram):
        length, kind, _, sequence, _ = HEADER.unpack_from(datagram, at)
        if length < HEADER.size:
            return
        yield kind, sequence, at + HEADER.size, min(at + length, len(datagram))
        at += length + 3 & ~3


def error_code(datagram: bytes, at: int) -> int:
    """The errno in an NLMSG_ERROR; 0: an acknowledgement."""
    (code,) = struct.unpack_from("=i", datagram, at)
    return -int(code)


def flow(family: Family, datagram: bytes, at: int, end: int) -> Flow | None:
    """The flow in one message's body; None for one without ports."""
    layout = LAYOUT[family]
    start = at + GENERIC.size
    if start + 2 * layout.size > end:
        return None
    length, kind = ATTRIBUTE.unpack_from(datagram, start)
    reply_length, reply_kind = ATTRIBUTE.unpack_from(datagram, start + layout.size)
    if (length, reply_length) != (layout.size, layout.size) or kind & TYPE_MASK != TUPLE_ORIG:
        return None
    if reply_kind & TYPE_MASK != TUPLE_REPLY:
        return None
    source, destination, protocol, source_port, port = layout.unpack_from(datagram, start)
    endpoint, _, _, endpoint_port, _ = layout.unpack_from(datagram, start + layout.size)
    identity = _id(datagram, start + 2 * layout.size, end)
    return Flow(protocol, source, source_port, destination, port, endpoint, endpoint_port, identity)


def _id(datagram: bytes, at: int, end: int) -> bytes:
    while at + ATTRIBUTE.size <= end:
        length, kind = ATTRIBUTE.unpack_from(datagram, at)
        if length < ATTRIBUTE.size:
            break
        if kind & TYPE_MASK == ID:
            return datagram[at + ATTRIBUTE.size : at + length]
        at += length + 3 & ~3
    return b""
