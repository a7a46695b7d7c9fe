"""What is asked of a way to turn frontends into rules; nftables/ and iptables/ are the two answers."""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from controlloop.command import CommandError
from controlloop.delta import Delta
from controlloop.drift import Watch
from controlloop.sync import Backend
from proxy.frontends import Frontend, ServiceName
from proxy.node import Surroundings

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Planner(Protocol[K, V]):
    """Pure: from frontends to kernel objects of one family, incrementally. Made with `Surroundings`."""

    @property
    def objects(self) -> Mapping[K, V]:
        """The whole desired state, the constant part included."""
        ...

    def owned(self) -> Iterable[tuple[ServiceName | None, Sequence[tuple[str, ...]]]]:
        """Who wants which of `objects` as they are now (None: no Service); may be read while they go on changing."""
        ...

    def replace(self, service: ServiceName, frontends: Sequence[Frontend], delta: Delta[K, V]) -> None:
        """Let these be all frontends of a Service from now on; record in `delta` which objects that changes."""
        ...

    def replace_all(self, changed: Iterable[tuple[ServiceName, Sequence[Frontend]]], delta: Delta[K, V]) -> None:
        """The same for several Services."""
        ...

    def settle(self, surroundings: Surroundings, delta: Delta[K, V]) -> None:
        """The node's surroundings are different from now on; record in `delta` which objects that changes."""
        ...


class Ahead(Protocol[K, V]):
    """The kernel's side of one family, where nothing of ours is yet."""

    may_last: bool
    """Whether nobody else has to wait from what goes ahead to the first sync."""

    def goes_ahead(self, key: K, value: V) -> bool:
        """Nothing leads there before other objects are written, and it needs none that is planned after it."""
        ...

    async def apply_ahead(self, delta: Delta[K, V]) -> None:
        """Write objects that go ahead; all others go in by `apply`."""
        ...


class RuleBackend(Backend[K, V], Protocol[K, V]):
    """The kernel's side of one family."""

    asking_changes: bool
    """Whether `refusal` makes the change when it is not refused."""

    async def ahead(self) -> "Ahead[K, V] | None":
        """Writes parts of a plan before it is complete; None: something of ours is there, or that does not pay."""
        ...

    async def refusal(self, delta: Delta[K, V]) -> CommandError | None:
        """Why the kernel would refuse this change; None: it would not."""
        ...

    async def look(self, keys: Collection[K]) -> Mapping[K, V]:
        """These objects as they are now; those that are missing are left out."""
        ...

    async def watch(self, desired: Callable[[], Mapping[K, V]]) -> Watch[K, V] | None:
        """Follow from now on what others do to the objects; None: nobody tells."""
        ...

    def kind(self, key: K) -> str:
        """What the object is, for a count of repairs: `chain`, `element`, `jump`."""
        ...
