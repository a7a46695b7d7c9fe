"""Which route a packet takes, from what `ip -j rule`, `ip -j route show table all` and `ip -j address` printed. Pure.

As the kernel decides (net/ipv4/route.c, fib_frontend.c, net/ipv6/route.c). What it would refuse is named by the route
that refuses so: a source that this node may not use is `blackhole`. Left out are rules on ports, users and protocols,
which match nothing here, and the choice among several next hops: the first one stands for all.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

from controlloop.family import Family, IPAddress, IPNetwork
from netctl.explain.walk import RouteAnswer

Entry = Mapping[str, Any]

LO, MAIN = "lo", "main"
REFUSING = ("blackhole", "unreachable", "prohibit")
FAILING = (*REFUSING, "none")
FIRST_RULES = (0, 32766, 32767)
"""Their priorities."""
KINDS = frozenset({"unicast", "local", "broadcast", "multicast", *REFUSING})
ELSE_MATCHED = frozenset({"ipproto", "sport", "dport", "uid_start", "tun_id", "tos", "l3mdev", "oif"})
"""Selectors of rules that a question for a route says nothing of."""
ANY_MARK = 0xFFFFFFFF
LABELS = ((ip_network("::1/128"), 0), (ip_network("fc00::/7"), 13), (ip_network("2002::/16"), 2))
"""Of RFC 6724, 2.1, as far as they are in use."""
OTHER_LABEL = 1


class Asked(NamedTuple):
    to: IPAddress
    source: IPAddress | None
    came_in: str
    mark: int


@dataclass(frozen=True, slots=True)
class Route:
    network: IPNetwork
    kind: str
    device: str
    gateway: IPAddress | None
    source: IPAddress | None
    metric: int
    mtu: int

    @property
    def prefix(self) -> str:
        return str(self.network) if self.network.prefixlen or int(self.network.network_address) else "default"


class Address(NamedTuple):
    device: str
    address: IPAddress
    length: int
    scope: str
    is_secondary: bool


@dataclass(frozen=True)
class RecordedRoutes:
    family: Family
    rules: Sequence[Entry]
    routes: Sequence[Entry]
    links: Sequence[Entry]
    """As `ip -j address` prints them."""
    settings: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Of the family, by name as `forwarding`, then by device, with `all`."""

    @cached_property
    def _tables(self) -> dict[str, list[Route]]:
        """Longest prefix first, then the lowest metric."""
        tables: dict[str, list[Route]] = {}
        for entry in self.routes:
            tables.setdefault(str(entry.get("table", MAIN)), []).append(read_route(entry, self.family))
        for routes in tables.values():
            routes.sort(key=lambda route: (-route.network.prefixlen, route.metric))
        return tables

    @cached_property
    def _addresses(self) -> list[Address]:
        return list(read_addresses(self.links, self.family))

    @cached_property
    def _own(self) -> frozenset[IPAddress]:
        return frozenset(each.address for each in self._addresses)

    # -- questions ------------------------------------------------------------------------------------------------

    def route(self, to: IPAddress, source: IPAddress | None = None, came_in: str = "", mark: int = 0) -> RouteAnswer:
        asked = Asked(to, source, came_in, mark)
        if self.family is Family.V4 and (refusal := self._refused_source(asked)):
            return RouteAnswer(refusal)
        found = self._looked_up(asked)
        if self.family is Family.V4 and came_in and (refusal := self._refused_entry(asked, found)):
            return RouteAnswer(refusal)
        if found is None or found.kind in FAILING:
            return RouteAnswer(found.kind if found else "none")
        if self.family is Family.V6 and came_in and found.kind == "unicast" and not self._is_forwarded(came_in):
            return RouteAnswer("no-forwarding")
        if self.family is Family.V4 and not came_in and self._stays_inside(source, found):
            return RouteAnswer("blackhole")
        kind = "multicast" if self.family is Family.V4 and to.is_multicast else found.kind
        device = LO if found.kind == "local" or (came_in and found.kind == "broadcast") else found.device
        return RouteAnswer(
            kind, device, found.gateway, self._source(asked, found, device), f"{to}/{self.family.bits}", found.mtu
        )

    def matched(self, to: IPAddress) -> RouteAnswer:
        """The route itself that leads to an address, with its prefix."""
        found = self._looked_up(Asked(to, None, "", 0))
        if found is None or found.kind in FAILING:
            return RouteAnswer(found.kind if found else "none")
        return RouteAnswer(found.kind, found.device, found.gateway, found.source, found.prefix, found.mtu)

    # -- rules and tables -----------------------------------------------------------------------------------------

    def _looked_up(self, asked: Asked) -> Route | None:
        begin = 0
        for rule in sorted(self.rules, key=lambda each: each["priority"]):
            if rule["priority"] < begin or not applies(rule, asked, self.family):
                continue
            if "goto" in rule:
                begin = rule["goto"]
            elif (action := rule.get("action", "")) in REFUSING:
                # A rule's `unreachable` fails as a missing route does (fib4_rule_action).
                kind = "none" if action == "unreachable" else action
                return Route(ip_network(asked.to), kind, "", None, None, 0, 0)
            elif found := self._in_table(rule, asked.to):
                return found
        return None

    def _in_table(self, rule: Entry, to: IPAddress) -> Route | None:
        for route in self._tables.get(str(rule.get("table", "")), ()):
            if to in route.network:
                if route.kind == "throw" or route.network.prefixlen <= rule.get("suppress_prefixlength", -1):
                    return None
                return route
        return None

    # -- what IPv4 refuses ----------------------------------------------------------------------------------------

    def _refused_source(self, asked: Asked) -> str:
        source, to = asked.source, asked.to
        inside = (to.is_loopback or bool(source and source.is_loopback)) and asked.came_in not in ("", LO)
        if inside and not self._is_set("route_localnet", asked.came_in):
            return "blackhole"
        if source is None:
            return ""
        is_wrong = source.is_multicast if asked.came_in else not self.is_own(source)
        return "blackhole" if is_wrong else ""

    def is_own(self, address: IPAddress) -> bool:
        return address in self._own or address.is_loopback

    def _refused_entry(self, asked: Asked, found: Route | None) -> str:
        """What comes from outside and may not go on, or not from there."""
        is_for_us = found is not None and found.kind in ("local", "broadcast")
        if not is_for_us and not self.settings.get("forwarding", {}).get(asked.came_in, 0):
            return "no-forwarding"
        if found is None or found.kind in FAILING:
            return ""
        if asked.source is None:
            return ""
        # Without the mark, unless net.ipv4.conf.*.src_valid_mark asks for it, which hardly anybody does.
        back = self._looked_up(Asked(asked.source, asked.to, asked.came_in, 0))
        if self.is_own(asked.source) and not self._is_set("accept_local", asked.came_in):
            return "blackhole"
        if self._has_own_rules and back and back.kind not in ("unicast", *FAILING) and not self.is_own(asked.source):
            return "blackhole"
        is_strict = self._filter(asked.came_in) == 1
        return "blackhole" if is_strict and (back is None or back.device != asked.came_in) else ""

    @property
    def _has_own_rules(self) -> bool:
        """Others than a node has from the start: then the kernel looks closer at sources (fib_validate_source)."""
        return any(rule["priority"] not in FIRST_RULES for rule in self.rules)

    def _stays_inside(self, source: IPAddress | None, found: Route) -> bool:
        leaves = found.kind != "local" and found.device != LO
        return bool(source and source.is_loopback and leaves and not self._is_set("route_localnet", found.device))

    def _is_set(self, name: str, device: str) -> bool:
        values = self.settings.get(name, {})
        return bool(values.get("all") or values.get(device))

    def _filter(self, device: str) -> int:
        values = self.settings.get("rp_filter", {})
        return max(values.get("all", 0), values.get(device, 0))

    def _is_forwarded(self, came_in: str) -> bool:
        """Over IPv6 (ip6_forward). Where nobody noted it down, it is."""
        return bool(
            self.settings.get("forwarding", {}).get("all", 1)
            or self.settings.get("force_forwarding", {}).get(came_in, 0)
        )

    # -- the source that is used ----------------------------------------------------------------------------------

    def _source(self, asked: Asked, found: Route, device: str) -> IPAddress | None:
        if asked.came_in or (asked.source and self.family is Family.V4):
            return None
        if self.family is Family.V6:
            return found.source or self._source_of_ipv6(asked.to, device)
        if found.source or found.kind == "local":
            return found.source or asked.to
        return self._source_of_ipv4(found.gateway or asked.to, found.device)

    def _source_of_ipv4(self, towards: IPAddress, device: str) -> IPAddress | None:
        """As inet_select_addr: of the device, in the subnet of the next hop where it has one there."""
        usable = [each for each in self._addresses if each.scope != "host" and not each.is_secondary]
        own = [each for each in usable if each.device == device]
        near = [each for each in own if towards in ip_network((each.address, each.length), strict=False)]
        far = [each for each in usable if each.scope == "global"]
        return next((each.address for each in (*near, *own, *far)), None)

    def _source_of_ipv6(self, to: IPAddress, device: str) -> IPAddress | None:
        """As ipv6_dev_get_saddr, which follows RFC 6724."""
        only_here = to.is_link_local or to.is_multicast
        usable = [each for each in self._addresses if not only_here or each.device == device]
        # The first one that nothing outweighs.
        best = max(usable, key=lambda each: preference(each, to, device), default=None)
        return best.address if best else None


