"""Walks a packet through the chains of iptables, as `iptables-save` prints their rules. Pure.

Chains are asked for when the packet comes to them: a large node has ten thousand.
"""

import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import ip_address
from typing import Any, NamedTuple, Protocol

from netctl.explain.iptables_matches import ALL_BITS, Question, answer
from netctl.explain.walk import OURS, BaseChain, Branch, Notes, Packet, Place, Sight, Unsure, Verdict

PRIORITIES = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}
CHAINS = {
    "prerouting": ("raw", "mangle", "nat"),
    "input": ("mangle", "nat", "filter", "security"),
    "forward": ("mangle", "filter", "security"),
    "output": ("raw", "mangle", "nat", "filter", "security"),
    "postrouting": ("mangle", "nat"),
}
SRCNAT = 100
VERDICTS = {"ACCEPT": Verdict.ACCEPT, "DROP": Verdict.DROP, "REJECT": Verdict.REJECT}
PASSIVE = frozenset({"MARK", "LOG", "NFLOG", "CT", "NOTRACK", "TRACE", "CONNMARK", "CHECKSUM", "TCPMSS", "AUDIT"})
DECISIVE = frozenset({"DROP", "REJECT", "DNAT", "SNAT", "MASQUERADE", "REDIRECT", "TPROXY", "NFQUEUE", "NETMAP"})
IGNORED = frozenset({"-m", "--comment", "--random-fully", "--random", "--persistent"})
"""Options that match nothing by themselves, or do not say where a packet goes."""

GATES = "NETPROXY-ALLOW-"
"""Who leads nowhere through one of these may not connect."""

NftRule = Mapping[str, Any]
"""As nft's JSON has it."""
ListChain = Callable[[str, str], Sequence[str | NftRule]]
"""Table and chain to the lines of `iptables -S`, with rules of nft where iptables cannot print them; empty: there is
no such chain.
"""
WalkChain = Callable[[str, Packet, Notes], Iterator[Branch]]
"""Goes through the chain of that name."""


class NativeRules(Protocol):
    """Knows what nft put into the chains of iptables."""

    def after(self, rule: NftRule, branch: Branch, notes: Notes, into: WalkChain) -> Iterator[tuple[bool, Branch]]:
        """Where a branch is behind one rule, and whether that is the end of the chain."""
        ...


def is_builtin(table: str, chain: str, hook: str, priority: int) -> bool:
    """Whether a base chain of nftables, in a table with a name of iptables, is one that iptables itself has there.

    In the same table nft may keep others, and iptables passes over them without a word.
    """
    return chain == hook.upper() and table in CHAINS.get(hook, ()) and priority == priority_at(table, hook)


def priority_at(table: str, hook: str) -> int:
    return SRCNAT if table == "nat" and hook in ("input", "postrouting") else PRIORITIES[table]


class Option(NamedTuple):
    name: str
    value: str
    negated: bool


@dataclass(slots=True)
class Rule:
    text: str
    matches: list[Option] = field(default_factory=list)
    target: str = ""
    is_goto: bool = False
    arguments: dict[str, str] = field(default_factory=dict)
    comment: str = ""


FLAGS = frozenset({"--random-fully", "--random", "--persistent", "--rsource", "--set", "--update", "--rcheck", "--reap",
                   "--exist", "--rdest", "--restore-mark", "--save-mark", "--notrack", "--rttl", "--remove", "--syn",
                   "--physdev-is-bridged", "--physdev-is-in", "--physdev-is-out", "--log-uid", "-f"})  # fmt: skip


def parse_rule(line: str) -> Rule:
    """A line that begins with `-A CHAIN`."""
    words = shlex.split(line)[2:]
    rule = Rule(line)
    negated, at, in_target = False, 0, False
    while at < len(words):
        word = words[at]
        takes = 0 if word in FLAGS or word == "!" or at + 1 == len(words) else _operands(word)
        value = " ".join(words[at + 1 : at + 1 + takes])
        at += 1 + takes
        if word == "!":
            negated = True
            continue
        if word in ("-j", "-g"):
            rule.target, rule.is_goto, in_target = value, word == "-g", True
        elif in_target:
            rule.arguments[word] = value
        elif word == "--comment":
            rule.comment = value
        elif word not in IGNORED:
            rule.matches.append(Option(word, value, negated))
        negated = False
    return rule


