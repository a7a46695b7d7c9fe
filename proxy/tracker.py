"""All Services and their endpoints, kept up to date by batches; gives the frontends of one Service at a time.

Pure. The cost of a batch grows with what is in it: slices are indexed by Service, claims by what they claim.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import NamedTuple

from controlloop.errors import Skipped
from controlloop.family import Family
from controlloop.printable import printable
from proxy.claims import Claims, FrontendKey
from proxy.endpoints import ServiceSlice, read_endpoints, read_slice, trigger_time
from proxy.exposure import allowed_sources, frontends
from proxy.frontends import Frontend, ServiceName
from proxy.local_endpoints import HealthCheck, LocalEndpoints, Policy
from proxy.node import Node
from proxy.objects import Decoded, Endpoints, EndpointSlice, Kind, ObjectName, Refuse, RefusedError, Service, decode
from proxy.services import Options, ProxiedService, read_service
from proxy.slices import Origin, Slices
from proxy.sources import Batch, Update

EVER = datetime.min.replace(tzinfo=UTC)
SHOWN_REASONS = 5


class TakenIn(NamedTuple):
    """All that a tracker has read, for another one to go on from."""

    node: Node
    options: Options
    services: Sequence[ProxiedService]
    slices: Sequence[tuple[Origin, tuple[ServiceSlice, ...]]]


class Tracker:
    def __init__(self, node: Node, options: Options, since: datetime = EVER) -> None:
        """Trigger times before `since` are not kept: nobody waited for us then."""
        self._node = node
        self._options = options
        self._since = since
        self._services: dict[ServiceName, ProxiedService] = {}
        self._slices = Slices()
        self._claims = Claims()
        self._local = LocalEndpoints(self._slices)
        self._triggers: dict[ServiceName, list[datetime]] = {}
        self._refused: dict[Origin, str] = {}
        self._warnings: dict[Origin, str] = {}
        self._unread: tuple[Skipped, ...] = ()
        self._skipped: Mapping[str, Skipped] = {}
        self._disputes = 0
        self._is_settled = True
        """Whether `_skipped` is what is not done as written; disputes apart."""

    def services(self) -> AbstractSet[ServiceName]:
        """All Services that we serve, also those whose frontends an older one has."""
        return self._services.keys()

    def slices_of(self, service: ServiceName) -> list[ServiceSlice]:
        return self._slices.of(service)

    def taken_in(self) -> TakenIn:
        return TakenIn(self._node, self._options, list(self._services.values()), self._slices.all())

    @classmethod
    def going_on(cls, taken: TakenIn) -> "Tracker":
        """One that has read the same. What was refused it does not know."""
        tracker = cls(taken.node, taken.options)
        for origin, slices in taken.slices:
            tracker._slices.replace(origin, slices)
        for service in taken.services:
            tracker._replace_service(service.name, service)
        return tracker

    def frontends(self, service: ServiceName) -> tuple[Frontend, ...]:
        """The frontends that belong to a Service now; none for one we do not know."""
        proxied = self._services.get(service)
        if proxied is None:
            return ()
        every = frontends(proxied, self._slices.of(service), self._node)
        return tuple(frontend for frontend in every if self._claims.owner(frontend.key) == service)

    def owner(self, key: FrontendKey) -> ServiceName | None:
        """The Service that has a frontend; None: no Service claims it."""
        return self._claims.owner(key)

    def health_checks(self) -> Mapping[ServiceName, HealthCheck]:
        """Services whose load balancer asks each node for its endpoints."""
        return self._local.health_checks

    def no_local_endpoints(self) -> Mapping[tuple[Policy, Family], int]:
        """How many Service ports are served elsewhere but, under a policy Local, by nobody here."""
        return self._local.missing

    def take_triggers(self, service: ServiceName) -> tuple[datetime, ...]:
        """When the changes happened that came in since this was last asked."""
        return tuple(self._triggers.pop(service, ()))

    @property
    def skipped(self) -> Mapping[str, Skipped]:
        """Everything that is not done as written, by where it stands; the same object until something differs."""
        if not self._is_settled or self._disputes != self._claims.disputes:
            self._skipped = self._gathered()
            self._is_settled, self._disputes = True, self._claims.disputes
        return self._skipped

    def _gathered(self) -> Mapping[str, Skipped]:
        reasons: dict[str, list[str]] = {}
        for skipped in self._unread:
            reasons.setdefault(skipped.name, []).append(skipped.reason)
        for origin, reason in self._refused.items():
            reasons.setdefault(_place(*origin), []).append(reason)
        for origin, reason in self._warnings.items():
            reasons.setdefault(_place(*origin), []).append(reason)
        for service, reason in self._claims.lost():
            reasons.setdefault(_place(Kind.SERVICE, service), []).append(reason)
        return {name: Skipped(name, _joined(several)) for name, several in reasons.items()}

    def apply(self, batch: Batch) -> set[ServiceName]:
        """Take in what changed; gives back the Services whose frontends may differ from before.

        An object that cannot be understood keeps its last good version until it is repaired or deleted.
        """
        changed: set[ServiceName] = set()
        for update in batch.updates:
            changed |= self._apply(update)
        if batch.listed:
            for kind, name in self._known() - {(update.kind, update.name) for update in batch.updates}:
                changed |= self._apply(Update(kind, name, None))
        if self._unread != batch.skipped:
            self._unread, self._is_settled = batch.skipped, False
        self._look_at(changed)
        return changed

    def settle(self, node: Node) -> set[ServiceName]:
        """The node, whose name stays, is like this from now on; gives back the Services whose frontends may differ."""
        old, self._node = self._node, node
        changed = self._slices.with_hints() if node.zone != old.zone else set()
        for name, service in self._services.items() if node.addresses != old.addresses else ():
            if service.source_ranges and any(
                allowed_sources(service, family, node) != allowed_sources(service, family, old)
                for family in service.families
            ):
                changed.add(name)
        changed &= self._services.keys()
        self._look_at(changed)
        return changed

    def _look_at(self, changed: set[ServiceName]) -> None:
        for name in changed:
            self._local.look_at(name, self._services.get(name), self._node)

    def _known(self) -> set[Origin]:
        services = {(Kind.SERVICE, ObjectName(name.namespace, name.name)) for name in self._services}
        return services | self._slices.origins | self._refused.keys()

    def _apply(self, update: Update) -> set[ServiceName]:
        origin = (update.kind, update.name)
        warnings: list[str] = []
        try:
            changed = self._take(origin, _decoded(update), warnings.append)
        except RefusedError as error:
            self._note(self._refused, origin, str(error))
            return set()
        self._note(self._refused, origin, "")
        self._note(self._warnings, origin, _joined(warnings))
        return changed

    def _note(self, reasons: dict[Origin, str], origin: Origin, reason: str) -> None:
        if reasons.get(origin, "") != reason:
            self._is_settled = False
            reasons[origin] = reason
            if not reason:
                del reasons[origin]

    def _take(self, origin: Origin, decoded: Decoded | None, refuse: Refuse) -> set[ServiceName]:
        kind, name = origin
        if kind is Kind.SERVICE:
            service = read_service(decoded, self._options, refuse) if isinstance(decoded, Service) else None
            return self._replace_service(ServiceName(name.namespace, name.name), service)
        slices: tuple[ServiceSlice, ...] = ()
        if isinstance(decoded, EndpointSlice):
            slices = read_slice(decoded, self._node.name, refuse)
        elif isinstance(decoded, Endpoints):
            slices = read_endpoints(decoded, self._node.name, refuse)
        changed = self._slices.replace(origin, slices) & self._services.keys()
        if isinstance(decoded, EndpointSlice | Endpoints):
            self._note_trigger(changed, trigger_time(decoded.metadata.annotations))
        return changed

    def _replace_service(self, name: ServiceName, new: ProxiedService | None) -> set[ServiceName]:
        old = self._services.pop(name, None)
        if new is None:
            self._triggers.pop(name, None)
        else:
            self._services[name] = new
        return set() if old == new else {name} | self._claims.replace(old, new)

    def _note_trigger(self, services: set[ServiceName], time: datetime | None) -> None:
        if time is not None and time >= self._since:
            for service in services:
                self._triggers.setdefault(service, []).append(time)


def _decoded(update: Update) -> Decoded | None:
    if update.body is None:
        return None
    decoded = decode(update.kind, update.body)
    if decoded.object_name != update.name:
        raise RefusedError(f"metadata: the object says it is {decoded.object_name}")
    return decoded


def _joined(reasons: list[str]) -> str:
    shown, hidden = reasons[:SHOWN_REASONS], len(reasons) - SHOWN_REASONS
    return "; ".join(shown) + (f"; and {hidden} more" if hidden > 0 else "")


def _place(kind: Kind, name: ObjectName | ServiceName) -> str:
    return printable(f"{kind.value} {name}")
