"""Reads `nft -j list table` back into a state. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from controlloop.nft.state import Chain, Container, Hook, Key, Rule, Value


def parse(listing: bytes) -> dict[Key, Value]:
    """The table as `Key` to value, whoever wrote what is in it.

    Raises msgspec.DecodeError on what is not JSON. A rule without a comment of ours gets an empty label: it is equal
    to no rule that we want.
    """
    entries = msgspec.json.decode(listing)["nftables"]
    rules: dict[str, list[Rule]] = {}
    hooks: dict[str, Hook | None] = {}
    state: dict[Key, Value] = {}
    for entry in entries:
        match entry:
            case {"set": item} | {"map": item}:
                state.update(container_objects("map" if "map" in entry else "set", item))
            case {"chain": item}:
                hooks[item["name"]] = hook_of(item)
            case {"rule": item}:
                rules.setdefault(item["chain"], []).append(Rule(item.get("comment", "")))
    for name, hook in hooks.items():
        state[Key("chain", name)] = Chain(hook, tuple(rules.get(name, ())))
    return state


def hook_of(item: Mapping[str, Any]) -> Hook | None:
    return Hook(item["type"], item["hook"], item["prio"]) if "hook" in item else None


def container_objects(kind: str, item: Mapping[str, Any]) -> Iterator[tuple[Key, Value]]:
    type_text = text_of({"concat": item["type"]} if isinstance(item["type"], list) else item["type"])
    name = item["name"]
    yield Key("container", name), Container(kind, f"{type_text} : {item['map']}" if kind == "map" else type_text)
    for element in item.get("elem", ()):
        if kind == "map":
            yield Key("element", name, text_of(element[0])), text_of(element[1])
        else:
            yield Key("element", name, text_of(element)), ""


def text_of(value: Any) -> str:
    """An element's key or value in nft's own words."""
    match value:
        case {"concat": parts}:
            return " . ".join(text_of(part) for part in parts)
        case {"goto": {"target": chain}}:
            return f"goto {chain}"
        case {"elem": {"val": inner}}:  # an element with a comment, timeout or counter
            return text_of(inner)
    return str(value)