def _operands(word: str) -> int:
    return 2 if word in ("--match-set", "--add-set", "--del-set", "--tcp-flags") else 1


class IptablesRules:
    """One variant's tables of one family."""

    def __init__(
        self,
        tables: Collection[str],
        chains: ListChain,
        sight: Sight,
        name: str,
        native: Callable[[str], NativeRules] | None = None,
    ) -> None:
        """`name` says which variant it is, for who reads; `native` walks through a table's rules that are of nft."""
        self._tables = tables
        self._list = chains
        self._sight = sight
        self._name = name
        self._native = native
        self._parsed: dict[tuple[str, str], tuple[str, list[Rule | NftRule]]] = {}

    def base_chains(self, hook: str) -> Iterator[BaseChain]:
        for table in CHAINS[hook]:
            if table in self._tables:
                priority = priority_at(table, hook)
                place = f"{self._name} {table} {hook.upper()}"
                yield BaseChain(priority, priority, table == "nat", place, self._runner(table, hook.upper()))

    def _runner(self, table: str, chain: str) -> Callable[[Packet, Notes], list[Branch]]:
        def run(packet: Packet, notes: Notes) -> list[Branch]:
            policy, _ = self._chain(table, chain)
            ends = list(self._walk(table, chain, packet, notes))
            if VERDICTS.get(policy) is not Verdict.DROP:
                return ends
            place = f"{self._name} {table} {chain}"
            if any(branch.verdict is None for branch in ends):
                notes.step(place, "drop", "policy")
            dropped, why = Verdict.DROP, f"{place}: policy drop"
            return [each if each.verdict else each._replace(verdict=dropped, why=why) for each in ends]

        return run

    def _chain(self, table: str, chain: str) -> tuple[str, list[Rule | NftRule]]:
        """Policy and rules."""
        key = (table, chain)
        if key not in self._parsed:
            listed = self._list(table, chain)
            heads = [line for line in listed if isinstance(line, str) and line.startswith("-P ")]
            rules = [parse_rule(each) if isinstance(each, str) else each for each in listed if not is_head(each)]
            self._parsed[key] = heads[0].split()[2] if heads else "ACCEPT", rules
        return self._parsed[key]

    def _walk(self, table: str, chain: str, packet: Packet, notes: Notes) -> Iterator[Branch]:
        """The ends of all branches; those without a verdict go on behind the chain."""
        waiting = [Branch(1.0, packet)]
        for rule in self._chain(table, chain)[1]:
            going_on: list[Branch] = []
            for branch in waiting:
                for ended, after in self._after(table, chain, rule, branch, notes):
                    if ended:
                        yield after
                    else:
                        going_on.append(after)
            waiting = going_on
        yield from waiting

    def _after(
        self, table: str, chain: str, rule: Rule | NftRule, branch: Branch, notes: Notes
    ) -> Iterator[tuple[bool, Branch]]:
        if not isinstance(rule, Rule):
            assert self._native is not None
            yield from self._native(table).after(rule, branch, notes, partial(self._walk, table))
            return
        for share, matches in self._shares(table, chain, rule, branch.packet, notes):
            if not matches:
                yield False, branch._replace(share=branch.share * share)
                continue
            for ended, each in self._act(table, chain, rule, branch.packet, notes):
                yield ended, each._replace(share=each.share * branch.share * share)

    # -- does it match? -------------------------------------------------------------------------------------------

    def _shares(self, table: str, chain: str, rule: Rule, packet: Packet, notes: Notes) -> list[tuple[float, bool]]:
        share = 1.0
        options = {option.name: option.value for option in rule.matches}
        for option in rule.matches:
            try:
                found = answer(Question(option.name, option.value, options, packet, self._sight))
            except Unsure as reason:
                if rule.target in DECISIVE:
                    notes.unsure(f"{self._name} {table} {chain}", rule.text, reason)
                return [(1.0, False)]
            if isinstance(found, float):
                share *= found
            elif found == option.negated:
                return [(1.0, False)]
        return [(share, True), (1 - share, False)] if share < 1 else [(1.0, True)]

    # -- what it does ---------------------------------------------------------------------------------------------

    def _act(self, table: str, chain: str, rule: Rule, packet: Packet, notes: Notes) -> Iterator[tuple[bool, Branch]]:
        """Where the packet is behind the rule, and whether that is the end of the chain."""
        place, target, given = f"{self._name} {table} {chain}", rule.target, rule.arguments
        if target in VERDICTS:
            notes.step(place, target.lower(), rule.comment or matching(rule))
            yield True, Branch(1.0, packet, VERDICTS[target], f"{place}: {_without_chain(rule)}")
        elif target == "RETURN":
            yield True, Branch(1.0, packet)
        elif target == "DNAT" and (to := _place(given.get("--to-destination", ""), packet)):
            notes.step(place, "dnat", balancing(self._chain(table, chain)[1]))
            yield True, Branch(1.0, packet.translated(to), Verdict.ACCEPT)
        elif target in ("MASQUERADE", "SNAT"):
            notes.step(place, target.lower(), matching(rule))
            yield True, Branch(1.0, replace(packet, masqueraded=True), Verdict.ACCEPT)
        elif target == "MARK" and "--set-xmark" in given:
            after = replace(packet, mark=mark_after(packet.mark, given))
            notes.step(place, f"mark {after.mark:#x}", matching(rule))
            yield False, Branch(1.0, after)
        elif target == "SET":
            name = given["--add-set"].split()[0] if "--add-set" in given else ""
            yield False, Branch(1.0, replace(packet, member_of=packet.member_of | {name}))
        elif not target or target in PASSIVE:
            yield False, Branch(1.0, packet)
        elif target in DECISIVE:
            notes.unsure(place, rule.text, f"target {target}")
            yield False, Branch(1.0, packet)
        else:
            yield from self._into(table, chain, rule, packet, notes)

    def _into(self, table: str, chain: str, rule: Rule, packet: Packet, notes: Notes) -> Iterator[tuple[bool, Branch]]:
        place = f"{self._name} {table} {chain}"
        said = rule.comment
        if rule.target.startswith(OURS):
            said = said or whose(self._chain(table, rule.target)[1])
            notes.step(place, f"{'goto' if rule.is_goto else 'jump'} {rule.target}", said or matching(rule))
        seen = len(notes.steps)
        for branch in self._walk(table, rule.target, packet, notes):
            yield branch.verdict is not None or rule.is_goto, branch
        if not said and not rule.target.startswith(GATES):
            notes.forget_jump(seen, rule.target)


