"""The agent's metrics. Nothing is labelled with a peer: with 5,000 nodes that would be 25 million series."""

import time
from collections import Counter
from collections.abc import Iterator

from controlloop import __version__
from controlloop.metrics import MetricFamily, by_label, counter, gauge
from netagent.probing.paths import Path, Reach
from netagent.status import Status


def families(status: Status) -> Iterator[MetricFamily]:
    yield gauge("netagent_build_info", "Which build this is.", 1, version=__version__)
    yield gauge("netagent_ready", "1 when the kernel holds what it should.", not status.gap())
    yield from lease_families(status)
    yield from kernel_families(status)
    if status.prober:
        yield from path_families(list(status.prober.paths.all.values()))


def lease_families(status: Status) -> Iterator[MetricFamily]:
    roster = status.roster()
    leases = len(roster.snapshot.leases) if roster else 0
    yield gauge("netagent_leases", "Leases in the registry, ours included.", leases)
    yield gauge("netagent_peers", "Peers that we have routes for.", status.overlay.peers if status.overlay else 0)
    yield gauge("netagent_skipped", "Leases and objects left out.", len(status.skipped))
    if status.lease_at:
        age_s = time.time() - status.lease_at
        yield gauge("netagent_lease_age_seconds", "Since our lease was acquired.", age_s)
    yield gauge("netagent_registry_unheard_seconds", "Since the registry last said anything.", status.unheard_s())


def kernel_families(status: Status) -> Iterator[MetricFamily]:
    yield counter("netagent_reconciles_total", "Runs that programmed the kernel.", status.reconciles)
    yield counter("netagent_reconcile_errors_total", "Those among them that failed.", status.reconcile_errors)
    yield counter("netagent_reconcile_seconds_total", "Time they took together.", status.reconcile_s)
    if last := status.last_reconcile:
        yield gauge("netagent_last_reconcile_seconds", "Time the last one took.", last.took_ms / 1000)
        yield gauge("netagent_last_reconcile_timestamp_seconds", "When it ended.", last.at)
    rules = status.firewall.stats if status.firewall else {}
    overlay = status.healing.repairs if status.healing else {}
    repairs = {**overlay, **{name: stats.repairs for name, stats in rules.items()}}
    yield by_label("counter", "netagent_drift_repairs_total", "Objects put back, by kind.", "kind", repairs)
    failures = {name: stats.failures for name, stats in rules.items()}
    yield by_label("counter", "netagent_firewall_failures_total", "Writes of rules that failed.", "rules", failures)
    overflows = status.monitor.overflows if status.monitor else 0
    yield counter("netagent_notification_overflows_total", "Times the kernel told more than we could read.", overflows)
    yield gauge("netagent_findings", "What only a person can mend.", len(status.all_findings()))


def path_families(paths: list[Path]) -> Iterator[MetricFamily]:
    reach = Counter(path.reach for path in paths)
    by_reach = {each.value: reach[each] for each in Reach}
    yield by_label("gauge", "netagent_paths", "Peers by what probes over the overlay say.", "reach", by_reach)
    narrow = sum(path.too_small_since is not None for path in paths)
    yield gauge("netagent_paths_too_narrow", "Peers that only small packets reach.", narrow)
    times = sorted(path.rtt_s for path in paths if path.rtt_s is not None and path.reach is Reach.REACHABLE)
    if times:
        quantiles = {str(part): times[int(part * (len(times) - 1))] for part in (0.5, 0.99, 1.0)}
        text = "Smoothed round-trip time over the overlay, over peers."
        yield by_label("gauge", "netagent_path_rtt_seconds", text, "quantile", quantiles)
