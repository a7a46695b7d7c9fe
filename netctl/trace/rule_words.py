"""What one rule did to a packet, in the words of `netctl explain`. Pure."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import and_, or_, xor
from typing import Any, NamedTuple

from netctl.explain.nft_statements import DECISIVE, MARK, VERDICTS, is_of_source
from netctl.explain.walk import OURS, Packet
from netctl.explain.walk_iptables import GATES, Rule, balancing, mark_after, matching
from netctl.explain.walk_iptables import VERDICTS as IPTABLES_VERDICTS
from netctl.explain.walk_nftables import OUR_DIGEST

TRANSLATIONS = ("DNAT", "MASQUERADE", "SNAT", "REDIRECT", "NFQUEUE")


class RuleWords(NamedTuple):
    place: str
    """`ip netproxy services`, `iptables-nft nat NETPROXY-SERVICES`."""
    does: str
    """Empty: nothing worth telling."""
    why: str
    name: str
    """By which somebody finds it: its handle, or its text."""
    jumps_to: str = ""
    is_goto: bool = False
    keeps_jump: bool = False
    """Worth telling even when that chain did nothing."""
    mark: int | None = None
    """Of the packet, behind the rule; None: as before."""


def nftables_words(place: str, rule: Mapping[str, Any], way: str, packet: Packet) -> RuleWords:
    """`rule` as nft's JSON has it, `way` the verdict of this packet (`goto refuse`), `packet` as it is behind the hook,
    but with the mark that it had before the rule.
    """
    said: list[str] = []
    mark: int | None = None
    kind: str
    inner: Any
    for one in rule["expr"]:
        ((kind, inner),) = one.items() if isinstance(one, dict) else ((one, None),)
        if kind == "mangle" and inner["key"] == MARK:
            mark = _number(inner["value"], packet.mark)
            said.append(f"mark {mark:#x}")
        elif word := _told(kind, inner, way, packet):
            said.append(word)
    comment = OUR_DIGEST.sub("", rule.get("comment", ""))
    name = f"rule {rule.get('handle', '?')} of {place}{f': {comment}' if comment else ''}"
    verdict, _, target = way.partition(" ")
    return RuleWords(place, ", ".join(said), comment, name, target, verdict == "goto", mark=mark)


def _told(kind: str, inner: Any, way: str, packet: Packet) -> str:
    match kind:
        case "vmap" | "jump" | "goto":
            return way
        case "dnat" | "redirect":
            return f"{kind} to {packet.to}"
        case "set" if is_of_source(inner):
            return "remember the source"
        case "xt":
            # iptables wrote it into a chain that it cannot print; nft knows the name alone.
            return str(inner["name"]).lower() if inner["type"] == "target" else ""
        case _:
            return kind if kind in DECISIVE | VERDICTS.keys() else ""


def _number(value: Any, mark: int) -> int:
    """An expression of numbers and of the mark before."""
    if isinstance(value, int):
        return value
    match value:
        case {"|": parts}:
            return reduce(or_, (_number(part, mark) for part in parts))
        case {"&": parts}:
            return reduce(and_, (_number(part, mark) for part in parts))
        case {"^": parts}:
            return reduce(xor, (_number(part, mark) for part in parts))
        case {"meta": {"key": "mark"}}:
            return mark
    return 0


def iptables_words(place: str, chain: Sequence[Rule], index: int, mark: int) -> RuleWords:
    """Of one rule of a chain; `mark` is the packet's before it."""
    rule = chain[index]
    name = f"{place}: {rule.text.split(' ', 2)[2]}"
    keeps = bool(rule.comment) or rule.target.startswith(GATES)
    words = RuleWords(place, _act(rule), rule.comment or matching(rule), name, rule.target, rule.is_goto, keeps)
    if rule.target == "DNAT":
        return words._replace(why=balancing(chain))
    if rule.target == "MARK" and "--set-xmark" in rule.arguments:
        after = mark_after(mark, rule.arguments)
        return words._replace(does=f"mark {after:#x}", mark=after)
    return words


def _act(rule: Rule) -> str:
    if rule.target in IPTABLES_VERDICTS or rule.target in TRANSLATIONS:
        return rule.target.lower()
    if rule.target.startswith(OURS):
        return f"{'goto' if rule.is_goto else 'jump'} {rule.target}"
    return ""
