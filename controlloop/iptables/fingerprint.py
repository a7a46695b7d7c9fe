"""Whether the tables of iptables-legacy may have changed, without reading them: nobody is told when they do.

The kernel keeps a table as one block and says how large it is, of how many rules, and where each builtin chain begins
and ends in it (linux/netfilter_ipv4/ip_tables.h). A rule or chain that comes or goes moves these; a rule that takes
the place of another of the same size does not, and is left to the look at everything. Reading costs microseconds,
whatever the size of the table; needs CAP_NET_ADMIN.
"""

import ctypes
import errno
import os
import socket
from collections.abc import Sequence

from controlloop.family import Family

GET_INFO = 64  # IPT_SO_GET_INFO and IP6T_SO_GET_INFO
LEVEL = {Family.V4: socket.IPPROTO_IP, Family.V6: socket.IPPROTO_IPV6}
NAME_BYTES = 32
INFO_BYTES = NAME_BYTES + 13 * 4
"""struct ipt_getinfo: name, valid hooks, five beginnings, five ends, number of rules, size."""

# Python's own getsockopt() has no way to say which table is asked for.
_libc = ctypes.CDLL(None, use_errno=True)


class Fingerprint:
    """Of some tables of one family, in the network namespace of the thread that makes this."""

    def __init__(self, family: Family, tables: Sequence[str]) -> None:
        self._level = LEVEL[family]
        self._tables = tables
        self._socket = socket.socket(family.af, socket.SOCK_DGRAM)

    def read(self) -> tuple[bytes, ...]:
        """Equal values: nothing came or went. A table that is not there counts as empty."""
        return tuple(self._info(table) for table in self._tables)

    def close(self) -> None:
        self._socket.close()

    def _info(self, table: str) -> bytes:
        info = ctypes.create_string_buffer(table.encode(), INFO_BYTES)
        size = ctypes.c_uint32(INFO_BYTES)
        if not _libc.getsockopt(self._socket.fileno(), self._level, GET_INFO, info, ctypes.byref(size)):
            return info.raw
        if ctypes.get_errno() == errno.ENOENT:
            return b""
        raise OSError(ctypes.get_errno(), f"table {table}: {os.strerror(ctypes.get_errno())}")
