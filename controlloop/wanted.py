"""What a daemon wants the kernel to hold, and for whose sake: the page `/desired`, which `netctl diff` asks for. Pure.

A page of a hundred thousand objects is encoded in portions, so that a thread that does it lets others have their turn.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import msgspec

PORTION = 1000
"""Encoded at once, in about a millisecond."""


@dataclass(frozen=True, slots=True)
class WantedRules:
    """The rules of one family that one writer keeps. Nobody may change what it holds."""

    program: str
    """Which one lists them: `nft`, or `iptables-nft-save` and its like."""
    family: str
    """`ip` or `ip6`."""
    table: str = ""
    """In nftables, the table that is ours alone."""
    prefixes: Sequence[str] = ()
    """In iptables, how the names of our chains begin."""
    objects: Mapping[Any, Any] = field(default_factory=dict)
    """Keys of nftables or of iptables, with their values."""
    owned: Iterable[tuple[Hashable, Sequence[Any]]] = ()
    """Who wants which keys; of iptables also (table, rule) for rules in chains that belong to nobody alone. None and
    the empty text: the daemon itself.
    """


def desired_page(head: Mapping[str, Any], rules: Iterable[WantedRules], overlay: Iterable[Any] = ()) -> bytes:
    """The page as JSON."""
    opening = msgspec.json.encode({"apiVersion": "nodenet.io/v1alpha1", "kind": "Desired", **head})[:-1]
    parts = [opening, b',"overlay":', *listed(overlay), b',"rules":[']
    for index, each in enumerate(rules):
        parts += [b"," if index else b"", *_encoded(each)]
    return b"".join([*parts, b"]}\n"])


def _encoded(wanted: WantedRules) -> Iterator[bytes]:
    places = {key: place for place, key in enumerate(wanted.objects)}
    head = {name: getattr(wanted, name) for name in ("program", "family", "table", "prefixes")}
    yield msgspec.json.encode(head)[:-1]
    yield b',"objects":'
    yield from listed(wanted.objects.items())
    yield b',"owners":'
    yield from listed((str(owner or ""), [places.get(key, key) for key in keys]) for owner, keys in wanted.owned)
    yield b"}"


def listed(items: Iterable[Any]) -> Iterator[bytes]:
    """A JSON array. Addresses stand in it as text."""
    waiting, comma = iter(items), b""
    yield b"["
    while portion := list(islice(waiting, PORTION)):
        yield comma + msgspec.json.encode(portion, enc_hook=str)[1:-1]
        comma = b","
    yield b"]"
