"""What our table should hold, from the frontends.

Pure. The number of rules does not depend on the number of services: constant.py has the rules, services.py the data.

    prerouting, output -> services: (address, protocol, port) is looked up in the map `services`
        -> cluster-random-tcp-3: for every ClusterIP on TCP with three endpoints, one rule that marks who is to be
           masqueraded, and one that draws a number below 3 and looks up (address, port, number) in `tcp-endpoints`
        -> external-..., local-...: likewise for external addresses, by external traffic policy
        -> ...-round-robin-...: one chain for each such frontend, for its counter must be its own
        -> ...-affinity-...: one chain for each such frontend; it asks the memories of its endpoints first
"""

from collections.abc import Sequence

from controlloop.delta import Delta
from controlloop.nft.state import Key, Value
from proxy.frontends import Frontend, ServiceName
from proxy.nftables.callers import callers
from proxy.nftables.constant import constant_objects
from proxy.nftables.planner import THE_TABLE, TablePlanner
from proxy.nftables.services import FrontendPlan
from proxy.node import Surroundings


class NftablesPlanner(TablePlanner):
    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(dict(constant_objects(surroundings)))
        self.family = surroundings.family
        self._callers = callers(surroundings)
        self._frontends: dict[ServiceName, Sequence[Frontend]] = {}

    def replace(self, service: ServiceName, frontends: Sequence[Frontend], delta: Delta[Key, Value]) -> None:
        if frontends:
            self._frontends[service] = frontends
        else:
            self._frontends.pop(service, None)
        objects: dict[Key, Value] = {}
        for frontend in frontends:
            if frontend.family is self.family:
                FrontendPlan(frontend, self._callers, objects).collect()
        self._ledger.replace(service, objects, delta)

    def settle(self, surroundings: Surroundings, delta: Delta[Key, Value]) -> None:
        """Costs as much as there is when it changes who is masqueraded, and the constant part otherwise."""
        self._ledger.replace(THE_TABLE, dict(constant_objects(surroundings)), delta)
        before, self._callers = self._callers, callers(surroundings)
        if self._callers != before:
            for service, frontends in list(self._frontends.items()):
                self.replace(service, frontends, delta)
