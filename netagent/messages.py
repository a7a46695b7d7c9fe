"""Routes, neighbors, FDB entries and addresses as rtnetlink messages (rtnetlink(7), linux/netlink.h), both ways.

Pure. Thousands of peers mean thousands of messages at once: pyroute2's encoder takes 118 us for one, this one 3 us.
Integers are in host byte order, addresses in network order.
"""

import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from controlloop.family import Family, IPAddress, IPNetwork
from netagent.diff import Operation, Verb
from netagent.state import FdbEntry, LinkAddress, Neighbor, Object, Route

HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port id
RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
NDMSG = struct.Struct("=BxxxiHBB")  # family, ifindex, state, flags, type
IFADDRMSG = struct.Struct("=BBBBI")  # family, prefixlen, flags, scope, index
ATTRIBUTE = struct.Struct("=HH")  # length, type
IFINFOMSG = struct.Struct("=BxHiII")  # family, device type, index, flags, change
INDEX_ATTRIBUTE = struct.Struct("=HHI")
ERRNO = struct.Struct("=i")

NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWLINK, RTM_GETLINK = 16, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR = 0x1, 0x4, 0x10
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_DUMP, NLM_F_CREATE = 0x100, 0x200, 0x300, 0x400
NLM_F_ACK_TLVS = 0x200
NLMSGERR_ATTR_MSG = 1

IFF_UP = 1
IFLA_IFNAME, IFLA_LINKINFO, IFLA_IFALIAS = 3, 18, 20
IFLA_INFO_KIND = 1
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_TABLE = 1, 4, 5, 6, 15
RT_TABLE_MAIN, RTN_UNICAST, RTN_BLACKHOLE, RTNH_F_ONLINK = 254, 1, 6, 4
ROUTE_KINDS = {RTN_UNICAST, RTN_BLACKHOLE}
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_NOWHERE = 0, 253, 255
NDA_DST, NDA_LLADDR, NDA_IFINDEX = 1, 2, 8
AF_BRIDGE, NTF_SELF, NUD_PERMANENT = 7, 0x2, 0x80
IFA_ADDRESS, IFA_LOCAL, IFA_F_NODAD = 1, 2, 0x2

Names = Mapping[int, str]
"""Interface names by index."""


class Message(NamedTuple):
    kind: int
    flags: int
    sequence: int
    payload: bytes


def attribute(kind: int, value: bytes) -> bytes:
    return ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def index_attribute(kind: int, value: int) -> bytes:
    return INDEX_ATTRIBUTE.pack(8, kind, value)


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(payload), kind, NLM_F_REQUEST | flags, sequence, 0) + payload


def encode(operation: Operation, ifindex: int, sequence: int, *, acknowledge: bool) -> bytes:
    """One change as a message. The kernel reports a failure in any case, success only when asked to `acknowledge`."""
    thing = operation.object
    create, delete, body = ENCODERS[type(thing)]
    adds = operation.verb is not Verb.REMOVE
    flags = creation_flags(operation) if adds else 0
    payload = body(thing, ifindex, adds)
    return message(create if adds else delete, flags | (NLM_F_ACK if acknowledge else 0), sequence, payload)


def creation_flags(operation: Operation) -> int:
    # REPLACE would take the place of a foreign route to the same prefix without a word; our device has no foreign
    # neighbors, so there it is the shortest way to the desired value.
    if isinstance(operation.object, Route) and operation.verb is Verb.ADD:
        return NLM_F_CREATE | NLM_F_EXCL
    return NLM_F_CREATE | NLM_F_REPLACE


def route_body(route: Route, ifindex: int, adds: bool) -> bytes:  # noqa: FBT001 - the shape all bodies share
    network = route.prefix.network_address
    scope = RT_SCOPE_UNIVERSE if route.gateway or route.blackhole else RT_SCOPE_LINK
    parts = [
        RTMSG.pack(
            Family.of(network).af,
            route.prefix.prefixlen,
            0,
            0,
            RT_TABLE_MAIN,
            route.protocol,
            scope if adds else RT_SCOPE_NOWHERE,
            RTN_BLACKHOLE if route.blackhole else RTN_UNICAST,
            RTNH_F_ONLINK if route.onlink else 0,
        ),
        attribute(RTA_DST, network.packed),
    ]
    if route.gateway:
        parts.append(attribute(RTA_GATEWAY, route.gateway.packed))
    if ifindex:
        parts.append(index_attribute(RTA_OIF, ifindex))
    if route.metric:
        parts.append(index_attribute(RTA_PRIORITY, route.metric))
    return b"".join(parts)


