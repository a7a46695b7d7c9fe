"""Reads and deletes flows in the network namespace of this process. The only file here with effects."""

import errno
import socket
from collections.abc import Iterable, Iterator

from controlloop.family import Family
from proxy.conntrack.messages import (
    NLMSG_DONE,
    NLMSG_ERROR,
    Flow,
    deletion,
    error_code,
    flow,
    listing,
    messages,
)
from proxy.frontends import Protocol

NETLINK_NETFILTER = 12
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
DATAGRAM = 64 * 1024
TIMEOUT_S = 10.0
AT_ONCE = 200
"""Deletions in one send; their answers fit into the socket."""


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    made.settimeout(TIMEOUT_S)
    return made


def flows(family: Family, protocol: Protocol | None = None) -> Iterator[Flow]:
    """All flows of a family, or those of one protocol; one listing, however many they are. Blocks.

    A table changes while it is read: a flow that comes or goes meanwhile may be missed.
    """
    with _socket() as talk:
        talk.send(listing(family, protocol, 1))
        while True:
            datagram = talk.recv(DATAGRAM)
            for kind, _, at, end in messages(datagram):
                if kind == NLMSG_DONE:
                    return
                if kind == NLMSG_ERROR:
                    code = error_code(datagram, at)
                    raise OSError(code, f"conntrack listing: {errno.errorcode.get(code, code)}")
                found = flow(family, datagram, at, end)
                if found and (protocol is None or found.protocol == protocol.number):
                    yield found


def delete(family: Family, doomed: Iterable[Flow]) -> int:
    """Forget these flows; gives back how many were still there. Blocks."""
    todo = list(doomed)
    deleted = 0
    with _socket() as talk:
        for start in range(0, len(todo), AT_ONCE):
            some = todo[start : start + AT_ONCE]
            talk.send(b"".join(deletion(family, one, number) for number, one in enumerate(some)))
            deleted += _acknowledged(talk, len(some))
    return deleted


def _acknowledged(talk: socket.socket, count: int) -> int:
    """How many of `count` deletions succeeded. A flow that ended by itself meanwhile is none of them."""
    answers = succeeded = 0
    while answers < count:
        datagram = talk.recv(DATAGRAM)
        for kind, _, at, _ in messages(datagram):
            if kind != NLMSG_ERROR:
                continue
            answers += 1
            code = error_code(datagram, at)
            if code not in (0, errno.ENOENT):
                raise OSError(code, f"conntrack deletion: {errno.errorcode.get(code, code)}")
            succeeded += code == 0
    return succeeded
