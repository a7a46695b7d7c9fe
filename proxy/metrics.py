"""netproxy's metrics, from the document that it shows as its status."""

from collections.abc import Iterator, Mapping
from typing import Any

from controlloop.metrics import MetricFamily, by_label, counter, gauge
from proxy.sync import RuleStats


def families(document: Mapping[str, Any]) -> Iterator[MetricFamily]:
    yield gauge("netproxy_build_info", "Which build this is.", 1, version=document["version"], mode=document["mode"])
    yield gauge("netproxy_ready", "1 when the kernel holds what it should.", document["ready"])
    away = document["source"]["away"] is not None
    yield gauge("netproxy_source_away", "1 while the source of Services does not answer.", away)
    for name, text in (
        ("services", "Services that are programmed."),
        ("frontends", "Addresses and ports that they are reached at."),
        ("endpoints", "Endpoints behind all frontends."),
    ):
        yield gauge(f"netproxy_{name}", text, document[name])
    yield gauge("netproxy_skipped", "Objects left out now.", len(document["skipped"]))
    yield counter("netproxy_skipped_total", "Objects ever left out.", document["skipped_total"])
    yield from rule_families(document["rules"])


def rule_families(rules: Mapping[str, RuleStats]) -> Iterator[MetricFamily]:
    def each(of: str) -> dict[str, float]:
        return {name: getattr(stats, of) for name, stats in rules.items()}

    yield by_label("counter", "netproxy_syncs_total", "Syncs that succeeded.", "rules", each("syncs"))
    yield by_label("counter", "netproxy_sync_failures_total", "Syncs that failed.", "rules", each("failures"))
    text = "Objects found different and put right."
    yield by_label("counter", "netproxy_drift_repairs_total", text, "rules", each("repaired"))
    text = "When the last sync succeeded; 0: never."
    yield by_label("gauge", "netproxy_last_sync_timestamp_seconds", text, "rules", each("last_sync"))
    text = "Time the last sync took."
    yield by_label("gauge", "netproxy_last_sync_seconds", text, "rules", each("last_duration_s"))
