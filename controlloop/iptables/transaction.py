"""From a change to the input of `iptables-restore --noflush`.

Pure. A table's changes take effect together, at its COMMIT. Declaring a chain makes or empties it. Chains are
deleted at the end, when nothing refers to them any more. Rules of other owners and unchanged chains of ours are not
mentioned, so under iptables-nft they keep their counters and the position of their round robin.
"""

from collections.abc import Iterator, Mapping

from controlloop.delta import Delta
from controlloop.iptables.chains import Key, Owned, Rules

TABLES = ("raw", "nat", "filter")
"""raw closes doors before nat opens others; nat before filter: a frontend's first endpoint is reached without waiting
for the end of its refusal."""


def render(delta: Delta[Key, Rules], owned: Owned, begun: str = "") -> str:
    """One transaction for each table with changes; empty without any. That of the table `begun` is under way."""
    lines: list[str] = []
    for table in sorted(TABLES, key=lambda table: table != begun):
        if changes := list(_changes(table, delta, owned)):
            lines += changes if table == begun else [f"*{table}", *changes]
        if changes or table == begun:
            lines.append("COMMIT")
    return "\n".join([*lines, ""])


def render_part(table: str, delta: Delta[Key, Rules], owned: Owned) -> str:
    """Changes in the midst of a transaction."""
    return "\n".join([*_changes(table, delta, owned), ""])


def _changes(table: str, delta: Delta[Key, Rules], owned: Owned) -> Iterator[str]:
    keys = sorted((key for key in delta.put.keys() | delta.drop.keys() if key[0] == table), reverse=True)
    ours = [key for key in keys if owned.is_ours(key[1])]
    for key in _targets_first(ours, delta.put):
        yield f":{key[1]} - [0:0]"
        if rules := delta.put.get(key):
            start = f"-A {key[1]} "
            yield start + f"\n{start}".join(rules)
    for key in keys:
        if not owned.is_ours(key[1]):
            yield from _jumps(key, delta, at_head=owned.jumps_first)
    for key in ours:
        if key not in delta.put:
            yield f"-X {key[1]}"


def _targets_first(keys: list[Key], put: Mapping[Key, Rules]) -> list[Key]:
    """An order in which no rule jumps to a chain that is declared later; `keys` come by descending name.

    Why not declare all chains and then fill them: iptables-nft-restore walks a sorted list of the names seen so far
    at every rule. In this order it stops at the head of it, and 10,000 services load in 2.4 s instead of 3.9.
    """
    depths: dict[Key, int] = {}

    def depth(key: Key) -> int:
        if key not in depths:
            targets = [(key[0], rule[rule.rfind(" ") + 1 :]) for rule in put.get(key, ())]
            depths[key] = 1 + max([depth(target) for target in targets if target in put], default=0)
        return depths[key]

    return sorted(keys, key=depth)


def _jumps(key: Key, delta: Delta[Key, Rules], *, at_head: bool) -> Iterator[str]:
    """What stands where we put it keeps the order of our rules: at the head the last one goes in first."""
    wanted = delta.put.get(key, ())
    yield from (f"-D {key[1]} {rule}" for rule in delta.drop.get(key, ()))
    if at_head:
        yield from (f"-I {key[1]} {rule}" for rule in reversed(wanted))
    else:
        yield from (f"-A {key[1]} {rule}" for rule in wanted)
