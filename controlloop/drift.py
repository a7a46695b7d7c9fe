"""What somebody else did to objects of ours, as far as the kernel tells.

Pure. Each way to keep rules has a watch that fills a `Drift`; whoever owns the rules takes it and repairs.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MOST = 1000
"""Objects remembered; when more drifted, one look at everything is cheaper."""


@dataclass(slots=True)
class Drift(Generic[K, V]):
    actual: dict[K, V | None] = field(default_factory=dict)
    """What the kernel holds now in the place of each; None: nothing. A value that nobody would want stands for one
    that is there and different."""
    unread: set[K] = field(default_factory=set)
    """Touched in a way that was not told; the kernel has to be asked."""
    everything: bool = False
    """More was touched than is known."""
    much: bool = False
    """So many objects were touched that they were not remembered one by one."""
    by: str = ""
    """The program that did it, when the kernel says so."""

    def __bool__(self) -> bool:
        return bool(self.actual or self.unread or self.everything)

    def note(self, key: K, actual: V | None) -> None:
        self.actual[key] = actual
        if len(self.actual) > MOST:
            self.actual.clear()
            self.everything = self.much = True


class Watch(Protocol[K, V]):
    def start(self, wake: Callable[[], None]) -> None:
        """Call `wake` from now on when something drifted."""
        ...

    def take(self) -> Drift[K, V]:
        """All that was heard since the last time."""
        ...

    def close(self) -> None: ...
