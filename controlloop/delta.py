"""What to change: the difference between two states, and a ledger that finds it without looking at everything.

Pure. A state is a mapping from an object's key (what makes it that object) to its whole value. Two objects with the
same key and different values are a change, never a match.

`diff` compares two whole states: at start, after a failure, in an audit. A `Ledger` remembers which owner (a peer's
lease, a Service) wants which objects; replacing one owner's objects costs what that owner has, not what exists.
"""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
Owner = TypeVar("Owner", bound=Hashable)


@dataclass(slots=True)
class Delta(Generic[K, V]):
    """A change as a value: `put` holds what must be there, `drop` what must go, with the value it has now.

    A key in both is an object whose value changes: `drop` has the old value, `put` the new one.
    """

    put: dict[K, V] = field(default_factory=dict)
    drop: dict[K, V] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.put or self.drop)

    def __len__(self) -> int:
        return len(self.put.keys() | self.drop.keys())

    def record(self, key: K, old: V | None, new: V | None) -> None:
        """Note that `key` goes from `old` to `new` (None: not there), on top of what was noted before."""
        before = self.drop.get(key, None if key in self.put else old)
        self.put.pop(key, None)
        self.drop.pop(key, None)
        if before == new:
            return
        if before is not None:
            self.drop[key] = before
        if new is not None:
            self.put[key] = new

    def apply_to(self, state: dict[K, V]) -> None:
        for key in self.drop:
            state.pop(key, None)
        state.update(self.put)


def diff(desired: Mapping[K, V], actual: Mapping[K, V]) -> Delta[K, V]:
    """The delta that turns `actual` into `desired`; empty for equals."""
    delta: Delta[K, V] = Delta()
    for key, value in desired.items():
        have = actual.get(key)
        if have != value:
            delta.put[key] = value
            if have is not None:
                delta.drop[key] = have
    for key, value in actual.items():
        if key not in desired:
            delta.drop[key] = value
    return delta


class Ledger(Generic[Owner, K, V]):
    """Who wants which objects. An object stays as long as one owner wants it.

    Owners may share a key only with equal values (a chain that serves every Service with three endpoints); owners
    that compete for one key with different values must be told apart before, with names that belong to one of them.
    """

    def __init__(self) -> None:
        self.objects: dict[K, V] = {}
        self._keys: dict[Owner, tuple[K, ...]] = {}
        self._others: dict[K, int] = {}
        """How many want a key besides one; nearly all keys have one owner, and stand here not at all."""

    def owners(self) -> Iterator[Owner]:
        return iter(self._keys)

    def owned(self) -> dict[Owner, tuple[K, ...]]:
        """Who wants which objects now; nobody changes it any more."""
        return dict(self._keys)

    def of(self, owner: Owner) -> Mapping[K, V]:
        return {key: self.objects[key] for key in self._keys.get(owner, ())}

    def replace(self, owner: Owner, objects: Mapping[K, V], delta: Delta[K, V]) -> None:
        """Let `objects` be all that `owner` wants from now on, and record in `delta` what that changes."""
        before = set(self._keys.pop(owner, ()))
        if objects:
            self._keys[owner] = tuple(objects)
        for key, value in objects.items():
            old = self.objects.get(key)
            if old is not None and key not in before:
                self._others[key] = self._others.get(key, 0) + 1
            if old != value:
                self.objects[key] = value
                if old is None and key not in delta.drop:
                    delta.put[key] = value  # as `record` would, at a start a hundred thousand times
                else:
                    delta.record(key, old, value)
        for key in before - objects.keys():
            self._release(key, delta)

    def _release(self, key: K, delta: Delta[K, V]) -> None:
        others = self._others.pop(key, 0)
        if others > 1:
            self._others[key] = others - 1
        elif not others:
            delta.record(key, self.objects.pop(key), None)
