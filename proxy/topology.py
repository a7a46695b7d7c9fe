"""Which of a port's endpoints take new connections: readiness, hints and the fallback to those that terminate.

Pure; the rules are kube-proxy's, whose cluster and local sets these are.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from proxy.annotations import Weights
from proxy.endpoints import Candidate, Places
from proxy.frontends import Endpoint

Served = list[tuple[Candidate, Endpoint]]


@dataclass(frozen=True, slots=True)
class Reach:
    """Who serves one port in one family, as seen from one node. Ordered by (address, port)."""

    cluster: tuple[Endpoint, ...]
    """Under policy Cluster; empty only when nobody serves anywhere."""
    local: tuple[Endpoint, ...]
    """Under policy Local."""
    serving: tuple[Endpoint, ...]
    """All that answer to connections that they have, chosen here or not."""

    def lingering(self, *chosen: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        """Those that serve and are not among the chosen."""
        if self.serving in chosen:
            return ()
        known = {(each.address, each.port) for endpoints in chosen for each in endpoints}
        return tuple(each for each in self.serving if (each.address, each.port) not in known)


NOWHERE = Reach((), (), ())


def reach(places: Places, zone: str, weights: Weights) -> Reach:
    """`zone` is the node's, empty when it has none."""
    if not places:
        return NOWHERE
    served = [(places[key], _endpoint(key[1], places[key], weights)) for key in sorted(places)]
    ready = _where(served, lambda candidate: candidate.ready)
    last_resort = _where(served, lambda candidate: candidate.serving and candidate.terminating)
    return Reach(
        cluster=_balanced(_hinted(ready, zone) or last_resort),
        local=_balanced(_where(ready, _is_local) or _where(last_resort, _is_local)),
        serving=_endpoints(_where(served, lambda candidate: candidate.serving)),
    )


def _endpoint(number: int, candidate: Candidate, weights: Weights) -> Endpoint:
    # An endpoint that does not say where it is may be here: hairpin must work for it, but policy Local passes it over.
    is_local = candidate.is_local or not candidate.is_placed
    weight = weights.get(candidate.address, weights.get(candidate.zone, 1)) if weights else 1
    return Endpoint(candidate.address, number, is_local, weight)


def _is_local(candidate: Candidate) -> bool:
    return candidate.is_local


def _hinted(ready: Served, zone: str) -> Served:
    """Hints for nodes count before those for zones; either counts only when every ready endpoint has one, and one of
    them is meant for us.
    """
    if all(candidate.node_hint is not None for candidate, _ in ready):
        here = _where(ready, lambda candidate: bool(candidate.node_hint))
        if here:
            return here
    if zone and all(candidate.zone_hints for candidate, _ in ready):
        return _where(ready, lambda candidate: zone in candidate.zone_hints) or ready
    return ready


def _where(served: Served, wanted: Callable[[Candidate], bool]) -> Served:
    return [each for each in served if wanted(each[0])]


def _endpoints(served: Served) -> tuple[Endpoint, ...]:
    return tuple(endpoint for _, endpoint in served)


def _balanced(served: Served) -> tuple[Endpoint, ...]:
    """Where none has a weight all have the same: those that are left must serve."""
    endpoints = _endpoints(served)
    if any(each.weight for each in endpoints):
        return endpoints
    return tuple(replace(each, weight=1) for each in endpoints)
