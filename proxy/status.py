"""What netproxy tells about itself to netctl, to probes and to Prometheus."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from controlloop import __version__
from controlloop.health import metrics_answer
from controlloop.http_server import Answer, Reply, Routes, json_answer, yes_or_no
from controlloop.metrics import MetricFamily
from controlloop.onset import Onsets
from controlloop.skips import SkippedLog
from proxy.config import Settings, shown
from proxy.conntrack.keeper import FlowKeeper
from proxy.frontend_listing import every_frontend
from proxy.frontend_pages import FrontendPages
from proxy.frontends import Frontend, ServiceName, ServicePortName
from proxy.health_checks import HealthChecks
from proxy.liveness import Liveness
from proxy.meters import Meters
from proxy.metrics import families, no_local_endpoints, rule_totals
from proxy.rules import Rules
from proxy.service_counts import ServiceCounts, count_families
from proxy.sources import Source
from proxy.tracker import Tracker

NOT_READY, AWAY = ("not ready", ""), ("away", "")
TOLD_BY_ITSELF = ("skipped", "quarantined")
"""In the history, with their reasons, when it happens."""


class Totals:
    """How many frontends and endpoints there are: adding them up anew takes a tenth of a second at 10,000 services."""

    def __init__(self) -> None:
        self.frontends = self.endpoints = 0
        self._of: dict[ServiceName, tuple[int, int]] = {}

    @property
    def services(self) -> int:
        return len(self._of)

    def count(self, changed: Iterable[tuple[ServiceName, Sequence[Frontend]]]) -> None:
        for service, frontends in changed:
            before = self._of.pop(service, (0, 0))
            after = (len(frontends), endpoint_count(frontends))
            if frontends:
                self._of[service] = after
            self.frontends += after[0] - before[0]
            self.endpoints += after[1] - before[1]


def endpoint_count(frontends: Iterable[Frontend]) -> int:
    """A port has the same endpoints behind its cluster IP and its node port; a policy only leaves some out."""
    most: dict[tuple[ServicePortName, int], int] = {}
    for each in frontends:
        key = each.name, each.address.version
        most[key] = max(most.get(key, 0), len(each.endpoints))
    return sum(most.values())


class ProxyStatus:
    def __init__(self, settings: Settings, source: Source, tracker: Tracker, rules: Rules, skipped: SkippedLog) -> None:
        self.was_ready = False
        self.totals = Totals()
        self.meters = Meters()
        self.pending: Callable[[], int] = lambda: 0
        self._settings = settings
        self._source = source
        self._tracker = tracker
        self._rules = rules
        self._skipped = skipped
        patience_s = 2 * settings.sync_period_s
        self._history = skipped.history
        for each in rules.each:
            each.history = self._history
        self.onsets = Onsets(self._wrong, turned=self._turned)
        self.liveness = Liveness((f"IPv{family.value}" for family in rules.engines), patience_s)
        self.health_checks = HealthChecks(lambda: self.liveness.healthy)
        self.flows: FlowKeeper | None = None
        self.counts: ServiceCounts | None = None

    def note(self, changed: Sequence[tuple[ServiceName, Sequence[Frontend]]]) -> None:
        """These are all frontends of these Services from now on."""
        self.totals.count(changed)
        if self.counts:
            self.counts.follow(changed)

    def routes(self) -> Routes:
        return {
            "/status": lambda: json_answer(self.document()),
            "/readyz": self.readyz,
            "/healthz": lambda: self._counted("healthz", self.liveness.healthz()),
            "/livez": lambda: self._counted("livez", self.liveness.livez()),
            "/metrics": self._metrics,
            "/frontends": lambda: every_frontend(self._tracker),
            "/frontends/": FrontendPages(self._tracker).by_address,
            "/service-names/": FrontendPages(self._tracker).names,
            "/frontends-of/": FrontendPages(self._tracker).by_service,
            "/events": self._history.page,
            "/events/": self._history.page,
            "/proxyMode": lambda: Answer(200, self._settings.mode.value.encode()),
            "/configz": lambda: json_answer(shown(self._settings)),
        }

    def _counted(self, page: str, answer: Answer) -> Answer:
        self.meters.answers[page, answer.status] += 1
        return answer

    def _metrics(self) -> Reply:
        return self._with_counts(self.counts) if self.counts else metrics_answer(self._families())

    async def _with_counts(self, counts: ServiceCounts) -> Answer:
        await counts.refresh()
        counted, others = counts.totals(), self._families()
        # Twenty thousand lines take a tenth of a second.
        return await asyncio.to_thread(lambda: metrics_answer([*others, *count_families(counted)]))

    def _families(self) -> list[MetricFamily]:
        missing = no_local_endpoints(self._tracker.no_local_endpoints())
        totals = rule_totals(self._rules.rule_counts())
        return [*families(self.document(), self.meters), missing, totals]

    def gap(self) -> str:
        """What keeps the kernel from holding what it should; empty when nothing does."""
        if not self.was_ready:
            return self._source.away or "the first sync"
        return ", ".join(f"{engine.name} rules" for engine in self._rules.each if not engine.in_kernel)

    def readyz(self) -> Answer:
        gap = self.gap()
        return yes_or_no(good=not gap, text=f"waits for {gap}" if gap else "ok")

    def document(self) -> dict[str, Any]:
        gap = self.gap()
        return {
            "apiVersion": "nodenet.io/v1alpha1",
            "kind": "NetproxyStatus",
            "version": __version__,
            "node": self._settings.node_name,
            "mode": self._settings.mode.value,
            "ready": not gap,
            "waiting_for": gap or None,
            "waiting_since": self.onsets.since(NOT_READY) if gap else None,
            "source": self._source_item(),
            "services": self.totals.services,
            "frontends": self.totals.frontends,
            "endpoints": self.totals.endpoints,
            "pending": self.pending(),
            "skipped": [self._dated("skipped", *pair) for pair in self._left_out()],
            "skipped_total": self._skipped.total,
            "quarantined": [self._dated("quarantined", *pair) for pair in self._quarantined()],
            "findings": [{**self._dated(code, *pair), "code": code} for code, *pair in self._findings()],
            "flows_forgotten": self.flows.deleted if self.flows else 0,
            "rules": {engine.name: engine.stats for engine in self._rules.each},
        }

    def _findings(self) -> Iterator[tuple[str, str, str]]:
        """Codes by which netctl knows them, names and reasons."""
        for name, reason in self._rules.fights():
            yield "NN207", name, reason
        for service, reason in self.health_checks.failures.items():
            yield "NN208", f"health check of {service}", reason

    def _left_out(self) -> Iterator[tuple[str, str]]:
        return ((each.name, each.reason) for each in self._skipped.current.values())

    def _quarantined(self) -> Iterator[tuple[str, str]]:
        return ((str(service), reason) for service, reason in self._rules.quarantined())

    def _source_item(self) -> dict[str, Any]:
        away = self._source.away or None
        return {"kind": self._settings.source_kind, "away": away, "since": self.onsets.since(AWAY) if away else None}

    def _wrong(self) -> Iterator[tuple[str, str]]:
        """By what stays the same about it: reasons may hold numbers."""
        if self.gap():
            yield NOT_READY
        if self._source.away:
            yield AWAY
        yield from (("skipped", name) for name, _ in self._left_out())
        yield from (("quarantined", name) for name, _ in self._quarantined())
        yield from ((code, name) for code, name, _ in self._findings())

    def _turned(self, thing: tuple[str, str], is_wrong: bool) -> None:  # noqa: FBT001 - as Onsets calls it
        kind, name = thing
        if kind not in TOLD_BY_ITSELF:
            reasons = {(code, found): reason for code, found, reason in self._findings()}
            reason = {NOT_READY: self.gap(), AWAY: self._source.away, **reasons}.get(thing, "")
            what = name or ("netproxy" if thing == NOT_READY else "source")
            self._history.turned(kind, what, is_wrong=is_wrong, reason=reason)

    def _dated(self, kind: str, name: str, reason: str) -> dict[str, Any]:
        return {"name": name, "reason": reason, "since": self.onsets.since((kind, name))}

    def programmed(self, family: str, engine_stats: Any, triggers: Iterable[datetime], now: datetime) -> None:
        """A sync of this family succeeded."""
        self.liveness.written(family)
        self.meters.synced(family, engine_stats)
        self.meters.programmed(family, triggers, now)
