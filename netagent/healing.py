"""What notifications say is wrong, kept until the next pass, and how much of it may be repaired now.

It holds no more than SUSPECTS objects: when more than that drifted, one look at everything is cheaper.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from controlloop.delta import Delta
from controlloop.history import History
from controlloop.logs import Log
from controlloop.reconcile import without
from controlloop.repairs import RepairLimiter
from netagent.change_history import note_repairs
from netagent.drift import Drift
from netagent.finding import Finding, fight
from netagent.state import Key, Object, OverlayState

log = Log("netagent")

SUSPECTS = 500

NAMED = 10
"""Fights that are told one by one; of the others only the number."""

PROCESS_BITS = 22
"""Of a netlink port: the process; libnl and pyroute2 number a process's sockets in those above."""

KERNEL_CHOSE = 1 << 31
"""From here on the port is the kernel's choice, for a further socket of a process, and says nothing."""

GATHER_S = 0.005
"""What drifts within so short a time is looked at together: one command often makes several notifications."""

LOOKS, LOOK_PERIOD_S = 20, 1.0
"""Full passes at once, and then how often: they too can be provoked without end. With 5,000 peers one takes 0.2 s."""


@dataclass(slots=True)
class Suspicion:
    objects: dict[Key, Object | None] = field(default_factory=dict)
    """What was seen in the place of each; None: nothing."""
    everything: bool = False
    underlay: bool = False


class Healing:
    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._limiter: RepairLimiter[Key] = RepairLimiter()
        self._looks: RepairLimiter[None] = RepairLimiter(LOOKS, LOOK_PERIOD_S)
        self._suspicion = Suspicion()
        self._due: asyncio.TimerHandle | None = None
        self._release: asyncio.TimerHandle | None = None
        self._told: set[Key] = set()
        self._writers: dict[Key, str] = {}
        self.history = History()
        self.held: set[Key] = set()
        """What is not as it should be, and must not be repaired yet."""
        self.repairs: Counter[str] = Counter()
        """Objects repaired since the start, by kind."""

    def heard(self, drift: Drift, port: int) -> None:
        """Note one notification that tells of drift; `port` is the netlink port of whoever caused it, 0 unknown."""
        suspicion = self._suspicion
        if drift.key in self.held:
            return  # it is looked at as soon as it may be repaired
        if drift.settled and drift.key:
            suspicion.objects.pop(drift.key, None)
            return
        suspicion.underlay |= drift.underlay
        suspicion.everything |= drift.everything
        if drift.key:
            suspicion.objects[drift.key] = drift.actual
            self._note_writer(drift.key, port)
        if len(suspicion.objects) > SUSPECTS:
            suspicion.objects.clear()
            suspicion.everything = True
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(GATHER_S, self._gathered)

    def _gathered(self) -> None:
        self._due = None
        self._wake()

    def take(self) -> Suspicion:
        """All that was heard since the last time; a full pass only if not too many were asked for."""
        if self._due:
            return Suspicion()
        taken, self._suspicion = self._suspicion, Suspicion()
        if taken.everything and (wait_s := self._looks.wait_s(None)):
            self._look_again_in(wait_s)
            taken.everything = False
        return taken

    def forget(self) -> None:
        """Whoever calls is about to look at everything, so what was heard before is no news."""
        self._suspicion.objects.clear()
        self._suspicion.everything = False

    def repair(self, suspects: Mapping[Key, Object | None], desired: OverlayState) -> Delta[Key, Object]:
        """The change that mends these objects, as far as it may be made now."""
        found: Delta[Key, Object] = Delta()
        for key, actual in suspects.items():
            found.record(key, actual, desired.get(key))
        return self.admit(found)

    def admit(self, found: Delta[Key, Object], expected: Collection[Key] = ()) -> Delta[Key, Object]:
        """What of a difference may be repaired now, counted; the rest comes again later.

        `expected` keys differ because of what we want, not because of what somebody did.
        """
        keys = [key for key in (found.put.keys() | found.drop.keys()) if key not in expected]
        # Nothing holds on a device that is being fought over.
        links = [key for key in keys if key.kind == "link"]
        if any(self._must_wait(key) for key in links):
            self.held.update(keys)
            return Delta()
        held = {key for key in keys if key.kind != "link" and self._must_wait(key)}
        self.held |= held
        self.repairs.update(key.kind for key in keys if key not in held)
        return without(found, held)

    def repaired(self, delta: Delta[Key, Object], keys: Collection[Key]) -> None:
        """These objects of a change are in the kernel again."""
        note_repairs(self.history, delta, keys, self._writers)

    def findings(self, desired: OverlayState) -> list[Finding]:
        """The fights that go on; of many only some by name."""
        keys = list(self._limiter.fights)
        found = [fight(str(desired.get(key) or key), self._writers.get(key, "")) for key in keys[:NAMED]]
        return found + ([fight(f"{len(keys) - NAMED} more objects", "")] if len(keys) > NAMED else [])

    def tell(self, desired: OverlayState) -> None:
        """Log the fights that are new."""
        fights = self._limiter.fights
        for key in [key for key in fights if key not in self._told][:NAMED]:
            writer = self._writers.get(key, "somebody unknown")
            log.warning("repairs held back", object=desired.get(key) or key, undone_by=writer)
        self._told = set(fights)

    def _must_wait(self, key: Key) -> bool:
        wait_s = self._limiter.wait_s(key)
        if wait_s:
            self._look_again_in(wait_s)
        return wait_s > 0

    def _look_again_in(self, wait_s: float) -> None:
        if self._release is None:
            self._release = asyncio.get_running_loop().call_later(wait_s, self._look_again)

    def _look_again(self) -> None:
        self._release = None
        self.heard(Drift(everything=True), 0)

    def _note_writer(self, key: Key, port: int) -> None:
        if len(self._writers) > SUSPECTS:
            self._writers.clear()
        # A device is changed in several steps, from a socket that we hear: it must not hide whom we repair it after.
        if (process := process_of(port)) and process != os.getpid():
            self._writers[key] = described(process)


def process_of(port: int) -> int:
    """Whose netlink socket has that port; 0 when it does not tell."""
    return 0 if port >= KERNEL_CHOSE else port & ((1 << PROCESS_BITS) - 1)


def described(process: int) -> str:
    with suppress(OSError):
        return f"{Path('/proc', str(process), 'comm').read_text().strip()} (process {process})"
    return f"process {process}, which is gone"
