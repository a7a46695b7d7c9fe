"""All Services and their endpoints, kept up to date by batches; gives the frontends of one Service at a time.

Pure. The cost of a batch grows with what is in it: slices are indexed by Service, claims by what they claim.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime

from controlloop.errors import Skipped
from controlloop.family import Family, IPAddress
from controlloop.printable import printable
from proxy.endpoints import ServiceSlice, endpoints, read_slice
from proxy.frontends import Balance, Endpoint, Frontend, Protocol, ServiceName
from proxy.objects import EndpointSlice, Kind, ObjectName, RefusedError, Service, decode
from proxy.services import ProxiedService, ServicePort, read_service
from proxy.sources import Batch, Update

FrontendKey = tuple[IPAddress, Protocol, int]
Claim = tuple[datetime, ServiceName]
"""Sorts by who may have a frontend that several Services want: the oldest, then the first by name."""

UNDATED = datetime.max.replace(tzinfo=UTC)


class Tracker:
    def __init__(self, node_name: str, default_balance: Balance) -> None:
        self._node_name = node_name
        self._default_balance = default_balance
        self._services: dict[ServiceName, ProxiedService] = {}
        self._claims: dict[FrontendKey, list[Claim]] = {}
        self._contested: set[FrontendKey] = set()
        self._slices: dict[ObjectName, ServiceSlice] = {}
        self._slices_of: dict[ServiceName, set[ObjectName]] = {}
        self._refused: dict[tuple[Kind, ObjectName], str] = {}
        self._warned: set[ServiceName] = set()
        self._unread: tuple[Skipped, ...] = ()

    def services(self) -> AbstractSet[ServiceName]:
        """All Services that we serve, also those whose frontends an older one has."""
        return self._services.keys()

    def frontends(self, service: ServiceName) -> tuple[Frontend, ...]:
        """The frontends that belong to a Service now; none for one we do not know."""
        proxied = self._services.get(service)
        if proxied is None:
            return ()
        slices = [self._slices[name] for name in self._slices_of.get(service, ())]
        return tuple(
            Frontend(port.name, address, port.protocol, port.port, proxied.balance, served_by)
            for port in proxied.ports
            for address, served_by in _served_by(proxied, port, slices)
            if self._owner((address, port.protocol, port.port)) == service
        )

    @property
    def skipped(self) -> Mapping[str, Skipped]:
        """Everything that is not done as written, by where it stands."""
        reasons: dict[str, list[str]] = {}
        for skipped in self._unread:
            reasons.setdefault(skipped.name, []).append(skipped.reason)
        for (kind, name), reason in self._refused.items():
            reasons.setdefault(_place(kind, name), []).append(reason)
        for service in self._warned:
            reasons.setdefault(_place(Kind.SERVICE, service), []).append(self._services[service].warning)
        for service, reason in self._lost_claims():
            reasons.setdefault(_place(Kind.SERVICE, service), []).append(reason)
        return {name: Skipped(name, "; ".join(several)) for name, several in reasons.items()}

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
        self._unread = batch.skipped
        return changed

    def _known(self) -> set[tuple[Kind, ObjectName]]:
        services = {(Kind.SERVICE, ObjectName(name.namespace, name.name)) for name in self._services}
        return services | {(Kind.ENDPOINT_SLICE, name) for name in self._slices} | self._refused.keys()

    def _apply(self, update: Update) -> set[ServiceName]:
        try:
            changed = self._apply_service(update) if update.kind is Kind.SERVICE else self._apply_slice(update)
        except RefusedError as error:
            self._refused[update.kind, update.name] = str(error)
            return set()
        self._refused.pop((update.kind, update.name), None)
        return changed

    def _apply_service(self, update: Update) -> set[ServiceName]:
        proxied = None
        if update.body is not None:
            service = decode(Kind.SERVICE, update.body)
            _check_name(update.name, service)
            proxied = read_service(service, self._default_balance)
        return self._replace_service(ServiceName(update.name.namespace, update.name.name), proxied)

    def _apply_slice(self, update: Update) -> set[ServiceName]:
        service_slice = None
        if update.body is not None:
            endpoint_slice = decode(Kind.ENDPOINT_SLICE, update.body)
            _check_name(update.name, endpoint_slice)
            service_slice = read_slice(endpoint_slice, self._node_name)
        return self._replace_slice(update.name, service_slice)

    def _replace_slice(self, name: ObjectName, new: ServiceSlice | None) -> set[ServiceName]:
        old = self._slices.pop(name, None)
        if new is not None:
            self._slices[name] = new
        if old == new:
            return set()
        if old is not None:
            self._slices_of[old.service].remove(name)
            if not self._slices_of[old.service]:
                del self._slices_of[old.service]
        if new is not None:
            self._slices_of.setdefault(new.service, set()).add(name)
        return {each.service for each in (old, new) if each is not None and each.service in self._services}

    def _replace_service(self, name: ServiceName, new: ProxiedService | None) -> set[ServiceName]:
        old = self._services.pop(name, None)
        if new is not None:
            self._services[name] = new
        if old == new:
            return set()
        self._warned.discard(name)
        if new is not None and new.warning:
            self._warned.add(name)
        before, after = _claims(old), _claims(new)
        changed = {name}
        for key in before.keys() | after.keys():
            changed |= self._reclaim(key, before.get(key), after.get(key))
        return changed

    def _reclaim(self, key: FrontendKey, before: Claim | None, after: Claim | None) -> set[ServiceName]:
        """Replace one Service's claim; gives back who lost the frontend and who got it."""
        claims = self._claims.setdefault(key, [])
        owners = set(claims[:1])
        if before is not None:
            del claims[bisect_left(claims, before)]
        if after is not None:
            insort(claims, after)
        owners ^= set(claims[:1])
        if not claims:
            del self._claims[key]
        if len(claims) > 1:
            self._contested.add(key)
        else:
            self._contested.discard(key)
        return {service for _, service in owners}

    def _owner(self, key: FrontendKey) -> ServiceName:
        return self._claims[key][0][1]

    def _lost_claims(self) -> Iterator[tuple[ServiceName, str]]:
        for key in self._contested:
            address, protocol, port = key
            (_, owner), *losers = self._claims[key]
            for _, loser in losers:
                yield loser, f"{address} {port}/{protocol.value} belongs to {owner}, which claims it too and goes first"


def _served_by(
    proxied: ProxiedService, port: ServicePort, slices: list[ServiceSlice]
) -> Iterator[tuple[IPAddress, tuple[Endpoint, ...]]]:
    for address in proxied.addresses:
        yield address, endpoints(slices, port.name.port, port.protocol, Family.of(address))


def _claims(proxied: ProxiedService | None) -> dict[FrontendKey, Claim]:
    if proxied is None:
        return {}
    claim = (proxied.created or UNDATED, proxied.name)
    return {(address, port.protocol, port.port): claim for address in proxied.addresses for port in proxied.ports}


def _check_name(stored_under: ObjectName, decoded: Service | EndpointSlice) -> None:
    if decoded.object_name != stored_under:
        raise RefusedError(f"metadata: the object says it is {decoded.object_name}")


def _place(kind: Kind, name: ObjectName | ServiceName) -> str:
    return printable(f"{kind.value} {name}")
