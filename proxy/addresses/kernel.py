"""Reads this node's addresses, and hears when they change."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address

from controlloop.family import Family, IPAddress
from proxy.addresses.messages import LISTING, Part, read_part

GROUPS = (1 << 5 - 1) | (1 << 9 - 1)
"""RTNLGRP_IPV4_IFADDR and RTNLGRP_IPV6_IFADDR (linux/rtnetlink.h)."""
DATAGRAM = 64 * 1024
TIMEOUT_S = 5.0
TRIES = 5

# Documentation addresses (RFC 5737, RFC 3849) stand for any far-away one; nothing is sent to them.
FAR_AWAY = {Family.V4: "192.0.2.1", Family.V6: "2001:db8::1"}
DISCARD_PORT = 9


def local_addresses() -> frozenset[IPAddress]:
    """The addresses of all interfaces. OSError."""
    for _ in range(TRIES):
        with _netlink(0) as talk:
            talk.settimeout(TIMEOUT_S)
            talk.send(LISTING)
            parts = list(_parts(talk))
        if not any(part.is_torn for part in parts):
            break
    return frozenset().union(*(part.addresses for part in parts))


def outgoing_addresses() -> tuple[IPAddress, ...]:
    """From which address of each family this node calls the world: that of its default route, where it has one."""
    found = []
    for family in Family:
        with suppress(OSError), socket.socket(family.af, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            probe.connect((FAR_AWAY[family], DISCARD_PORT))
            found.append(ip_address(probe.getsockname()[0]))
    return tuple(found)


class AddressEvents:
    """Use it inside one event loop and `close` it there."""

    def __init__(self) -> None:
        """Hear from now on, in the network namespace of this process."""
        self._socket = _netlink(GROUPS)
        self._socket.setblocking(False)
        self._happened = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    async def wait(self, within_s: float) -> None:
        """Return when an address came or went, or after `within_s`. What happens between two calls counts."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._happened.wait()
        self._happened.clear()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        """What it was does not matter, nor that some was lost (ENOBUFS): all addresses will be read."""
        with suppress(OSError):
            self._socket.recv(DATAGRAM)
        self._happened.set()


def _netlink(groups: int) -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    made.bind((0, groups))
    return made


def _parts(talk: socket.socket) -> Iterator[Part]:
    while True:
        part = read_part(talk.recv(DATAGRAM))
        yield part
        if part.is_last:
            return
