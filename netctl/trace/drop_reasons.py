"""Why the kernel dropped packets, as its tracepoint skb:kfree_skb says it.

The tracepoint is of the whole machine and names no packet, so what it says is a likely reason and no more. It is read
through a tracing instance of our own, in a tracefs that is mounted for nobody else where it is not mounted already.
"""

import ctypes
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from netctl.trace.undo import Undo

TRACEFS = Path("/sys/kernel/tracing")
FSOPEN, FSCONFIG, FSMOUNT = 430, 431, 432  # the same on every architecture (asm-generic/unistd.h)
CLOSE_ON_EXEC, CREATE = 1, 6
BUFFER_KB = "64"
IP_WITH_REASON = "reason > 2 && (protocol == 0x0800 || protocol == 0x86dd)"
"""2 is SKB_DROP_REASON_NOT_SPECIFIED."""
LINE = re.compile(rb" (?P<time>\d+\.\d+): kfree_skb: .* protocol=(?P<protocol>\d+) .*reason: (?P<reason>\w+)")
PORTION = 1 << 20
KEPT_S = 3.0

NOT_OF_ROUTING = ("NETFILTER_DROP", "NO_SOCKET", "QUEUE_", "SOCKET_", "TCP_", "UDP_", "UNIX_")
"""How reasons begin that tell of packets which rules dropped, or which came as far as a socket."""
BY_SOCKETS = frozenset({"NO_SOCKET", "SOCKET_FILTER", "SOCKET_RCVBUFF", "SOCKET_BACKLOG", "TCP_LISTEN_OVERFLOW",
                        "TCP_CSUM", "UDP_CSUM"})  # fmt: skip
"""What may befall a packet that came as far as a socket."""


class Drop(NamedTuple):
    at: float
    """Seconds of the monotonic clock."""
    version: int
    """4 or 6."""
    reason: str


def find_tracefs() -> str | None:
    """A path to it, good for this process and those that it forks later; None: this machine has none for us."""
    if (TRACEFS / "instances").is_dir():
        return str(TRACEFS)
    libc = ctypes.CDLL(None, use_errno=True)
    opened = libc.syscall(FSOPEN, b"tracefs", CLOSE_ON_EXEC)
    if opened < 0:
        return None
    try:
        if libc.syscall(FSCONFIG, opened, CREATE, None, None, 0) < 0:
            return None
        mounted = libc.syscall(FSMOUNT, opened, CLOSE_ON_EXEC, 0)
    finally:
        os.close(opened)
    return None if mounted < 0 else f"/proc/self/fd/{mounted}"


class DropReasons:
    """Hears from now on. OSError when there is no such tracepoint, or it names no reasons (before Linux 5.17)."""

    def __init__(self, tracefs: str, undo: Undo) -> None:
        folder = Path(tracefs) / "instances" / f"netctl-trace-{os.getpid()}"
        undo.remove(str(folder))
        folder.mkdir()
        event = folder / "events/skb/kfree_skb"
        (folder / "buffer_size_kb").write_text(BUFFER_KB)
        (folder / "trace_clock").write_text("mono")
        (event / "filter").write_text(IP_WITH_REASON)
        (event / "enable").write_text("1")
        self._pipe = os.open(folder / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._rest = b""
        self._drops: list[Drop] = []

    def read(self, now: float) -> None:
        """Take in what was said; what is older than a few seconds is forgotten."""
        with suppress(BlockingIOError):
            *lines, self._rest = (self._rest + os.read(self._pipe, PORTION)).split(b"\n")
            self._drops = [each for each in self._drops if each.at > now - KEPT_S]
            self._drops += read_drops(lines)

    def between(self, begin: float, end: float, version: int) -> Iterator[str]:
        """Reasons, each once."""
        found = (each.reason for each in self._drops if begin <= each.at <= end and each.version == version)
        yield from dict.fromkeys(found)

    def close(self) -> None:
        os.close(self._pipe)


def read_drops(lines: list[bytes]) -> Iterator[Drop]:
    for line in lines:
        if said := LINE.search(line):
            version = 6 if int(said["protocol"]) == 0x86DD else 4
            yield Drop(float(said["time"]), version, said["reason"].decode())
