"""One table of nftables through a Node. A set that packets fill, of which there may be millions, is not read.

Asked, in each FAMILY: `nft --json --terse list ruleset FAMILY`, and `nft --json list map FAMILY TABLE NAME`, or `set`.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec

from controlloop.nft.listing import entries, parse
from controlloop.nft.state import Chain, Container, Key, Rule, Value
from netctl.actual.nft_words import rule_text, words
from netctl.node import Node


class Count(NamedTuple):
    packets: int
    bytes: int


def read_table(node: Node, family: str, table: str) -> dict[Key, Value]:
    """Empty when there is none. CommandError when it cannot be read. A foreign rule has its text, and no label."""
    listing = node.output("nft", "--json", "--terse", "list", "ruleset", family)
    state = with_texts(listing, table)
    for key, value in list(state.items()):
        if isinstance(value, Container) and not value.is_dynamic:
            for element in read_elements(node, family, table, key.name, value):
                state[Key("element", key.name, element.key)] = element.value
    return state


class Element(NamedTuple):
    key: str
    value: str
    """Empty in a set."""
    counted: Count | None
    """What it has counted, where it does."""


def read_elements(node: Node, family: str, table: str, name: str, container: Container) -> Iterator[Element]:
    listing = msgspec.json.decode(node.output("nft", "--json", "list", container.kind, family, table, name))
    for entry in listing["nftables"]:
        for element in entry.get(container.kind, {}).get("elem", ()):
            key, value = element if container.kind == "map" else (element, "")
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
