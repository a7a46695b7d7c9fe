"""From a Service and its slices to its frontends: who serves whom at which address.

Pure. This is where traffic policy becomes `endpoints`, `inside`, `lingering` and `refusal`.
"""

from collections.abc import Iterator, Sequence
from ipaddress import ip_network

from msgspec import Struct, structs

from controlloop.family import Family, IPNetwork
from proxy.address_text import without_overlaps
from proxy.endpoints import ServiceSlice, places
from proxy.frontends import Endpoint, Frontend, Refusal, Scope
from proxy.node import Node
from proxy.services import ProxiedService, ServicePort
from proxy.topology import Reach, reach


class Answer(Struct, frozen=True, gc=False):
    """What frontends of one port, family and policy have in common (`Frontend`)."""

    endpoints: tuple[Endpoint, ...]
    inside: tuple[Endpoint, ...] | None
    lingering: tuple[Endpoint, ...]
    refusal: Refusal


def frontends(service: ProxiedService, slices: Sequence[ServiceSlice], node: Node) -> Iterator[Frontend]:
    """All that a Service has where no older one claims the same."""
    is_external = service.is_external
    for family in service.families:
        sources = allowed_sources(service, family, node)
        for port in service.ports:
            reached = port_reach(service, port, slices, family, node)
            internal = internal_answer(service, reached)
            external = external_answer(service, reached) if is_external else internal
            for scope, address, number in service.exposures(port, family):
                answer = internal if scope is Scope.CLUSTER_IP else external
                yield Frontend(
                    name=port.name,
                    address=address,
                    protocol=port.protocol,
                    port=number,
                    balance=service.balance,
                    endpoints=answer.endpoints,
                    scope=scope,
                    inside=answer.inside,
                    lingering=answer.lingering,
                    refusal=answer.refusal,
                    affinity_s=service.affinity_s,
                    sources=sources if scope is Scope.LOAD_BALANCER else (),
                    drain_s=service.drain_s,
                )


def port_reach(
    service: ProxiedService, port: ServicePort, slices: Sequence[ServiceSlice], family: Family, node: Node
) -> Reach:
    return reach(places(slices, port.name.port, port.protocol, family), node.zone, service.weights)


def internal_answer(service: ProxiedService, reached: Reach) -> Answer:
    """At the cluster IP."""
    return _one_answer(reached, reached.local if service.internal_local else reached.cluster)


def external_answer(service: ProxiedService, reached: Reach) -> Answer:
    """At every other address. Under policy Local a caller inside takes the short way to any endpoint."""
    if not service.external_local:
        return _one_answer(reached, reached.cluster)
    lingering = reached.lingering(reached.local, reached.cluster)
    inside, outside = _weighed(reached.cluster), _weighed(reached.local)
    return Answer(outside, inside, lingering, _refusal(reached, outside))


def _one_answer(reached: Reach, chosen: tuple[Endpoint, ...]) -> Answer:
    return Answer(_weighed(chosen), None, reached.lingering(chosen), _refusal(reached, chosen))


def _weighed(endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    """Where none has a weight all have the same: those that are left must serve."""
    if any(endpoint.weight for endpoint in endpoints):
        return endpoints
    return tuple(structs.replace(endpoint, weight=1) for endpoint in endpoints)


def _refusal(reached: Reach, chosen: tuple[Endpoint, ...]) -> Refusal:
    """Dropped only where somebody serves elsewhere, so that equal frontends stay equal."""
    return Refusal.DROP if reached.cluster and not chosen else Refusal.REJECT


def allowed_sources(service: ProxiedService, family: Family, node: Node) -> tuple[IPNetwork, ...]:
    """Who may connect to the load balancer's addresses (`Frontend.sources`), sorted and without overlaps.

    A node that may connect may reach such an address as a local one, and then has that address itself as its source.
    """
    ranges = [network for network in service.source_ranges if network.version == family.value]
    if not ranges or ranges[0].prefixlen == 0:
        return ()
    if any(address in network for network in ranges for address in node.addresses):
        ranges += [ip_network(each) for each in service.load_balancer_ips if each.version == family.value]
    return without_overlaps(ranges)
