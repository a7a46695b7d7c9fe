"""The words of rtnetlink for addresses: a request for all, and those in an answer (rtnetlink(7)). Pure."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from controlloop.family import IPAddress

HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port id
IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
ATTRIBUTE = struct.Struct("=HH")  # length, type
ERRNO = struct.Struct("=i")

NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWADDR, RTM_GETADDR = 20, 22
NLM_F_REQUEST, NLM_F_DUMP, NLM_F_DUMP_INTR = 0x1, 0x300, 0x10
IFA_ADDRESS, IFA_LOCAL = 1, 2
AF_UNSPEC = 0

LISTING = HEADER.pack(HEADER.size + IFADDRMSG.size, RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, 1, 0) + IFADDRMSG.pack(
    AF_UNSPEC, 0, 0, 0, 0
)
"""Asks for the addresses of all interfaces and both families."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one datagram of an answer says."""

    addresses: frozenset[IPAddress]
    is_last: bool = False
    is_torn: bool = False
    """Addresses changed while they were listed: some may be missing."""


def read_part(datagram: bytes) -> Part:
    """OSError when the kernel refuses."""
    found: set[IPAddress] = set()
    last = torn = False
    at = 0
    while at + HEADER.size <= len(datagram):
        length, kind, flags, _, _ = HEADER.unpack_from(datagram, at)
        body = datagram[at + HEADER.size : at + length]
        torn = torn or bool(flags & NLM_F_DUMP_INTR)
        last = last or kind == NLMSG_DONE
        if kind == NLMSG_ERROR and (code := -ERRNO.unpack_from(body)[0]):
            raise OSError(code, "address listing")
        if kind == RTM_NEWADDR:
            attributes = dict(_attributes(body[IFADDRMSG.size :]))
            # On a point-to-point link IFA_ADDRESS is the other end.
            packed = attributes.get(IFA_LOCAL, attributes.get(IFA_ADDRESS, b""))
            found.add(ip_address(packed))
        at += _aligned(max(length, HEADER.size))
    return Part(frozenset(found), last, torn)


def _attributes(body: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + ATTRIBUTE.size <= len(body):
        length, kind = ATTRIBUTE.unpack_from(body, at)
        yield kind, body[at + ATTRIBUTE.size : at + length]
        at += _aligned(max(length, ATTRIBUTE.size))


def _aligned(length: int) -> int:
    return (length + 3) & ~3
