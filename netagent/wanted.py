"""The overlay's objects in words: what `/desired` says of them, and what netctl compares with the kernel. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from controlloop.family import Family
from netagent.overlay import OWN, Overlay
from netagent.state import (
    METRIC,
    FdbEntry,
    Key,
    LinkAddress,
    Neighbor,
    Object,
    Route,
    WireguardPeer,
    WireguardSubnet,
)

Wanted = tuple[str, str, str, str]
"""Owner (a lease's key, empty: the agent itself), kind, name and text of an object."""


def name_of(one: Object) -> str:
    """What makes it that object, among those of its kind."""
    name = NAMES.get(type(one))
    return name(one) if name else str(one.key.identity)


def route_name(route: Route) -> str:
    metric = "" if route.metric == METRIC[Family.of(route.prefix)] else f" metric {route.metric}"
    return f"{route.prefix}{metric}"


NAMES: Mapping[type[Object], Callable[..., str]] = {
    Route: route_name,
    Neighbor: lambda one: f"{one.address} dev {one.device}",
    FdbEntry: lambda one: f"{one.mac} dev {one.device}",
    LinkAddress: lambda one: f"{one.address}/{one.prefix_len} dev {one.device}",
    WireguardPeer: lambda one: f"{one.public_key} dev {one.device}",
    WireguardSubnet: lambda one: f"{one.subnet} dev {one.device}",
}


def text_of(one: Object) -> str:
    """The whole object, but of WireGuard's peers: what is secret stays so, and their endpoints move with them."""
    if isinstance(one, WireguardPeer):
        return str(replace(one, preshared_key="", endpoint=None)).replace(" endpoint (none)", "")
    return str(one)


def wanted_objects(overlay: Overlay) -> Iterator[Wanted]:
    """All that is desired now; may be read while the overlay goes on changing."""
    objects, owned = dict(overlay.objects), overlay.owned()
    return (worded for owner, keys in owned.items() for worded in _worded(owner, keys, objects))


def _worded(owner: str, keys: Sequence[Key], objects: dict[Key, Object]) -> Iterable[Wanted]:
    name = "" if owner == OWN else owner
    return [(name, key.kind, name_of(objects[key]), text_of(objects[key])) for key in keys]
