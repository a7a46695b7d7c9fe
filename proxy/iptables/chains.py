"""The names of our chains and sets. Pure."""

from base64 import b32encode
from hashlib import sha256

from controlloop.iptables.chains import Key, Owned, Rules
from proxy.frontends import Frontend

PREFIX = "NETPROXY-"
OURS = Owned((PREFIX,), tables=("raw", "nat", "filter"))
"""Jumps go to the head of the chain, as kube-proxy's do: an earlier ACCEPT of somebody else would hide them."""

MAX_NAME = 28
"""XT_EXTENSION_MAXNAMELEN (linux/netfilter/x_tables.h) without the version byte and the terminating zero."""

SET_TABLE = "ipset"
"""Stands for the table in the keys of sets of addresses: what is in them is not ours to know."""
SET: Rules = ()
"""The value of such a key."""


def hashed(prefix: str, text: str) -> str:
    """A chain name of full length that nobody's text can shape."""
    digest = sha256(text.encode()).digest()[:MAX_NAME]  # more than fits
    return (prefix + b32encode(digest).decode())[:MAX_NAME]


def chain_name(kind: str, frontend: Frontend, role: str = "") -> str:
    """Of no two frontends the same, and of no frontend after its Service is made anew under another name."""
    address, protocol, port = frontend.key
    return hashed(f"{PREFIX}{kind}-", f"{frontend.name} {int(address)} {protocol.value} {port}{role}")


def set_key(name: str) -> Key:
    return (SET_TABLE, name)
