"""What `netctl explain` asks on the way, answered from what programs printed: of a node that is not asked any more.

The same answers as netctl.explain.kernel gets from the kernel, and the same rulesets as netctl.explain.rules.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from ipaddress import ip_address
from pathlib import PurePath
from typing import Any

import msgspec

from controlloop.family import Family, IPAddress
from controlloop.nft.elements import UnknownTypeError, layout_sizes
from netctl.actual.overlay import ADDRESSES, FDB
from netctl.explain.recorded_routes import Entry, RecordedRoutes
from netctl.explain.rules import chain_in
from netctl.explain.walk import RouteAnswer, Ruleset, Unsure
from netctl.explain.walk_iptables import PRIORITIES, IptablesRules
from netctl.explain.walk_nftables import beside_iptables, nft_tables
from netctl.explain.walk_overlay import KINDS
from netctl.findings.facts import LINKS
from netctl.node import Node

NEIGHBORS = ("ip", "-j", "neigh", "show", "nud", "all")
RULES = {family: ("ip", "-j", f"-{family.value}", "rule") for family in Family}
ROUTES = {family: ("ip", "-j", f"-{family.value}", "route", "show", "table", "all") for family in Family}
RULESET = {family: ("nft", "-j", "list", "ruleset", family) for family in ("ip", "ip6", "inet")}
LEGACY_NAMES = {family: f"/proc/thread-self/net/{family.nft}_tables_names" for family in Family}
SETTINGS = {
    Family.V4: ("forwarding", "route_localnet", "rp_filter", "accept_local"),
    Family.V6: ("forwarding", "force_forwarding"),
}
SETTING = "/proc/sys/net/ipv{}/conf/*/{}"
RECENT = "/proc/thread-self/net/xt_recent/*"


class RecordedSight:
    """A netctl.walk.Sight, and a netctl.walk_overlay.PathSight."""

    def __init__(self, family: Family, node: Node) -> None:
        self._family = family
        self._node = node
        self._elements: dict[tuple[str, str], dict[str, str]] = {}

    def close(self) -> None:
        """As the sight of a kernel; nothing is open."""

    def decoded(self, *argv: str) -> Any:
        return msgspec.json.decode(self._node.output(*argv) or b"[]")

    # -- routes and what they lead over ---------------------------------------------------------------------------

    @cached_property
    def _routes(self) -> RecordedRoutes:
        rules, routes = self.decoded(*RULES[self._family]), self.decoded(*ROUTES[self._family])
        settings = {name: self._setting(name) for name in SETTINGS[self._family]}
        return RecordedRoutes(self._family, rules, routes, self.decoded(*ADDRESSES), settings)

    def _setting(self, name: str) -> Mapping[str, int]:
        files = self._node.texts(SETTING.format(self._family.value, name)).items()
        return {PurePath(path).parent.name: int(text) for path, text in files if text.strip()}

    def route(self, to: IPAddress, source: IPAddress | None = None, came_in: str = "", mark: int = 0) -> RouteAnswer:
        return self._routes.route(to, source, came_in, mark)

    def matched(self, to: IPAddress) -> RouteAnswer:
        return self._routes.matched(to)

    def is_local(self, address: IPAddress) -> bool:
        return self.route(address).kind == "local"

    @cached_property
    def _neighbors(self) -> Mapping[tuple[str, str], str]:
        return {(each["dev"], each["dst"]): each.get("lladdr", "") for each in self.decoded(*NEIGHBORS)}

    def neighbor(self, device: str, address: IPAddress) -> str:
        return self._neighbors.get((device, str(address)), "")

    @cached_property
    def _tunnel_ends(self) -> Mapping[tuple[str, str], str]:
        entries = (each for each in self.decoded(*FDB) if "dst" in each and "self" in each.get("flags", ()))
        return {(each["ifname"], each["mac"]): each["dst"] for each in entries}

    def tunnel_end(self, device: str, mac: str) -> IPAddress | None:
        end = self._tunnel_ends.get((device, mac))
        return ip_address(end) if end else None

    @cached_property
    def _links(self) -> Mapping[str, Entry]:
        return {link["ifname"]: link for link in self.decoded(*LINKS)}

    def link(self, device: str) -> tuple[str, int]:
        link = self._links.get(device, {})
        return KINDS.get(link.get("linkinfo", {}).get("info_kind", ""), ""), link.get("mtu", 0)

    # -- tables and sets ------------------------------------------------------------------------------------------

    @cached_property
    def listings(self) -> Mapping[str, Sequence[Entry]]:
        """All tables but those that hold nothing but what iptables shows, by nft's family."""
        return {family: self.decoded(*argv)["nftables"] for family, argv in RULESET.items()}

    @cached_property
    def _containers(self) -> Mapping[tuple[str, str], tuple[str, Entry]]:
        """Each with its kind, by table and name."""
        return {
            (f"{item['family']} {item['table']}", item["name"]): (kind, item)
            for entries in self.listings.values()
            for entry in entries
            for kind, item in entry.items()
            if kind in ("set", "map")
        }

    def element(self, table: str, container: str, kind: str, key: str) -> str | None:
        try:
            layout_sizes(kind.partition(" : ")[0])
        except UnknownTypeError as error:
            raise Unsure(f"the set {container} of type {error}") from None
        place = table, container
        if place not in self._elements:
            found = self._containers.get(place)
            self._elements[place] = dict(map(as_words, found[1].get("elem", ()))) if found else {}
        return self._elements[place].get(key)

    def ranges(self, table: str, container: str) -> Sequence[Any]:
        kind, item = self._containers.get((table, container), ("", {}))
        if kind != "set":
            raise Unsure(f"the map {container}, which holds ranges")
        ranges: Sequence[Any] = item.get("elem", ())
        return ranges

    def in_ipset(self, name: str, address: IPAddress) -> bool | None:
        """What is in the sets of iptables is not kept."""
        del name, address
        return None

    def is_recent(self, name: str, address: IPAddress) -> bool | None:
        lists = {PurePath(path).name: text for path, text in self._node.texts(RECENT).items()}
        if name not in lists:
            return None
        lines = lists[name].splitlines()
        return any(ip_address(line.split()[0].removeprefix("src=")) == address for line in lines)