def applies(rule: Entry, asked: Asked, family: Family) -> bool:
    if not ELSE_MATCHED.isdisjoint(rule):
        return False
    fits = (
        within(asked.source or ip_address(bytes(family.bits // 8)), rule.get("src", "all"), rule.get("srclen"))
        and within(asked.to, rule.get("dst", "all"), rule.get("dstlen"))
        and rule.get("iif", asked.came_in or LO) == (asked.came_in or LO)
        and asked.mark & number(rule.get("fwmask", ANY_MARK)) == number(rule.get("fwmark", asked.mark))
    )
    return fits != ("not" in rule)


def within(address: IPAddress, text: str, length: int | None) -> bool:
    if text == "all":
        return True
    return address in ip_network(f"{text}/{address.max_prefixlen if length is None else length}", strict=False)


def number(value: Any) -> int:
    return value if isinstance(value, int) else int(str(value), 0)


def read_route(entry: Entry, family: Family) -> Route:
    text = entry["dst"] if entry["dst"] != "default" else f"{ip_address(bytes(family.bits // 8))}/0"
    hop = (entry.get("nexthops") or [entry])[0]
    kind = entry.get("type", "unicast")
    return Route(
        ip_network(text),
        kind if kind in KINDS or kind == "throw" else "none",
        hop.get("dev", ""),
        ip_address(hop["gateway"]) if "gateway" in hop else None,
        ip_address(entry["prefsrc"]) if "prefsrc" in entry else None,
        entry.get("metric", 0),
        next((metrics["mtu"] for metrics in entry.get("metrics", ()) if "mtu" in metrics), 0),
    )


def read_addresses(links: Sequence[Entry], family: Family) -> Iterator[Address]:
    name = "inet" if family is Family.V4 else "inet6"
    for link in links:
        for entry in link.get("addr_info", ()):
            if entry.get("family") == name and "local" in entry and not entry.get("tentative"):
                address = ip_address(entry["local"])
                yield Address(link["ifname"], address, entry["prefixlen"], entry["scope"], "secondary" in entry)


def preference(each: Address, to: IPAddress, device: str) -> tuple[int, ...]:
    """Larger is better: the rules of RFC 6724, 5, in order."""
    own, wanted = scope_of(each.address), scope_of(to)
    fits = -own if own >= wanted else own - 128
    same_bits = each.address.max_prefixlen - (int(each.address) ^ int(to)).bit_length()
    return (
        each.address == to,
        fits,
        each.device == device,
        label_of(each.address) == label_of(to),
        min(same_bits, each.length),
    )


def scope_of(address: IPAddress) -> int:
    if address.is_multicast:
        return address.packed[1] & 15
    return 2 if address.is_link_local or address.is_loopback else 14


def label_of(address: IPAddress) -> int:
    return next((label for network, label in LABELS if address in network), OTHER_LABEL)