def neighbor_body(neighbor: Neighbor, ifindex: int, _adds: bool) -> bytes:  # noqa: FBT001
    return (
        NDMSG.pack(Family.of(neighbor.address).af, ifindex, NUD_PERMANENT, 0, RTN_UNICAST)
        + attribute(NDA_DST, neighbor.address.packed)
        + attribute(NDA_LLADDR, mac_bytes(neighbor.mac))
    )


def fdb_body(entry: FdbEntry, ifindex: int, _adds: bool) -> bytes:  # noqa: FBT001
    return (
        NDMSG.pack(AF_BRIDGE, ifindex, NUD_PERMANENT, NTF_SELF, 0)
        + attribute(NDA_LLADDR, mac_bytes(entry.mac))
        + attribute(NDA_DST, entry.destination.packed)
    )


def address_body(address: LinkAddress, ifindex: int, _adds: bool) -> bytes:  # noqa: FBT001
    family = Family.of(address.address)
    # Without NODAD an IPv6 address is unusable for a second; on this device nobody can claim it.
    flags = IFA_F_NODAD if family is Family.V6 else 0
    packed = address.address.packed
    return (
        IFADDRMSG.pack(family.af, address.prefix_len, flags, RT_SCOPE_UNIVERSE, ifindex)
        + attribute(IFA_LOCAL, packed)
        + attribute(IFA_ADDRESS, packed)
    )


ENCODERS: Mapping[type[Object], tuple[int, int, Callable[..., bytes]]] = {
    Route: (RTM_NEWROUTE, RTM_DELROUTE, route_body),
    Neighbor: (RTM_NEWNEIGH, RTM_DELNEIGH, neighbor_body),
    FdbEntry: (RTM_NEWNEIGH, RTM_DELNEIGH, fdb_body),
    LinkAddress: (RTM_NEWADDR, RTM_DELADDR, address_body),
}


class Dump(NamedTuple):
    """A request for all objects of a kind; the kernel filters, given NETLINK_GET_STRICT_CHK."""

    kind: int
    payload: bytes


def dump_links(kind: str = "") -> Dump:
    """Devices of one kind, of all kinds while the kernel has not loaded the driver; all devices without a kind."""
    info = attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, kind.encode())) if kind else b""
    return Dump(RTM_GETLINK, IFINFOMSG.pack(0, 0, 0, 0, 0) + info)


def dump_routes(family: Family, protocol: int = 0) -> Dump:
    """Routes of the main table that carry `protocol`; 0: all of them."""
    payload = RTMSG.pack(family.af, 0, 0, 0, RT_TABLE_MAIN, protocol, 0, 0, 0)
    return Dump(RTM_GETROUTE, payload)


def dump_neighbors(family: Family, ifindex: int) -> Dump:
    return Dump(RTM_GETNEIGH, NDMSG.pack(family.af, 0, 0, 0, 0) + index_attribute(NDA_IFINDEX, ifindex))


def dump_fdb(ifindex: int) -> Dump:
    return Dump(RTM_GETNEIGH, NDMSG.pack(AF_BRIDGE, 0, 0, 0, 0) + index_attribute(NDA_IFINDEX, ifindex))


def dump_addresses(family: Family, ifindex: int = 0) -> Dump:
    """Of one device; 0: of all."""
    return Dump(RTM_GETADDR, IFADDRMSG.pack(family.af, 0, 0, 0, ifindex))


def messages(buffer: bytes) -> Iterator[Message]:
    """The messages in one datagram; a truncated one ends it."""
    offset = 0
    while offset + HEADER.size <= len(buffer):
        length, kind, flags, sequence, _ = HEADER.unpack_from(buffer, offset)
        if length < HEADER.size or offset + length > len(buffer):
            return
        yield Message(kind, flags, sequence, buffer[offset + HEADER.size : offset + length])
        offset += (length + 3) & ~3


