"""Which interface carries the overlay: the one that was asked for, or the one the default route leaves by."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from pyroute2 import AsyncIPRoute

from controlloop.errors import OperatorError
from controlloop.family import Family, IPAddress
from netagent.state import Underlay

RT_TABLE_MAIN = 254
IFA_F_TEMPORARY, IFA_F_DEPRECATED, IFA_F_PERMANENT = 0x01, 0x20, 0x80


@dataclass(frozen=True, slots=True)
class Address:
    index: int
    address: IPAddress
    flags: int

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


async def find_underlay(family: Family, iface: str, public_ip: IPAddress | None) -> Underlay:
    """The interface by `iface`, a name or a local address; without it the one that has `public_ip`, else the one of
    the first default route. OperatorError names the flag and the value that led nowhere.
    """
    # pyroute2 is untyped: what it gives is Any, and leaves this file as our own values only.
    async with AsyncIPRoute(strict_check=True) as netlink:
        interfaces = [interface_of(message) async for message in await netlink.link("dump")]
        addresses = [address_of(message) async for message in await netlink.addr("dump", family=family.af)]
        routes = [message async for message in await netlink.route("dump", family=family.af, table=RT_TABLE_MAIN)]
    usable = [address for address in addresses if not address.flags & IFA_F_DEPRECATED]
    if iface:
        return by_flag(iface, family, interfaces, usable)
    held = next((address for address in usable if address.address == public_ip), None)
    if held:
        return underlay(interface_at(held.index, interfaces), held)
    index = default_route_index(routes)
    if not index:
        raise OperatorError(f"--iface: not given, and no IPv{family.value} default route says which one; name it")
    return at_index(index, family, interfaces, usable)


def by_flag(iface: str, family: Family, interfaces: Iterable[Interface], addresses: Iterable[Address]) -> Underlay:
    chosen = next((interface for interface in interfaces if interface.name == iface), None)
    if chosen:
        return at_index(chosen.index, family, interfaces, addresses)
    held = next((address for address in addresses if str(address.address) == iface), None)
    if held is None:
        raise OperatorError(f"--iface {iface}: no interface has this name or IPv{family.value} address")
    return underlay(interface_at(held.index, interfaces), held)


def at_index(index: int, family: Family, interfaces: Iterable[Interface], addresses: Iterable[Address]) -> Underlay:
    interface = interface_at(index, interfaces)
    own = [address for address in addresses if address.index == index]
    if not own:
        raise OperatorError(f"--iface {interface.name}: this interface has no IPv{family.value} address")
    return underlay(interface, min(own, key=lambda address: address.rank))


def underlay(interface: Interface, address: Address) -> Underlay:
    return Underlay(interface.name, interface.mtu, address.address)


def interface_at(index: int, interfaces: Iterable[Interface]) -> Interface:
    return next(interface for interface in interfaces if interface.index == index)


def interface_of(message: Any) -> Interface:
    return Interface(message.get("ifname"), message["index"], message.get("mtu"))


def address_of(message: Any) -> Address:
    # IFA_ADDRESS is the other end on a point-to-point link.
    text = message.get("local") or message.get("address")
    flags = message.get("flags")
    return Address(message["index"], ip_address(text), message["flags"] if flags is None else flags)


def default_route_index(routes: Iterable[Any]) -> int:
    """Interface index of the first default route; 0 when there is none."""
    for route in routes:
        if route["dst_len"] == 0 and route.get("table") == RT_TABLE_MAIN:
            hops = route.get("multipath") or []
            index = route.get("oif") or next((hop["oif"] for hop in hops), 0)
            if index:
                return int(index)
    return 0
