"""Hears from the kernel when the nftables ruleset changes, whoever changes it. Read in small portions."""

import asyncio
import errno
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Container
from contextlib import suppress

from controlloop.nft.notifications import Change, changes

NETLINK_NETFILTER = 12
MEMBERSHIP = 1 << 6  # NFNLGRP_NFTABLES (linux/netfilter/nfnetlink.h) is 7
SO_RCVBUFFORCE = 33  # asm-generic/socket.h; Python does not name it
DATAGRAM = 64 * 1024
PORTION = 100
"""Datagrams read in one turn of the loop."""


class NftablesSocket(ABC):
    """Reads what the kernel says in the network namespace of the thread that made it. Needs CAP_NET_ADMIN."""

    def __init__(self, buffer_bytes: int = 0) -> None:
        """Hear from now on. `buffer_bytes`: how much the kernel keeps for us; 0: its default, about 200 kB."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._socket.setblocking(False)
        if buffer_bytes:
            # Refused to a container's CAP_NET_ADMIN: then more is lost, and looked for.
            with suppress(PermissionError):
                self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, buffer_bytes)
        self._socket.bind((0, MEMBERSHIP))

    def start(self, heard: Callable[[], None]) -> None:
        """Call `heard` whenever something was said."""
        asyncio.get_running_loop().add_reader(self._socket, self._read, heard)

    def close(self) -> None:
        with suppress(RuntimeError):  # without a loop nobody reads
            asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def drain(self) -> None:
        """Take in what was said up to now, and not what is being said meanwhile without end."""
        for _ in range(PORTION):
            try:
                datagram = self._socket.recv(DATAGRAM)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # netlink(7): messages were lost
                    raise
                self._lost()
                continue
            self._take(datagram)

    @abstractmethod
    def _take(self, datagram: bytes) -> None: ...

    @abstractmethod
    def _lost(self) -> None:
        """The kernel dropped messages: we were too slow."""

    def _read(self, heard: Callable[[], None]) -> None:
        self.drain()
        heard()


class RulesetMonitor(NftablesSocket):
    """Keeps nothing of what it hears but that there was something, and by whom."""

    def __init__(self, concerns: Callable[[Change], bool], own_ports: Container[int]) -> None:
        """Hear of changes that `concerns` us and that our own writers, known by their netlink ports, did not make."""
        super().__init__()
        self._concerns = concerns
        self._own_ports = own_ports
        self.touched = False
        """Something of concern was changed, or we were too slow to hear whether."""
        self.writer = ""
        """The program that made the last change of concern, when the kernel says so."""
        self.overflows = 0
        """How often messages were lost."""
        self._concerned = False

    def _take(self, datagram: bytes) -> None:
        for change in changes(datagram, self._own_ports):
            if change.table:
                self._concerned |= self._concerns(change)
                self.touched |= self._concerned
            elif self._concerned:
                self.writer, self._concerned = change.by, False

    def _lost(self) -> None:
        self.overflows += 1
        self.touched = True
