"""The chains of one program of iptables through a Node.

Asked: `iptables-nft-save --counters`, and likewise for ip6tables and legacy.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from controlloop.iptables.chains import Key, Owned, Rules
from controlloop.iptables.listing import parse
from netctl.node import Node

COUNTED = re.compile(r"^\[(\d+):(\d+)\] ", re.MULTILINE)


class CountedRule(NamedTuple):
    table: str
    chain: str
    rule: str
    packets: int
    bytes: int


def saved(node: Node, program: str) -> str:
    """All tables. CommandError when they cannot be read."""
    return node.output(program, "--counters").decode(errors="replace")


def read_chains(node: Node, program: str, prefixes: Sequence[str]) -> dict[Key, Rules]:
    return parse(COUNTED.sub("", saved(node, program)), Owned(tuple(prefixes)))


def counted_rules(text: str, prefixes: Sequence[str]) -> Iterator[CountedRule]:
    """Rules of our chains, and the jumps to them, in the order of the listing."""
    owned, table = Owned(tuple(prefixes)), ""
    for line in text.split("\n"):
        if line.startswith("*"):
            table = line[1:]
        elif found := COUNTED.match(line):
            _, chain, rule = line[found.end() :].split(" ", 2)
            if owned.is_ours(chain) or owned.jumps_to_ours(rule):
                yield CountedRule(table, chain, rule, int(found[1]), int(found[2]))
