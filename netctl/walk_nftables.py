"""Walks a packet through nftables as nft lists them (`nft --json --terse list ruleset`). Pure.

Elements of sets and maps are asked for one by one: a listing of all of them takes seconds on a large node.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, NamedTuple

from controlloop.nft.listing import type_text
from netctl.nft_values import Values
from netctl.walk import OURS, BaseChain, Branch, NoMatchError, Notes, Packet, Place, Sight, Unsure, Verdict, scaled

OUR_DIGEST = re.compile(r" #[0-9a-f]{8}$")
VERDICTS = {"accept": Verdict.ACCEPT, "drop": Verdict.DROP, "reject": Verdict.REJECT, "queue": Verdict.ACCEPT}
PASSIVE = ("counter", "log", "notrack", "flow", "quota")
"""Statements that decide nothing here."""
DECISIVE = frozenset({"drop", "reject", "dnat", "redirect", "snat", "masquerade", "tproxy", "queue", "vmap"})
NAT_PRIORITY = {"prerouting": -100, "output": -100, "input": 100, "postrouting": 100}
"""All chains of type nat at a hook are called in turn from one place (nf_nat_proto.c), whatever their own priority."""


class Way(NamedTuple):
    """Where one branch is after a rule."""

    share: float
    packet: Packet
    verdict: Verdict | None = None
    goes_to: str = ""
    """A chain."""
    returns: bool = False
    """Behind that chain, the rule's own chain goes on."""
    ends: bool = False
    """This chain is over."""


