"""Creates, changes and removes devices in the kernel, through pyroute2.

Imported when a device has to be changed, and not before: pyroute2 takes 10 MB and 80 ms, and an agent that finds its
devices as they should be does without. What it finds is read by `link_messages`.

VXLAN and IPIP devices are the kernel's. A WireGuard device is the kernel's where it has the driver, else a program's:
wireguard-go outlives us as the kernel's devices do, and ends when its device is deleted.
"""

import errno
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from pyroute2 import AsyncIPRoute, NetlinkError

from controlloop.command import CommandError, run
from controlloop.family import Family
from netagent.diff import Operation, Verb
from netagent.state import IpipLink, Link, VxlanLink, WireguardLink

VXLAN_LOCAL = {Family.V4: "vxlan_local", Family.V6: "vxlan_local6"}


async def change_links(operations: Iterable[Operation]) -> list[tuple[Operation, str]]:
    """Make changes, in order; gives back those that failed, and why.

    They come from a socket of their own: what we do to devices the monitor must hear, like all others' doing.
    """
    failures = []
    async with AsyncIPRoute(ext_ack=True) as netlink:
        for operation in operations:
            try:
                await change_link(netlink, operation)
            except OSError as error:
                failures.append((operation, error.strerror or str(error)))
            except CommandError as error:
                failures.append((operation, str(error)))
    return failures


# pyroute2 is untyped: its socket and what that gives are Any here, and do not leave this file.


async def change_link(netlink: Any, operation: Operation) -> None:
    """OSError or CommandError when it cannot be done."""
    link = cast("Link", operation.object)
    if operation.verb in {Verb.REMOVE, Verb.RECREATE}:
        await remove_link(netlink, link)
    if operation.verb in {Verb.ADD, Verb.RECREATE}:
        await create_link(netlink, link)
    if operation.verb is not Verb.REMOVE:
        await settle_link(netlink, link)


async def request(netlink: Any, verb: str, **what: Any) -> Any:
    """OSError when the kernel refuses; pyroute2's own error is none."""
    try:
        return await netlink.link(verb, **what)
    except NetlinkError as error:
        raise OSError(error.code, error.args[1]) from error


async def remove_link(netlink: Any, link: Link) -> None:
    with suppress(OSError):  # nobody there is what we want
        await request(netlink, "del", index=socket.if_nametoindex(link.name))


async def create_link(netlink: Any, link: Link) -> None:
    try:
        await request(netlink, "add", ifname=link.name, **creation(link))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP or not isinstance(link, WireguardLink):
            raise
        # It goes to the background once the device is there.
        await run(["wireguard-go", link.name])


def creation(link: Link) -> dict[str, Any]:
    """What the driver must know from the start, in pyroute2's words."""
    match link:
        case VxlanLink():
            return vxlan_creation(link)
        case IpipLink():
            return {"kind": "ipip", **({"ipip_local": str(link.local)} if link.local else {})}
        case WireguardLink():
            return {"kind": "wireguard"}


def vxlan_creation(link: VxlanLink) -> dict[str, Any]:
    """With address and MTU, so that the device never has another."""
    return {
        "kind": "vxlan",
        "address": link.mac,
        "mtu": link.mtu,
        "vxlan_id": link.vni,
        "vxlan_link": socket.if_nametoindex(link.parent),
        "vxlan_port": link.port,
        "vxlan_learning": int(link.learning),
        **({VXLAN_LOCAL[Family.of(link.local)]: str(link.local)} if link.local else {}),
        # An option without a value: it is there or not.
        **({"vxlan_gbp": True} if link.gbp else {}),
    }


async def settle_link(netlink: Any, link: Link) -> None:
    """What the kernel lets us change on a device that exists. An alias goes in only after creation."""
    index = socket.if_nametoindex(link.name)
    await request(
        netlink, "set", index=index, mtu=link.mtu, ifalias=link.alias, **await changed_mac(netlink, index, link)
    )
    if isinstance(link, VxlanLink):
        learning = int(link.learning)
        await request(netlink, "set", index=index, kind="vxlan", vxlan_id=link.vni, vxlan_learning=learning)
    accept_no_router_advertisements(link.name)
    await request(netlink, "set", index=index, state="up" if link.up else "down")


async def changed_mac(netlink: Any, index: int, link: Link) -> dict[str, str]:
    """Empty when the device has it already: the kernel flushes a device's neighbors even for the MAC that it has."""
    if not isinstance(link, VxlanLink):
        return {}
    (found,) = await request(netlink, "get", index=index)
    return {} if found.get("address") == link.mac else {"address": link.mac}


def accept_no_router_advertisements(device: str) -> None:
    # A peer's pod must not hand us routes. Without IPv6 in the kernel the file is missing, and so is the danger.
    with suppress(OSError):
        Path("/proc/sys/net/ipv6/conf", device, "accept_ra").write_text("0")
