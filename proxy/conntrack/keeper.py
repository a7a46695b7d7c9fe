"""Forgets flows as endpoints go: at once for UDP, after the drain time for TCP Services that have one.

A sync that took nothing away looks at no flow; one that did costs one listing for each family and protocol.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from heapq import heappop, heappush
from itertools import count

from controlloop.family import Family
from controlloop.logs import Log
from proxy.conntrack import kernel
from proxy.conntrack.desired import Chores, Place, Verdict, departures, served_by, stateless_chores, target
from proxy.frontends import Frontend, Protocol, ServiceName

log = Log("conntrack")

Frontends = tuple[Frontend, ...]
NodeAddresses = Callable[[Family], AbstractSet[bytes]]


class FlowKeeper:
    def __init__(self, node_addresses: NodeAddresses, clock: Callable[[], float] = time.monotonic) -> None:
        """`node_addresses`: where node ports are answered now, in network order."""
        self._node_addresses = node_addresses
        self._clock = clock
        self._known: dict[ServiceName, Frontends] = {}
        self._chores: defaultdict[tuple[Family, Protocol], Chores] = defaultdict(Chores)
        self._drains: list[tuple[float, int, ServiceName, Frontend, frozenset[Place]]] = []
        self._numbers = count()
        self.deleted = 0
        """Flows forgotten since the start."""
        self.last_duration_s = 0.0

    def frontends(self, service: ServiceName) -> Frontends:
        """As they were last noted."""
        return self._known.get(service, ())

    def note(self, changed: Iterable[tuple[ServiceName, Sequence[Frontend]]]) -> None:
        """The rules of these services are in the kernel now."""
        for service, frontends in changed:
            before, after = self._known.pop(service, ()), tuple(frontends)
            if after:
                self._known[service] = after
            for family, where, verdict in stateless_chores(before, after):
                self._chores[family, Protocol.UDP].verdicts[where] = verdict
            for frontend, gone in departures(before, after):
                due = self._clock() + (frontend.drain_s or 0)
                heappush(self._drains, (due, next(self._numbers), service, frontend, gone))

    @property
    def next_due_s(self) -> float | None:
        """Seconds until a drain time ends; None: none runs."""
        return max(0.0, self._drains[0][0] - self._clock()) if self._drains else None

    async def clean(self) -> None:
        """Do what is due. OSError when the kernel refuses; it is tried again with the next call."""
        self._take_drained()
        started = self._clock()
        while self._chores:
            (family, protocol), chores = self._chores.popitem()
            try:
                doomed = await asyncio.to_thread(self._forget, family, protocol, chores)
            except BaseException:
                # What was noted meanwhile is newer.
                self._chores[family, protocol].verdicts = chores.verdicts | self._chores[family, protocol].verdicts
                raise
            self.deleted += doomed
            self.last_duration_s = self._clock() - started
            if doomed:
                log.info("flows forgotten", family=family.nft, protocol=protocol.value, flows=doomed)

    def _forget(self, family: Family, protocol: Protocol, chores: Chores) -> int:
        stale = chores.stale(kernel.flows(family, protocol), self._node_addresses(family))
        return kernel.delete(family, stale)

    def _take_drained(self) -> None:
        while self._drains and self._drains[0][0] <= self._clock():
            _, _, service, frontend, gone = heappop(self._drains)
            # An endpoint that came back meanwhile keeps its flows.
            back = (served_by(one) for one in self._known.get(service, ()) if one.key == frontend.key)
            self._doom(frontend, gone.difference(*back))

    def _doom(self, frontend: Frontend, gone: frozenset[Place]) -> None:
        verdicts = self._chores[frontend.family, frontend.protocol].verdicts
        where = target(frontend)
        earlier = verdicts.get(where, Verdict(gone=frozenset())).gone or frozenset()
        verdicts[where] = Verdict(gone=earlier | gone)
