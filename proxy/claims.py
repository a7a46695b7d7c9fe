"""Who has a frontend that several Services want: the oldest, then the first by name. Pure.

The cost of a change grows with what is claimed, also where ten thousand Services claim one address.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime

from controlloop.family import IPAddress
from proxy.frontends import ANY_NODE_ADDRESS, Protocol, ServiceName
from proxy.services import ProxiedService

FrontendKey = tuple[IPAddress, Protocol, int]
"""`Frontend.key`."""
Claim = tuple[datetime, ServiceName]

UNDATED = datetime.max.replace(tzinfo=UTC)


class Claims:
    def __init__(self) -> None:
        self._claims: dict[FrontendKey, list[Claim]] = {}
        self._contested: set[FrontendKey] = set()
        self.disputes = 0
        """Grows whenever `lost` may read differently."""

    def replace(self, old: ProxiedService | None, new: ProxiedService | None) -> set[ServiceName]:
        """Let a Service claim what its new version has; gives back who lost a frontend and who got one."""
        before, after = _keys(old), _keys(new)
        changed: set[ServiceName] = set()
        old_claim, new_claim = _claim(old), _claim(new)
        if old_claim == new_claim:
            before, after = before - after, after - before
        for key in before | after:
            removed = old_claim if key in before else None
            changed |= self._reclaim(key, removed, new_claim if key in after else None)
        return changed

    def owner(self, key: FrontendKey) -> ServiceName | None:
        claims = self._claims.get(key)
        return claims[0][1] if claims else None

    def lost(self) -> Iterator[tuple[ServiceName, str]]:
        """Each Service that an older one keeps from a frontend, and why."""
        # In the same order each time: a reason that reads differently is told again.
        for key in sorted(self._contested, key=_shown):
            (_, owner), *losers = self._claims[key]
            for _, loser in losers:
                yield loser, f"{_shown(key)} belongs to {owner}, which claims it too and goes first"

    def _reclaim(self, key: FrontendKey, before: Claim | None, after: Claim | None) -> set[ServiceName]:
        claims = self._claims.setdefault(key, [])
        owners = set(claims[:1])
        if before is not None:
            del claims[bisect_left(claims, before)]
        if after is not None:
            insort(claims, after)
        owners ^= set(claims[:1])
        if not claims:
            del self._claims[key]
        if len(claims) > 1 or key in self._contested:
            self.disputes += 1
        if len(claims) > 1:
            self._contested.add(key)
        else:
            self._contested.discard(key)
        return {service for _, service in owners}


def _claim(service: ProxiedService | None) -> Claim | None:
    return None if service is None else (service.created or UNDATED, service.name)


def _keys(service: ProxiedService | None) -> AbstractSet[FrontendKey]:
    if service is None:
        return set()
    return {
        (address, port.protocol, number)
        for family in service.families
        for port in service.ports
        for _, address, number in service.exposures(port, family)
    }


def _shown(key: FrontendKey) -> str:
    address, protocol, number = key
    if address in ANY_NODE_ADDRESS.values():
        return f"IPv{address.version} node port {number}/{protocol.value}"
    return f"{address} {number}/{protocol.value}"
