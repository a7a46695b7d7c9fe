"""Hears from the kernel what changes: a socket in rtnetlink's multicast groups, read in small portions.

Nothing heard is kept; it is judged and forgotten. What comes faster than we read is dropped by the kernel, which says
so (ENOBUFS, netlink(7)): then one look at everything replaces all that was missed.
"""

import asyncio
import ctypes
import errno
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from netagent.drift import Drift, Judge
from netagent.finding import Finding
from netagent.messages import HEADER, messages

# linux/rtnetlink.h: links, neighbors and FDB, addresses, routes. A group is one bit of the socket's address.
GROUPS = {"link": 1, "neigh": 3, "ipv4-ifaddr": 5, "ipv4-route": 7, "ipv6-ifaddr": 9, "ipv6-route": 11}
MEMBERSHIP = sum(1 << (group - 1) for group in GROUPS.values())

SO_ATTACH_FILTER, SO_RCVBUFFORCE = 26, 33

RECEIVE_BUFFER = 4 * 1024 * 1024
DATAGRAM = 32 * 1024
PORTION = 100
"""Notifications read in one turn of the loop: a few milliseconds, between which others have theirs."""

OVERFLOW_PAUSE_S = 10.0
"""Between two looks at everything because of overflows: a storm that lasts must not keep us busy."""

OVERFLOW_TOLD_S = 60.0
"""For so long behind the last one."""

Heard = Callable[[Drift, int], None]
"""What drifted, and the netlink port of whoever did it; 0 when the kernel did."""


class Monitor:
    def __init__(self, *, ignore_port: int = 0, receive_buffer: int = RECEIVE_BUFFER) -> None:
        """Hear from now on, in the network namespace of the calling thread; all but the echo of one socket's changes.

        Changes before `start` are kept by the kernel until then.
        """
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.setblocking(False)
        with suppress(PermissionError):
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, receive_buffer)
        if ignore_port:
            ignore(self._socket, ignore_port)
        self._socket.bind((0, MEMBERSHIP))
        self.overflows = 0
        self._overflowed_at = -OVERFLOW_TOLD_S
        self._looked_at = -OVERFLOW_PAUSE_S
        self._later: asyncio.TimerHandle | None = None

    def start(self, judge: Judge, heard: Heard) -> None:
        self._judge, self._heard = judge, heard
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def findings(self) -> list[Finding]:
        """One while notifications come faster than we read."""
        if time.monotonic() - self._overflowed_at > OVERFLOW_TOLD_S:
            return []
        reason = f"overflowed, {self.overflows} times since the start: something changes links, routes or neighbors "
        reason += f"faster than they can be read; everything is looked at every {OVERFLOW_PAUSE_S:.0f} s instead"
        return [Finding("rtnetlink socket", reason, "NN109")]

    def drain(self) -> None:
        """Take what was said up to now, and not what is being said meanwhile without end."""
        for _ in range(PORTION):
            if not self._read():
                return

    def close(self) -> None:
        if self._later:
            self._later.cancel()
        with suppress(RuntimeError):  # without a loop nobody reads
            asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> bool:
        """One portion; False when there was not a whole one."""
        for _ in range(PORTION):
            try:
                datagram = self._socket.recv(DATAGRAM)
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._overflow()
                continue
            self._take(datagram)
        return True

    def _take(self, datagram: bytes) -> None:
        port: int = HEADER.unpack_from(datagram)[4]
        for message in messages(datagram):
            if drift := self._judge.judge(message):
                self._heard(drift, port)

    def _overflow(self) -> None:
        self.overflows += 1
        self._overflowed_at = time.monotonic()
        if self._later is None:
            due_s = self._looked_at + OVERFLOW_PAUSE_S - time.monotonic()
            self._later = asyncio.get_running_loop().call_later(max(0.0, due_s), self._look_at_everything)

    def _look_at_everything(self) -> None:
        self._later, self._looked_at = None, time.monotonic()
        self._heard(Drift(everything=True, underlay=True), 0)


# struct sock_filter (linux/filter.h): code, jump if true, jump if false, operand.
INSTRUCTION = struct.Struct("=HBBI")
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
PORT_OFFSET = 12  # nlmsg_pid in nlmsghdr


def ignore(listener: socket.socket, port: int) -> None:
    """Let the kernel drop what the socket of that port caused: thousands of echoes while we write thousands."""
    # The filter reads in network order what stands there in the host's.
    swapped = int.from_bytes(port.to_bytes(4, sys.byteorder), "big")
    program = b"".join(
        INSTRUCTION.pack(*line)
        for line in (
            (LOAD_WORD, 0, 0, PORT_OFFSET),
            (JUMP_IF_EQUAL, 0, 1, swapped),
            (RETURN, 0, 0, 0),
            (RETURN, 0, 0, 0xFFFFFFFF),
        )
    )
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HL", len(program) // INSTRUCTION.size, ctypes.addressof(buffer))
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, header)
