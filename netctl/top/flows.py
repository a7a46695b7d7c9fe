"""Hears of connections from conntrack, and asks it for bytes, in the network namespace of this process.

New connections are the kernel's own notifications: none is missed between two looks, and a node without connections
costs nothing. What comes faster than we read is dropped by the kernel, which says so (ENOBUFS): that is counted and
shown. Bytes are only known while `net.netfilter.nf_conntrack_acct` is on; nothing here switches it.
"""

import errno
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from controlloop.family import Family
from netctl.top.messages import BEGUN, Seen, Way, listing, seen
from proxy.conntrack.messages import NLMSG_DONE, NLMSG_ERROR, error_code, messages

NETLINK_NETFILTER = 12
NEW, DESTROY = 1 << 0, 1 << 2  # NFNLGRP_CONNTRACK_NEW and _DESTROY as bits of an address
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
RECEIVE_BUFFER = 16 * 1024 * 1024
DATAGRAM = 64 * 1024
TIMEOUT_S = 10.0
ACCOUNTING = Path("/proc/sys/net/netfilter/nf_conntrack_acct")
SHARE = 25
"""Of a processor's time, one part in so many may go into listings: with many flows they become rare."""


def counts_bytes() -> bool:
    try:
        return ACCOUNTING.read_text().strip() == "1"
    except OSError:
        return False


class Flows:
    def __init__(self, receive_buffer: int = RECEIVE_BUFFER) -> None:
        """Hear from now on. PermissionError without CAP_NET_ADMIN."""
        self.overflows = 0
        """How often the kernel dropped notifications: what is counted is then less than what was."""
        self.with_bytes = counts_bytes()
        self._connections: Counter[Way] = Counter()
        self._bytes: Counter[Way] = Counter()
        self._known: dict[int, int] = {}
        """Bytes of each flow that lives, as last seen."""
        self._listing_due = self._listed_at = 0.0
        self._socket = heard_socket(NEW | DESTROY if self.with_bytes else NEW, receive_buffer)
        if self.with_bytes:
            self._list_flows()
            self._bytes.clear()  # what was before we came

    def fileno(self) -> int:
        """To be waited for, together with `read`."""
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> None:
        """Take what the kernel has said so far."""
        while True:
            try:
                datagram = self._socket.recv(DATAGRAM)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.overflows += 1
                continue
            for each in seen(datagram):
                if each.kind == BEGUN:
                    self._connections[each.way] += 1
                elif each.size is not None:
                    self._grown(each.way, each.size - self._known.pop(each.id, 0))

    def take_connections(self) -> Counter[Way]:
        """Those since the last time."""
        self.read()
        taken, self._connections = self._connections, Counter()
        return taken

    def take_bytes(self, *, now: bool = False) -> tuple[Counter[Way], float] | None:
        """Those since the last time, and the seconds since then; None while it is too early for another listing."""
        if not self.with_bytes or not (now or time.monotonic() >= self._listing_due):
            return None
        before = self._listed_at
        self._list_flows()
        taken, self._bytes = self._bytes, Counter()
        return taken, self._listed_at - before

    def _grown(self, way: Way, by: int) -> None:
        if by > 0:
            self._bytes[way] += by

    def _list_flows(self) -> None:
        began, self._listed_at = time.process_time(), time.monotonic()
        known: dict[int, int] = {}
        for family in Family:
            for each in listed(family):
                if each.size is not None:
                    known[each.id] = each.size
                    self._grown(each.way, each.size - self._known.get(each.id, 0))
        self._known = known
        self._listing_due = time.monotonic() + SHARE * (time.process_time() - began)


def heard_socket(groups: int, receive_buffer: int) -> socket.socket:
    made = netlink()
    try:
        with suppress(PermissionError):
            made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, receive_buffer)
        made.bind((0, groups))
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


def netlink() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)


def listed(family: Family) -> Iterator[Seen]:
    """All translated flows of a family."""
    with netlink() as talk:
        talk.settimeout(TIMEOUT_S)
        talk.send(listing(family))
        while True:
            datagram = talk.recv(DATAGRAM)
            yield from seen(datagram)
            for kind, _, at, _ in messages(datagram):
                if kind == NLMSG_DONE:
                    return
                if kind == NLMSG_ERROR:
                    code = error_code(datagram, at)
                    raise OSError(code, os.strerror(code))
