"""What a load balancer and the metrics ask of this node: how many of a Service's endpoints are here. Pure.

Kept up to date Service by Service; only those with a policy Local are looked at.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from controlloop.family import Family
from proxy.endpoints import ServiceSlice
from proxy.exposure import port_reach
from proxy.frontends import ServiceName
from proxy.node import Node
from proxy.services import ProxiedService
from proxy.slices import Slices


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """What the health-check node port of a Service has to answer."""

    port: int
    local_endpoints: int
    """Ready endpoints on this node; one with an address of each family counts once."""


class Policy(Enum):
    """Which traffic policy is Local; the values are labels of a metric."""

    INTERNAL = "internal"
    EXTERNAL = "external"


class LocalEndpoints:
    def __init__(self, slices: Slices) -> None:
        self._slices = slices
        self.health_checks: dict[ServiceName, HealthCheck] = {}
        self._missing: dict[ServiceName, Counter[tuple[Policy, Family]]] = {}
        self._total: Counter[tuple[Policy, Family]] = Counter()

    @property
    def missing(self) -> Mapping[tuple[Policy, Family], int]:
        """How many Service ports are served elsewhere but, under a policy Local, by nobody here."""
        return {(policy, family): self._total[policy, family] for policy in Policy for family in Family}

    def look_at(self, name: ServiceName, service: ProxiedService | None, node: Node) -> None:
        """A Service, its slices or the node changed."""
        self.health_checks.pop(name, None)
        if name in self._missing:
            self._total -= self._missing.pop(name)
        if service is None or not (service.internal_local or service.external_local):
            return
        slices = self._slices.of(name)
        if service.health_check_port:
            self.health_checks[name] = HealthCheck(service.health_check_port, _local_endpoints(service, slices))
        missing = Counter(_missing(service, slices, node))
        if missing:
            self._missing[name] = missing
            self._total += missing


def _local_endpoints(service: ProxiedService, slices: Sequence[ServiceSlice]) -> int:
    addresses = {
        candidate.address
        for each in slices
        if each.ports
        for candidate in each.candidates
        if candidate.ready and candidate.is_local
    }
    counts = Counter(Family.of(address) for address in addresses)
    return max(counts[family] for family in service.families)


def _missing(service: ProxiedService, slices: Sequence[ServiceSlice], node: Node) -> Iterator[tuple[Policy, Family]]:
    external = service.external_local and service.is_external
    policies = [Policy.INTERNAL] * service.internal_local + [Policy.EXTERNAL] * external
    for family in service.families if policies else ():
        for port in service.ports:
            reached = port_reach(service, port, slices, family, node)
            if reached.cluster and not reached.local:
                yield from ((policy, family) for policy in policies)
