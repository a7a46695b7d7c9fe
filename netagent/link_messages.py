"""Devices as rtnetlink says them (linux/if_link.h): whose each is, and how it is made. Pure.

To read them is all that a start over the right devices needs, and each notification of one; `links` changes them.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from netagent.instance import Instance
from netagent.messages import (
    IFF_UP,
    IFINFOMSG,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    LinkLabel,
    address_of,
    attributes,
    integer,
    text_of,
)
from netagent.state import IpipLink, Link, VxlanLink, WireguardLink

IFLA_ADDRESS, IFLA_MTU, IFLA_INFO_DATA = 1, 4, 2
IFLA_VXLAN_ID, IFLA_VXLAN_LINK, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LEARNING = 1, 3, 4, 7
IFLA_VXLAN_PORT, IFLA_VXLAN_LOCAL6, IFLA_VXLAN_GBP = 15, 17, 23
IFLA_IPTUN_LOCAL = 2

# flanneld's names, by the kinds of device that carry them; wireguard-go's are TUN devices.
WIREGUARD_NAME = re.compile(r"flannel-wg(-v6)?")
FLANNELD_NAMES = {
    "vxlan": re.compile(r"flannel(-v6)?\.[0-9]+"),
    "ipip": re.compile(r"flannel\.ipip"),
    "wireguard": WIREGUARD_NAME,
    "tun": WIREGUARD_NAME,
}


def is_ours(label: LinkLabel, instance: Instance, wanted: Collection[str]) -> bool:
    """Marked by us, or named by flanneld: of this backend or one before it. Of what flanneld left, an instance that is
    not the first takes over only what it wants by name: the rest may be a flanneld's that still runs. And one that is
    down may be another instance's that is still being made: the mark goes in after creation, and before it is up.
    """
    name = FLANNELD_NAMES.get(label.kind)
    if name is None or instance.is_anothers(label.alias):
        return False
    return label.alias == instance.alias or (
        bool(name.fullmatch(label.name)) and ((instance.adopts and label.up) or label.name in wanted)
    )


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
        return VxlanLink(mac=found.get(IFLA_ADDRESS, b"").hex(":"), **vxlan_options(data, name_of), **common)
    if kind == "ipip":
        return IpipLink(local=address_of(data.get(IFLA_IPTUN_LOCAL)), **common)
    return WireguardLink(**common) if kind in FLANNELD_NAMES else None


def vxlan_options(data: Mapping[int, bytes], name_of: Callable[[int], str]) -> dict[str, Any]:
    return {
        "vni": integer(data.get(IFLA_VXLAN_ID)),
        "port": int.from_bytes(data.get(IFLA_VXLAN_PORT, b""), "big"),
        "parent": name_of(integer(data.get(IFLA_VXLAN_LINK))),
        "local": address_of(data.get(IFLA_VXLAN_LOCAL) or data.get(IFLA_VXLAN_LOCAL6)),
        "learning": bool(integer(data.get(IFLA_VXLAN_LEARNING))),
        "gbp": IFLA_VXLAN_GBP in data,
    }
