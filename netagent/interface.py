"""Reads from the kernel what the choice of the underlay interface needs."""

import os
from collections.abc import Collection, Iterable
from ipaddress import ip_address, ip_network
from typing import Any

from pyroute2 import AsyncIPRoute, NetlinkError

from controlloop.family import Family, IPAddress
from netagent.config import InterfaceChoice
from netagent.interface_choice import Address, Interface, NodeInterfaces, Underlays, Way, choose_underlay

RT_TABLE_MAIN = 254
RTN_UNICAST, RTN_LOCAL = 1, 2


async def find_underlay(choice: InterfaceChoice, families: Collection[Family]) -> Underlays:
    """The interface that the overlay goes over, with its address of each family.

    OperatorError names each flag that was tried, its value, and why it led nowhere.
    """
    return choose_underlay(choice, families, await read_interfaces(families, choice.can_reach))


# pyroute2 is untyped: what it gives is Any, and leaves this file as our own values only.


async def read_interfaces(families: Iterable[Family], can_reach: IPAddress | None) -> NodeInterfaces:
    async with AsyncIPRoute(strict_check=True) as netlink:
        interfaces = [interface_of(message) async for message in await netlink.link("dump")]
        addresses, ways = [], {}
        for family in families:
            addresses += [address_of(message) async for message in await netlink.addr("dump", family=family.af)]
            routes = [route async for route in await netlink.route("dump", family=family.af, table=RT_TABLE_MAIN)]
            if index := default_route_index(routes):
                ways[family] = Way(index, None)
        reach = await way_to(netlink, can_reach) if can_reach else None
    return NodeInterfaces(interfaces, addresses, ways, reach)


async def way_to(netlink: Any, target: IPAddress) -> Way | str:
    """As `ip route get` finds it, else why there is none."""
    try:
        (route,) = await netlink.route("get", dst=str(target))
    except NetlinkError as error:
        return os.strerror(error.code)
    if route["type"] == RTN_LOCAL:
        return "this node's own address"
    source = route.get("prefsrc")
    return Way(route.get("oif"), ip_address(source) if source else None)


def interface_of(message: Any) -> Interface:
    return Interface(message.get("ifname"), message["index"], message.get("mtu") or 0)


def address_of(message: Any) -> Address:
    # IFA_ADDRESS is the other end on a point-to-point link.
    far_end = message.get("address")
    text = message.get("local") or far_end
    flags = message.get("flags")
    connected = ip_network(f"{far_end}/{message['prefixlen']}", strict=False)
    return Address(message["index"], ip_address(text), message["flags"] if flags is None else flags, connected)


def default_route_index(routes: Iterable[Any]) -> int:
    """Interface index of the first default route; 0 when there is none."""
    for route in routes:
        if (route["dst_len"], route["type"], route.get("table")) == (0, RTN_UNICAST, RT_TABLE_MAIN):
            hops = route.get("multipath") or []
            index = route.get("oif") or next((hop["oif"] for hop in hops), 0)
            if index:
                return int(index)
    return 0
