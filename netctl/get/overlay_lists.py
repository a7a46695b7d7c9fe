"""`netctl get routes` and `netctl get fdb`: what the kernel holds of the overlays, and to which peer each leads."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from netagent.instance import Instance
from netagent.state import FdbEntry, Neighbor, Object, Route
from netagent.wanted import name_of, text_of
from netctl.actual.overlay import read_fdb, read_links, read_neighbors, read_routes
from netctl.colour import State
from netctl.get.daemon_pages import Silent, agents, desired_page
from netctl.get.kernel_list import print_list
from netctl.node import Node
from netctl.output import Column, Item, Listing

KERNEL_PROTOCOL = 2
"""RTPROT_KERNEL: what comes with an address."""
STATES = {"ok": State.OK, "changed": State.FAILED, "foreign": State.DEGRADED, "unknown": State.STALE}


@dataclass(frozen=True, slots=True)
class Overlay:
    """What one agent wants; of a silent one nothing is known."""

    agent: str
    instance: Instance
    wanted: Mapping[tuple[str, str], tuple[str, str]] | None
    """Lease and text, by kind and name."""

    def state(self, one: Object) -> str:
        """`foreign`: somebody else's."""
        if self.wanted is None:
            return "unknown"
        _, text = self.wanted.get((one.key.kind, name_of(one)), ("", None))
        if text is None:
            return "foreign"
        return "ok" if text == text_of(one) else "changed"

    def peer(self, one: Object) -> str | None:
        """Its lease; None: nobody's, or our own."""
        return (self.wanted or {}).get((one.key.kind, name_of(one)), ("", ""))[0] or None

    def devices(self, node: Node) -> set[str]:
        ours = {name for kind, name in self.wanted or () if kind == "link"}
        return ours | {link.name for link in read_links(node) if link.alias == self.instance.alias}


def show(node: Node, noun: str, name: str, form: str) -> int:
    """`noun` is `routes` or `fdb`; with a `name`, only what leads to this peer, subnet, address or device."""
    reader, listing = (route_items, route_listing) if noun == "routes" else (fdb_items, fdb_listing)

    def read(silent: Silent) -> Iterator[Item]:
        for overlay in [overlay_of(node, agent, silent) for agent in agents(node)]:
            yield from (item for item in reader(node, overlay) if is_meant(item, name))

    return print_list(read, listing, form, is_wrong)


def overlay_of(node: Node, agent: str, silent: Silent) -> Overlay:
    page = desired_page(node, agent, silent)
    number = int(agent.removeprefix("netagent") or "0")
    wanted = {(kind, name): (owner, text) for owner, kind, name, text in page["overlay"]} if page else None
    return Overlay(agent, Instance(number), wanted)


def route_items(node: Node, overlay: Overlay) -> Iterator[Item]:
    devices = overlay.devices(node)
    for route in read_routes(node):
        is_ours = route.protocol == overlay.instance.protocol or overlay.state(route) in ("ok", "changed")
        if is_ours or (route.device in devices and route.protocol != KERNEL_PROTOCOL):
            yield {**route_item(route), **of_overlay(overlay, route)}


def route_item(route: Route) -> Item:
    return {
        "prefix": str(route.prefix),
        "gateway": str(route.gateway) if route.gateway else None,
        "device": route.device or None,
        "type": "blackhole" if route.blackhole else "unicast",
        "onlink": route.onlink,
        "metric": route.metric,
        "protocol": route.protocol,
    }


def fdb_items(node: Node, overlay: Overlay) -> Iterator[Item]:
    devices = overlay.devices(node)
    for entry in read_fdb(node, devices):
        yield {**fdb_item("fdb", entry.mac, entry, str(entry.destination)), **of_overlay(overlay, entry)}
    for neighbor in read_neighbors(node, devices):
        yield {**fdb_item("neighbor", str(neighbor.address), neighbor, neighbor.mac), **of_overlay(overlay, neighbor)}


def fdb_item(kind: str, of: str, entry: FdbEntry | Neighbor, leads_to: str) -> Item:
    return {"kind": kind, "address": of, "leads_to": leads_to, "device": entry.device}


def of_overlay(overlay: Overlay, one: Object) -> Item:
    return {"agent": overlay.agent, "peer": overlay.peer(one), "state": overlay.state(one)}


def is_meant(item: Item, name: str) -> bool:
    return not name or name in (item.get(field) for field in ("peer", "prefix", "address", "leads_to", "device"))


def is_wrong(item: Item) -> bool:
    """Anybody may route into our devices; entries of others there mislead packets."""
    return item["state"] == "changed" or (item["state"] == "foreign" and "kind" in item)


def route_listing(items: list[Item]) -> Listing:
    columns = (
        Column("ROUTE", lambda item: item["prefix"]),
        Column("VIA", lambda item: item["gateway"]),
        Column("DEVICE", lambda item: item["device"] or item["type"]),
        Column("PEER", lambda item: item["peer"]),
        Column("STATE", lambda item: item["state"], state=lambda item: STATES[item["state"]]),
        Column("ONLINK", lambda item: "yes" if item["onlink"] else "no", wide=True),
        Column("METRIC", lambda item: item["metric"], right=True, wide=True),
        Column("PROTOCOL", lambda item: item["protocol"], right=True, wide=True),
        Column("AGENT", lambda item: item["agent"], wide=True),
    )
    return Listing("RouteList", items, columns, lambda item: f"route/{item['prefix']}")


def fdb_listing(items: list[Item]) -> Listing:
    columns = (
        Column("KIND", lambda item: item["kind"]),
        Column("ADDRESS", lambda item: item["address"]),
        Column("LEADS TO", lambda item: item["leads_to"]),
        Column("PEER", lambda item: item["peer"]),
        Column("STATE", lambda item: item["state"], state=lambda item: STATES[item["state"]]),
        Column("DEVICE", lambda item: item["device"], wide=True),
        Column("AGENT", lambda item: item["agent"], wide=True),
    )
    return Listing("FdbList", items, columns, lambda item: f"{item['kind']}/{item['address']}")
