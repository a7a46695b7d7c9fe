"""Walks a packet through nftables as nft lists them (`nft --json --terse list ruleset`). Pure.

Elements of sets and maps are asked for one by one: a listing of all of them takes seconds on a large node.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from controlloop.nft.listing import type_text
from netctl.explain.nft_statements import DECISIVE, Way, Ways, act, told
from netctl.explain.nft_values import Values
from netctl.explain.walk import (
    OURS,
    TRACE_TABLES,
    BaseChain,
    Branch,
    NoMatchError,
    Notes,
    Packet,
    Sight,
    Unsure,
    Verdict,
    scaled,
)
from netctl.explain.walk_iptables import NftRule, WalkChain, is_builtin

OUR_DIGEST = re.compile(r" #[0-9a-f]{8}$")
NAT_PRIORITY = {"prerouting": -100, "output": -100, "input": 100, "postrouting": 100}
"""From where all chains of type nat at a hook are called, in the order of their own priorities (nf_nat_core.c)."""


Entry = Mapping[str, Any]
"""One object of a listing, by its kind."""
ReadChain = Callable[[str], Iterable[Entry]]


class NftTable:
    """One table, listed at once or chain by chain."""

    def __init__(self, family: str, name: str, sight: Sight, read_chain: ReadChain = lambda _: ()) -> None:
        """`read_chain` gives the rules of a chain that was not added; none where all were."""
        self.name = f"{family} {name}"
        self.is_ours = name.startswith(OURS)
        self._sight = sight
        self.read_chain = read_chain
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

    def _rules_of(self, chain: str) -> list[Mapping[str, Any]]:
        if chain not in self._rules:
            self._rules[chain] = [entry["rule"] for entry in self.read_chain(chain) if "rule" in entry]
        return self._rules[chain]

    def base_chains(self, hook: str) -> Iterator[BaseChain]:
        for base in self._bases:
            if base["hook"] == hook:
                is_nat = base["type"] == "nat"
                priority = NAT_PRIORITY[hook] if is_nat else base["prio"]
                place = f"{self.name} {base['name']}"
                yield BaseChain(priority, base["prio"], is_nat, place, self._runner(base), self.is_ours)

    def _runner(self, base: Mapping[str, Any]) -> Callable[[Packet, Notes], list[Branch]]:
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
        for rule in self._rules_of(name):
            going_on: list[Branch] = []
            for branch in waiting:
                for ended, each in self.after(rule, branch, notes, self._chain):
                    if ended:
                        yield each
                    else:
                        going_on.append(each)
            waiting = going_on
        yield from waiting

    def after(self, rule: NftRule, branch: Branch, notes: Notes, into: WalkChain) -> Iterator[tuple[bool, Branch]]:
        """Where a branch is behind one rule, and whether that is the end of the chain."""
        for way in self._rule(rule, branch.packet, notes):
            share = branch.share * way.share
            if way.goes_to:
                seen = len(notes.steps)
                for each in scaled(list(into(way.goes_to, way.packet, notes)), share):
                    yield each.verdict is not None or not way.returns, each
                notes.forget_jump(seen, way.goes_to)
            else:
                why = self._why(rule) if way.verdict else ""
                yield way.ends or way.verdict is not None, Branch(share, way.packet, way.verdict, why)

    # -- one rule -------------------------------------------------------------------------------------------------

    def _rule(self, rule: Mapping[str, Any], packet: Packet, notes: Notes) -> Ways:
        """A rule that does not match gives back the packet with what was changed until then."""
        ways = [Way(1.0, packet)]
        said: list[str] = []
        for statement in rule["expr"]:
            ((kind, inner),) = statement.items() if isinstance(statement, dict) else ((statement, None),)
            try:
                ways = [after for way in ways for after in self._statement(kind, inner, way)]
            except NoMatchError:
                return ways
            except (Unsure, LookupError, TypeError, ValueError) as reason:
                # Somebody else's rules may be written in words that this walk never met.
                if not DECISIVE.isdisjoint(key for one in rule["expr"] for key in one):
                    notes.unsure(self._place(rule), self._why(rule), reason)
                return ways
            said += told(kind, inner, ways)
        if said:
            notes.step(self._place(rule), ", ".join(said), self._comment(rule))
        return ways

    def _statement(self, kind: str, inner: Any, way: Way) -> Ways:
        if way.is_settled:
            return [way]
        return act(kind, inner, way, Values(way.packet, self.name, self._types, self._sight))

    # -- telling --------------------------------------------------------------------------------------------------

    def _place(self, rule: Mapping[str, Any]) -> str:
        return f"{self.name} {rule['chain']}"

    def _comment(self, rule: Mapping[str, Any]) -> str:
        return OUR_DIGEST.sub("", rule.get("comment", ""))

    def _why(self, rule: Mapping[str, Any]) -> str:
        if comment := self._comment(rule):
            return comment
        return f"rule {rule.get('handle', '?')} of {self._place(rule)}"


def beside_iptables(entries: Iterable[Entry], tables: Collection[str]) -> Iterator[Entry]:
    """The listing without those base chains of `tables` that iptables has in them, and whose rules it prints."""
    for entry in entries:
        chain = entry.get("chain", {})
        is_shown = "hook" in chain and chain["family"] != "inet" and chain["table"] in tables
        if not (is_shown and is_builtin(chain["table"], chain["name"], chain["hook"], chain["prio"])):
            yield entry


def nft_tables(entries: Iterable[Entry], families: frozenset[str], sight: Sight) -> list[NftTable]:
    """The tables of these families in a decoded listing."""
    tables: dict[tuple[str, str], NftTable] = {}
    for entry in entries:
        for kind, item in entry.items():
            key = item.get("family"), item.get("table", item.get("name"))
            if kind != "metainfo" and key[0] in families and not str(key[1]).startswith(TRACE_TABLES):
                tables.setdefault(key, NftTable(*key, sight)).add(kind, item)
    return list(tables.values())
