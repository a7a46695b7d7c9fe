"""One table of nftables through a Node. A set that packets fill, of which there may be millions, is not read.

Asked, in each FAMILY: `nft --json --terse list chains FAMILY`, `nft --json --terse list ruleset FAMILY` for netproxy's
tables and `... list table FAMILY TABLE` for an agent's, and `nft --json list map FAMILY TABLE NAME`, or `set`.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec

from controlloop.family import Family
from controlloop.nft.dump import elements_of
from controlloop.nft.elements import UnknownTypeError
from controlloop.nft.listing import entries, parse
from controlloop.nft.state import Chain, Container, Key, Rule, Value
from netctl.actual.nft_words import rule_text, words
from netctl.node import PROXY, Node

FAMILIES = {family.nft: family for family in Family}
COUNTERS = f"{PROXY}-counters"
"""The table of `netproxy --service-counters`, in either mode."""


class Count(NamedTuple):
    packets: int
    bytes: int


def read_table(node: Node, family: str, table: str) -> dict[Key, Value]:
    """Empty when there is none. CommandError when it cannot be read. A foreign rule has its text, and no label."""
    state = read_skeleton(node, family, table)
    for key, value in list(state.items()):
        if isinstance(value, Container) and not value.is_dynamic:
            for element in read_elements(node, family, table, key.name, value):
                state[Key("element", key.name, element.key)] = element.value
    return state


def read_skeleton(node: Node, family: str, table: str) -> dict[Key, Value]:
    """The same without elements.

    Asked for one table, or for the names of all, nft 1.0.6 reads elements, too; asked for everything, the rules of
    iptables-nft, which takes seconds where netproxy has written those of 10,000 Services. So nothing large is asked.
    """
    chains = msgspec.json.decode(node.output("nft", "--json", "--terse", "list", "chains", family))["nftables"]
    if not any(entry.get("chain", {}).get("table") == table for entry in chains):
        return {}
    words = ("ruleset", family) if table in (PROXY, COUNTERS) else ("table", family, table)
    return with_texts(node.output("nft", "--json", "--terse", "list", *words), table)


class Element(NamedTuple):
    key: str
    value: str
    """Empty in a set."""
    counted: Count | None
    """What it has counted, where it does."""


def read_elements(node: Node, family: str, table: str, name: str, container: Container) -> Iterator[Element]:
    """Over netlink where that is possible: of 50,000 elements nft makes 5 MB of JSON in a second."""
    if node.is_live and not container.counts:
        with suppress(UnknownTypeError):
            found = elements_of(FAMILIES[family], table, name, container.type)
            return (Element(key, value, None) for key, value in found.items())
    return listed_elements(node.output("nft", "--json", "list", container.kind, family, table, name), container.kind)


def listed_elements(listing: bytes, kind: str) -> Iterator[Element]:
    for entry in msgspec.json.decode(listing)["nftables"]:
        for element in entry.get(kind, {}).get("elem", ()):
            key, value = element if kind == "map" else (element, "")
            yield Element(words(key), words(value), count_of(key))


def count_of(key: Any) -> Count | None:
    counter = key.get("elem", {}).get("counter") if isinstance(key, dict) else None
    return Count(counter["packets"], counter["bytes"]) if counter else None


def with_texts(listing: bytes, table: str) -> dict[Key, Value]:
    """Containers and chains; rules with their labels or, where they have none, with what they say."""
    rules: dict[str, list[Rule]] = {}
    for kind, item in entries(listing, table):
        if kind == "rule":
            rules.setdefault(item["chain"], []).append(Rule(item.get("comment", ""), rule_text(item["expr"])))
    state = parse(listing, table)
    for name, found in rules.items():
        chain = state[Key("chain", name)]
        assert isinstance(chain, Chain)
        state[Key("chain", name)] = replace(chain, rules=tuple(found))
    return state
