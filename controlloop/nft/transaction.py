"""From a delta to one nft transaction.

Pure. The order inside the transaction is the one the kernel can follow: elements that go, chains that come, elements
that come, chains that go. nft commits it whole or not at all, and no packet sees a state in between.
"""

from collections.abc import Iterator, Mapping

from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.nft.state import Chain, Container, Key, Rule, Value


def transaction(family: Family, name: str, delta: Delta[Key, Value]) -> str:
    """The input for `nft -f -` that changes the table `name`.

    A container can be neither changed nor removed while rules look into it, and a base chain keeps its hook: when one
    has to come, the table is replaced whole, and `delta.put` must hold all of it (the kernel's `dump` sees to that).
    """
    table = f"{family.nft} {name}"
    lines = [f"add table {table}"]
    if any(is_new_skeleton(key, value, delta) for key, value in delta.put.items()):
        lines += [f"delete table {table}", f"add table {table}"]
    lines += elements("delete", table, delta.drop)
    lines += container_lines(table, delta.put)
    lines += chain_lines(table, delta)
    lines += elements("add", table, delta.put)
    lines += removal_lines(table, delta)
    return "\n".join(lines) + "\n"


def is_new_skeleton(key: Key, value: Value, delta: Delta[Key, Value]) -> bool:
    """A container, or a base chain that is not there yet."""
    if isinstance(value, Chain):
        return value.hook is not None and key not in delta.drop
    return isinstance(value, Container)


def container_lines(table: str, put: Mapping[Key, Value]) -> Iterator[str]:
    for key, value in put.items():
        if isinstance(value, Container):
            yield f"add {value.kind} {table} {key.name} {{ {value.declaration}; }}"


def chain_lines(table: str, delta: Delta[Key, Value]) -> Iterator[str]:
    """All chains before the first rule: rules jump from one to the other."""
    chains = [(key.name, value) for key, value in delta.put.items() if isinstance(value, Chain)]
    for name, value in chains:
        yield f"add chain {table} {name}{hook_clause(value)}"
        if Key("chain", name) in delta.drop:
            yield f"flush chain {table} {name}"
    for name, value in chains:
        for rule in value.rules:
            yield rule_line(table, name, rule)


def rule_line(table: str, chain: str, rule: Rule) -> str:
    return f'add rule {table} {chain} {rule.text} comment "{rule.label}"'


def hook_clause(chain: Chain) -> str:
    if chain.hook is None:
        return ""
    return f" {{ type {chain.hook.type} hook {chain.hook.name} priority {chain.hook.priority}; policy accept; }}"


def removal_lines(table: str, delta: Delta[Key, Value]) -> Iterator[str]:
    """Chains and containers that somebody left in our table, or that nothing needs any more: rules first."""
    gone = {key.name: value for key, value in delta.drop.items() if key not in delta.put}
    chains = [name for name, value in gone.items() if isinstance(value, Chain)]
    yield from (f"flush chain {table} {name}" for name in chains)
    yield from (f"delete chain {table} {name}" for name in chains)
    yield from (f"delete {value.kind} {table} {name}" for name, value in gone.items() if isinstance(value, Container))


def elements(verb: str, table: str, objects: Mapping[Key, Value]) -> Iterator[str]:
    """One command for each container: nft reads a list of elements much faster than many commands."""
    by_container: dict[str, list[str]] = {}
    for key, value in objects.items():
        if key.kind == "element":
            with_value = f"{key.element} : {value}" if value and verb == "add" else key.element
            by_container.setdefault(key.name, []).append(with_value)
    for name, listed in by_container.items():
        yield f"{verb} element {table} {name} {{ {', '.join(listed)} }}"
