"""The table that marks packets for tracing, and through which each of them shows where it is. Pure.

It has a base chain at the very begin and one at the very end of each hook, both without verdict. So the headers of a
traced packet are seen before and after everything else, in every variant of iptables: what translated it, what
masqueraded it, where it ended.
"""

from collections.abc import Iterable

HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
FIRST, LAST = -2147483000, 2147483000
"""Priorities: before all and behind all, but for conntrack's confirmation at the end of the scale."""
PER_SECOND = 100
"""Packets that are traced at most; each one costs the node some 30 messages."""
PICK = "pick"
STATES = ("new", "established", "related", "invalid", "untracked")
"""Of a connection. A packet shows its own by the chain that it is sent through."""


def first(hook: str) -> str:
    return f"{hook}-first"


def last(hook: str) -> str:
    return f"{hook}-last"


def table_text(name: str, matches: Iterable[str], starts: Iterable[str], until: int) -> str:
    """`starts`: the hooks at which packets are picked; `until`: seconds since the epoch, when that ends by itself."""
    picks = "; ".join(f"{each} goto {PICK}".strip() for each in matches)
    picked_at = set(starts)
    lines = [f"table inet {name} {{"]
    limits = f"meta time < {until} limit rate {PER_SECOND}/second burst {PER_SECOND} packets"
    lines += [f"chain {PICK} {{ {limits} meta nftrace set 1; }}"]
    lines += [f"chain {state} {{ }}" for state in STATES]
    shown = ", ".join(f"{state} : jump {state}" for state in STATES)
    for hook in HOOKS:
        lines.append(_base(first(hook), hook, FIRST, picks if hook in picked_at else ""))
        lines.append(_base(last(hook), hook, LAST, f"ct state vmap {{ {shown} }}"))
    return "\n".join([*lines, "}", ""])


def _base(name: str, hook: str, priority: int, rules: str) -> str:
    return f"chain {name} {{ type filter hook {hook} priority {priority}; {rules}\n}}"
