"""What every planner of a table of ours does alike: a ledger of the objects that each Service wants. Pure."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

from controlloop.delta import Delta, Ledger
from controlloop.nft.state import Key, Value
from proxy.frontends import Frontend, ServiceName

# The table itself owns the constant part in the ledger.
THE_TABLE = None


class TablePlanner(ABC):
    """Keeps the desired state of one family's table; replacing one Service costs what that Service has."""

    def __init__(self, constant: Mapping[Key, Value]) -> None:
        """`constant`: what does not depend on Services."""
        self._ledger: Ledger[ServiceName | None, Key, Value] = Ledger()
        self._ledger.replace(THE_TABLE, constant, Delta())

    @property
    def objects(self) -> Mapping[Key, Value]:
        return self._ledger.objects

    def owned(self) -> Iterable[tuple[ServiceName | None, Sequence[Key]]]:
        return self._ledger.owned().items()

    @abstractmethod
    def replace(self, service: ServiceName, frontends: Sequence[Frontend], delta: Delta[Key, Value]) -> None:
        """See proxy.backend.Planner."""

    def replace_all(self, changed: Iterable[tuple[ServiceName, Sequence[Frontend]]], delta: Delta[Key, Value]) -> None:
        for service, frontends in changed:
            self.replace(service, frontends, delta)
