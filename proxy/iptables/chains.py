"""The names of our chains. Pure."""

from base64 import b32encode
from hashlib import sha256

from controlloop.iptables.chains import Owned

PREFIX = "NETPROXY-"
OURS = Owned((PREFIX,))
"""Jumps go to the head of the chain, as kube-proxy's do: an earlier ACCEPT of somebody else would hide them."""

MAX_NAME = 28
"""XT_EXTENSION_MAXNAMELEN (linux/netfilter/x_tables.h) without the version byte and the terminating zero."""


def hashed(prefix: str, text: str) -> str:
    """A chain name of full length that nobody's text can shape."""
    digest = b32encode(sha256(text.encode()).digest()).decode()
    return (prefix + digest)[:MAX_NAME]
