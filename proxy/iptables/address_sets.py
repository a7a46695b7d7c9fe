"""Sets of client addresses in the kernel (ipset), over netlink: what affinity remembers.

linux/netfilter/ipset/ip_set.h. No `ipset` program is needed. CAP_NET_ADMIN is; a rule that names a set takes
CAP_NET_RAW as well, for that is how iptables asks for the set's number.
"""

import errno
import socket
import struct
from collections.abc import Collection, Iterator

from controlloop.family import Family, IPAddress
from controlloop.nft.notifications import HEADER, aligned, attributes, text

NETLINK_NETFILTER = 12
SUBSYSTEM = 6  # NFNL_SUBSYS_IPSET
CREATE, DESTROY, FLUSH, LIST, TEST, TYPE = 2, 3, 4, 7, 11, 13
REQUEST, ACK, DUMP = 1, 4, 0x300
ERROR, DONE = 2, 3
PROTOCOL, SET_NAME, TYPE_NAME, REVISION, FAMILY, FLAGS, DATA = range(1, 8)
TIMEOUT, CADT_FLAGS, HASH_SIZE, MAX_ELEMENTS = 6, 8, 18, 19
NESTED, BIG_ENDIAN = 0x8000, 0x4000
NAMES_ONLY = 1 << 1  # IPSET_FLAG_LIST_SETNAME
FORCE_ADD = 1 << 5  # IPSET_FLAG_WITH_FORCEADD: when full, a new address takes the place of another
BUSY = 4100  # IPSET_ERR_BUSY: a rule names the set
NOT_IN_IT = 4103  # IPSET_ERR_EXIST
ADDRESS = 1  # IPSET_ATTR_IP
OF_FAMILY = {Family.V4: 1, Family.V6: 2}  # IPSET_ATTR_IPADDR_IPV4 and _IPV6

KIND = "hash:ip"
KIND_REVISION = 3
"""The first that knows FORCE_ADD (Linux 3.14)."""
BUCKETS = 2048
"""16 kB. A set that packets fill never grows, and what comes to a full bucket, of 12 addresses, is lost."""
CAPACITY = 4 * BUCKETS
"""From here on a new address takes the place of another one of its bucket; hardly any is full before."""
DEFAULT_TIMEOUT_S = 10800
"""Only says that addresses have a timeout at all: each rule sets its own."""

DATAGRAM = 64 * 1024
GENERIC_HEADER = b"\0\0\0\0"


class AddressSets:
    """The sets of one family whose names begin with `prefix`, in the network namespace of the calling thread."""

    def __init__(self, family: Family, prefix: str) -> None:
        self._family = family
        self._prefix = prefix

    def check(self) -> None:
        """OSError when this kernel has no such sets, or this process may not use them."""
        with _connection() as connection:
            self._expect(connection, TYPE, KIND, _string(TYPE_NAME, KIND) + _byte(FAMILY, self._family.af))
        # As libxt_set does to look a set up by name.
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).close()

    def names(self) -> set[str]:
        """Empty, too, where the kernel has no sets."""
        found = set()
        with _connection() as connection:
            connection.send(_message(LIST, REQUEST | DUMP, _number(FLAGS, NAMES_ONLY)))
            for kind, payload in _answers(connection):
                if kind >> 8 == SUBSYSTEM:
                    found.add(text(dict(attributes(payload[len(GENERIC_HEADER) :]))[SET_NAME]))
        return {name for name in found if name.startswith(self._prefix)}

    def make(self, names: Collection[str]) -> None:
        """OSError names the set that was refused. One that is there stays as it is."""
        limits = _number(TIMEOUT, DEFAULT_TIMEOUT_S) + _number(CADT_FLAGS, FORCE_ADD)
        limits += _number(HASH_SIZE, BUCKETS) + _number(MAX_ELEMENTS, CAPACITY)
        kind = _string(TYPE_NAME, KIND) + _byte(REVISION, KIND_REVISION) + _byte(FAMILY, self._family.af)
        with _connection() as connection:
            for name in names:
                body = _string(SET_NAME, name) + kind + _attribute(DATA | NESTED, limits)
                self._expect(connection, CREATE, name, body)

    def flush(self, names: Collection[str]) -> None:
        with _connection() as connection:
            for name in names:
                self._expect(connection, FLUSH, name, _string(SET_NAME, name))

    def destroy(self, names: Collection[str]) -> set[str]:
        """Gives back those that rules still name. Not there is success."""
        with _connection() as connection:
            return {
                name
                for name in names
                if self._expect(connection, DESTROY, name, _string(SET_NAME, name), {BUSY, errno.ENOENT}) == BUSY
            }

    def contains(self, name: str, address: IPAddress) -> bool:
        """OSError when there is no such set, or one of another kind."""
        value = _attribute(OF_FAMILY[self._family] | BIG_ENDIAN, address.packed)
        body = _string(SET_NAME, name) + _attribute(DATA | NESTED, _attribute(ADDRESS | NESTED, value))
        with _connection() as connection:
            return self._expect(connection, TEST, name, body, {NOT_IN_IT}) == 0

    def _expect(
        self, connection: socket.socket, command: int, name: str, body: bytes, passable: Collection[int] = ()
    ) -> int:
        """0, or one of the errors that may pass; OSError for any other one."""
        connection.send(_message(command, REQUEST | ACK, body))
        error = next(_errors(connection))
        if error and error not in passable:
            raise OSError(error, f"ipset {name}: {errno.errorcode.get(error, error)}")
        return error


def _connection() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    made.bind((0, 0))
    return made


def _errors(connection: socket.socket) -> Iterator[int]:
    """What the kernel acknowledges with, whatever else it says before."""
    for kind, payload in _answers(connection):
        if kind == ERROR:
            yield -struct.unpack_from("=i", payload)[0]


def _answers(connection: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Type and payload of each message, to the end of a dump or past an error."""
    while True:
        datagram = connection.recv(DATAGRAM)
        at = 0
        while at + HEADER.size <= len(datagram):
            length, kind, *_ = HEADER.unpack_from(datagram, at)
            yield kind, datagram[at + HEADER.size : at + length]
            if kind in {DONE, ERROR}:
                return
            at += aligned(length)


def _message(command: int, flags: int, attributes: bytes) -> bytes:
    body = GENERIC_HEADER + _byte(PROTOCOL, 6) + attributes
    return HEADER.pack(HEADER.size + len(body), SUBSYSTEM << 8 | command, flags, 0, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    packed = struct.pack("=HH", 4 + len(value), kind) + value
    return packed + bytes(aligned(len(packed)) - len(packed))


def _string(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _byte(kind: int, value: int) -> bytes:
    return _attribute(kind, bytes([value]))


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind | BIG_ENDIAN, value.to_bytes(4))
