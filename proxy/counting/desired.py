"""What the table of counts should hold, from the frontends. Pure."""

from collections.abc import Sequence

from controlloop.delta import Delta
from controlloop.nft.state import Key, Value
from proxy.counting.rules import constant_objects, elements
from proxy.frontends import Frontend, ServiceName
from proxy.nftables.planner import THE_TABLE, TablePlanner
from proxy.node import Surroundings


class CountingPlanner(TablePlanner):
    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(dict(constant_objects(surroundings)))
        self._family = surroundings.family

    def replace(self, service: ServiceName, frontends: Sequence[Frontend], delta: Delta[Key, Value]) -> None:
        own = (frontend for frontend in frontends if frontend.family is self._family)
        self._ledger.replace(service, {key: value for each in own for key, value in elements(each)}, delta)

    def settle(self, surroundings: Surroundings, delta: Delta[Key, Value]) -> None:
        self._ledger.replace(THE_TABLE, dict(constant_objects(surroundings)), delta)
