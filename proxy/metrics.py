"""netproxy's metrics. Where the meaning is kube-proxy's, so is the name, and its dashboards keep working."""

from collections.abc import Iterator, Mapping
from typing import Any

from controlloop.family import Family
from controlloop.metrics import MetricFamily, Sample, by_label, counter, gauge
from proxy.local_endpoints import Policy
from proxy.meters import Meters
from proxy.sync import RuleStats

Rules = Mapping[str, RuleStats]


def families(document: Mapping[str, Any], meters: Meters) -> Iterator[MetricFamily]:
    """From the document that is shown as status, and from what was counted beside it."""
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
    yield gauge("netproxy_quarantined", "Services that the kernel refuses.", len(document["quarantined"]))
    yield gauge("netproxy_findings", "Problems that only a person can end.", len(document["findings"]))
    yield from rule_families(document["rules"])
    yield from kube_proxy_families(document, meters)


def rule_families(rules: Rules) -> Iterator[MetricFamily]:
    def each(of: str) -> dict[str, float]:
        return {name: getattr(stats, of) for name, stats in rules.items()}

    yield by_label("counter", "netproxy_syncs_total", "Syncs that succeeded.", "rules", each("syncs"))
    yield by_label("counter", "netproxy_sync_failures_total", "Syncs that failed.", "rules", each("failures"))
    yield by_label("counter", "netproxy_audits_total", "Looks at all rules.", "rules", each("audits"))
    yield by_label("counter", "netproxy_quarantines_total", "Services ever refused.", "rules", each("quarantines"))
    repairs = (
        Sample(count, {"rules": name, "kind": kind})
        for name, stats in rules.items()
        for kind, count in (stats.repairs or {"any": 0}).items()
    )
    text = "Objects that another program changed, and that were put right."
    yield MetricFamily("netproxy_drift_repairs_total", "counter", text, tuple(repairs))
    text = "Time the last sync took."
    yield by_label("gauge", "netproxy_last_sync_seconds", text, "rules", each("last_duration_s"))


def kube_proxy_families(document: Mapping[str, Any], meters: Meters) -> Iterator[MetricFamily]:
    rules: Rules = document["rules"]
    prefix = "kubeproxy_sync_proxy_rules"
    yield from meters.histograms()
    yield from meters.answered()
    last = max((stats.last_sync for stats in rules.values()), default=0.0)
    yield gauge(f"{prefix}_last_timestamp_seconds", "When the last sync succeeded.", last)
    yield gauge(f"{prefix}_last_queued_timestamp_seconds", "When the last change came.", meters.last_queued)
    for kind in ("service", "endpoint"):
        yield counter(f"{prefix}_{kind}_changes_total", "Changes that came.", meters.changes[kind])
    for kind in ("service", "endpoint"):
        yield gauge(f"{prefix}_{kind}_changes_pending", "Services with changes to be written.", document["pending"])
    failures = sum(stats.failures for stats in rules.values())
    name = "nftables_sync" if document["mode"] == "nftables" else "iptables_restore"
    yield counter(f"{prefix}_{name}_failures_total", "Transactions that failed.", failures)
    text = "Flows that were forgotten because they led nowhere."
    yield counter("kubeproxy_conntrack_reconciler_deleted_entries_total", text, document["flows_forgotten"])


def rule_totals(counts: Mapping[tuple[str, Family], int]) -> MetricFamily:
    samples = (
        Sample(count, {"table": table, "ip_family": f"IPv{family.value}"}) for (table, family), count in counts.items()
    )
    text = "Rules of ours in each table of iptables."
    return MetricFamily("kubeproxy_sync_proxy_rules_iptables_total", "gauge", text, tuple(samples))


def no_local_endpoints(missing: Mapping[tuple[Policy, Family], int]) -> MetricFamily:
    samples = (
        Sample(count, {"traffic_policy": policy.value, "ip_family": f"IPv{family.value}"})
        for (policy, family), count in missing.items()
    )
    text = "Service ports that are served elsewhere and, under policy Local, by nobody here."
    return MetricFamily("kubeproxy_sync_proxy_rules_no_local_endpoints_total", "gauge", text, tuple(samples))
