"""Devices, addresses, routes, neighbors and FDB entries through a Node, as netagent's objects.

Asked: the questions below, and those to `wg` where a device is WireGuard's; none of them shows a key that is secret.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any

import msgspec

from controlloop.family import Family
from netagent.state import (
    METRIC,
    PROTOCOL_BOOT,
    FdbEntry,
    IpipLink,
    Link,
    LinkAddress,
    Neighbor,
    Object,
    Route,
    VxlanLink,
    WireguardIdentity,
    WireguardLink,
    WireguardPeer,
    WireguardSubnet,
)
from netctl.node import Node

LINKS = ("ip", "-json", "-details", "link", "show")
ADDRESSES = ("ip", "-json", "address", "show")
ROUTES = {family: ("ip", "-json", f"-{family.value}", "-N", "route", "show", "table", "main") for family in Family}
NEIGHBORS = {family: ("ip", "-json", f"-{family.value}", "neighbor", "show") for family in Family}
FDB = ("bridge", "-json", "fdb", "show")
WIREGUARD = {
    fact: ("wg", "show", "all", fact) for fact in ("public-key", "listen-port", "allowed-ips", "persistent-keepalive")
}

WRITTEN_TYPES = ("unicast", "blackhole")
"""Types of route that netagent writes."""


def asked(node: Node, argv: Sequence[str]) -> list[dict[str, Any]]:
    """CommandError when the program fails. Nothing printed is an empty list."""
    return msgspec.json.decode(node.output(*argv) or b"[]", type=list[dict[str, Any]])


def read_links(node: Node) -> list[Link]:
    """Those of a kind that an overlay may have."""
    return [link for item in asked(node, LINKS) if (link := link_of(item))]


def link_of(item: Mapping[str, Any]) -> Link | None:
    info = item.get("linkinfo", {})
    data = info.get("info_data", {})
    name, mtu, alias, up = item["ifname"], item["mtu"], item.get("ifalias", ""), "UP" in item["flags"]
    local = data.get("local") or data.get("local6")
    address = None if local in (None, "any") else ip_address(local)
    match info.get("info_kind"):
        case "vxlan":
            options = {"learning": bool(data.get("learning")), "gbp": bool(data.get("gbp")), "alias": alias, "up": up}
            parent = data.get("link", "")
            return VxlanLink(name, data["id"], data["port"], parent, address, item["address"], mtu, **options)
        case "ipip":
            return IpipLink(name, address, mtu, alias, up)
        case "wireguard" | "tun":
            return WireguardLink(name, mtu, alias, up)
    return None


def read_routes(node: Node) -> Iterator[Route]:
    """Of the main table, whoever wrote them."""
    for family, argv in ROUTES.items():
        for item in asked(node, argv):
            if item.get("type", "unicast") in WRITTEN_TYPES and "nexthops" not in item:
                yield route_of(family, item)


def route_of(family: Family, item: Mapping[str, Any]) -> Route:
    everything = "0.0.0.0/0" if family is Family.V4 else "::/0"
    blackhole = item.get("type") == "blackhole"
    gateway = item.get("gateway")
    return Route(
        prefix=ip_network(everything if item["dst"] == "default" else item["dst"]),
        gateway=ip_address(gateway) if gateway else None,
        device="" if blackhole else item.get("dev", ""),
        onlink="onlink" in item.get("flags", ()),
        metric=item.get("metric", 0 if family is Family.V4 else METRIC[family]),
        protocol=int(item.get("protocol", PROTOCOL_BOOT)),
        blackhole=blackhole,
    )


def read_standing(node: Node, devices: Collection[str]) -> Iterator[Object]:
    """Addresses, neighbors and FDB entries on these devices: what somebody set there, not what the kernel learned."""
    yield from read_addresses(node, devices)
    yield from read_neighbors(node, devices)
    yield from read_fdb(node, devices)


def read_neighbors(node: Node, devices: Collection[str]) -> Iterator[Neighbor]:
    for argv in NEIGHBORS.values():
        for item in asked(node, argv):
            if item["dev"] in devices and "PERMANENT" in item["state"] and "lladdr" in item:
                yield Neighbor(ip_address(item["dst"]), item["lladdr"], item["dev"])


def read_addresses(node: Node, devices: Collection[str]) -> Iterator[LinkAddress]:
    for item in asked(node, ADDRESSES):
        for address in item.get("addr_info", ()) if item.get("ifname") in devices else ():
            if address["scope"] != "link":
                yield LinkAddress(ip_address(address["local"]), address["prefixlen"], item["ifname"])


def read_fdb(node: Node, devices: Collection[str]) -> Iterator[FdbEntry]:
    for item in asked(node, FDB):
        if item["ifname"] in devices and item["state"] == "permanent" and "dst" in item:
            yield FdbEntry(item["mac"], ip_address(item["dst"]), item["ifname"])


def read_wireguard(
    node: Node, devices: Collection[str]
) -> Iterator[WireguardIdentity | WireguardPeer | WireguardSubnet]:
    """Who the devices are, and whom they know. Where a peer is now is its own affair."""
    facts = {fact: told(node, argv) for fact, argv in WIREGUARD.items()}
    for device in devices:
        if key := facts["public-key"].get((device,)):
            yield WireguardIdentity(device, key, int(facts["listen-port"][device,]))
    for (device, key), allowed in facts["allowed-ips"].items():
        if device in devices:
            networks = frozenset(map(ip_network, () if allowed == "(none)" else allowed.split()))
            keepalive = facts["persistent-keepalive"].get((device, key), "off")
            peer = WireguardPeer(key, None, networks, device, 0 if keepalive == "off" else int(keepalive))
            yield peer
            yield from peer.subnets


def told(node: Node, argv: Sequence[str]) -> dict[tuple[str, ...], str]:
    """What `wg show all FACT` says by device, or by device and peer."""
    lines = (line.split("\t") for line in node.output(*argv).decode().splitlines())
    return {tuple(each[:-1]): each[-1] for each in lines}
