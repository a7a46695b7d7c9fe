"""Looks up what the rules are that a packet met, by handle or number. Reads chains once, as they are asked for.

Rules may change while packets are traced: a handle that is not known is looked for once more.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import msgspec

from controlloop.command import CommandError
from controlloop.family import Family
from controlloop.iptables.fingerprint import Fingerprint
from netagent.messages import NLMSG_DONE, NLMSG_ERROR, messages
from netctl.explain.walk import Packet
from netctl.explain.walk_iptables import PRIORITIES, Rule, parse_rule
from netctl.node import Node
from netctl.trace.kernel import DATAGRAM, netfilter_socket
from netctl.trace.log_messages import LogEvent
from netctl.trace.rule_words import RuleWords, iptables_words, nftables_words
from netctl.trace.trace_messages import TraceEvent, rule_handles, rules_request

Chain = tuple[str, str, str]
"""Family, table and name."""
UNKNOWN = "a rule that is gone by now"


class RuleBook:
    """In the network namespace of this process."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._nft: dict[str, dict[tuple[str, int], Mapping[str, Any]]] = {}
        self._lines: dict[tuple[str, str, str], list[str]] = {}
        self._handles: dict[Chain, list[int]] = {}
        self._prints: dict[tuple[str, str], tuple[bytes, ...]] = {}

    def words(self, step: TraceEvent | LogEvent, packet: Packet) -> RuleWords:
        """Of a step of kind `rule` or `policy`; `packet` as in `nftables_words`."""
        if isinstance(step, LogEvent):
            return self._legacy(step, packet)
        if step.table in PRIORITIES and step.family in ("ip", "ip6") and self._through_iptables(step):
            return self._iptables_nft(step, packet.mark)
        place = f"{step.family} {step.table} {step.chain}"
        if step.kind == "policy":
            return policy(place, step.verdict)
        rule = self._nft_rule(step)
        way = f"{step.verdict} {step.target}".strip()
        return nftables_words(place, rule, way, packet) if rule else RuleWords(place, way, "", UNKNOWN, step.target)

    # -- nftables -------------------------------------------------------------------------------------------------

    def _nft_rule(self, step: TraceEvent) -> Mapping[str, Any] | None:
        key = f"{step.table} {step.chain}", step.handle
        if key not in self._nft.get(step.family, {}):
            self._nft[step.family] = dict(self._listed(step.family))
        return self._nft[step.family].get(key)

    def _listed(self, family: str) -> Iterator[tuple[tuple[str, int], Mapping[str, Any]]]:
        """All rules and no elements, of which there may be many."""
        answer = self._node.output("nft", "--json", "--terse", "list", "ruleset", family)
        for entry in msgspec.json.decode(answer)["nftables"]:
            if rule := entry.get("rule"):
                yield (f"{rule['table']} {rule['chain']}", rule["handle"]), rule

    # -- iptables -------------------------------------------------------------------------------------------------

    def _through_iptables(self, step: TraceEvent) -> bool:
        return bool(self._listed_chain(f"{program(step.family)}-nft", step.table, step.chain))

    def _iptables_nft(self, step: TraceEvent, mark: int) -> RuleWords:
        name = f"{program(step.family)}-nft"
        place = f"{name} {step.table} {step.chain}"
        if step.kind == "policy":
            return policy(place, step.verdict)
        for read_again in (False, True):
            known, rules = self._handled_chain(name, step, read_again=read_again)
            if step.handle in known and len(known) == len(rules):
                return iptables_words(place, rules, known.index(step.handle), mark)
        return RuleWords(place, step.verdict, "", UNKNOWN, step.target)

    def _handled_chain(self, name: str, step: TraceEvent, *, read_again: bool) -> tuple[list[int], list[Rule]]:
        """Handles and rules of a chain, which stand in the same order."""
        chain = step.family, step.table, step.chain
        if read_again:
            self._handles.pop(chain, None)
            self._lines.pop((name, step.table, step.chain), None)
        if chain not in self._handles:
            self._handles[chain] = handles(*chain)
        return self._handles[chain], rules_in(self._listed_chain(name, step.table, step.chain))

    def _legacy(self, step: LogEvent, packet: Packet) -> RuleWords:
        self._forget_changed(step.table, packet.family)
        name = f"{program(packet.family.nft)}-legacy"
        place = f"{name} {step.table} {step.chain}"
        lines = self._listed_chain(name, step.table, step.chain)
        if step.kind == "policy":
            chosen = next((line.split()[2] for line in lines if line.startswith("-P ")), "ACCEPT")
            return policy(place, chosen.lower())
        rules = rules_in(lines)
        if not 0 < step.number <= len(rules):
            return RuleWords(place, "", "", UNKNOWN)
        return iptables_words(place, rules, step.number - 1, packet.mark)

    def _forget_changed(self, table: str, family: Family) -> None:
        """A legacy rule is known by its number alone, which says something else when the table is another one."""
        with closing(Fingerprint(family, [table])) as reader:
            now = reader.read()
        name = f"{program(family.nft)}-legacy"
        if self._prints.get((name, table)) != now:
            self._prints[name, table] = now
            self._lines = {key: lines for key, lines in self._lines.items() if key[:2] != (name, table)}

    def _listed_chain(self, name: str, table: str, chain: str) -> list[str]:
        key = name, table, chain
        if key not in self._lines:
            try:
                answer = self._node.output(name, "-t", table, "-S", chain).decode(errors="replace")
            except CommandError:
                answer = ""
            self._lines[key] = answer.splitlines()
        return self._lines[key]


def policy(place: str, verdict: str) -> RuleWords:
    return RuleWords(place, "drop" if verdict == "drop" else "", "policy", f"{place}: policy {verdict}")


def program(family: str) -> str:
    return "iptables" if family == "ip" else "ip6tables"


def rules_in(lines: list[str]) -> list[Rule]:
    return [parse_rule(line) for line in lines if line.startswith("-A ")]


def handles(family: str, table: str, chain: str) -> list[int]:
    """Of one chain's rules, in their order; for nft the whole ruleset would be read."""
    found: list[int] = []
    with closing(netfilter_socket()) as talk:
        talk.send(rules_request(family, table, chain))
        while True:
            datagram = talk.recv(DATAGRAM)
            found += rule_handles(datagram)
            if any(answer.kind in (NLMSG_DONE, NLMSG_ERROR) for answer in messages(datagram)):
                return found