class RecordedRules:
    """All rules that a packet of one family may meet."""

    def __init__(self, family: Family, sight: RecordedSight, node: Node) -> None:
        self._family = family
        self._sight = sight
        self._node = node

    def rulesets(self) -> Iterator[Ruleset]:
        through_nft = self._saved("nft")
        if through_nft:
            yield self._iptables("nft", through_nft)
        if self._node.text(LEGACY_NAMES[self._family]).split() and (legacy := self._saved("legacy")):
            yield self._iptables("legacy", legacy)
        for family in (self._family.nft, "inet"):
            listed = beside_iptables(self._sight.listings[family], through_nft)
            yield from nft_tables(listed, frozenset({family}), self._sight)

    def _program(self, variant: str) -> str:
        return f"{'iptables' if self._family is Family.V4 else 'ip6tables'}-{variant}"

    def _saved(self, variant: str) -> dict[str, bytes]:
        """Its tables as iptables-save prints each."""
        text = b"\n" + self._node.output(f"{self._program(variant)}-save")
        parts = (part.partition(b"\n") for part in text.split(b"\n*")[1:])
        tables = {name.decode(errors="replace"): b"\n" + rules for name, _, rules in parts}
        return {name: rules for name, rules in tables.items() if name in PRIORITIES}

    def _iptables(self, variant: str, tables: Mapping[str, bytes]) -> IptablesRules:
        return IptablesRules(
            tables, lambda table, chain: chain_in(tables.get(table, b""), chain), self._sight, self._program(variant)
        )


def as_words(element: Any) -> tuple[str, str]:
    """Key and value of one element, as the kernel's own are put into words; the value of a set's is empty."""
    key, value = element if isinstance(element, list) else (element, "")
    return word(key), word(value)


def word(part: Any) -> str:
    if not isinstance(part, dict):
        return str(part)
    ((kind, inner),) = part.items()
    match kind:
        case "concat":
            return " . ".join(map(word, inner))
        case "elem":
            return word(inner["val"])
        case _ if isinstance(inner, dict) and "target" in inner:
            return f"{kind} {inner['target']}"
        case _:
            return str(kind)