class NftTable:
    """One table of the listing."""

    def __init__(self, family: str, name: str, sight: Sight) -> None:
        self.name = f"{family} {name}"
        self.is_ours = name.startswith(OURS)
        self._sight = sight
        self._types: dict[str, str] = {}
        self._bases: list[Mapping[str, Any]] = []
        self._rules: dict[str, list[Mapping[str, Any]]] = {}

    def add(self, kind: str, item: Mapping[str, Any]) -> None:
        match kind:
            case "set" | "map" if "interval" not in item.get("flags", ()):
                value = f" : {type_text(item['map'])}" if kind == "map" else ""
                self._types[item["name"]] = f"{type_text(item['type'])}{value}"
            case "chain":
                self._rules.setdefault(item["name"], [])
                if "hook" in item:
                    self._bases.append(item)
            case "rule":
                self._rules.setdefault(item["chain"], []).append(item)

    def base_chains(self, hook: str) -> Iterator[BaseChain]:
        for base in self._bases:
            if base["hook"] == hook:
                is_nat = base["type"] == "nat"
                priority = NAT_PRIORITY[hook] if is_nat else base["prio"]
                yield BaseChain(priority, is_nat, f"{self.name} {base['name']}", self._runner(base), self.is_ours)

    def _runner(self, base: Mapping[str, Any]) -> Any:
        def run(packet: Packet, notes: Notes) -> list[Branch]:
            return [self._with_policy(base, branch, notes) for branch in self._chain(base["name"], packet, notes)]

        return run

    def _with_policy(self, base: Mapping[str, Any], branch: Branch, notes: Notes) -> Branch:
        if branch.verdict is None and base.get("policy") == "drop":
            place = f"{self.name} {base['name']}"
            notes.step(place, "drop", "policy")
            return branch._replace(verdict=Verdict.DROP, why=f"{place}: policy drop")
        return branch

    def _chain(self, name: str, packet: Packet, notes: Notes) -> Iterator[Branch]:
        """The ends of all branches; those without a verdict go on behind the chain."""
        waiting = [Branch(1.0, packet)]
        for rule in self._rules.get(name, ()):
            going_on: list[Branch] = []
            for branch in waiting:
                for ended, each in self._after(rule, branch, notes):
                    if ended:
                        yield each
                    else:
                        going_on.append(each)
            waiting = going_on
        yield from waiting

    def _after(self, rule: Mapping[str, Any], branch: Branch, notes: Notes) -> Iterator[tuple[bool, Branch]]:
        """Where a branch is behind one rule, and whether that is the end of the chain."""
        for way in self._rule(rule, branch.packet, notes):
            share = branch.share * way.share
            if way.goes_to:
                seen = len(notes.steps)
                for each in scaled(list(self._chain(way.goes_to, way.packet, notes)), share):
                    yield each.verdict is not None or not way.returns, each
                notes.forget_jump(seen, way.goes_to)
            else:
                why = self._why(rule) if way.verdict else ""
                yield way.ends or way.verdict is not None, Branch(share, way.packet, way.verdict, why)

    # -- one rule -------------------------------------------------------------------------------------------------

    def _rule(self, rule: Mapping[str, Any], packet: Packet, notes: Notes) -> list[Way]:
        ways = [Way(1.0, packet)]
        told: list[str] = []
        for statement in rule["expr"]:
            ((kind, inner),) = statement.items() if isinstance(statement, dict) else ((statement, None),)
            try:
                found = [self._statement(kind, inner, way) for way in ways]
            except NoMatchError:
                found = [None]
            except Unsure as reason:
                if not DECISIVE.isdisjoint(key for one in rule["expr"] for key in one):
                    notes.unsure(self._place(rule), self._why(rule), reason)
                found = [None]
            if found[0] is None:
                # What a rule changed before it stopped matching stays changed.
                return ways
            ways = [after for several in found if several for after in several]
            told += self._told(kind, inner, ways)
        if told:
            notes.step(self._place(rule), ", ".join(told), self._comment(rule))
        return ways

    def _statement(self, kind: str, inner: Any, way: Way) -> list[Way] | None:
        """None: it does not match."""
        values = Values(way.packet, self.name, self._types, self._sight)
        match kind:
            case "match":
                return [way] if values.matches(inner) else None
            case "vmap":
                verdicts = [(share, values.look_up(inner["data"], key)) for share, key in values.of(inner["key"])]
                return [_verdict_of(text, way, share) for share, text in verdicts if text is not None] or None
            case "dnat" | "redirect":
                return [way._replace(share=way.share * share, packet=packet, verdict=Verdict.ACCEPT)
                        for share, packet in self._translated(kind, inner or {}, way.packet, values)]  # fmt: skip
            case "snat" | "masquerade":
                return [way._replace(packet=replace(way.packet, masqueraded=True), verdict=Verdict.ACCEPT)]
            case "mangle":
                return [self._mangled(inner, way, values)]
            case "set" if inner["op"] in ("add", "update"):
                return [self._remembered(inner["set"].removeprefix("@"), way)]
            case "reject" if isinstance(inner, dict) and inner.get("type") == "tcp reset":
                # The listing leaves out the `meta l4proto tcp` that this implies.
                return [way._replace(verdict=Verdict.REJECT)] if way.packet.protocol == "tcp" else None
            case "jump" | "goto":
                return [way._replace(goes_to=inner["target"], returns=kind == "jump")]
            case "return" | "continue":
                return [way._replace(ends=kind == "return")]
            case _ if kind in VERDICTS:
                return [way._replace(verdict=VERDICTS[kind])]
            case _ if kind in PASSIVE:
                return [way]
        raise Unsure(kind)

    def _mangled(self, inner: Mapping[str, Any], way: Way, values: Values) -> Way:
        if inner["key"] != {"meta": {"key": "mark"}}:
            return way
        ((_, mark),) = values.of(inner["value"])
        return way._replace(packet=replace(way.packet, mark=mark))

    def _remembered(self, name: str, way: Way) -> Way:
        return way._replace(packet=replace(way.packet, member_of=way.packet.member_of | {f"{self.name} {name}"}))

    def _translated(
        self, kind: str, inner: Mapping[str, Any], packet: Packet, values: Values
    ) -> Iterator[tuple[float, Packet]]:
        if kind == "redirect":
            raise Unsure("redirect to this node")
        ways = values.of(inner.get("addr", str(packet.to.address)))
        if not ways:
            raise NoMatchError
        for share, text in ways:
            address, _, port = str(text).partition(" . ")
            to = Place(ip_address(address), int(port or inner.get("port", packet.to.port)))
            yield share, packet.translated(to)

    # -- telling --------------------------------------------------------------------------------------------------

    def _told(self, kind: str, inner: Any, ways: list[Way]) -> Iterator[str]:
        match kind:
            case "vmap":
                yield from sorted({_told_way(way) for way in ways})
            case "dnat":
                ends = sorted({str(way.packet.to) for way in ways})
                yield f"dnat to {ends[0]}" if len(ends) == 1 else f"dnat to one of {len(ends)} endpoints"
            case "mangle" if inner["key"] == {"meta": {"key": "mark"}}:
                yield f"mark {ways[0].packet.mark:#x}"
            case "jump" | "goto":
                yield f"{kind} {inner['target']}"
            case "set":
                yield "remember the source"
            case _ if kind in VERDICTS or kind in DECISIVE:
                yield kind

    def _place(self, rule: Mapping[str, Any]) -> str:
        return f"{self.name} {rule['chain']}"

    def _comment(self, rule: Mapping[str, Any]) -> str:
        return OUR_DIGEST.sub("", rule.get("comment", ""))

    def _why(self, rule: Mapping[str, Any]) -> str:
        if comment := self._comment(rule):
            return comment
        return f"rule {rule.get('handle', '?')} of {self._place(rule)}"


def _verdict_of(found: Any, way: Way, share: float) -> Way:
    """The value of a map of verdicts: text of an element, or JSON in a rule."""
    if isinstance(found, dict):
        ((kind, inner),) = found.items()
        target = inner["target"] if inner else ""
    else:
        kind, _, target = str(found).partition(" ")
    way = way._replace(share=way.share * share)
    if target:
        return way._replace(goes_to=target, returns=kind == "jump")
    return way._replace(verdict=VERDICTS.get(kind), ends=kind == "return")


def _told_way(way: Way) -> str:
    if way.goes_to:
        return f"{'jump' if way.returns else 'goto'} {way.goes_to}"
    return way.verdict.value if way.verdict else "return"


def nft_tables(entries: list[Mapping[str, Any]], families: frozenset[str], sight: Sight) -> list[NftTable]:
    """The tables of these families in a decoded listing."""
    tables: dict[tuple[str, str], NftTable] = {}
    for entry in entries:
        for kind, item in entry.items():
            key = item.get("family"), item.get("table", item.get("name"))
            if kind != "metainfo" and key[0] in families:
                tables.setdefault(key, NftTable(*key, sight)).add(kind, item)
    return list(tables.values())
