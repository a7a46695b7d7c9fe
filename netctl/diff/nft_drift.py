"""Compares one table of nftables. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from controlloop.nft.state import Chain, Container, Hook, Key, Rule, Value
from netctl.diff.drift import NOBODY, Difference, Owners

PLAIN = {"container": 0, "chain": 1, "element": 2}


def wanted_table(listed: list[list[Any]]) -> dict[Key, Value]:
    """The objects of a page."""
    return {Key(*key): READERS[key[0]](value) for key, value in listed}


def chain_of(item: Mapping[str, Any]) -> Chain:
    hook = Hook(**item["hook"]) if item["hook"] else None
    return Chain(hook, tuple(Rule(**rule) for rule in item["rules"]))


READERS: Mapping[str, Any] = {"chain": chain_of, "container": lambda item: Container(**item), "element": str}


def differences(
    place: str, wanted: Mapping[Key, Value], actual: Mapping[Key, Value], owners: Owners
) -> list[Difference]:
    """Object by object; a table that is gone is one object."""
    if not actual:
        text = f"{place}, {len(wanted)} objects"
        return [Difference(place, "table", owners.daemon, (text,))] if wanted else []
    found = []
    differing = {*(key for key, value in wanted.items() if actual.get(key) != value), *(actual.keys() - wanted.keys())}
    for key in sorted(differing, key=lambda key: (PLAIN[key.kind], key)):
        want, have = wanted.get(key), actual.get(key)
        if is_told_apart(key, wanted, actual):
            owner = NOBODY if want is None else owners.of(key)
            lines = lines_that_differ(key, want, have)
            found.append(Difference(place, object_name(key, want or have), owner, *lines))
    return found


def is_told_apart(key: Key, wanted: Mapping[Key, Value], actual: Mapping[Key, Value]) -> bool:
    """Elements come and go with their set; and those that packets put in are nobody's."""
    if key.kind != "element":
        return True
    container = Key("container", key.name)
    return wanted.get(container) == actual.get(container)


def object_name(key: Key, value: Value | None) -> str:
    kind = value.kind if isinstance(value, Container) else key.kind
    return f"{kind} {key.name} {{ {key.element} }}" if key.kind == "element" else f"{kind} {key.name}"


def lines_that_differ(key: Key, want: Value | None, have: Value | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if isinstance(want, Chain) and isinstance(have, Chain) and want.hook == have.hook:
        return rules_that_differ(want, have)
    return tuple(lines(key, want)), tuple(lines(key, have))


def rules_that_differ(want: Chain, have: Chain) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """All of them where only their order is another."""
    missing = Counter(rule.label for rule in want.rules) - Counter(rule.label for rule in have.rules)
    extra = Counter(rule.label for rule in have.rules) - Counter(rule.label for rule in want.rules)
    if not (missing or extra):
        return tuple(map(rule_line, want.rules)), tuple(map(rule_line, have.rules))
    return tuple(taken(want, missing)), tuple(taken(have, extra))


def taken(chain: Chain, labels: Counter[str]) -> Iterator[str]:
    """The last ones: what is there too often was mostly added behind the others."""
    found = []
    for rule in reversed(chain.rules):
        if labels[rule.label]:
            labels[rule.label] -= 1
            found.append(rule_line(rule))
    return reversed(found)


def rule_line(rule: Rule) -> str:
    return f'{rule.text} comment "{rule.label}"' if rule.label else rule.text


def lines(key: Key, value: Value | None) -> Iterator[str]:
    match value:
        case None:
            return
        case Chain(hook, rules):
            yield f"chain {key.name}{f' {hook.type} hook {hook.name} priority {hook.priority}' if hook else ''}"
            yield from map(rule_line, rules)
        case Container():
            yield f"{value.kind} {key.name} type {value.type}{' counter' if value.counts else ''}"
        case _:
            yield f"{key.element} : {value}" if value else key.element
