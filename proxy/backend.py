"""What is asked of a way to turn frontends into rules; nftables/ and iptables/ are the two answers."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol, TypeVar

from controlloop.delta import Delta
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

    def replace(self, service: ServiceName, frontends: Sequence[Frontend], delta: Delta[K, V]) -> None:
        """Let these be all frontends of a Service from now on; record in `delta` which objects that changes."""
        ...

    def settle(self, surroundings: Surroundings, delta: Delta[K, V]) -> None:
        """The node's surroundings are different from now on; record in `delta` which objects that changes."""
        ...
