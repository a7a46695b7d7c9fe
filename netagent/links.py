"""Devices in the kernel: read from a dump, created, changed, removed.

VXLAN and IPIP devices are the kernel's. A WireGuard device is the kernel's where it has the driver, else a program's:
wireguard-go outlives us as the kernel's devices do, and ends when its device is deleted.
"""

import errno
import re
import socket
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import cast

from controlloop.command import run
from netagent import link_messages
from netagent.diff import Operation, Verb
from netagent.instance import Instance
from netagent.link_messages import RTM_DELLINK
from netagent.messages import NLM_F_CREATE, NLM_F_EXCL, RTM_GETLINK, RTM_NEWLINK, LinkLabel
from netagent.netlink import Channel
from netagent.state import Link, VxlanLink, WireguardLink

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


def decode_link(payload: bytes) -> Link | None:
    """None for a device of another kind."""
    return link_messages.decode_link(payload, name_of)


def index_of(name: str) -> int:
    """0 when there is no such device."""
    with suppress(OSError):
        return socket.if_nametoindex(name)
    return 0


def name_of(index: int) -> str:
    """Empty when there is no such device."""
    with suppress(OSError):
        return socket.if_indextoname(index)
    return ""


async def change_link(channel: Channel, operation: Operation) -> None:
    """OSError or CommandError when it cannot be done."""
    link = cast("Link", operation.object)
    if operation.verb in {Verb.REMOVE, Verb.RECREATE}:
        remove_link(channel, link)
    if operation.verb in {Verb.ADD, Verb.RECREATE}:
        await create_link(channel, link)
    if operation.verb is not Verb.REMOVE:
        settle_link(channel, link)


def remove_link(channel: Channel, link: Link) -> None:
    with suppress(OSError):  # nobody there is what we want
        channel.request(RTM_DELLINK, 0, link_messages.header(socket.if_nametoindex(link.name)))


async def create_link(channel: Channel, link: Link) -> None:
    parent = socket.if_nametoindex(link.parent) if isinstance(link, VxlanLink) else 0
    try:
        channel.request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, link_messages.creation(link, parent))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP or not isinstance(link, WireguardLink):
            raise
        # It goes to the background once the device is there.
        await run(["wireguard-go", link.name])


def settle_link(channel: Channel, link: Link) -> None:
    """What the kernel lets us change on a device that exists. An alias goes in only after creation."""
    index = socket.if_nametoindex(link.name)
    mac = link_messages.mac_of(channel.ask(RTM_GETLINK, link_messages.header(index)))
    channel.request(RTM_NEWLINK, 0, link_messages.settings(link, index, mac))
    if isinstance(link, VxlanLink):
        channel.request(RTM_NEWLINK, 0, link_messages.learning(link, index))
    accept_no_router_advertisements(link.name)
    channel.request(RTM_NEWLINK, 0, link_messages.state(link, index))


def accept_no_router_advertisements(device: str) -> None:
    # A peer's pod must not hand us routes. Without IPv6 in the kernel the file is missing, and so is the danger.
    with suppress(OSError):
        Path("/proc/sys/net/ipv6/conf", device, "accept_ra").write_text("0")
