"""Devices as rtnetlink messages (linux/if_link.h), both ways. Pure.

pyroute2 knows every kind of device; to know the three that are ours takes a tenth of its memory and of its time.
"""

from collections.abc import Callable, Mapping
from typing import Any

from controlloop.family import Family
from netagent.messages import (
    IFINFOMSG,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    address_of,
    attribute,
    attributes,
    index_attribute,
    integer,
    mac_bytes,
    text_of,
)
from netagent.state import IpipLink, Link, VxlanLink, WireguardLink

RTM_DELLINK = 17
IFF_UP = 1

IFLA_ADDRESS, IFLA_MTU, IFLA_INFO_DATA = 1, 4, 2
IFLA_VXLAN_ID, IFLA_VXLAN_LINK, IFLA_VXLAN_LEARNING, IFLA_VXLAN_PORT, IFLA_VXLAN_GBP = 1, 3, 7, 15, 23
IFLA_VXLAN_LOCAL = {Family.V4: 4, Family.V6: 17}
IFLA_IPTUN_LOCAL = 2


def creation(link: Link, parent: int) -> bytes:
    """What the driver must know from the start; `parent` is the index of the underlay interface, 0 for none."""
    kind, data = KINDS[type(link)]
    name = attribute(IFLA_IFNAME, link.name.encode() + b"\0")
    return header(0) + name + shape(link) + link_info(kind, data(link, parent))


def shape(link: Link) -> bytes:
    """What a VXLAN device is made with, so that it never has another; other kinds take it later, or have none."""
    if not isinstance(link, VxlanLink):
        return b""
    return attribute(IFLA_ADDRESS, mac_bytes(link.mac)) + index_attribute(IFLA_MTU, link.mtu)


def settings(link: Link, index: int, mac: str) -> bytes:
    """What can be changed on a device; `mac` is the one it has. The kernel flushes a device's neighbors even for the
    MAC that it has already.
    """
    parts = [header(index), index_attribute(IFLA_MTU, link.mtu), attribute(IFLA_IFALIAS, link.alias.encode())]
    if isinstance(link, VxlanLink) and link.mac != mac:
        parts.append(attribute(IFLA_ADDRESS, mac_bytes(link.mac)))
    return b"".join(parts)


def learning(link: VxlanLink, index: int) -> bytes:
    data = index_attribute(IFLA_VXLAN_ID, link.vni) + attribute(IFLA_VXLAN_LEARNING, bytes([link.learning]))
    return header(index) + link_info("vxlan", data)


def state(link: Link, index: int) -> bytes:
    return IFINFOMSG.pack(0, 0, index, IFF_UP if link.up else 0, IFF_UP)


def header(index: int) -> bytes:
    """Also a whole request for that device, or to delete it."""
    return IFINFOMSG.pack(0, 0, index, 0, 0)


def link_info(kind: str, data: bytes) -> bytes:
    return attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, kind.encode()) + attribute(IFLA_INFO_DATA, data))


def vxlan_data(link: VxlanLink, parent: int) -> bytes:
    parts = [
        index_attribute(IFLA_VXLAN_ID, link.vni),
        index_attribute(IFLA_VXLAN_LINK, parent),
        attribute(IFLA_VXLAN_PORT, link.port.to_bytes(2, "big")),
        attribute(IFLA_VXLAN_LEARNING, bytes([link.learning])),
    ]
    if link.local is not None:
        parts.append(attribute(IFLA_VXLAN_LOCAL[Family.of(link.local)], link.local.packed))
    return b"".join([*parts, *([attribute(IFLA_VXLAN_GBP, b"")] if link.gbp else [])])


def ipip_data(link: IpipLink, _parent: int) -> bytes:
    return attribute(IFLA_IPTUN_LOCAL, link.local.packed) if link.local else b""


KINDS: Mapping[type[Link], tuple[str, Callable[..., bytes]]] = {
    VxlanLink: ("vxlan", vxlan_data),
    IpipLink: ("ipip", ipip_data),
    WireguardLink: ("wireguard", lambda _link, _parent: b""),
}


def mac_of(payload: bytes) -> str:
    return attributes(payload, IFINFOMSG.size).get(IFLA_ADDRESS, b"").hex(":")


def decode_link(payload: bytes, name_of: Callable[[int], str]) -> Link | None:
    """None for a device of another kind; `name_of` gives an interface's name by its index."""
    found = attributes(payload, IFINFOMSG.size)
    info = attributes(found.get(IFLA_LINKINFO, b""), 0)
    data = attributes(info.get(IFLA_INFO_DATA, b""), 0)
    common: dict[str, Any] = {
        "name": text_of(found.get(IFLA_IFNAME)),
        "mtu": integer(found.get(IFLA_MTU)),
        "alias": text_of(found.get(IFLA_IFALIAS)),
        "up": bool(IFINFOMSG.unpack_from(payload)[3] & IFF_UP),
    }
    kind = text_of(info.get(IFLA_INFO_KIND))
    if kind == "vxlan":
        return VxlanLink(mac=mac_of(payload), **vxlan_options(data, name_of), **common)
    if kind == "ipip":
        return IpipLink(local=address_of(data.get(IFLA_IPTUN_LOCAL)), **common)
    # wireguard-go's are TUN devices.
    return WireguardLink(**common) if kind in {"wireguard", "tun"} else None


def vxlan_options(data: Mapping[int, bytes], name_of: Callable[[int], str]) -> dict[str, Any]:
    local = next((data[number] for number in IFLA_VXLAN_LOCAL.values() if number in data), None)
    return {
        "vni": integer(data.get(IFLA_VXLAN_ID)),
        "port": int.from_bytes(data.get(IFLA_VXLAN_PORT, b""), "big"),
        "parent": name_of(integer(data.get(IFLA_VXLAN_LINK))),
        "local": address_of(local),
        "learning": bool(integer(data.get(IFLA_VXLAN_LEARNING))),
        "gbp": IFLA_VXLAN_GBP in data,
    }
