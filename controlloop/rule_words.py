"""Objects of nftables and iptables as a person would name them. Pure."""

from typing import Any

from controlloop.nft.state import Chain, Container
from controlloop.nft.state import Key as NftKey


def object_name(key: Any, where: str) -> str:
    """`element services 10.96.0.1 . tcp . 80 of nftables-ip`; iptables knows a chain by its table and name."""
    is_chain = isinstance(key, tuple) and not isinstance(key, NftKey)
    name = f"chain {' '.join(key)}" if is_chain else str(key)
    return f"{name} of {where}"


def value_facts(value: Any) -> tuple[str, ...]:
    """A chain is its rules, an element what it leads to; None: it is not there."""
    if value is None:
        return ()
    if isinstance(value, Chain):
        return tuple(rule.label for rule in value.rules) or ("no rule",)
    if isinstance(value, Container):
        return (f"{value.kind} of {value.type}",)
    if isinstance(value, tuple):
        return tuple(map(str, value)) or ("no rule",)
    return (str(value) or "there",)
