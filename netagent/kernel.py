"""The overlay in the kernel: reads and changes what is ours and nothing else.

Ours are the devices that we marked or flanneld named, of any backend, what stands on them, and the routes with our
protocol number (netagent.instance). Devices are changed by `links` (pyroute2), WireGuard's peers by
`wireguard`; all else, where thousands come at once, goes through `netlink`.
"""

import asyncio
import errno
import socket
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby

from controlloop.command import CommandError
from controlloop.delta import Delta, diff
from controlloop.family import Family
from controlloop.reconcile import keys_of
from netagent import link_messages
from netagent.diff import Operation, Verb, plan, rank
from netagent.glance import Glances
from netagent.instance import FIRST, Instance
from netagent.link_messages import FLANNELD_NAMES, is_ours
from netagent.messages import (
    Names,
    decode_address,
    decode_label,
    decode_neighbor,
    decode_route,
    dump_addresses,
    dump_fdb,
    dump_links,
    dump_neighbors,
    dump_routes,
)
from netagent.netlink import Channel, Refusal
from netagent.state import (
    IPIP_DEVICE,
    PROTOCOL_BOOT,
    Key,
    Link,
    Object,
    OverlayState,
    Route,
    WireguardIdentity,
    WireguardLink,
    WireguardPeer,
    WireguardSubnet,
)
from netagent.wireguard import WireguardTool

# Handing work to a thread costs 0.2 ms: worth it from about this many changes on.
INLINE = 50

