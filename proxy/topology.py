"""Which of a port's endpoints take new connections: readiness, hints and the fallback to those that terminate.

Pure; the rules are kube-proxy's, whose cluster and local sets these are.
"""

from msgspec import Struct

from proxy.annotations import Weights
from proxy.endpoints import Candidate, Places
from proxy.frontends import Endpoint

Served = list[tuple[Candidate, Endpoint]]


class Reach(Struct, frozen=True, gc=False):
    """Who serves one port in one family, as seen from one node. Ordered by (address, port)."""

    cluster: tuple[Endpoint, ...]
    """Under policy Cluster; empty only when nobody serves anywhere."""
    local: tuple[Endpoint, ...]
    """Under policy Local."""
    serving: tuple[Endpoint, ...]
    """All that answer to connections that they have, chosen here or not."""

    def lingering(self, *chosen: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        """Those that serve and are not among the chosen."""
        if any(endpoints is self.serving for endpoints in chosen):
            return ()
        known = {endpoint for endpoints in chosen for endpoint in endpoints}
        return tuple(endpoint for endpoint in self.serving if endpoint not in known)


NOWHERE = Reach((), (), ())


def reach(places: Places, zone: str, weights: Weights) -> Reach:
    """`zone` is the node's, empty when it has none."""
    if not places:
        return NOWHERE
    served = [(places[key], _endpoint(key[1], places[key], weights)) for key in sorted(places)]
    ready = [each for each in served if each[0].ready]
    last_resort = [each for each in served if each[0].serving and each[0].terminating]
    everyone = tuple(endpoint for _, endpoint in served)
    return Reach(
        cluster=_shared(_hinted(ready, zone) or last_resort, everyone),
        local=_shared(_local(ready) or _local(last_resort), everyone),
        serving=_shared([each for each in served if each[0].serving], everyone),
    )


def _endpoint(number: int, candidate: Candidate, weights: Weights) -> Endpoint:
    # An endpoint that does not say where it is may be here: hairpin must work for it, but policy Local passes it over.
    is_local = candidate.is_local or not candidate.is_placed
    weight = weights.get(candidate.address, weights.get(candidate.zone, 1)) if weights else 1
    return Endpoint(candidate.address, number, is_local, weight)


def _local(served: Served) -> Served:
    return [each for each in served if each[0].is_local]


def _hinted(ready: Served, zone: str) -> Served:
    """Hints for nodes count before those for zones; either counts only when every ready endpoint has one, and one of
    them is meant for us.
    """
    if all(candidate.node_hint is not None for candidate, _ in ready):
        here = [each for each in ready if each[0].node_hint]
        if here:
            return here
    if zone and all(candidate.zone_hints for candidate, _ in ready):
        return [each for each in ready if zone in each[0].zone_hints] or ready
    return ready


def _shared(part: Served, everyone: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    """There are many frontends, and for most of them the part is the whole."""
    return everyone if len(part) == len(everyone) else tuple(endpoint for _, endpoint in part)
