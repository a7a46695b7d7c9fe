"""What netagent tells about itself to netctl, to probes and to systemd."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controlloop import __version__
from controlloop.errors import Skipped
from controlloop.health import Answer, Routes, json_answer, yes_or_no
from controlloop.notify import Notifier
from netagent.healing import Finding, Healing
from netagent.overlay import Overlay
from netagent.state import Key

HANG_S = 60.0
"""A loop that has not turned for so long hangs: one full run over the largest overlay takes seconds."""

STALE_S = 5.0
"""So long a watch may be down before we say that we may have missed something: a server that restarts is no news."""


@dataclass(frozen=True, slots=True)
class LastReconcile:
    at: float
    """Seconds since the epoch."""
    took_ms: int
    changes: int
    error: str | None = None


@dataclass(slots=True)
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
    findings: Sequence[Finding] = ()
    overlay: Overlay | None = None
    """What is desired; counted only when somebody asks."""
    _turned_at: float = field(default_factory=time.monotonic)

    def turn(self) -> None:
        """The loop turns: tell whoever watches over us."""
        self._turned_at = time.monotonic()
        self.notifier.watchdog()

    def routes(self) -> Routes:
        return {"/status": lambda: json_answer(self.document()), "/healthz": self.healthz, "/readyz": self.readyz}

    def healthz(self) -> Answer:
        idle_s = time.monotonic() - self._turned_at
        good = idle_s < HANG_S
        return yes_or_no(good=good, text="ok" if good else f"the loop has not turned for {idle_s:.0f} s")

    def readyz(self) -> Answer:
        gap = self.gap()
        return yes_or_no(good=not gap, text=f"waits for {gap}" if gap else "ok")

    def gap(self) -> str:
        """What keeps the node from being ready; empty when nothing does."""
        if gap := self.waiting_for or self.lease_gap:
            return gap
        unheard_s = self.unheard_s()
        return f"the registry, silent for {unheard_s:.0f} s" if unheard_s > STALE_S else ""

    def document(self) -> dict[str, Any]:
        gap = self.gap()
        return {
            "version": __version__,
            "node": self.node,
            "ready": not gap,
            "waiting_for": gap or None,
            "lease": self.lease,
            "devices": self.devices,
            "peers": self.overlay.peers if self.overlay else 0,
            "programmed": count_kinds(self.overlay.objects if self.overlay else ()),
            "skipped": [{"name": each.name, "reason": each.reason} for each in self.skipped],
            "repairs": self.healing.repairs if self.healing else {},
            "findings": self.findings,
            "last_reconcile": self.last_reconcile,
        }


def count_kinds(keys: Iterable[Key]) -> Mapping[str, int]:
    return Counter(key.kind for key in keys)
