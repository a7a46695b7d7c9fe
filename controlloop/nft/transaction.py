"""From a delta to one nft transaction.

Pure. The order inside the transaction is the one the kernel can follow: first goes what refers to others, then what
was referred to; then the other way round. nft commits it whole or not at all, and no packet sees a state in between.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from itertools import islice

from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.nft.state import Chain, Container, Hook, Key, Rule, Value

PORTION = 20_000
"""Objects in one transaction, for which nft takes about 45 MB."""


def portions(delta: Delta[Key, Value], most: int = PORTION) -> Iterator[Delta[Key, Value]]:
    """For a table that does not exist yet: first what nothing leads to before the last one, then all the rest at once.

    nft needs forty times the memory of the text that it reads.
    """
    if delta.drop or len(delta.put) <= most:
        yield delta
        return
    first: dict[Key, Value] = {key: value for key, value in delta.put.items() if isinstance(value, Container)}
    first |= {key: value for key, value in delta.put.items() if is_unreachable(key, value)}
    rest = {key: value for key, value in delta.put.items() if key not in first}
    waiting = iter(first.items())
    while portion := dict(islice(waiting, most)):
        yield Delta(put=portion)
    yield Delta(put=rest)


def emptying(delta: Delta[Key, Value]) -> Delta[Key, Value]:
    """The same, but chains that go stay, with nothing in them."""
    empty: dict[Key, Value] = {
        key: dataclasses.replace(value, rules=())
        for key, value in delta.drop.items()
        if isinstance(value, Chain) and key not in delta.put
    }
    return Delta({**delta.put, **empty}, delta.drop)


def is_unreachable(key: Key, value: Value) -> bool:
    """A set or map, or what one says of an address: of no effect while no rule looks into it."""
    if key.kind == "element":
        return not str(value).startswith("goto")
    return isinstance(value, Container)


def transaction(family: Family, name: str, delta: Delta[Key, Value], *, replace: bool = False) -> str:
    """The input for `nft -f -` that changes the table `name`, or makes it anew when `delta.put` is all there should be.

    A container that rules look into can be neither changed nor removed, and a base chain keeps its hook: such a change
    needs `replace`.
    """
    table = f"{family.nft} {name}"
    lines = [f"add table {table}"]
    if replace:
        lines += [f"delete table {table}", f"add table {table}"]
    lines += removal_lines(table, delta)
    lines += container_lines(table, delta.put)
    lines += chain_lines(table, delta.put)
    lines += elements("add", table, delta.put)
    return "\n".join(lines) + "\n"


def removal_lines(table: str, delta: Delta[Key, Value]) -> Iterator[str]:
    """What goes or changes: elements and rules first, for they refer to chains and containers."""
    yield from elements("delete", table, delta.drop)
    chains = [key for key, value in delta.drop.items() if isinstance(value, Chain)]
    yield from (f"flush chain {table} {key.name}" for key in chains)
    for key, value in delta.drop.items():
        if isinstance(value, Container):
            yield f"delete {value.kind} {table} {key.name}"
    for key in chains:
        # A chain keeps its hook for as long as it lives.
        if hook_of(delta.put.get(key)) != hook_of(delta.drop[key]) or key not in delta.put:
            yield f"delete chain {table} {key.name}"


def hook_of(value: Value | None) -> Hook | None:
    return value.hook if isinstance(value, Chain) else None


def container_lines(table: str, put: Mapping[Key, Value]) -> Iterator[str]:
    for key, value in put.items():
        if isinstance(value, Container):
            yield f"add {value.kind} {table} {key.name} {{ {value.declaration}; }}"


def chain_lines(table: str, put: Mapping[Key, Value]) -> Iterator[str]:
    """All chains before the first rule: rules jump from one to the other."""
    chains = [(key.name, value) for key, value in put.items() if isinstance(value, Chain)]
    for name, value in chains:
        yield f"add chain {table} {name}{hook_clause(value)}"
    for name, value in chains:
        for rule in value.rules:
            yield rule_line(table, name, rule)


def rule_line(table: str, chain: str, rule: Rule) -> str:
    return f'add rule {table} {chain} {rule.text} comment "{rule.label}"'


def hook_clause(chain: Chain) -> str:
    if chain.hook is None:
        return ""
    return f" {{ type {chain.hook.type} hook {chain.hook.name} priority {chain.hook.priority}; policy accept; }}"


def elements(verb: str, table: str, objects: Mapping[Key, Value]) -> Iterator[str]:
    """One command for each container: nft reads a list of elements much faster than many commands."""
    by_container: dict[str, list[str]] = {}
    for key, value in objects.items():
        if key.kind == "element":
            with_value = f"{key.element} : {value}" if value and verb == "add" else key.element
            by_container.setdefault(key.name, []).append(with_value)
    for name, listed in by_container.items():
        yield f"{verb} element {table} {name} {{ {', '.join(listed)} }}"
