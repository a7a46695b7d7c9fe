"""What differs between what a daemon wants and what the kernel holds: the values of `netctl diff`. Pure."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any


class Cause(Enum):
    MISSING = "missing"
    CHANGED = "changed"
    EXTRA = "extra"
    """Nobody wants it, and it stands where only ours should be."""


@dataclass(frozen=True, slots=True)
class Owner:
    """For whose sake an object is there."""

    name: str
    """`Service default/web`, `peer 10.244.2.0-24`, or the daemon itself; empty: nobody's."""
    others: int = 0
    """How many want it, too."""

    def __str__(self) -> str:
        return f"{self.name} and {self.others} more" if self.others else self.name or "nobody"


NOBODY = Owner("")


@dataclass(frozen=True, slots=True)
class Difference:
    place: str
    """Where it stands: `table ip netproxy`, `iptables-nft`, `overlay`."""
    object: str
    owner: Owner
    wanted: tuple[str, ...] = ()
    """Lines that should be there and are not."""
    actual: tuple[str, ...] = ()
    """Lines that are there and should not be."""

    @property
    def cause(self) -> Cause:
        if not self.actual:
            return Cause.MISSING
        return Cause.CHANGED if self.wanted else Cause.EXTRA

    @property
    def identity(self) -> Hashable:
        """Of the object, whatever is wrong with it."""
        return self.place, self.object

    @property
    def item(self) -> dict[str, Any]:
        return {
            "place": self.place,
            "object": self.object,
            "owner": self.owner.name or None,
            "other_owners": self.owner.others,
            "cause": self.cause.value,
            "wanted": list(self.wanted),
            "actual": list(self.actual),
        }


class Owners:
    """Who wants what, as a page's `owners` say it."""

    def __init__(
        self, daemon: str, kind: str, listed: Sequence[tuple[str, Sequence[Any]]], keys: Sequence[Any]
    ) -> None:
        """`kind` stands before the names of those who own: `Service`, `peer`; `keys` are what numbers stand for."""
        self.daemon = Owner(daemon)
        self._kind = kind
        self._listed = listed
        self._keys = keys

    @cached_property
    def _names(self) -> Mapping[Hashable, Sequence[str]]:
        """Only who finds something asks: there may be a hundred thousand."""
        names: dict[Hashable, list[str]] = {}
        for name, wanted in self._listed:
            for each in wanted:
                key = tuple(self._keys[each] if isinstance(each, int) else each)
                names.setdefault(key, []).append(name)
        return names

    def names(self, key: Hashable) -> Sequence[str]:
        """Of all that want it; the empty one is the daemon's."""
        return self._names.get(key, ())

    def of(self, key: Hashable, default: Owner | None = None) -> Owner:
        """`default` for what nobody wants alone; else the daemon."""
        names = [name for name in self.names(key) if name]
        if not names:
            return default or self.daemon
        return Owner(f"{self._kind} {min(names)}", len(names) - 1)


def texts_that_differ(
    place: str, wanted: Mapping[str, tuple[Owner, str]], actual: Mapping[str, str]
) -> list[Difference]:
    """Of objects that are one line each, by name."""
    found = []
    for name, (owner, text) in wanted.items():
        have = actual.get(name)
        if have != text:
            found.append(Difference(place, name, owner, (text,), () if have is None else (have,)))
    extra = (name for name in actual if name not in wanted)
    return [*found, *(Difference(place, name, NOBODY, (), (actual[name],)) for name in extra)]
