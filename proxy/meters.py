"""What netproxy counts beside its state: times and changes, in kube-proxy's buckets and under its names."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime

from controlloop.metrics import Histogram, MetricFamily, Sample
from proxy.objects import Kind
from proxy.sources import Update
from proxy.sync import RuleStats

SYNC_BUCKETS = tuple(0.001 * 2**power for power in range(15))
PROGRAMMING_BUCKETS = (0.25, 0.5, *range(1, 60), *range(60, 120, 5), *range(120, 301, 30))


class Meters:
    def __init__(self) -> None:
        self._syncs: defaultdict[tuple[str, str], Histogram] = defaultdict(lambda: Histogram(SYNC_BUCKETS))
        self._programming: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(PROGRAMMING_BUCKETS))
        self._conntrack = Histogram(SYNC_BUCKETS)
        self.changes: Counter[str] = Counter()
        """Updates taken in, `service` and `endpoint`."""
        self.answers: Counter[tuple[str, int]] = Counter()
        """Of `healthz` and `livez`, by status."""
        self.last_queued = 0.0
        """Unix time of the last change."""

    def took_in(self, updates: Iterable[Update], now: float) -> None:
        self.changes.update("service" if update.kind is Kind.SERVICE else "endpoint" for update in updates)
        self.last_queued = now

    def synced(self, family: str, stats: RuleStats) -> None:
        which = "full" if stats.last_was_full else "partial"
        for kind in ("", f"{which}_"):
            self._syncs[f"sync_{kind}proxy_rules_duration_seconds", family].observe(stats.last_duration_s)

    def programmed(self, family: str, triggers: Iterable[datetime], now: datetime) -> None:
        """Changes that happened at these times are in the kernel."""
        for trigger in triggers:
            self._programming[family].observe((now - trigger).total_seconds())

    def cleaned(self, took_s: float) -> None:
        self._conntrack.observe(took_s)

    def histograms(self) -> Iterator[MetricFamily]:
        names = dict.fromkeys(name for name, _ in self._syncs)
        for name in names:
            samples = (
                sample
                for (each, family), histogram in self._syncs.items()
                if each == name
                for sample in histogram.samples(ip_family=family)
            )
            yield MetricFamily(f"kubeproxy_{name}", "histogram", "Time a sync took.", tuple(samples))
        programming = (
            sample for family, each in self._programming.items() for sample in each.samples(ip_family=family)
        )
        text = "From the change of an endpoint to the rules for it."
        yield MetricFamily("kubeproxy_network_programming_duration_seconds", "histogram", text, tuple(programming))
        text = "Time a look for stale flows took."
        conntrack = tuple(self._conntrack.samples())
        yield MetricFamily("kubeproxy_conntrack_reconciler_sync_duration_seconds", "histogram", text, conntrack)

    def answered(self) -> Iterator[MetricFamily]:
        for page in ("healthz", "livez"):
            samples = (
                Sample(count, {"code": str(code)}) for (name, code), count in self.answers.items() if name == page
            )
            yield MetricFamily(f"kubeproxy_proxy_{page}_total", "counter", f"Answers of /{page}.", tuple(samples))