# "Not there", in the kernel's words for routes, neighbors and FDB entries, addresses, devices.
GONE = {errno.ESRCH, errno.ENOENT, errno.EADDRNOTAVAIL, errno.ENODEV}

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

    def __init__(self, instance: Instance = FIRST, devices: Collection[str] = ()) -> None:
        """`devices`: the names of those that its backend wants."""
        self._instance = instance
        self._devices = devices
        self._channel = Channel()
        self._wireguard = WireguardTool()
        self._glances = Glances()
        self._in_order: dict[str, int | None] = {}
        """How WireGuard's devices looked at a glance when all was as desired; empty when that is not known."""

    @property
    def port(self) -> int:
        """The netlink port that our changes come from, by which their echo is known; links have another."""
        return self._channel.port

    def close(self) -> None:
        self._channel.close()

    async def dump(self) -> dict[Key, Object]:
        found = await asyncio.to_thread(self._dump)
        for link in [each for each in found.values() if isinstance(each, WireguardLink)]:
            found |= await self._wireguard.dump(link.name)
        return found

    async def untold(self, desired: OverlayState) -> dict[Key, Object | None]:
        """What differs of WireGuard's, of which no notification tells, as it is; None: not there."""
        glances = {device: await self._glances.at(device) for device in self._in_order}
        # What we want ourselves goes in with `apply`, or fails there: only what somebody did is looked for here.
        if glances and glances == self._in_order:
            return {}
        differing: dict[Key, Object | None] = {}
        for device in [each.device for each in desired.values() if isinstance(each, WireguardIdentity)]:
            before = await self._glances.at(device)
            differing |= await self._untold_of(device, desired)
            # What was put right while we read must not be taken for the way in which it looked before.
            glances[device] = before if await self._glances.at(device) == before else None
        self._in_order = {} if differing or None in glances.values() else glances
        return differing

    async def _untold_of(self, device: str, desired: OverlayState) -> dict[Key, Object | None]:
        found = await self._wireguard.dump(device)
        wanted = {key: each for key, each in desired.items() if is_wireguards(each) and device_of(each) == device}
        # Nothing is found of a device that is gone, and of that a notification tells.
        return {key: found.get(key) for key in keys_of(diff(wanted, found))} if found else {}

    async def apply(self, delta: Delta[Key, Object]) -> None:
        """OverlayError names each change that failed. What is already gone counts as removed."""
        failures: list[Failure] = []
        for kind, group in groupby(plan(delta), key=lambda operation: seam_of(operation.object)):
            operations = list(group)
            if kind is Link:
                failures += await self._change_links(operations)
            elif kind is WireguardTool:
                failures += await self._change_wireguard(operations)
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
        for payload in self._channel.dump(dump_routes(family, self._instance.protocol)):
            if route := decode_route(payload, names):
                yield route
        for payload in self._channel.dump(dump_routes(family, PROTOCOL_BOOT)):
            route = decode_route(payload, names)
            if route and route.device in ours and is_flannels(route):
                yield route

    def _change(self, operations: list[Operation]) -> Iterable[Failure]:
        indexes = {
            name: self._channel.index_of(name) for name in {device_of(operation.object) for operation in operations}
        }
        known, failures = [], []
        for operation in operations:
            device = device_of(operation.object)
            if indexes[device] or not device:
                known.append((operation, indexes[device]))
            elif operation.verb is not Verb.REMOVE:
                failures.append(Failure(operation, f"no device {device}"))
        refused = self._channel.change(iter(known))
        return failures + self._second_try(refused, indexes)

    def _second_try(self, refused: list[tuple[Operation, Refusal]], indexes: dict[str, int]) -> list[Failure]:
        """Take over the routes that flanneld left in our place; all other refusals stand."""
        in_the_way = self._routes_in_the_way(
            operation for operation, refusal in refused if refusal.errno == errno.EEXIST
        )
        failures, again = [], []
        for operation, refusal in refused:
            found = in_the_way.get(operation.object.key)
            if operation.verb is Verb.REMOVE and refusal.errno in GONE:
                continue
            if found and found.protocol == PROTOCOL_BOOT and self._with_our_mark(found) == operation.object:
                again.append((Operation(Verb.CHANGE, operation.object), indexes[found.device]))
            else:
                reason = f"there is a route that is not ours: {found}" if found else str(refusal.strerror)
                failures.append(Failure(operation, reason))
        return failures + [Failure(each, str(refusal.strerror)) for each, refusal in self._channel.change(iter(again))]

    def _with_our_mark(self, route: Route) -> Route:
        return replace(route, protocol=self._instance.protocol)

    def _routes_in_the_way(self, operations: Iterable[Operation]) -> dict[Key, Route]:
        keys = {each.object.key: Family.of(each.object.prefix) for each in operations if isinstance(each.object, Route)}
        if not keys:
            return {}
        names = dict(socket.if_nameindex())
        dumps = [self._channel.dump(dump_routes(family)) for family in set(keys.values())]
        routes = (decode_route(payload, names) for dump in dumps for payload in dump)
        return {route.key: route for route in routes if route and route.key in keys}

    # Devices

    def _links(self) -> Iterator[Link]:
        # The kernel filters by kind, but gives all devices while it has no driver for that kind.
        payloads = (payload for kind in FLANNELD_NAMES for payload in self._channel.dump(dump_links(kind)))
        labels = ((decode_label(payload), payload) for payload in payloads)
        ours = {label.name: payload for label, payload in labels if is_ours(label, self._instance, self._devices)}
        yield from filter(None, map(decode_link, ours.values()))

    async def _change_links(self, operations: list[Operation]) -> list[Failure]:
        from netagent.links import change_links  # noqa: PLC0415 - most starts find their devices right

        return [Failure(operation, reason) for operation, reason in await change_links(operations)]

    # WireGuard

    async def _change_wireguard(self, operations: list[Operation]) -> list[Failure]:
        failures = []
        for (device, _, removes), group in groupby(sorted(operations, key=way_into_wireguard), way_into_wireguard):
            some = list(group)
            if removes and not self._channel.index_of(device):
                continue
            try:
                await self._into_wireguard(device, [each.object for each in some], removes=removes)
            except CommandError as error:
                failures += [Failure(operation, str(error)) for operation in some]
        return failures

    async def _into_wireguard(self, device: str, objects: list[Object], *, removes: bool) -> None:
        peers = [each for each in objects if isinstance(each, WireguardPeer)]
        for identity in [each for each in objects if isinstance(each, WireguardIdentity)]:
            # Without its device there is no identity, and with it always one.
            if not removes:
                await self._wireguard.identify(identity)
        if peers:
            await (self._wireguard.remove if removes else self._wireguard.put)(device, peers)


def decode_link(payload: bytes) -> Link | None:
    """None for a device of another kind."""
    return link_messages.decode_link(payload, name_of)


def name_of(index: int) -> str:
    """Empty when there is no such device."""
    with suppress(OSError):
        return socket.if_indextoname(index)
    return ""


def seam_of(thing: Object) -> object:
    """What a change goes through."""
    if isinstance(thing, Link):
        return Link
    return WireguardTool if is_wireguards(thing) else None


def is_wireguards(thing: Object) -> bool:
    return isinstance(thing, WireguardIdentity | WireguardPeer | WireguardSubnet)


def way_into_wireguard(operation: Operation) -> tuple[str, int, bool]:
    """One run of `wg` for all that has the same; who we are comes before whom we know."""
    return device_of(operation.object), rank(operation.object), operation.verb is Verb.REMOVE


def device_of(thing: Object) -> str:
    return thing.name if isinstance(thing, Link) else thing.device


def is_flannels(route: Route) -> bool:
    """A route as flanneld leaves it, for us to take over; one that a person added goes elsewhere or without onlink."""
    return route.onlink and (route.device == IPIP_DEVICE or route.gateway == route.prefix.network_address)
