"""What netagent tells about itself to netctl, to probes and to systemd."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from controlloop import __version__
from controlloop.errors import Skipped
from controlloop.family import Family, IPNetwork
from controlloop.history import History
from controlloop.http_server import Answer, Routes, json_answer, yes_or_no
from controlloop.notify import Notifier
from controlloop.onset import Onsets
from controlloop.pulse import Pulse
from netagent.finding import Finding
from netagent.firewall.firewall import Firewall
from netagent.healing import Healing
from netagent.monitor import Monitor
from netagent.network_page import network_document
from netagent.overlay import Overlay
from netagent.probing.findings import PathFinding
from netagent.probing.prober import Prober
from netagent.roster import Roster, leases_document, peers_document
from netagent.state import Key
from subnet_alloc.model import NetworkConfig

STALE_S = 5.0
"""So long a watch may be down before we say that we may have missed something: a server that restarts is no news."""

NOT_READY = ("not ready", "")


@dataclass(frozen=True, slots=True)
class LastReconcile:
    at: float
    """Seconds since the epoch."""
    took_ms: int
    changes: int
    error: str | None = None


@dataclass
class Status:
    node: str
    notifier: Notifier = field(default_factory=Notifier)
    waiting_for: str = "network configuration"
    """What keeps the kernel from holding what it should; empty when nothing does."""
    lease: str | None = None
    lease_gap: str = ""
    """Why the lease is not ours at the moment; empty when it is."""
    unheard_s: Callable[[], float] = lambda: 0.0
    """For how long the registry has told us nothing, not even that nothing happened."""
    devices: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    last_reconcile: LastReconcile | None = None
    healing: Healing | None = None
    monitor: Monitor | None = None
    firewall: Firewall | None = None
    published: Mapping[Family, IPNetwork] = field(default_factory=dict)
    """Our subnets as the subnet file says them."""
    overlay: Overlay | None = None
    """What is desired; counted only when somebody asks."""
    roster: Callable[[], Roster | None] = lambda: None
    """All leases beside what of them is in the kernel; None before our own is held."""
    config: NetworkConfig | None = None
    """What the registry says about the whole network; None before it was read."""
    prober: Prober | None = None
    lease_at: float = 0.0
    """When our lease was acquired, in seconds since the epoch."""
    reconciles: int = 0
    reconcile_errors: int = 0
    reconcile_s: float = 0.0

    def __post_init__(self) -> None:
        self.history = History()
        self.pulse = Pulse(self.notifier)
        self._onsets = Onsets(self._wrong, turned=self._turned)

    def turn(self) -> None:
        """The loop turns: tell whoever watches over us."""
        self.pulse.turn()
        self._onsets.look()

    def routes(self) -> Routes:
        return {
            "/status": lambda: json_answer(self.document()),
            "/healthz": self.pulse.healthz,
            "/readyz": self.readyz,
            "/leases": lambda: json_answer(leases_document(self.roster())),
            "/peers": lambda: json_answer(self.peers_document()),
            "/events": self.history.page,
            "/events/": self.history.page,
            "/network": lambda: json_answer(network_document(self.config)),
        }

    def reconciled(self, last: LastReconcile) -> None:
        """Note a run that programmed the kernel, or failed to."""
        self.last_reconcile = last
        self.reconciles += 1
        self.reconcile_errors += last.error is not None
        self.reconcile_s += last.took_ms / 1000

    def all_findings(self) -> list[Finding | PathFinding]:
        return [
            *(self.healing.findings(self.overlay.objects if self.overlay else {}) if self.healing else ()),
            *(self.monitor.findings() if self.monitor else ()),
            *(self.firewall.findings() if self.firewall else ()),
            *(self.prober.findings() if self.prober else ()),
        ]

    def _wrong(self) -> Iterator[tuple[str, str]]:
        """What has no time of its own, by what stays the same about it: reasons may hold numbers."""
        if self.gap():
            yield NOT_READY
        yield from (("skipped", each.name) for each in self.skipped)
        yield from ((each.code, each.name) for each in self.all_findings() if each.since is None)

    def _turned(self, thing: tuple[str, str], is_wrong: bool) -> None:  # noqa: FBT001 - as Onsets calls it
        kind, name = thing
        if kind != "skipped":  # told with its reason when it happens
            reasons = {(each.code, each.name): each.reason for each in self.all_findings()}
            reason = {NOT_READY: self.gap(), **reasons}.get(thing, "")
            self.history.turned(kind, name or "netagent", is_wrong=is_wrong, reason=reason)

    def _dated(self, finding: Finding | PathFinding) -> Finding | PathFinding:
        if finding.since is not None:
            return finding
        return replace(finding, since=self._onsets.since((finding.code, finding.name)))

    def _skipped_item(self, skipped: Skipped) -> dict[str, Any]:
        since = self._onsets.since(("skipped", skipped.name))
        return {"name": skipped.name, "reason": skipped.reason, "since": since}

    def peers_document(self) -> dict[str, Any]:
        paths = self.prober.paths.all if self.prober else {}
        return peers_document(self.roster(), paths, time.monotonic(), time.time())

    def readyz(self) -> Answer:
        gap = self.gap()
        return yes_or_no(good=not gap, text=f"waits for {gap}" if gap else "ok")

    def gap(self) -> str:
        """What keeps the node from being ready; empty when nothing does."""
        if gap := self.waiting_for or self.lease_gap:
            return gap
        if self.firewall and not self.firewall.in_kernel:
            return "the firewall"
        if self.firewall and self.firewall.is_held:
            return "firewall rules that somebody keeps undoing"
        unheard_s = self.unheard_s()
        return f"the registry, silent for {unheard_s:.0f} s" if unheard_s > STALE_S else ""

    def document(self) -> dict[str, Any]:
        gap = self.gap()
        return {
            "apiVersion": "nodenet.io/v1alpha1",
            "kind": "NetagentStatus",
            "version": __version__,
            "node": self.node,
            "ready": not gap,
            "waiting_for": gap or None,
            "waiting_since": self._onsets.since(NOT_READY) if gap else None,
            "lease": self.lease,
            "devices": self.devices,
            "peers": self.overlay.peers if self.overlay else 0,
            "programmed": count_kinds(self.overlay.objects if self.overlay else ()),
            "skipped": [self._skipped_item(each) for each in self.skipped],
            "repairs": self.healing.repairs if self.healing else {},
            "findings": [self._dated(each) for each in self.all_findings()],
            "firewall": self.firewall.stats if self.firewall else {},
            "last_reconcile": self.last_reconcile,
        }


def count_kinds(keys: Iterable[Key]) -> Mapping[str, int]:
    return Counter(key.kind for key in keys)
