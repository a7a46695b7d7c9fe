"""Which flows lead to an endpoint that does not serve any more, or past a Service that is there by now. Pure.

Three rules that kube-proxy's clean-up breaks: the whole destination is compared, address and port; Services without
endpoints are cleaned, too; so are those that were deleted.
"""

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from controlloop.family import Family
from proxy.conntrack.messages import Flow
from proxy.frontends import Endpoint, Frontend, Protocol

Place = tuple[bytes, bytes]
"""Address and port in network order."""
Target = tuple[int, bytes, bytes]
"""Protocol number, address and port. A node port has the address of its frontend, which stands for all of the node."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which flows to a target are to be forgotten."""

    serving: frozenset[Place] = frozenset()
    """Endpoints whose flows stay."""
    gone: frozenset[Place] | None = None
    """Only flows to these are forgotten; None: all but those to `serving`, untranslated ones included."""

    def dooms(self, endpoint: Place) -> bool:
        return endpoint not in self.serving if self.gone is None else endpoint in self.gone


@dataclass(slots=True)
class Chores:
    """What has to be looked for in one family's table, for one protocol."""

    verdicts: dict[Target, Verdict] = field(default_factory=dict)

    def stale(self, flows: Iterable[Flow], node_addresses: AbstractSet[bytes]) -> Iterator[Flow]:
        """`node_addresses`: where node ports are answered."""
        verdicts = self.verdicts
        anywhere = {(protocol, port) for protocol, address, port in verdicts if not any(address)}
        for flow in flows:
            verdict = verdicts.get((flow.protocol, flow.destination, flow.destination_port))
            if verdict is None and (flow.protocol, flow.destination_port) in anywhere:
                if flow.destination not in node_addresses:
                    continue
                verdict = verdicts[flow.protocol, bytes(len(flow.destination)), flow.destination_port]
            if verdict and verdict.dooms((flow.endpoint, flow.endpoint_port)):
                yield flow


def target(frontend: Frontend) -> Target:
    return (frontend.protocol.number, frontend.address.packed, frontend.port.to_bytes(2, "big"))


def place(endpoint: Endpoint) -> Place:
    return (endpoint.address.packed, endpoint.port.to_bytes(2, "big"))


def served_by(frontend: Frontend) -> frozenset[Place]:
    """Endpoints that may keep flows: terminating ones and those that policy has left out since serve theirs still."""
    return frozenset(map(place, (*frontend.endpoints, *(frontend.inside or ()), *frontend.lingering)))


def stateless_chores(past: Sequence[Frontend], after: Sequence[Frontend]) -> Iterator[tuple[Family, Target, Verdict]]:
    """What to look for at once: flows of UDP, which have no end of their own.

    A frontend that is new, or had no endpoints, may have been called before: such flows lead past it for as long as
    the client goes on. One that lost endpoints has flows that lead nowhere.
    """
    old = {frontend.key: frontend for frontend in past if frontend.protocol is Protocol.UDP}
    new = {frontend.key: frontend for frontend in after if frontend.protocol is Protocol.UDP}
    for key, frontend in new.items():
        serving, before = served_by(frontend), old.get(key)
        # Who only lingers keeps flows and is given none: those that came meanwhile lead past the frontend.
        if before is None or not before.endpoints or not served_by(before) <= serving:
            yield frontend.family, target(frontend), Verdict(serving)
    for key in old.keys() - new.keys():
        yield old[key].family, target(old[key]), Verdict(gone=served_by(old[key]))


def departures(before: Sequence[Frontend], after: Sequence[Frontend]) -> Iterator[tuple[Frontend, frozenset[Place]]]:
    """TCP frontends that say how long their old flows may last, with the endpoints that just went."""
    new = {frontend.key: frontend for frontend in after}
    for frontend in before:
        now = new.get(frontend.key)
        drain_s = now.drain_s if now else frontend.drain_s
        if frontend.protocol is Protocol.TCP and drain_s is not None:
            gone = served_by(frontend) - (served_by(now) if now else frozenset())
            if gone:
                yield now or frontend, gone
