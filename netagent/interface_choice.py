"""Which interface carries the overlay: the one that was asked for, or the one the default route leaves by.

Pure. The order is flannel's: names and addresses as listed, then patterns (addresses first, names after them), then the
way to an address; only when none of these was asked for the public IP, and last the default route. One interface
serves all families, so it needs an address of each.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from controlloop.errors import OperatorError
from controlloop.family import Family, IPAddress, IPNetwork
from netagent.config import InterfaceChoice
from netagent.state import Underlay

IFA_F_TEMPORARY, IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_PERMANENT = 0x01, 0x08, 0x20, 0x80


@dataclass(frozen=True, slots=True)
class Address:
    index: int
    address: IPAddress
    flags: int
    connected: IPNetwork
    """What the interface reaches through it without a gateway."""

    @property
    def is_usable(self) -> bool:
        """Peers can send to it: not of loopback, not about to go, not somebody else's as well."""
        given_up = self.flags & (IFA_F_DEPRECATED | IFA_F_DADFAILED)
        return not (given_up or self.address.is_loopback or self.address.is_multicast or self.address.is_unspecified)

    @property
    def rank(self) -> tuple[bool, bool, bool]:
        """Lowest first: an address that routers forward, that stays, that is not for privacy."""
        temporary, permanent = self.flags & IFA_F_TEMPORARY, self.flags & IFA_F_PERMANENT
        return self.address.is_link_local, not permanent, bool(temporary)


@dataclass(frozen=True, slots=True)
class Interface:
    name: str
    index: int
    mtu: int


@dataclass(frozen=True, slots=True)
class Way:
    """How the kernel sends to an address: out of which interface, from which source."""

    index: int
    source: IPAddress | None


@dataclass(frozen=True, slots=True)
class NodeInterfaces:
    """What a node has, in the kernel's order."""

    interfaces: Sequence[Interface]
    addresses: Sequence[Address]
    default_ways: Mapping[Family, Way]
    """By the first default route of each family that has one."""
    reach: Way | str | None
    """The way to the address of --iface-can-reach, or why there is none."""

    def holders(self, address: IPAddress | str) -> Iterator[Address]:
        return (one for one in self.addresses if str(one.address) == str(address))


class _NoMatchError(Exception):
    """One try leads nowhere; the next may lead somewhere."""


Underlays = dict[Family, Underlay]
Try = tuple[str, Callable[[], Underlays]]


def choose_underlay(choice: InterfaceChoice, families: Iterable[Family], node: NodeInterfaces) -> Underlays:
    """OperatorError names each flag that was tried, its value, and why it led nowhere."""
    reasons = []
    for flag, attempt in _tries(choice, _Selection(node, tuple(families))):
        try:
            return attempt()
        except _NoMatchError as error:
            reasons.append(f"{flag}: {error}")
    raise OperatorError("; ".join(reasons))


def _tries(choice: InterfaceChoice, selection: "_Selection") -> Iterator[Try]:
    for name in choice.names:
        yield f"--iface {name}", lambda name=name: selection.by_name_or_address(name)  # type: ignore[misc]
    for pattern in choice.patterns:
        yield f"--iface-regex {pattern.pattern}", lambda pattern=pattern: selection.matching(pattern.search)  # type: ignore[misc]
    if choice.can_reach:
        yield f"--iface-can-reach {choice.can_reach}", selection.reaching
    if not choice.is_asked:
        # Behind NAT the public IP is nobody's here: then the default route tells.
        for address in choice.public_ip.values():
            if any(selection.node.holders(address)):
                yield f"public IP {address}", lambda address=address: selection.by_address(address)  # type: ignore[misc]
        yield "--iface not given", selection.by_default_route


@dataclass(frozen=True, slots=True)
class _Selection:
    node: NodeInterfaces
    families: Sequence[Family]

    def by_name_or_address(self, wanted: str) -> Underlays:
        for interface in self.node.interfaces:
            if interface.name == wanted:
                return self._underlays(interface.index)
        return self.by_address(wanted)

    def by_address(self, wanted: IPAddress | str) -> Underlays:
        for holder in self.node.holders(wanted):
            return self._underlays(holder.index, holder.address)
        raise _NoMatchError("no interface has this name or address")

    def matching(self, matches: Callable[[str], object]) -> Underlays:
        by_address = [
            (interface.index, one.address)
            for interface in self.node.interfaces
            for one in self._usable(interface.index)
            if Family.of(one.address) in self.families and matches(str(one.address))
        ]
        by_name = [(interface.index, None) for interface in self.node.interfaces if matches(interface.name)]
        refusal = _NoMatchError("matches no interface's address or name")
        for index, address in [*by_address, *by_name]:
            try:
                return self._underlays(index, address)
            except _NoMatchError as error:
                refusal = error
        raise refusal

    def reaching(self) -> Underlays:
        way = self.node.reach
        if not isinstance(way, Way):
            raise _NoMatchError(way or "no route to it")
        return self._underlays(way.index, way.source)

    def by_default_route(self) -> Underlays:
        ways = self.node.default_ways
        lacking = [family for family in self.families if family not in ways]
        if lacking:
            raise _NoMatchError(f"no IPv{lacking[0].value} default route says which interface; name it")
        indexes = {ways[family].index for family in self.families}
        if len(indexes) > 1:
            names = " and ".join(self._interface(index).name for index in sorted(indexes))
            raise _NoMatchError(f"the default routes of IPv4 and IPv6 leave by {names}; name one")
        return self._underlays(indexes.pop())

    def _underlays(self, index: int, wanted: IPAddress | None = None) -> Underlays:
        interface = self._interface(index)
        if not interface.mtu:
            raise _NoMatchError(f"{interface.name} has MTU 0")
        addresses = {family: self._address(interface, family, wanted) for family in self.families}
        return {
            family: Underlay(interface.name, interface.mtu, address, frozenset(self._connected(index, family)))
            for family, address in addresses.items()
        }

    def _connected(self, index: int, family: Family) -> Iterator[IPNetwork]:
        for one in self.node.addresses:
            if one.index == index and Family.of(one.address) is family:
                yield one.connected

    def _address(self, interface: Interface, family: Family, wanted: IPAddress | None) -> IPAddress:
        if wanted is not None and Family.of(wanted) is family:
            return wanted
        for own in self._usable(interface.index):
            if Family.of(own.address) is family:
                return own.address
        raise _NoMatchError(f"{interface.name} has no IPv{family.value} address that peers can send to")

    def _usable(self, index: int) -> list[Address]:
        """The best one first."""
        own = (one for one in self.node.addresses if one.index == index and one.is_usable)
        return sorted(own, key=lambda one: one.rank)

    def _interface(self, index: int) -> Interface:
        found = next((interface for interface in self.node.interfaces if interface.index == index), None)
        if found is None:
            raise _NoMatchError(f"interface {index} is gone")
        return found
