"""How much each Service and endpoint is used, from counts of the last samples. Pure.

A share is an endpoint's part of its Service's connections in the window; the ideal share is what the way to balance
lets expect of the very connections that were counted, by the addresses they were made to.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from netctl.output import API_VERSION

WINDOW = 30
"""Samples that are kept."""


class ServicePort(Struct, frozen=True, order=True):
    """A row: one port of one Service. A Struct, as ten thousand are looked up for each picture."""

    service: str
    """`namespace/name`."""
    port: str
    protocol: str

    def __str__(self) -> str:
        port = f":{self.port}" if self.port else ""
        protocol = "" if self.protocol == "tcp" else f"/{self.protocol}"
        return f"{self.service}{port}{protocol}"


@dataclass(frozen=True, slots=True)
class Target:
    """One address that a Service is called at."""

    owner: ServicePort
    balance: str
    weights: Mapping[str, int]
    """Of all endpoints that it may lead to, equal where the balance knows no weights."""
    is_exact: bool = True
    """Every caller chooses among the same endpoints. Else nobody can say what to expect of them all together."""

    def expected(self) -> Mapping[str, float]:
        """What one connection adds to each endpoint, on average; empty: nobody can say."""
        total = sum(self.weights.values())
        if not self.is_exact or not total:
            return {}
        return {endpoint: weight / total for endpoint, weight in self.weights.items()}


@dataclass(slots=True)
class Count:
    """Of one Service port in one sample."""

    connections: Counter[str] = field(default_factory=Counter)
    """By endpoint."""
    bytes: Counter[str] = field(default_factory=Counter)
    expected: dict[str, float] = field(default_factory=dict)
    judged: int = 0
    """Connections that `expected` speaks of."""

    def add(self, target: Target, endpoint: str, connections: int, size: int) -> None:
        if size:
            self.bytes[endpoint] += size
        if not connections:
            return
        self.connections[endpoint] += connections
        if shares := target.expected():
            self.judged += connections
            for each, share in shares.items():
                self.expected[each] = self.expected.get(each, 0.0) + share * connections


@dataclass(frozen=True, slots=True)
class Sample:
    at: float
    """Seconds since the epoch, at its end."""
    seconds: float
    counts: Mapping[ServicePort, Count]
    bytes_s: float = 0.0
    """Seconds that its bytes are from; 0: they were not read this time."""
    unattributed: int = 0
    """Translated connections that lead to no Service of ours."""
    overflows: int = 0
    """How often the kernel dropped notifications meanwhile."""


@dataclass(frozen=True, slots=True)
class EndpointUse:
    endpoint: str
    connections: int
    """In the last sample, as is all else but the shares."""
    connections_per_s: float
    bytes: int | None
    bytes_per_s: float | None
    share: float | None
    """0 to 1, of the window; None: no connection."""
    ideal_share: float | None


@dataclass(frozen=True, slots=True)
class ServiceUse:
    owner: ServicePort
    balance: str
    connections: int
    connections_per_s: float
    bytes: int | None
    bytes_per_s: float | None
    history: Sequence[float]
    """Connections per second in the samples of the window, the oldest first."""
    endpoints: int


class Usage:
    def __init__(self, window: int = WINDOW) -> None:
        self.samples: deque[Sample] = deque(maxlen=window)
        self._targets: Mapping[ServicePort, Sequence[Target]] = {}
        self._names: list[tuple[str, ServicePort]] = []

    @property
    def targets(self) -> Mapping[ServicePort, Sequence[Target]]:
        """All Service ports as they are now."""
        return self._targets

    @targets.setter
    def targets(self, targets: Mapping[ServicePort, Sequence[Target]]) -> None:
        if targets is not self._targets:
            self._targets = targets
            self._names = sorted((str(owner), owner) for owner in targets)

    @property
    def last(self) -> Sample:
        return self.samples[-1]

    @property
    def last_bytes(self) -> Sample | None:
        """The last sample that has bytes; None: nobody counts them."""
        return next((sample for sample in reversed(self.samples) if sample.bytes_s), None)

    def bytes_of(self, owner: ServicePort, endpoint: str = "") -> tuple[int | None, float | None]:
        """As last read, and by the second; of one endpoint or of all."""
        if not (sample := self.last_bytes):
            return None, None
        counted = sample.counts.get(owner, Count()).bytes
        size = counted[endpoint] if endpoint else counted.total()
        return size, size / sample.bytes_s

    @property
    def used(self) -> set[ServicePort]:
        """Those that were called in the window."""
        return {owner for sample in self.samples for owner in sample.counts}

    def by_name(self, text: str = "") -> list[tuple[str, ServicePort]]:
        """All Service ports with that in their name, in its order; also those that went, while in the window."""
        gone = [(str(owner), owner) for owner in self.used if owner not in self._targets]
        names = sorted([*self._names, *gone]) if gone else self._names
        wanted = text.casefold()
        return [each for each in names if wanted in each[0].casefold()] if wanted else names

    def service(self, owner: ServicePort) -> ServiceUse:
        targets, last = self.targets.get(owner, ()), self.last
        count = last.counts.get(owner)
        connections = count.connections.total() if count else 0
        size, size_per_s = self.bytes_of(owner)
        return ServiceUse(
            owner,
            targets[0].balance if targets else "",
            connections,
            connections / last.seconds,
            size,
            size_per_s,
            [rate(sample, owner) for sample in self.samples],
            len({endpoint for target in targets for endpoint in target.weights}),
        )

    def endpoints(self, owner: ServicePort) -> list[EndpointUse]:
        """Those that serve now, and those that did in the window."""
        counts = [sample.counts[owner] for sample in self.samples if owner in sample.counts]
        connections: Counter[str] = Counter()
        expected: defaultdict[str, float] = defaultdict(float)
        for count in counts:
            connections.update(count.connections)
            for endpoint, number in count.expected.items():
                expected[endpoint] += number
        judged = sum(count.judged for count in counts)
        ideal = {endpoint: number / judged for endpoint, number in expected.items()} if judged else self._ideal(owner)
        is_judged = not connections or judged == connections.total()
        total = connections.total()
        serving = [endpoint for target in self.targets.get(owner, ()) for endpoint in target.weights]
        return [
            self._endpoint(
                owner,
                endpoint,
                connections[endpoint] / total if total else None,
                ideal.get(endpoint, 0.0) if ideal and is_judged else None,
            )
            for endpoint in sorted({*serving, *connections})
        ]

    def _ideal(self, owner: ServicePort) -> Mapping[str, float]:
        return next((target.expected() for target in self.targets.get(owner, ())), {})

    def _endpoint(self, owner: ServicePort, endpoint: str, share: float | None, ideal: float | None) -> EndpointUse:
        last = self.last
        count = last.counts.get(owner, Count())
        connections = count.connections[endpoint]
        size, size_per_s = self.bytes_of(owner, endpoint)
        return EndpointUse(
            endpoint,
            connections,
            connections / last.seconds,
            size,
            size_per_s,
            share,
            ideal,
        )

    def document(self, chosen: Iterable[ServicePort]) -> dict[str, Any]:
        last = self.last
        return {
            "apiVersion": API_VERSION,
            "kind": "ServiceUsage",
            "at": last.at,
            "interval_s": round(last.seconds, 3),
            "complete": not last.overflows,
            "overflows": last.overflows,
            "bytes_interval_s": round(self.last_bytes.bytes_s, 3) if self.last_bytes else None,
            "unattributed": last.unattributed,
            "items": [self._item(self.service(each)) for each in chosen],
        }

    def _item(self, use: ServiceUse) -> dict[str, Any]:
        return {
            "service": use.owner.service,
            "port": use.owner.port,
            "protocol": use.owner.protocol,
            "balance": use.balance or None,
            "connections": use.connections,
            "connections_per_s": round(use.connections_per_s, 3),
            "bytes": use.bytes,
            "bytes_per_s": rounded(use.bytes_per_s, 1),
            "endpoints": [
                {
                    "endpoint": each.endpoint,
                    "connections": each.connections,
                    "connections_per_s": round(each.connections_per_s, 3),
                    "bytes": each.bytes,
                    "bytes_per_s": rounded(each.bytes_per_s, 1),
                    "share": rounded(each.share, 6),
                    "ideal_share": rounded(each.ideal_share, 6),
                }
                for each in self.endpoints(use.owner)
            ],
        }


def rate(sample: Sample, owner: ServicePort) -> float:
    count = sample.counts.get(owner)
    return count.connections.total() / sample.seconds if count else 0.0


def rounded(number: float | None, digits: int) -> float | None:
    return None if number is None else round(number, digits)
