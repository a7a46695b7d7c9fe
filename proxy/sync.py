"""Brings the rules of one family in line with the frontends."""

from collections.abc import Hashable, Iterable
from typing import TypeVar

from controlloop.sync import Backend, SyncEngine
from proxy.backend import Planner
from proxy.frontends import Frontend, ServiceName

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ServiceSync(SyncEngine[K, V]):
    def __init__(self, name: str, planner: Planner[K, V], backend: Backend[K, V]) -> None:
        super().__init__(name, lambda: planner.objects, backend)
        self._planner = planner

    def plan(self, changed: Iterable[tuple[ServiceName, tuple[Frontend, ...]]]) -> None:
        """Note what the frontends of these services are now; `sync` writes it."""
        for service, frontends in changed:
            self._planner.replace(service, frontends, self.pending)
