"""The recipe, once: dump, diff, apply, dump again; the second diff must be empty.

Generic over any kernel that can be dumped as a mapping and changed by a delta. Both are asked of the same object so
that a fake and the real kernel can stand under one contract suite.
"""

from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Generic, Protocol, TypeVar

from controlloop.delta import Delta, diff
from controlloop.errors import VerificationError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

SHOWN = 5


class Kernel(Protocol[K, V]):
    async def dump(self) -> Mapping[K, V]:
        """All objects that are ours, as they are now."""
        ...

    async def apply(self, delta: Delta[K, V]) -> None:
        """Make the change, in the right order. Raises when some of it did not go in; the rest may have."""
        ...


@dataclass(frozen=True, slots=True)
class Report(Generic[K, V]):
    """What one reconcile did: the change it found necessary, verified to have arrived."""

    delta: Delta[K, V]
    held: frozenset[K] = frozenset()
    """What differs and was not admitted."""


def describe(delta: Delta[K, V], shown: int = SHOWN) -> str:
    """The first objects of a difference, as a person would read it: `- old`, `+ new`."""
    signed = chain((("-", *one) for one in delta.drop.items()), (("+", *one) for one in delta.put.items()))
    lines = [f"{sign} {key} {value}" for sign, key, value in islice(signed, shown)]
    hidden = len(delta.drop) + len(delta.put) - len(lines)
    return "; ".join(lines) + (f" (and {hidden} more)" if hidden else "")


async def reconcile(
    desired: Callable[[], Mapping[K, V]],
    kernel: Kernel[K, V],
    *,
    passes: int = 3,
    admit: Callable[[Delta[K, V]], Delta[K, V]] | None = None,
) -> Report[K, V]:
    """Bring the kernel to `desired()` and prove it by reading back.

    The desired state is asked for anew in each pass: it may have moved while we worked. `admit` may take away from the
    first difference what must not be changed now; that is then left alone to the end.
    VerificationError, with the difference that is left, when `passes` changes did not suffice.
    """
    found: Delta[K, V] = diff(desired(), await kernel.dump())
    first = admit(found) if admit else found
    delta = first
    admitted = keys_of(first)
    held = keys_of(found) - admitted
    for _ in range(passes):
        if not delta:
            return Report(first, held)
        await kernel.apply(delta)
        delta = without(diff(desired(), await kernel.dump()), held)
    if delta:
        raise VerificationError(f"the kernel still differs after {passes} passes: {describe(delta)}")
    return Report(first, held)


def keys_of(delta: Delta[K, V]) -> frozenset[K]:
    return frozenset(delta.put.keys() | delta.drop.keys())


def without(delta: Delta[K, V], held: Collection[K]) -> Delta[K, V]:
    if not held:
        return delta
    return Delta(
        {key: value for key, value in delta.put.items() if key not in held},
        {key: value for key, value in delta.drop.items() if key not in held},
    )
