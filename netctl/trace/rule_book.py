"""Looks up what the rules are that a packet met, by handle or number. Reads chains once, as they are asked for.

Rules may change while packets are traced: a handle that is not known is looked for once more.
"""

from collections.abc import Iterator
from contextlib import closing

import msgspec

from controlloop.command import CommandError
from controlloop.family import Family
from controlloop.iptables.fingerprint import Fingerprint
from netctl.explain.iptables_shapes import RuleShape, is_closed, is_shown
from netctl.explain.kernel import KernelSight
from netctl.explain.walk import OURS, Packet
from netctl.explain.walk_iptables import PRIORITIES, NftRule, Rule, parse_rule, whose
from netctl.node import PROXY, Node
from netctl.trace.log_messages import LogEvent
from netctl.trace.rule_words import RuleWords, iptables_words, nftables_words
from netctl.trace.trace_messages import TraceEvent

Chain = tuple[str, str, str]
"""Family, table and name."""
UNKNOWN = "a rule that is gone by now"


class RuleBook:
    """In the network namespace of this process."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._nft: dict[tuple[str, int], NftRule] = {}
        self._lines: dict[tuple[str, str, str], list[str]] = {}
        self._shapes: dict[Chain, list[RuleShape]] = {}
        self._prints: dict[tuple[str, str], tuple[bytes, ...]] = {}

    def words(self, step: TraceEvent | LogEvent, packet: Packet) -> RuleWords:
        """Of a step of kind `rule` or `policy`; `packet` as in `nftables_words`."""
        if isinstance(step, LogEvent):
            return self._legacy(step, packet)
        if step.table in PRIORITIES and step.family in ("ip", "ip6") and self._through_iptables(step):
            return self._iptables_nft(step, packet)
        return self._native(step, packet)

    def _native(self, step: TraceEvent, packet: Packet) -> RuleWords:
        place = f"{step.family} {step.table} {step.chain}"
        if step.kind == "policy":
            return policy(place, step.verdict)
        rule = self._nft_rule(step)
        way = f"{step.verdict} {step.target}".strip()
        return nftables_words(place, rule, way, packet) if rule else RuleWords(place, way, "", UNKNOWN, step.target)

    # -- nftables -------------------------------------------------------------------------------------------------

    def _nft_rule(self, step: TraceEvent) -> NftRule | None:
        key = f"{step.family} {step.table} {step.chain}", step.handle
        if key not in self._nft:
            self._nft.update(self._listed(step))
        return self._nft.get(key)

    def _listed(self, step: TraceEvent) -> Iterator[tuple[tuple[str, int], NftRule]]:
        """The chain's rules. With one chain nft 1.0.6 reads the elements of its table, which in netproxy's are many;
        with everything, the rules of iptables, which are many as well where netproxy writes those.
        """
        one = ("chain", step.family, step.table, step.chain)
        words = ("ruleset", step.family) if step.table == PROXY else one
        try:
            answer = self._node.output("nft", "--json", "--terse", "list", *words)
        except CommandError:  # the chain is gone by now
            return
        for entry in msgspec.json.decode(answer)["nftables"]:
            if rule := entry.get("rule"):
                yield (f"{step.family} {rule['table']} {rule['chain']}", rule["handle"]), rule

    # -- iptables -------------------------------------------------------------------------------------------------

    def _through_iptables(self, step: TraceEvent) -> bool:
        return bool(self._listed_chain(f"{program(step.family)}-nft", step.table, step.chain))

    def _iptables_nft(self, step: TraceEvent, packet: Packet) -> RuleWords:
        name = f"{program(step.family)}-nft"
        place = f"{name} {step.table} {step.chain}"
        if step.kind == "policy":
            return policy(place, step.verdict)
        for read_again in (False, True):
            shapes, rules = self._shaped_chain(name, step, read_again=read_again)
            at = next((at for at, shape in enumerate(shapes) if shape.handle == step.handle), len(shapes))
            if at == len(shapes) or len(shapes) != len(rules):
                continue
            if not is_shown(step.family, shapes[at].expressions) and not is_closed(self._nft_rule(step)):
                return self._native(step, packet)
            return self._with_owner(name, step.table, iptables_words(place, rules, at, packet.mark))
        return RuleWords(place, step.verdict, "", UNKNOWN, step.target)

    def _shaped_chain(self, name: str, step: TraceEvent, *, read_again: bool) -> tuple[list[RuleShape], list[Rule]]:
        """The rules of a chain as the kernel has them and as iptables prints them, which stand in the same order."""
        chain = step.family, step.table, step.chain
        if read_again:
            self._shapes.pop(chain, None)
            self._lines.pop((name, step.table, step.chain), None)
        if chain not in self._shapes:
            self._shapes[chain] = shapes_of(*chain)
        return self._shapes[chain], rules_in(self._listed_chain(name, step.table, step.chain))

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
        return self._with_owner(name, step.table, iptables_words(place, rules, step.number - 1, packet.mark))

    def _with_owner(self, name: str, table: str, words: RuleWords) -> RuleWords:
        """Whom a jump leads to is said in the chain, which the packet is in next."""
        owner = ""
        if words.jumps_to.startswith(OURS):
            owner = whose(rules_in(self._listed_chain(name, table, words.jumps_to)))
        return words._replace(why=owner, keeps_jump=True) if owner else words

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


def shapes_of(family: str, table: str, chain: str) -> list[RuleShape]:
    """Of one chain's rules, in their order; for nft the whole ruleset would be read."""
    with closing(KernelSight(Family.V4 if family == "ip" else Family.V6)) as sight:
        return sight.rule_shapes(table, chain)