def attributes(payload: bytes, offset: int) -> dict[int, bytes]:
    found = {}
    while offset + ATTRIBUTE.size <= len(payload):
        length, kind = ATTRIBUTE.unpack_from(payload, offset)
        if length < ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = payload[offset + ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def error_of(reply: Message) -> tuple[int, str]:
    """Error number, 0 for success, and the kernel's own words when it has some (NETLINK_EXT_ACK)."""
    (number,) = ERRNO.unpack_from(reply.payload)
    if not reply.flags & NLM_F_ACK_TLVS:
        return -number, ""
    text = attributes(reply.payload, ERRNO.size + HEADER.size).get(NLMSGERR_ATTR_MSG, b"")
    return -number, text.rstrip(b"\0").decode(errors="replace")


def decode_route(payload: bytes, names: Names) -> Route | None:
    """None for what is neither a unicast nor a blackhole route of the main table."""
    af, prefix_len, _, _, _, protocol, _, kind, flags = RTMSG.unpack_from(payload)
    found = attributes(payload, RTMSG.size)
    if kind not in ROUTE_KINDS or integer(found.get(RTA_TABLE)) != RT_TABLE_MAIN:
        return None
    blackhole = kind == RTN_BLACKHOLE
    destination = found.get(RTA_DST) or bytes(4 if af == Family.V4.af else 16)
    return Route(
        prefix=network_of(destination, prefix_len),
        gateway=address_of(found.get(RTA_GATEWAY)),
        # IPv6 says lo for one that leads nowhere.
        device="" if blackhole else names.get(integer(found.get(RTA_OIF)), ""),
        onlink=bool(flags & RTNH_F_ONLINK),
        metric=integer(found.get(RTA_PRIORITY)),
        protocol=protocol,
        blackhole=blackhole,
    )


def decode_neighbor(payload: bytes, names: Names) -> Neighbor | FdbEntry | None:
    """None for what the kernel found out by itself, and for entries without MAC or address."""
    af, ifindex, state, _, _ = NDMSG.unpack_from(payload)
    found = attributes(payload, NDMSG.size)
    address, mac = address_of(found.get(NDA_DST)), found.get(NDA_LLADDR)
    if not state & NUD_PERMANENT or address is None or not mac:
        return None
    device = names.get(ifindex, "")
    return FdbEntry(mac.hex(":"), address, device) if af == AF_BRIDGE else Neighbor(address, mac.hex(":"), device)


def decode_address(payload: bytes, names: Names) -> LinkAddress | None:
    """None for the kernel's own: IPv6 link-local."""
    _, prefix_len, _, scope, ifindex = IFADDRMSG.unpack_from(payload)
    found = attributes(payload, IFADDRMSG.size)
    address = address_of(found.get(IFA_LOCAL) or found.get(IFA_ADDRESS))
    if scope == RT_SCOPE_LINK or address is None:
        return None
    return LinkAddress(address, prefix_len, names.get(ifindex, ""))


class LinkLabel(NamedTuple):
    """What tells whose a device is."""

    name: str
    kind: str
    alias: str
    up: bool


def decode_label(payload: bytes) -> LinkLabel:
    found = attributes(payload, IFINFOMSG.size)
    kind = attributes(found.get(IFLA_LINKINFO, b""), 0).get(IFLA_INFO_KIND)
    up = bool(IFINFOMSG.unpack_from(payload)[3] & IFF_UP)
    return LinkLabel(text_of(found.get(IFLA_IFNAME)), text_of(kind), text_of(found.get(IFLA_IFALIAS)), up)


def text_of(value: bytes | None) -> str:
    return (value or b"").rstrip(b"\0").decode(errors="replace")


def integer(value: bytes | None) -> int:
    return int.from_bytes(value or b"", sys.byteorder)


# The same few thousand addresses come back with every dump of a pass.
@lru_cache(maxsize=65536)
def address_of(value: bytes | None) -> IPAddress | None:
    return ip_address(value) if value else None


@lru_cache(maxsize=16384)
def network_of(address: bytes, prefix_len: int) -> IPNetwork:
    return ip_network((address, prefix_len))


def forget_addresses() -> None:
    """Let go of what made a pass quick; the next one is minutes away."""
    address_of.cache_clear()
    network_of.cache_clear()
