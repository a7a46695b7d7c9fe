"""One table of nftables through a Node. A set that packets fill, of which there may be millions, is not read.

Asked, in each FAMILY: `nft --json --terse list ruleset FAMILY`, and `nft --json list map FAMILY TABLE NAME`, or `set`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec

from controlloop.nft.listing import entries, parse
from controlloop.nft.state import Chain, Container, Key, Rule, Value
from netctl.node import Node

WORDS = {"==": "", "in": "", "&": "and ", "|": "or ", "^": "xor "}
"""Of an operator, as nft prints it."""


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


def rule_text(expression: Any) -> str:
    """Close to what nft prints; what is not known here stays JSON."""
    return " ".join(statement_text(*each) for statement in expression for each in statement.items())


def statement_text(kind: str, inner: Any) -> str:
    if kind == "match":
        return f"{words(inner['left'])} {WORDS.get(inner['op'], inner['op'] + ' ')}{words(inner['right'])}"
    if kind == "counter":
        return "counter"
    if kind in ("jump", "goto"):
        return f"{kind} {inner['target']}"
    return kind if inner is None else f"{kind} {words(inner)}"


def words(value: Any) -> str:
    """A key, a value or an operand, in the words of a listing."""
    if not isinstance(value, dict):
        return value if isinstance(value, str) else json.dumps(value)
    ((kind, inner), *_) = value.items()
    reader = READERS.get(kind)
    return reader(inner) if reader else json.dumps(value)


READERS: Mapping[str, Any] = {
    "concat": lambda inner: " . ".join(map(words, inner)),
    "elem": lambda inner: words(inner["val"]),
    "goto": lambda inner: f"goto {inner['target']}",
    "jump": lambda inner: f"jump {inner['target']}",
    "drop": lambda inner: "drop",  # noqa: ARG005 - it has nothing inside
    "accept": lambda inner: "accept",  # noqa: ARG005
    "return": lambda inner: "return",  # noqa: ARG005
    "payload": lambda inner: f"{inner['protocol']} {inner['field']}" if "field" in inner else json.dumps(inner),
    "meta": lambda inner: inner["key"] if inner["key"] in ("iifname", "oifname") else f"meta {inner['key']}",
    "ct": lambda inner: f"ct {inner['key']}",
    "prefix": lambda inner: f"{words(inner['addr'])}/{inner['len']}",
    "range": lambda inner: "-".join(map(words, inner)),
    "set": lambda inner: f"{{ {', '.join(map(words, inner))} }}",
}
