"""What a tree of chains may branch on: addresses, or ports. Pure.

A place is a number of `bits` bits; its prefixes have a match in iptables-save's words and a name for their chain.
"""

from typing import Protocol as Interface

from controlloop.address import network
from controlloop.family import Family
from proxy.frontends import Protocol
from proxy.iptables.chains import hashed

PROTOCOLS = tuple(Protocol)
PORT_BITS = 16

BRANCH, LAST_BRANCH = 5, 4
"""Bits of an address that a chain branches on, and the last one above single addresses, whose rules are longer."""


class Space(Interface):
    @property
    def bits(self) -> int: ...

    @property
    def forks(self) -> range:
        """Lengths of the prefixes at which a tree may branch, besides that of no bits."""
        ...

    def match(self, prefix: int, length: int) -> str:
        """Of all packets to places that begin with the first `length` bits of `prefix`."""
        ...

    def chain(self, inner: str, prefix: int, length: int) -> str:
        """A name that begins with `inner`, and of no other prefix."""
        ...


class Addresses:
    def __init__(self, family: Family) -> None:
        self._family = family
        self.bits = family.bits
        self.forks = range((self.bits - LAST_BRANCH) % BRANCH, self.bits, BRANCH)

    def match(self, prefix: int, length: int) -> str:
        return f"-d {network(self._family, prefix, length)}"

    def chain(self, inner: str, prefix: int, length: int) -> str:
        text = network(self._family, prefix, length)
        # An IPv6 prefix may be longer than a chain's name.
        return inner + text if self._family is Family.V4 else hashed(f"{inner}6-", text)


class Ports:
    """The protocol is the first four bits, so that no prefix with a port in it has two."""

    bits = 4 + PORT_BITS
    forks = range(4, bits, 4)

    @staticmethod
    def place(protocol: Protocol, port: int) -> int:
        return PROTOCOLS.index(protocol) << PORT_BITS | port

    def match(self, prefix: int, length: int) -> str:
        protocol, first, last = self._range(prefix, length)
        if first == 0 and last == (1 << PORT_BITS) - 1:
            return f"-p {protocol}"
        ports = f"{first}" if first == last else f"{first}:{last}"
        return f"-p {protocol} -m {protocol} --dport {ports}"

    def chain(self, inner: str, prefix: int, length: int) -> str:
        protocol, first, last = self._range(prefix, length)
        return f"{inner}{first}-{last}/{protocol}"

    def _range(self, prefix: int, length: int) -> tuple[str, int, int]:
        first = prefix & (1 << PORT_BITS) - 1
        return PROTOCOLS[prefix >> PORT_BITS].value, first, first + (1 << self.bits - length) - 1
