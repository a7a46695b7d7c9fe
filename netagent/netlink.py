"""A plain rtnetlink socket that sends thousands of changes at once and says which of them the kernel refused.

Each sending costs a system call, not each message. Only the last message of a sending asks for an acknowledgement: the
kernel works through them in order, so whatever failed has been reported by then (netlink(7)).
"""

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

from netagent.diff import Operation
from netagent.messages import (
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    NLMSG_ERROR,
    Dump,
    Message,
    encode,
    error_of,
    message,
    messages,
)

# linux/netlink.h and asm-generic/socket.h; Python's socket module does not name them.
SOL_NETLINK = 270
NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 10, 11, 12
SO_RCVBUFFORCE = 33

SIOCGIFINDEX = 0x8933  # linux/sockios.h
IFREQ = struct.Struct("=16si20x")  # netdevice(7): name, index

RECEIVE_BUFFER = 4 * 1024 * 1024
BATCH = 1000  # with 100 bytes each, half of what a socket's default send buffer takes
BYTES_PER_REPLY = 2048  # what a queued error costs, with the kernel's bookkeeping and room to spare
DATAGRAM = 64 * 1024  # the kernel fills at most 32 KiB of a dump at a time
TIMEOUT_S = 10.0
DUMP_TRIES = 5


class Refusal(OSError):  # noqa: N818 - not raised: one of many answers to one sending
    """Why the kernel did not make one change."""


class Channel:
    def __init__(self) -> None:
        """Belongs to the network namespace of the thread that opens it. Needs CAP_NET_ADMIN for changes."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.settimeout(TIMEOUT_S)
        self._socket.bind((0, 0))
        self.port: int = self._socket.getsockname()[0]
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)
        self._sequence = 0
        self.batch = min(BATCH, max(1, self._grow_receive_buffer() // BYTES_PER_REPLY))

    def _grow_receive_buffer(self) -> int:
        with suppress(PermissionError):
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def close(self) -> None:
        self._socket.close()

    def change(self, operations: Iterator[tuple[Operation, int]]) -> list[tuple[Operation, Refusal]]:
        """Make changes, each with the index of its device, in order; gives back those that the kernel refused."""
        refused: list[tuple[Operation, Refusal]] = []
        while batch := list(islice(operations, self.batch)):
            refused += self._change(batch)
        return refused

    def _change(self, batch: list[tuple[Operation, int]]) -> Iterator[tuple[Operation, Refusal]]:
        first = self._sequence + 1
        self._sequence += len(batch)
        self._socket.send(
            b"".join(
                encode(operation, ifindex, first + place, acknowledge=place == len(batch) - 1)
                for place, (operation, ifindex) in enumerate(batch)
            )
        )
        for reply in self._replies(first, until=self._sequence):
            number, text = error_of(reply)
            if number:
                yield batch[reply.sequence - first][0], Refusal(number, text or os.strerror(number))

    def _replies(self, first: int, until: int) -> Iterator[Message]:
        """Answers to our messages from number `first`, up to the one to `until`; older ones are leftovers."""
        while True:
            for reply in messages(self._socket.recv(DATAGRAM)):
                if reply.kind == NLMSG_ERROR and reply.sequence >= first:
                    yield reply
                    if reply.sequence == until:
                        return

    def index_of(self, device: str) -> int:
        """0 when there is no such device. One system call, where socket.if_nametoindex opens a socket for it."""
        try:
            answer = fcntl.ioctl(self._socket, SIOCGIFINDEX, IFREQ.pack(device.encode(), 0))
        except OSError:
            return 0
        return int(IFREQ.unpack(answer)[1])

    def ask(self, kind: int, payload: bytes) -> bytes:
        """One object; OSError when there is none."""
        self._sequence += 1
        self._socket.send(message(kind, 0, self._sequence, payload))
        while True:
            for reply in messages(self._socket.recv(DATAGRAM)):
                if reply.sequence != self._sequence:
                    continue
                if reply.kind == NLMSG_ERROR:
                    raise_error(reply)
                return reply.payload

    def dump(self, request: Dump) -> list[bytes]:
        """All objects of a kind. Asks again when the kernel says that they changed meanwhile."""
        for _ in range(DUMP_TRIES):
            found, interrupted = self._dump(request)
            if not interrupted:
                return found
        raise InterruptedError(f"the kernel's tables changed during each of {DUMP_TRIES} dumps")

    def _dump(self, request: Dump) -> tuple[list[bytes], bool]:
        self._sequence += 1
        self._socket.send(message(request.kind, NLM_F_DUMP, self._sequence, request.payload))
        found: list[bytes] = []
        interrupted = False
        while True:
            for reply in messages(self._socket.recv(DATAGRAM)):
                if reply.sequence != self._sequence:
                    continue
                interrupted |= bool(reply.flags & NLM_F_DUMP_INTR)
                if reply.kind in {NLMSG_DONE, NLMSG_ERROR}:
                    raise_error(reply)
                    return found, interrupted
                found.append(reply.payload)


def raise_error(reply: Message) -> None:
    number, text = error_of(reply)
    if number:
        raise OSError(number, text or os.strerror(number))
