"""The overlay in the kernel: reads and changes what is ours and nothing else.

Ours are the VXLAN devices that we named or marked (state.ALIAS), what stands on them, and the routes with our protocol
number. Devices go through pyroute2; all else, where thousands come at once, through `netlink`.
"""

import asyncio
import errno
import socket
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from pyroute2 import AsyncIPRoute, NetlinkError
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from controlloop.delta import Delta
from controlloop.family import Family
from netagent.diff import Operation, Verb, plan
from netagent.messages import (
    HEADER,
    RTM_NEWLINK,
    Names,
    decode_address,
    decode_neighbor,
    decode_route,
    dump_addresses,
    dump_fdb,
    dump_links,
    dump_neighbors,
    dump_routes,
)
from netagent.netlink import Channel
from netagent.state import ALIAS, PROTOCOL, PROTOCOL_BOOT, Key, Object, Route, VxlanLink

# Handing work to a thread costs 0.2 ms: worth it from about this many changes on.
INLINE = 50

# "Not there", in the kernel's words for routes, neighbors and FDB entries, addresses, devices.
GONE = {errno.ESRCH, errno.ENOENT, errno.EADDRNOTAVAIL, errno.ENODEV}

IFF_UP = 1
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Failure:
    operation: Operation
    reason: str

    def __str__(self) -> str:
        return f"{self.operation}: {self.reason}"


class OverlayError(OSError):
    """Some changes did not go in; the others did."""

    def __init__(self, failures: list[Failure]) -> None:
        more = f"; and {len(failures) - SHOWN} more" if len(failures) > SHOWN else ""
        super().__init__("; ".join(map(str, failures[:SHOWN])) + more)
        self.failures = failures


class OverlayKernel:
    """A controlloop.reconcile.Kernel for the network namespace it is made in."""

    def __init__(self, devices: Collection[str] = ()) -> None:
        """`devices` are ours by name, whoever made them: flanneld's device is taken over as it is."""
        self._devices = frozenset(devices)
        self._channel = Channel()

    def close(self) -> None:
        self._channel.close()

    async def dump(self) -> dict[Key, Object]:
        return await asyncio.to_thread(self._dump)

    async def apply(self, delta: Delta[Key, Object]) -> None:
        """OverlayError names each change that failed. What is already gone counts as removed."""
        failures: list[Failure] = []
        for is_link, group in groupby(plan(delta), key=lambda operation: isinstance(operation.object, VxlanLink)):
            operations = list(group)
            if is_link:
                failures += await self._change_links(operations)
            elif len(operations) <= INLINE:
                failures += self._change(operations)
            else:
                failures += await asyncio.to_thread(self._change, operations)
        if failures:
            raise OverlayError(failures)

    # What stands on devices, and routes

    def _dump(self) -> dict[Key, Object]:
        names = dict(socket.if_nameindex())
        found: list[Object] = [*self._links()]
        ours = {device_of(link) for link in found}
        for index in (index for index, name in names.items() if name in ours):
            found += self._standing_on(index, names)
        for family in Family:
            found += self._routes(family, ours, names)
        return {each.key: each for each in found}

    def _standing_on(self, index: int, names: Names) -> Iterator[Object]:
        dumps = [dump_fdb(index), *(dump_neighbors(family, index) for family in Family)]
        for payload in (payload for dump in dumps for payload in self._channel.dump(dump)):
            if neighbor := decode_neighbor(payload, names):
                yield neighbor
        for payload in (payload for family in Family for payload in self._channel.dump(dump_addresses(family, index))):
            if address := decode_address(payload, names):
                yield address

    def _routes(self, family: Family, ours: Collection[str], names: Names) -> Iterator[Route]:
        for payload in self._channel.dump(dump_routes(family, PROTOCOL)):
            if route := decode_route(payload, names):
                yield route
        for payload in self._channel.dump(dump_routes(family, PROTOCOL_BOOT)):
            route = decode_route(payload, names)
            if route and route.device in ours and is_flannels(route):
                yield route

    def _change(self, operations: list[Operation]) -> Iterable[Failure]:
        indexes = {name: index_of(name) for name in {device_of(operation.object) for operation in operations}}
        known, failures = [], []
        for operation in operations:
            device = device_of(operation.object)
            if indexes[device] or not device:
                known.append((operation, indexes[device]))
            elif operation.verb is not Verb.REMOVE:
                failures.append(Failure(operation, f"no device {device}"))
        refused = self._channel.change(iter(known))
        return failures + [
            Failure(operation, self._reason(operation, refusal))
            for operation, refusal in refused
            if operation.verb is not Verb.REMOVE or refusal.errno not in GONE
        ]

    def _reason(self, operation: Operation, refusal: OSError) -> str:
        if refusal.errno != errno.EEXIST or not isinstance(operation.object, Route):
            return str(refusal.strerror)
        names = dict(socket.if_nameindex())
        dump = self._channel.dump(dump_routes(Family.of(operation.object.prefix)))
        routes = (decode_route(payload, names) for payload in dump)
        foreign = next((route for route in routes if route and route.key == operation.object.key), None)
        return f"there is a route that is not ours: {foreign}"

    # Devices

    def _links(self) -> Iterator[VxlanLink]:
        # The kernel filters: a node has a device for each pod, and decoding one takes pyroute2 a millisecond.
        for payload in self._channel.dump(dump_links("vxlan")):
            link = decode_link(payload)
            if link and (link.name in self._devices or link.alias == ALIAS):
                yield link

    async def _change_links(self, operations: list[Operation]) -> list[Failure]:
        failures = []
        async with AsyncIPRoute() as netlink:
            for operation in operations:
                try:
                    await change_link(netlink, operation)
                except (NetlinkError, OSError) as error:
                    failures.append(Failure(operation, str(error)))
        return failures