def is_head(line: str | NftRule) -> bool:
    return isinstance(line, str) and not line.startswith("-A ")


def whose(rules: Iterable[Rule | NftRule]) -> str:
    """The comment on what a chain translates to: netproxy writes there whose connections they are. Empty: none."""
    return next(
        (rule.comment for rule in rules if isinstance(rule, Rule) and rule.target == "DNAT" and rule.comment), ""
    )


def balancing(rules: Iterable[Rule | NftRule]) -> str:
    """How a chain chooses among endpoints, for who reads."""
    translating = [rule for rule in rules if isinstance(rule, Rule) and rule.target == "DNAT"]
    names = {option.name for rule in translating for option in rule.matches}
    ends = len({rule.arguments.get("--to-destination") for rule in translating})
    how = "round robin" if "--every" in names else "at random"
    memory = ", who is known goes there again" if {"--match-set", "--update"} & names else ""
    return f"one of {ends}, {how}{memory}" if ends > 1 else "the only one"


def _place(text: str, packet: Packet) -> Place | None:
    """None for a range, of which any may be meant."""
    host, _, port = text.rpartition(":")
    with_port = text.startswith("[") or text.count(":") == 1
    try:
        if with_port:
            return Place(ip_address(host.strip("[]")), int(port))
        return Place(ip_address(text), packet.to.port)
    except ValueError:
        return None


def mark_after(mark: int, given: Mapping[str, str]) -> int:
    """`--set-xmark V/M` clears the bits of M and flips those of V."""
    value, _, mask = given["--set-xmark"].partition("/")
    return mark & ~int(mask or ALL_BITS, 0) ^ int(value, 0)


def _without_chain(rule: Rule) -> str:
    return rule.text.split(" ", 2)[2]


def matching(rule: Rule) -> str:
    """What a packet has to be for the rule, for who reads."""
    words = f" {_without_chain(rule)}"
    return words.partition(" -g " if rule.is_goto else " -j ")[0].strip()
