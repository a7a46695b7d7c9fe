"""Devices in the kernel: read from a dump, created, changed, removed.

VXLAN and IPIP devices are the kernel's. A WireGuard device is the kernel's where it has the driver, else a program's:
wireguard-go outlives us as the kernel's devices do, and ends when its device is deleted.
"""

import errno
import re
import socket
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

from pyroute2 import NetlinkError
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from controlloop.command import run
from controlloop.family import Family
from netagent.diff import Operation, Verb
from netagent.instance import Instance
from netagent.messages import HEADER, RTM_NEWLINK, LinkLabel
from netagent.state import IpipLink, Link, VxlanLink, WireguardLink

IFF_UP = 1

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
    not the first takes over only what it wants by name: the rest may be a flanneld's that still runs.
    """
    name = FLANNELD_NAMES.get(label.kind)
    if name is None or instance.is_anothers(label.alias):
        return False
    return label.alias == instance.alias or (
        bool(name.fullmatch(label.name)) and (instance.adopts or label.name in wanted)
    )


# pyroute2 is untyped: its messages and sockets are Any here, and leave this file as our own values only.


def decode_link(payload: bytes) -> Link | None:
    """None for a device of another kind."""
    message: Any = ifinfmsg(HEADER.pack(HEADER.size + len(payload), RTM_NEWLINK, 0, 0, 0) + payload)
    message.decode()
    common = {
        "name": message.get("ifname"),
        "mtu": message.get("mtu"),
        "alias": message.get("ifalias") or "",
        "up": bool(message["flags"] & IFF_UP),
    }
    kind, data = message.get(("linkinfo", "kind")), message.get(("linkinfo", "data"))
    if kind == "vxlan":
        return vxlan_link(data, message.get("address"), common)
    if kind == "ipip":
        local = data.get("ipip_local")
        return IpipLink(local=ip_address(local) if local else None, **common)
    return WireguardLink(**common) if kind in FLANNELD_NAMES else None


def vxlan_link(data: Any, mac: str, common: Mapping[str, Any]) -> VxlanLink:
    local = data.get("vxlan_local") or data.get("vxlan_local6")
    return VxlanLink(
        vni=data.get("vxlan_id"),
        port=data.get("vxlan_port"),
        parent=name_of(data.get("vxlan_link")),
        local=ip_address(local) if local else None,
        mac=mac,
        learning=bool(data.get("vxlan_learning")),
        gbp=bool(data.get("vxlan_gbp")),
        **common,
    )


def index_of(name: str) -> int:
    """0 when there is no such device."""
    with suppress(OSError):
        return socket.if_nametoindex(name)
    return 0


def name_of(index: int | None) -> str:
    with suppress(OSError):
        return socket.if_indextoname(index or 0)
    return ""


async def change_link(netlink: Any, operation: Operation) -> None:
    """OSError, NetlinkError or CommandError when it cannot be done."""
    link = cast("Link", operation.object)
    if operation.verb in {Verb.REMOVE, Verb.RECREATE}:
        await remove_link(netlink, link)
    if operation.verb in {Verb.ADD, Verb.RECREATE}:
        await CREATORS[type(link)](netlink, link)
    if operation.verb is not Verb.REMOVE:
        await settle_link(netlink, link)


async def remove_link(netlink: Any, link: Link) -> None:
    with suppress(OSError):  # nobody there is what we want
        index = socket.if_nametoindex(link.name)
        await netlink.link("del", index=index)


async def create_vxlan(netlink: Any, link: VxlanLink) -> None:
    await netlink.link("add", ifname=link.name, kind="vxlan", address=link.mac, mtu=link.mtu, **vxlan_data(link))


def vxlan_data(link: VxlanLink) -> dict[str, Any]:
    local = {} if link.local is None else {Family.of(link.local): str(link.local)}
    data = {
        "vxlan_id": link.vni,
        "vxlan_link": socket.if_nametoindex(link.parent),
        "vxlan_local": local.get(Family.V4),
        "vxlan_local6": local.get(Family.V6),
        "vxlan_port": link.port,
        "vxlan_learning": int(link.learning),
        "vxlan_gbp": True if link.gbp else None,
    }
    return {name: value for name, value in data.items() if value is not None}


async def create_ipip(netlink: Any, link: IpipLink) -> None:
    await netlink.link("add", ifname=link.name, kind="ipip", ipip_local=str(link.local))


async def create_wireguard(netlink: Any, link: WireguardLink) -> None:
    try:
        await netlink.link("add", ifname=link.name, kind="wireguard")
    except NetlinkError as error:
        if error.code != errno.EOPNOTSUPP:
            raise
        # It goes to the background once the device is there.
        await run(["wireguard-go", link.name])


CREATORS: Mapping[type[Link], Callable[..., Any]] = {
    VxlanLink: create_vxlan,
    IpipLink: create_ipip,
    WireguardLink: create_wireguard,
}


async def settle_link(netlink: Any, link: Link) -> None:
    """What the kernel lets us change on a device that exists. An alias goes in only after creation."""
    index = socket.if_nametoindex(link.name)
    await netlink.link("set", index=index, mtu=link.mtu, ifalias=link.alias, **await changed_mac(netlink, index, link))
    if isinstance(link, VxlanLink):
        await netlink.link("set", index=index, kind="vxlan", vxlan_id=link.vni, vxlan_learning=int(link.learning))
    accept_no_router_advertisements(link.name)
    await netlink.link("set", index=index, state="up" if link.up else "down")


async def changed_mac(netlink: Any, index: int, link: Link) -> dict[str, str]:
    """Empty when the device has it already: the kernel flushes a device's neighbors even for the MAC that it has."""
    if not isinstance(link, VxlanLink):
        return {}
    (found,) = await netlink.link("get", index=index)
    return {} if found.get("address") == link.mac else {"address": link.mac}


def accept_no_router_advertisements(device: str) -> None:
    # A peer's pod must not hand us routes. Without IPv6 in the kernel the file is missing, and so is the danger.
    with suppress(OSError):
        Path("/proc/sys/net/ipv6/conf", device, "accept_ra").write_text("0")
