"""Asks every peer over the overlay whether it is there, and answers those who ask us.

One socket for each family, bound to our overlay address: what does not come for that address never gets here, and what
does not come from a peer's overlay address is not answered. A plain socket, so no privilege is needed.
"""

import asyncio
import secrets
import socket
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from ipaddress import ip_address
from typing import Never

from controlloop.family import Family, IPAddress
from controlloop.logs import Log
from netagent.backends.backend import Node
from netagent.probing import wire
from netagent.probing.counters import checksum_errors
from netagent.probing.findings import PathFinding, findings
from netagent.probing.growth import Growth
from netagent.probing.paths import TICK_S, Paths, Question, Size
from netagent.roster import Roster
from subnet_alloc.model import Lease

log = Log("netagent")

DATAGRAMS_PER_TICK = 500
"""What others may make us look at; the rest of a flood is left in the socket until the kernel drops it."""

COUNTERS_EVERY = 10
"""Ticks."""

UDP_HEADERS = {Family.V4: 28, Family.V6: 48}

# linux/in.h and linux/in6.h; Python names none of them. PROBE sets "don't fragment" and asks the wire, not the kernel's
# memory of what once fitted.
PROBE_PATH_MTU = {Family.V4: (socket.IPPROTO_IP, 10, 3), Family.V6: (socket.IPPROTO_IPV6, 23, 3)}


class Prober:
    def __init__(self, look: Callable[[], Roster | None]) -> None:
        """`look` gives what the agent sees now, None before its first lease."""
        self._look = look
        self._paths = Paths("")
        self._seen: tuple[str, int, Node] | None = None
        self._leases: dict[str, Lease] = {}
        self._targets: dict[str, tuple[Family, IPAddress]] = {}
        self._names: dict[IPAddress, str] = {}
        self._sockets: dict[Family, tuple[IPAddress, socket.socket]] = {}
        self._growth = Growth()
        self._ticks = 0
        self._heard = 0
        self._packet_bytes = 0

    @property
    def paths(self) -> Paths:
        return self._paths

    def findings(self) -> list[PathFinding]:
        return list(findings(self._paths.all, self._growth, self._packet_bytes, time.time() - time.monotonic()))

    async def run(self) -> Never:
        try:
            while True:
                if roster := self._look():
                    self._tick(roster)
                await asyncio.sleep(TICK_S)
        finally:
            for family in tuple(self._sockets):
                self._close(family)

    def _tick(self, roster: Roster) -> None:
        self._follow(roster)
        self._listen(roster.own_addresses)
        now = time.monotonic()
        if self._ticks % COUNTERS_EVERY == 0:
            self._growth.note(now, checksum_errors())
        self._ticks += 1
        if self._heard >= DATAGRAMS_PER_TICK:
            self._hear_again()
        self._heard = 0
        self._paths.expire(now)
        for question in self._paths.due():
            self._ask(question)

    # Whom to ask

    def _follow(self, roster: Roster) -> None:
        seen = (roster.own, roster.overlay.version, roster.node)
        if seen == self._seen:
            return
        if self._seen is None or self._seen[0] != roster.own:
            self._paths = Paths(roster.own)
            self._leases, self._targets, self._names = {}, {}, {}
        self._seen = seen
        self._packet_bytes = roster.node.backend.pod_mtu(roster.node)
        known = roster.snapshot.leases
        leases = {name: known[name] for name in roster.peers() if name in known}
        # Of 5,000 leases one is another; those that are the same object cost next to nothing.
        changed = [name for name, lease in leases.items() if self._leases.get(name) is not lease]
        for name in (*changed, *(self._leases.keys() - leases.keys())):
            if old := self._targets.pop(name, None):
                self._names.pop(old[1], None)
        for name in changed:
            self._take(name, leases[name], roster.own_addresses)
        self._leases = leases
        self._paths.follow(self._targets.keys())

    def _take(self, name: str, lease: Lease, own: Collection[Family]) -> None:
        """Peers are asked over the first family that we share."""
        if family := next((each for each in own if each in lease.subnets), None):
            address = lease.subnets[family].network_address
            self._targets[name] = family, address
            self._names[address] = name

    # The sockets

    def _listen(self, addresses: dict[Family, IPAddress]) -> None:
        for family in Family:
            have, wanted = self._sockets.get(family), addresses.get(family)
            if have and have[0] != wanted:
                self._close(family)
            if wanted and family not in self._sockets:
                # The device may be on its way; the next tick tries again.
                with suppress(OSError):
                    self._open(family, wanted)

    def _open(self, family: Family, address: IPAddress) -> None:
        made = socket.socket(family.af, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            made.setsockopt(*PROBE_PATH_MTU[family])
            made.bind((str(address), wire.PORT))
        except BaseException:
            made.close()
            raise
        self._sockets[family] = address, made
        asyncio.get_running_loop().add_reader(made, self._readable, made)

    def _close(self, family: Family) -> None:
        _, old = self._sockets.pop(family)
        asyncio.get_running_loop().remove_reader(old)
        old.close()

    def _hear_again(self) -> None:
        for _, each in self._sockets.values():
            asyncio.get_running_loop().add_reader(each, self._readable, each)

    # Questions and answers

    def _ask(self, question: Question) -> None:
        family, address = self._targets[question.peer]
        nonce = secrets.randbits(64)
        size = wire.LAYOUT.size if question.size is Size.SMALL else self._packet_bytes - UDP_HEADERS[family]
        self._paths.asked(nonce, question, time.monotonic())
        if family in self._sockets:
            self._send(self._sockets[family][1], wire.Probe(wire.Kind.QUESTION, nonce, size), str(address))

    def _send(self, by: socket.socket, probe: wire.Probe, address: str) -> None:
        # What cannot be sent is not answered either, and that is what gets told.
        with suppress(OSError):
            by.sendto(wire.render(probe), (address, wire.PORT))

    def _readable(self, by: socket.socket) -> None:
        self._heard += 1
        if self._heard >= DATAGRAMS_PER_TICK:
            asyncio.get_running_loop().remove_reader(by)
        try:
            datagram, sender = by.recvfrom(65_535)
        except OSError:
            return
        probe = wire.parse(datagram)
        name = self._names.get(ip_address(sender[0]))
        if probe is None or name is None or sender[1] != wire.PORT:
            return
        if probe.kind is wire.Kind.QUESTION:
            self._send(by, probe.answer(), sender[0])
        else:
            self._paths.answered(probe.nonce, name, time.monotonic())
