"""The headers of one packet, as the kernel hands them to whoever traces. Pure."""

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from controlloop.family import IPAddress
from netctl.explain.walk import Place

PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp", 1: "icmp", 58: "icmpv6"}
WITH_PORTS = ("tcp", "udp", "sctp")
IPV4 = struct.Struct(">BxHHxxBB2x4s4s")
IPV6 = struct.Struct(">IHBB16s16s")
PORTS = struct.Struct(">HH")


class Ends(NamedTuple):
    """From where to where."""

    source: Place
    """Port 0 where the protocol has none."""
    to: Place
    protocol: str
    """`tcp`, `udp`...; a number for what has no name here."""


class Headers(NamedTuple):
    ends: Ends
    mark: bytes
    """What no translation changes: with it one packet is known again among others of its flow."""
    length: int
    """Of the whole packet, in bytes."""
    hops_left: int
    """Time to live, or hop limit."""
    raw: bytes
    """From the network header on, as far as it was handed over."""


def headers(network: bytes, transport: bytes = b"") -> Headers | None:
    """None for what is no whole IP header. Without `transport` it follows in `network`."""
    version = network[0] >> 4 if network else 0
    try:
        if version == 4:
            return _ipv4(network, transport)
        return _ipv6(network, transport) if version == 6 else None
    except struct.error:
        return None


def _ipv4(network: bytes, transport: bytes) -> Headers:
    first, length, number, hops_left, protocol, source, to = IPV4.unpack_from(network)
    size = (first & 15) * 4
    rest = transport or network[size:]
    ends = _ends(IPv4Address(source), IPv4Address(to), protocol, rest)
    mark = struct.pack(">HB", number, protocol) + _kept(protocol, rest)
    return Headers(ends, mark, length, hops_left, network[:size] + rest)


def _ipv6(network: bytes, transport: bytes) -> Headers:
    first, length, protocol, hops_left, source, to = IPV6.unpack_from(network)
    rest = transport or network[IPV6.size :]
    ends = _ends(IPv6Address(source), IPv6Address(to), protocol, rest)
    mark = struct.pack(">IB", first & 0xFFFFF, protocol) + _kept(protocol, rest)
    return Headers(ends, mark, IPV6.size + length, hops_left, network[: IPV6.size] + rest)


def _ends(source: IPAddress, to: IPAddress, number: int, transport: bytes) -> Ends:
    protocol = PROTOCOLS.get(number, str(number))
    ports = PORTS.unpack_from(transport) if protocol in WITH_PORTS and len(transport) >= PORTS.size else (0, 0)
    return Ends(Place(source, ports[0]), Place(to, ports[1]), protocol)


def _kept(protocol: int, transport: bytes) -> bytes:
    """Of TCP the sequence numbers, of SCTP the tag, of UDP the length: checksums and ports change on the way."""
    return transport[4:12] if protocol == 6 else transport[4:8] if protocol == 132 else transport[4:6]
