"""Connections and bytes by service port, from what the kernel counts by called place (`--service-counters`).

A total does not fall while its service port is there: a place that goes takes nothing away, and one that the kernel
counts anew, after somebody flushed its rules, goes on from where it was.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from controlloop.logs import Log
from controlloop.metrics import MetricFamily, Sample
from proxy.counting.rules import place
from proxy.frontends import Frontend, ServiceName, ServicePortName

FRESH_S = 1.0
"""What was read is shown for so long to whoever asks."""

METRICS = {
    "connections": "Connections that this node led to an endpoint.",
    "bytes": "Bytes of their packets, in both directions.",
}

Place = tuple[int, str]
"""4 or 6, and `counting.place`."""
Counts = Mapping[tuple[str, Place], int]
"""By metric and place."""

log = Log("counts")


class Port(NamedTuple):
    name: ServicePortName
    protocol: str


Totals = Mapping[tuple[str, Port], int]


class ServiceCounts:
    def __init__(self, read: Callable[[], Counts]) -> None:
        """`read` blocks, and is called in a thread. What it leaves out is as it was."""
        self._read = read
        self._reading = asyncio.Lock()
        self._read_at = float("-inf")
        self._ports: dict[Place, Port] = {}
        self._of: dict[ServiceName, dict[Place, Port]] = {}
        self._last: dict[tuple[str, Place], int] = {}
        self._totals: Counter[tuple[str, Port]] = Counter()

    def follow(self, changed: Iterable[tuple[ServiceName, Sequence[Frontend]]]) -> None:
        """These are all frontends of these Services from now on."""
        for service, frontends in changed:
            before = self._of.pop(service, {})
            now = {(frontend.family.value, place(frontend)): port_of(frontend) for frontend in frontends}
            for where, port in before.items():
                if self._ports.get(where) == port:  # no other Service has it by now
                    del self._ports[where]
            self._ports |= now
            if now:
                self._of[service] = now
            for port in set(before.values()).difference(now.values()):
                for metric in METRICS:
                    self._totals.pop((metric, port), None)

    async def refresh(self) -> None:
        async with self._reading:
            if time.monotonic() - self._read_at < FRESH_S:
                return
            try:
                self.take(await asyncio.to_thread(self._read))
            except OSError as error:
                log.warning("counts not read", error=error)
            self._read_at = time.monotonic()

    def take(self, counts: Counts) -> None:
        for key, now in counts.items():
            metric, where = key
            if port := self._ports.get(where):
                before = self._last.get(key, 0)
                self._totals[metric, port] += now - before if now >= before else now
        known = {**self._last, **counts}
        self._last = {key: count for key, count in known.items() if key[1] in self._ports or key in counts}

    def totals(self) -> Totals:
        return dict(self._totals)


def count_families(totals: Totals) -> Iterator[MetricFamily]:
    for wanted, text in METRICS.items():
        samples = tuple(Sample(count, labels(port)) for (metric, port), count in totals.items() if metric == wanted)
        yield MetricFamily(f"netproxy_service_{wanted}_total", "counter", text, samples)


def port_of(frontend: Frontend) -> Port:
    return Port(frontend.name, frontend.protocol.value)


def labels(port: Port) -> dict[str, str]:
    """The port's name is empty where it has none: then it is the only one of its Service."""
    service = port.name.service
    return {
        "namespace": service.namespace,
        "service": service.name,
        "port": port.name.port,
        "protocol": port.protocol,
    }
