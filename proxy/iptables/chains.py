"""Names and words that iptables-save uses, and the shape of what we own in iptables.

Pure. The state of one family is a mapping (table, chain) -> rules; a rule is the text after `-A CHAIN ` exactly as
iptables-save prints it, so that reading back compares text. A chain of ours begins with `NETPROXY-`. Of any other
chain (PREROUTING, INPUT, ...) the state holds only the rules that jump to ours.
"""

import re
from base64 import b32encode
from hashlib import sha256
from ipaddress import IPv6Address

from controlloop.family import Family

Key = tuple[str, str]
Rules = tuple[str, ...]

PREFIX = "NETPROXY-"
MAX_NAME = 28
"""XT_EXTENSION_MAXNAMELEN (linux/netfilter/x_tables.h) without the version byte and the terminating zero."""

_JUMP_TO_OURS = re.compile(rf"-[jg] {PREFIX}[\w./-]+$", re.ASCII)


def is_ours(chain: str) -> bool:
    return chain.startswith(PREFIX)


def jumps_to_ours(rule: str) -> bool:
    """A jump is the last word of a rule; a quoted comment that looks like one ends in a quote."""
    return _JUMP_TO_OURS.search(rule) is not None


def hashed(prefix: str, text: str) -> str:
    """A chain name of full length that nobody's text can shape."""
    digest = b32encode(sha256(text.encode()).digest()).decode()
    return (prefix + digest)[:MAX_NAME]


def host(family: Family, address: int) -> str:
    """An address as inet_ntop(3) writes it.

    It is taken as a number because an IPv6Address carries a scope, which is free text. Unlike ipaddress, inet_ntop
    ends an IPv4-mapped or IPv4-compatible address in dotted decimal.
    """
    if family is Family.V4:
        return _dotted(address)
    mapped = address >> 32 == 0xFFFF
    compatible = 0xFFFF < address < 1 << 32
    if mapped or compatible:
        return f"::{'ffff:' if mapped else ''}{_dotted(address & 0xFFFFFFFF)}"
    return str(IPv6Address(address))


def _dotted(address: int) -> str:
    return ".".join(map(str, address.to_bytes(4)))


def network(family: Family, address: int, length: int) -> str:
    return f"{host(family, address)}/{length}"
