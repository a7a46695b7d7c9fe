"""The two IP families as values, so that no function exists twice."""

from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network


class Family(Enum):
    V4 = 4
    V6 = 6

    # Members are one of a kind, and Enum's own hash is written in Python: a peer asks for it ten times.
    __hash__ = object.__hash__

    @classmethod
    def of(cls, value: IPAddress | IPNetwork) -> "Family":
        return cls.V4 if value.version == 4 else cls.V6

    @property
    def bits(self) -> int:
        """Length of an address in bits."""
        return 32 if self is Family.V4 else 128

    @property
    def af(self) -> int:
        """The kernel's number: AF_INET or AF_INET6 (linux/socket.h)."""
        return 2 if self is Family.V4 else 10

    @property
    def nft(self) -> str:
        """What nft calls the family, both as a table's family and as a packet's header."""
        return "ip" if self is Family.V4 else "ip6"
