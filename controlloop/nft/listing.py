"""Reads what nft lists back into a state: containers and chains, without elements (see dump.py). Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from controlloop.nft.state import Chain, Container, Hook, Key, Rule, Value


def parse(listing: bytes, table: str) -> dict[Key, Value]:
    """The containers and chains of one table, whoever wrote them, from `nft --json --terse list ruleset`.

    Raises msgspec.DecodeError on what is not JSON. A rule without a comment of ours gets an empty label: it is equal
    to no rule that we want.
    """
    rules: dict[str, list[Rule]] = {}
    hooks: dict[str, Hook | None] = {}
    state: dict[Key, Value] = {}
    for kind, item in entries(listing, table):
        match kind:
            case "set" | "map":
                state[Key("container", item["name"])] = container(kind, item)
            case "chain":
                hooks[item["name"]] = hook_of(item)
            case "rule":
                rules.setdefault(item["chain"], []).append(Rule(item.get("comment", "")))
    for name, hook in hooks.items():
        state[Key("chain", name)] = Chain(hook, tuple(rules.get(name, ())))
    return state


def entries(listing: bytes, table: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for entry in msgspec.json.decode(listing)["nftables"]:
        for kind, item in entry.items():
            if item.get("table") == table:
                yield kind, item


def hook_of(item: Mapping[str, Any]) -> Hook | None:
    return Hook(item["type"], item["hook"], item["prio"]) if "hook" in item else None


def container(kind: str, item: Mapping[str, Any]) -> Container:
    key = type_text(item["type"])
    # nft 1.0.6 does not print `dynamic` in JSON.
    is_dynamic = not {"dynamic", "timeout"}.isdisjoint(item.get("flags", ()))
    counts = any("counter" in statement for statement in item.get("stmt", ()))
    type_ = f"{key} : {type_text(item['map'])}" if kind == "map" else key
    return Container(kind, type_, is_dynamic=is_dynamic, counts=counts)


def type_text(declared: Any) -> str:
    return " . ".join(declared) if isinstance(declared, list) else str(declared)