def device_of(thing: Object) -> str:
    return thing.name if isinstance(thing, VxlanLink) else thing.device


def is_flannels(route: Route) -> bool:
    """A route as flanneld leaves it, for us to take over; one that a person added goes elsewhere or without onlink."""
    return route.onlink and route.gateway == route.prefix.network_address


# pyroute2 is untyped: its messages and sockets are Any here, and leave this file as our own values only.


def decode_link(payload: bytes) -> VxlanLink | None:
    """None for a device of another kind."""
    message: Any = ifinfmsg(HEADER.pack(HEADER.size + len(payload), RTM_NEWLINK, 0, 0, 0) + payload)
    message.decode()
    if message.get(("linkinfo", "kind")) != "vxlan":
        return None
    vxlan = message.get(("linkinfo", "data"))
    family_of_local = "vxlan_local" if vxlan.get("vxlan_local") else "vxlan_local6"
    local = vxlan.get(family_of_local)
    return VxlanLink(
        name=message.get("ifname"),
        vni=vxlan.get("vxlan_id"),
        port=vxlan.get("vxlan_port"),
        parent=name_of(vxlan.get("vxlan_link")),
        local=ip_address(local) if local else None,
        mac=message.get("address"),
        mtu=message.get("mtu"),
        learning=bool(vxlan.get("vxlan_learning")),
        gbp=bool(vxlan.get("vxlan_gbp")),
        alias=message.get("ifalias") or "",
        up=bool(message["flags"] & IFF_UP),
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
    link = cast("VxlanLink", operation.object)
    if operation.verb in {Verb.REMOVE, Verb.RECREATE}:
        await remove_link(netlink, link)
    if operation.verb in {Verb.ADD, Verb.RECREATE}:
        await netlink.link("add", ifname=link.name, kind="vxlan", address=link.mac, mtu=link.mtu, **vxlan_data(link))
    if operation.verb is not Verb.REMOVE:
        await settle_link(netlink, link)


async def remove_link(netlink: Any, link: VxlanLink) -> None:
    with suppress(OSError):  # nobody there is what we want
        index = socket.if_nametoindex(link.name)
        await netlink.link("del", index=index)


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


async def settle_link(netlink: Any, link: VxlanLink) -> None:
    """What the kernel lets us change on a device that exists. An alias goes in only after creation."""
    index = socket.if_nametoindex(link.name)
    await netlink.link("set", index=index, address=link.mac, mtu=link.mtu, ifalias=link.alias)
    await netlink.link("set", index=index, kind="vxlan", vxlan_id=link.vni, vxlan_learning=int(link.learning))
    accept_no_router_advertisements(link.name)
    await netlink.link("set", index=index, state="up" if link.up else "down")


def accept_no_router_advertisements(device: str) -> None:
    # A peer's pod must not hand us routes. Without IPv6 in the kernel the file is missing, and so is the danger.
    with suppress(OSError):
        Path("/proc/sys/net/ipv6/conf", device, "accept_ra").write_text("0")
