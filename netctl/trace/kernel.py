"""The table that picks packets, and the sockets on which the kernel tells of them. Only here are rules changed.

The flag `owner`, with which the kernel would take the table away itself, is not used: beside such a table nft 1.0.6
prints broken JSON (docs/adr/0023).
"""

import errno
import socket
import struct
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

from controlloop.command import clean_environment, find
from netctl.explain.walk import TRACE_TABLES
from netctl.trace.log_messages import LogEvent, binding, log_events
from netctl.trace.trace_messages import GROUP, TraceEvent, trace_events
from netctl.trace.undo import Undo

NETLINK_NETFILTER = 12
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
BUFFER_BYTES = 16 * 1024 * 1024
DATAGRAM = 64 * 1024
TIMEOUT_S = 5.0
NOT_PERMITTED = "Operation not permitted"
PORTION = 1000
"""Datagrams in one turn."""

NF_LOG = Path("/proc/sys/net/netfilter/nf_log")
OVER_NETLINK = "nfnetlink_log"
AFS = {"ip": "2", "ip6": "10"}
Event = TypeVar("Event", TraceEvent, LogEvent)


class TraceError(Exception):
    """It cannot be done here; one line that says why."""


def netfilter_socket(groups: int = 0) -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    made.settimeout(TIMEOUT_S)
    made.bind((0, groups))
    return made


def listening(made: socket.socket) -> None:
    """With room for bursts, and never waiting."""
    made.setblocking(False)
    with suppress(PermissionError):
        made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)


def make_table(name: str, text: str, undo: Undo) -> None:
    """In force until `undo` takes it away. PermissionError without CAP_NET_ADMIN, TraceError when nft refuses."""
    nft = find("nft")
    # For `list tables` nft 1.0.6 reads the elements of all sets, which takes a second on a large node.
    for left in left_behind(_run([nft, "--terse", "list", "chains", "inet"])):
        with suppress(TraceError):  # another run was quicker
            _run([nft, "delete", "table", "inet", left])
    undo.run([nft, "delete", "table", "inet", name])
    _run([nft, "-f", "-"], text)


def left_behind(listing: str) -> Iterator[str]:
    """Tables of runs that are over: whoever killed the run killed its child, too."""
    for line in listing.splitlines():
        name = line.removeprefix("table inet ").removesuffix(" {")
        if name.startswith(TRACE_TABLES) and not Path("/proc", name.removeprefix(TRACE_TABLES)).exists():
            yield name


def _run(argv: list[str], text: str = "") -> str:
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False, env=clean_environment())
    if NOT_PERMITTED in done.stderr:
        raise PermissionError(errno.EPERM, NOT_PERMITTED)
    if done.returncode:
        raise TraceError(f"nft refuses the trace table: {done.stderr.strip().partition(chr(10))[0]}")
    return done.stdout


class EventSocket(ABC, Generic[Event]):
    """A netctl.trace.hearing.Source."""

    def __init__(self, groups: int = 0) -> None:
        self._socket = netfilter_socket(groups)
        self.overflows = 0
        self.is_drained = False

    @abstractmethod
    def _events(self, datagram: bytes) -> Iterator[Event]: ...

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> Iterator[Event]:
        for datagram in self._datagrams():
            yield from self._events(datagram)

    def _datagrams(self) -> Iterator[bytes]:
        self.is_drained = False
        for _ in range(PORTION):
            try:
                yield self._socket.recv(DATAGRAM)
            except BlockingIOError:
                self.is_drained = True
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.overflows += 1

    def close(self) -> None:
        self._socket.close()


class TraceSocket(EventSocket[TraceEvent]):
    """Hears of every traced packet in this network namespace."""

    def __init__(self) -> None:
        super().__init__(1 << GROUP - 1)
        listening(self._socket)

    def _events(self, datagram: bytes) -> Iterator[TraceEvent]:
        return trace_events(datagram)


class LegacyLog(EventSocket[LogEvent]):
    """Hears which rules of iptables-legacy a traced packet met.

    Their tables log each traced packet, by default into the kernel's log. Here it is switched to netlink, for this
    network namespace, and switched back at the end. OSError when that cannot be done.
    """

    def __init__(self, undo: Undo) -> None:
        super().__init__()
        try:
            for request in binding():
                self._ask(request)
            for family in legacy_families():
                switch(AFS[family], undo)
        except OSError:
            self.close()
            raise
        listening(self._socket)

    def _ask(self, request: bytes) -> None:
        self._socket.send(request)
        (code,) = struct.unpack_from("=i", self._socket.recv(DATAGRAM), 16)
        if code:
            text = "another program hears it" if -code in (errno.EBUSY, errno.EEXIST) else errno.errorcode.get(-code)
            raise OSError(-code, text)

    def _events(self, datagram: bytes) -> Iterator[LogEvent]:
        return log_events(datagram)


def switch(af: str, undo: Undo) -> None:
    """Log over netlink what is traced in this family."""
    setting = NF_LOG / af
    before = setting.read_text().strip()
    if before != OVER_NETLINK:
        undo.write_back(str(setting), before)
        setting.write_text(OVER_NETLINK)


def legacy_families() -> list[str]:
    """Those of which iptables-legacy has tables here."""
    return [family for family in AFS if legacy_tables(family)]


def legacy_tables(family: str) -> list[str]:
    try:
        return Path(f"/proc/thread-self/net/{family}_tables_names").read_text().split()
    except OSError:
        return []
