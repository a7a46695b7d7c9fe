"""What netagent tells about itself to netctl, to probes and to systemd."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from controlloop import __version__
from controlloop.errors import Skipped
from controlloop.health import Answer, Routes, json_answer, yes_or_no
from controlloop.notify import Notifier
from netagent.overlay import Overlay
from netagent.state import Key

HANG_S = 60.0
"""A loop that has not turned for so long hangs: one full run over the largest overlay takes seconds."""


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
    """What keeps the node from being ready; empty when nothing does."""
    lease: str | None = None
    devices: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    last_reconcile: LastReconcile | None = None
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
        return yes_or_no(good=not self.waiting_for, text=f"waits for {self.waiting_for}" if self.waiting_for else "ok")

    def document(self) -> dict[str, Any]:
        return {
            "version": __version__,
            "node": self.node,
            "ready": not self.waiting_for,
            "waiting_for": self.waiting_for or None,
            "lease": self.lease,
            "devices": self.devices,
            "peers": self.overlay.peers if self.overlay else 0,
            "programmed": count_kinds(self.overlay.objects if self.overlay else ()),
            "skipped": [{"name": each.name, "reason": each.reason} for each in self.skipped],
            "last_reconcile": self.last_reconcile,
        }


def count_kinds(keys: Iterable[Key]) -> Mapping[str, int]:
    return Counter(key.kind for key in keys)
