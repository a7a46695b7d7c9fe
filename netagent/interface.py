"""Reads from the kernel what the choice of the underlay interface needs."""

import struct
from collections.abc import Collection, Iterable
from contextlib import closing
from ipaddress import ip_address, ip_network
from os import strerror

from controlloop.family import Family, IPAddress
from netagent.config import InterfaceChoice
from netagent.interface_choice import Address, Interface, NodeInterfaces, Underlays, Way, choose_underlay
from netagent.link_messages import IFLA_MTU
from netagent.messages import (
    IFA_ADDRESS,
    IFA_LOCAL,
    IFADDRMSG,
    IFINFOMSG,
    IFLA_IFNAME,
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_OIF,
    RTA_TABLE,
    RTM_GETROUTE,
    RTMSG,
    RTN_UNICAST,
    address_of,
    attribute,
    attributes,
    dump_addresses,
    dump_links,
    dump_routes,
    integer,
    text_of,
)
from netagent.netlink import Channel

RTN_LOCAL = 2
RTA_PREFSRC, RTA_MULTIPATH, IFA_FLAGS = 7, 9, 8
NEXT_HOP = struct.Struct("=HBBi")  # rtnexthop: length, flags, hops, ifindex


async def find_underlay(choice: InterfaceChoice, families: Collection[Family]) -> Underlays:
    """The interface that the overlay goes over, with its address of each family.

    OperatorError names each flag that was tried, its value, and why it led nowhere.
    """
    return choose_underlay(choice, families, read_interfaces(families, choice.can_reach))


def read_interfaces(families: Iterable[Family], can_reach: IPAddress | None) -> NodeInterfaces:
    with closing(Channel()) as channel:
        interfaces = [interface_of(payload) for payload in channel.dump(dump_links())]
        addresses: list[Address] = []
        ways = {}
        for family in families:
            addresses += [address_on(payload) for payload in channel.dump(dump_addresses(family))]
            if index := default_route_index(channel.dump(dump_routes(family))):
                ways[family] = Way(index, None)
        reach = way_to(channel, can_reach) if can_reach else None
    return NodeInterfaces(interfaces, addresses, ways, reach)


def way_to(channel: Channel, target: IPAddress) -> Way | str:
    """As `ip route get` finds it, else why there is none."""
    family = Family.of(target)
    request = RTMSG.pack(family.af, family.bits, 0, 0, 0, 0, 0, 0, 0) + attribute(RTA_DST, target.packed)
    try:
        payload = channel.ask(RTM_GETROUTE, request)
    except OSError as error:
        return strerror(error.errno or 0)
    if RTMSG.unpack_from(payload)[7] == RTN_LOCAL:
        return "this node's own address"
    found = attributes(payload, RTMSG.size)
    return Way(integer(found.get(RTA_OIF)), address_of(found.get(RTA_PREFSRC)))


def interface_of(payload: bytes) -> Interface:
    found = attributes(payload, IFINFOMSG.size)
    return Interface(text_of(found.get(IFLA_IFNAME)), IFINFOMSG.unpack_from(payload)[2], integer(found.get(IFLA_MTU)))


def address_on(payload: bytes) -> Address:
    _, prefix_len, flags, _, index = IFADDRMSG.unpack_from(payload)
    found = attributes(payload, IFADDRMSG.size)
    # IFA_ADDRESS is the other end on a point-to-point link.
    far_end = ip_address(found[IFA_ADDRESS])
    address = ip_address(found.get(IFA_LOCAL) or found[IFA_ADDRESS])
    connected = ip_network((far_end, prefix_len), strict=False)
    return Address(index, address, integer(found[IFA_FLAGS]) if IFA_FLAGS in found else flags, connected)


def default_route_index(routes: Iterable[bytes]) -> int:
    """Interface index of the first default route; 0 when there is none."""
    for payload in routes:
        _, prefix_len, _, _, _, _, _, kind, _ = RTMSG.unpack_from(payload)
        if prefix_len or kind != RTN_UNICAST:
            continue
        found = attributes(payload, RTMSG.size)
        if integer(found.get(RTA_TABLE)) == RT_TABLE_MAIN and (index := way_out(found)):
            return index
    return 0


def way_out(route: dict[int, bytes]) -> int:
    """Of several ways the first."""
    if RTA_MULTIPATH in route:
        return int(NEXT_HOP.unpack_from(route[RTA_MULTIPATH])[3])
    return integer(route.get(RTA_OIF))
