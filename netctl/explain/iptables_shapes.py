"""Which rules of nf_tables iptables prints as they are, judged by their expressions. Pure.

nft may put rules into the chains of iptables. Of one that iptables cannot say it refuses the whole chain, gives up in
the middle, or prints something else: `tcp dport { 80, 81 } drop` as `-p tcp -j DROP` (seen on 1.8.9). So whatever does
not have the shape of its own rules is read as nft has it.

Attributes as in linux/netfilter/nf_tables.h.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from controlloop.nft.notifications import attributes, text
from netagent.messages import attribute
from netctl.explain.nft_requests import DUMP, message

GET_RULE = 7
RULE_TABLE, RULE_CHAIN, HANDLE, EXPRESSIONS = 1, 2, 3, 4
NAME, DATA = 1, 2
PAYLOAD_BASE, PAYLOAD_OFFSET, PAYLOAD_LENGTH = 2, 3, 4
META_KEY, META_SOURCE = 2, 3
COMPARISON, IMMEDIATE_REGISTER = 2, 1
NETWORK, TRANSPORT = 1, 2

PLAIN = frozenset({"match", "target", "counter", "limit", "log"})
META_KEYS = frozenset({3, 6, 7, 16})
"""The mark, both interfaces by name, the protocol."""
EQUAL, UNEQUAL = 0, 1
ADDRESSES = {"ip": {12: 4, 16: 4}, "ip6": {8: 16, 24: 16}}
"""Where they stand in a header, with their length; of a network the first bytes suffice."""
OTHER_FIELDS = {"ip": {(9, 1), (6, 2)}, "ip6": {(6, 1)}}
"""Protocol; of IPv4 fragments."""
PORTS = frozenset({(0, 2), (2, 2)})
TCP_FLAGS = (13, 1)


class Expression(NamedTuple):
    name: str
    data: dict[int, bytes]


class RuleShape(NamedTuple):
    handle: int
    expressions: Sequence[Expression]


def rule_listing(af: int, table: str, chain: str) -> bytes:
    """The rules of one chain."""
    names = attribute(RULE_TABLE, table.encode() + b"\0") + attribute(RULE_CHAIN, chain.encode() + b"\0")
    return message(GET_RULE, DUMP, af, names)


def rule_shape(payload: bytes) -> RuleShape:
    found = dict(attributes(payload))
    listed = (dict(attributes(each)) for _, each in attributes(found.get(EXPRESSIONS, b"")))
    shapes = [Expression(text(each.get(NAME, b"")), dict(attributes(each.get(DATA, b"")))) for each in listed]
    return RuleShape(int.from_bytes(found[HANDLE], "big"), shapes)


def is_shown(family: str, expressions: Sequence[Expression]) -> bool:
    """Whether iptables prints what the rule does; `family` is `ip` or `ip6`."""
    fields: list[tuple[int, int]] = []
    for each, before in zip(expressions, [None, *expressions], strict=False):
        if not _is_known(family, each, before):
            return False
        if each.name == "payload" and _place(each)[0] == NETWORK:
            fields.append(_place(each)[1:])
    # Of two conditions on one field it prints the second one.
    return len({offset for offset, _ in fields}) == len(fields)


def is_closed(rule: Mapping[str, Any] | None) -> bool:
    """Whether a rule, as nft's JSON has it, has parts that only iptables can read; so it has, where there is none."""
    return rule is None or any("xt" in each for each in rule["expr"])


def _is_known(family: str, each: Expression, before: Expression | None) -> bool:
    match each.name:
        case "payload":
            return _is_field(family, *_place(each))
        case "meta":
            return META_SOURCE not in each.data and _number(each, META_KEY) in META_KEYS
        case "cmp" | "range":
            is_single = each.name == "cmp" and _number(each, COMPARISON) in (EQUAL, UNEQUAL)
            return is_single or _is_port(before)
        case "bitwise":
            return not _is_port(before)
        case "immediate":
            return _number(each, IMMEDIATE_REGISTER) == 0  # NFT_REG_VERDICT
    return each.name in PLAIN


def _is_field(family: str, base: int, offset: int, length: int) -> bool:
    if base == TRANSPORT:
        return (offset, length) in PORTS or (offset, length) == TCP_FLAGS
    is_address = length <= ADDRESSES[family].get(offset, 0)
    return base == NETWORK and (is_address or (offset, length) in OTHER_FIELDS[family])


def _is_port(each: Expression | None) -> bool:
    """Also the end of a range of ports, behind its begin."""
    if each is None or each.name != "payload":
        return each is not None and each.name == "cmp" and _number(each, COMPARISON) not in (EQUAL, UNEQUAL)
    base, offset, length = _place(each)
    return base == TRANSPORT and (offset, length) in PORTS


def _place(each: Expression) -> tuple[int, int, int]:
    return _number(each, PAYLOAD_BASE), _number(each, PAYLOAD_OFFSET), _number(each, PAYLOAD_LENGTH)


def _number(each: Expression, kind: int) -> int:
    return int.from_bytes(each.data.get(kind, b""), "big")
