"""What a table of ours can hold, as values.

Pure. The table is ours alone; its state is a mapping from `Key` to the object's value. nft 1.0.6 prints some rules
without words that it needs to read them back, so a rule is never compared as text: each carries a comment that ends
in a digest of the text it was written from, and that is what a listing is compared by.
"""

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple


class Key(NamedTuple):
    kind: str
    """`container`, `chain` or `element`."""
    name: str
    """Of the chain or container; for an element, of the container that holds it."""
    element: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in self if part)


@dataclass(frozen=True, slots=True)
class Container:
    """A named set or map. Two are equal when their types are: how a type was declared does not come back."""

    kind: str
    """`set` or `map`."""
    type: str
    """As listed: `ipv4_addr . inet_proto . inet_service : verdict`."""
    declaration: str = field(default="", compare=False)
    is_dynamic: bool = False
    """Packets put elements in, which are nobody's drift: they are neither read nor written."""
    counts: bool = False
    """Each element counts the packets that matched it, which is nobody's drift either."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, known by its label."""

    label: str
    """What the rule is for, and its digest: it stands as the rule's comment, for people and for comparing."""
    text: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Hook:
    """Where a base chain hangs; None as a chain's hook makes it a chain to jump to."""

    type: str
    name: str
    priority: int


@dataclass(frozen=True, slots=True)
class Chain:
    hook: Hook | None
    rules: tuple[Rule, ...]


Value = Container | Chain | str
"""An element's value is text: `goto random-3`, `10.5.1.2 . 8080`, empty in a set."""


@lru_cache(maxsize=512)
def labelled(purpose: str, text: str) -> Rule:
    """The rule `text` with a comment that says its purpose and ends in its digest."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return Rule(f"{purpose} #{digest}", text)
