"""The table that picks packets, and the sockets on which the kernel tells of them. Only here are rules changed.

All of it lasts as long as its socket: whatever ends this process takes the table away.
"""

import ctypes
import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from netctl.trace.log_messages import LogEvent, binding, log_events
from netctl.trace.trace_messages import GROUP, TraceEvent, trace_events
from netctl.trace.undo import Undo

NETLINK_NETFILTER = 12
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
BUFFER_BYTES = 16 * 1024 * 1024
DATAGRAM = 64 * 1024
TIMEOUT_S = 5.0
LIBRARY = "libnftables.so.1"
NOT_PERMITTED = "Operation not permitted"
PORTION = 1000
"""Datagrams in one turn."""

NF_LOG = Path("/proc/sys/net/netfilter/nf_log")
OVER_NETLINK = "nfnetlink_log"
AFS = {"ip": "2", "ip6": "10"}


class TraceError(Exception):
    """It cannot be done here; one line that says why."""


def netfilter_socket(groups: int = 0) -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    made.settimeout(TIMEOUT_S)
    made.bind((0, groups))
    return made


def listening(made: socket.socket) -> socket.socket:
    """With room for bursts, and never waiting."""
    made.setblocking(False)
    with suppress(PermissionError):
        made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    return made


class TraceTable:
    """In force until it is closed. PermissionError without CAP_NET_ADMIN, TraceError when nft refuses."""

    def __init__(self, text: str) -> None:
        """By the library of nft, not by its program: the table must belong to a socket of this process."""
        try:
            self._nft = ctypes.CDLL(LIBRARY)
        except OSError:
            raise TraceError(f"{LIBRARY} is not installed, which Debian's nftables brings") from None
        self._nft.nft_ctx_new.restype = ctypes.c_void_p
        self._nft.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        self._context = ctypes.c_void_p(self._nft.nft_ctx_new(0))
        self._nft.nft_ctx_buffer_error(self._context)
        if self._nft.nft_run_cmd_from_buffer(self._context, text.encode()):
            said = self._nft.nft_ctx_get_error_buffer(self._context).decode(errors="replace").strip()
            self.close()
            if NOT_PERMITTED in said:
                raise PermissionError(errno.EPERM, NOT_PERMITTED)
            raise TraceError(f"nft refuses the trace table: {said.partition(chr(10))[0]}")

    def close(self) -> None:
        self._nft.nft_ctx_free(self._context)


class TraceSocket:
    """Hears of every traced packet in this network namespace."""

    def __init__(self) -> None:
        self.socket = listening(netfilter_socket(1 << GROUP - 1))
        self.overflows = 0
        """How often the kernel dropped messages, because we were too slow."""

    def read(self) -> Iterator[TraceEvent]:
        for datagram in self._datagrams():
            yield from trace_events(datagram)

    def _datagrams(self) -> Iterator[bytes]:
        for _ in range(PORTION):
            try:
                yield self.socket.recv(DATAGRAM)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.overflows += 1

    def close(self) -> None:
        self.socket.close()


class LegacyLog(TraceSocket):
    """Hears which rules of iptables-legacy a traced packet met.

    Their tables log each traced packet, by default into the kernel's log. Here it is switched to netlink, for this
    network namespace, and switched back at the end. OSError when that cannot be done.
    """

    def __init__(self, undo: Undo) -> None:
        self.socket = netfilter_socket()
        self.overflows = 0
        try:
            for request in binding():
                self._ask(request)
            for family in legacy_families():
                switch(AFS[family], undo)
        except OSError:
            self.close()
            raise
        listening(self.socket)

    def _ask(self, request: bytes) -> None:
        self.socket.send(request)
        (code,) = struct.unpack_from("=i", self.socket.recv(DATAGRAM), 16)
        if code:
            text = "another program hears it" if -code in (errno.EBUSY, errno.EEXIST) else errno.errorcode.get(-code)
            raise OSError(-code, text)

    def logs(self) -> Iterator[LogEvent]:
        for datagram in self._datagrams():
            yield from log_events(datagram)


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
