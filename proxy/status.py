"""What netproxy tells about itself to netctl and to probes."""

from collections.abc import Iterable, Sequence
from typing import Any

from controlloop import __version__
from controlloop.health import metrics_answer
from controlloop.http_server import Answer, Routes, json_answer, yes_or_no
from controlloop.skips import SkippedLog
from proxy.config import Settings
from proxy.frontends import Frontend, ServiceName
from proxy.metrics import families
from proxy.rules import Rules
from proxy.sources import Source


class ProxyStatus:
    def __init__(self, settings: Settings, source: Source, rules: Rules, skipped: SkippedLog) -> None:
        self.was_ready = False
        self._settings = settings
        self._source = source
        self._rules = rules
        self._skipped = skipped
        self._counts: dict[ServiceName, tuple[int, int]] = {}
        self._frontends = self._endpoints = 0

    def count(self, changed: Iterable[tuple[ServiceName, Sequence[Frontend]]]) -> None:
        """Keep the totals as services change: adding them up anew takes a tenth of a second at 10,000 services."""
        for service, frontends in changed:
            before = self._counts.pop(service, (0, 0))
            after = (len(frontends), sum(len(frontend.endpoints) for frontend in frontends))
            if frontends:
                self._counts[service] = after
            self._frontends += after[0] - before[0]
            self._endpoints += after[1] - before[1]

    def routes(self) -> Routes:
        return {
            "/status": lambda: json_answer(self.document()),
            "/readyz": self.readyz,
            "/metrics": lambda: metrics_answer(families(self.document())),
        }

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
            "source": {"kind": self._settings.source_kind, "away": self._source.away or None},
            "services": len(self._counts),
            "frontends": self._frontends,
            "endpoints": self._endpoints,
            "skipped": [{"name": each.name, "reason": each.reason} for each in self._skipped.current.values()],
            "skipped_total": self._skipped.total,
            "rules": {engine.name: engine.stats for engine in self._rules.each},
        }
