"""Keeps one set of kernel objects in line with a plan: incrementally when it can, wholly when it must."""

import time
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from controlloop.delta import Delta
from controlloop.history import History, Repair
from controlloop.logs import Log
from controlloop.reconcile import Kernel, keys_of, reconcile
from controlloop.rule_words import object_name, value_facts

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

log = Log("sync")


class Backend(Kernel[K, V], Protocol[K, V]):
    async def cleanup(self) -> None:
        """Remove all that is ours, and nothing else. Nothing there is success."""
        ...


@dataclass(slots=True)
class SyncStats:
    """What `netctl status` shows of one set of rules."""

    syncs: int = 0
    failures: int = 0
    repairs: int = 0
    """Objects found different from what we had written, and put right."""
    last_sync: float = 0.0
    """Unix time of the last sync that succeeded; 0: never."""
    last_duration_s: float = 0.0


class SyncEngine(Generic[K, V]):
    """One plan and one backend. Whoever calls `sync` is the only writer, so nothing is locked."""

    def __init__(self, name: str, desired: Callable[[], Mapping[K, V]], backend: Backend[K, V]) -> None:
        self.name = name
        self.stats = SyncStats()
        self.pending: Delta[K, V] = Delta()
        """How `desired` changed since the last sync: whoever plans records it here, and `sync` writes it."""
        self._desired = desired
        self._backend = backend
        self._stale = False
        self.history = History()

    @property
    def in_kernel(self) -> bool:
        """Whether the last attempt to write succeeded, and there was one."""
        return self.stats.last_sync > 0 and not self._stale

    async def sync(self, *, resync: bool) -> None:
        """Write what was planned since the last sync; with `resync`, whatever else differs as well.

        After a failure the kernel's state is unknown, so the next sync reads it back, whatever it is asked for.
        """
        started = time.monotonic()
        delta, self.pending = self.pending, Delta()
        try:
            changes = await self._write(delta, resync=resync or self._stale)
        except BaseException as error:
            self._stale = True
            self.stats.failures += isinstance(error, Exception)
            raise
        self._stale = False
        self._succeeded(time.monotonic() - started, changes)

    async def _write(self, delta: Delta[K, V], *, resync: bool) -> int:
        if not resync:
            if delta:
                await self._backend.apply(delta)
            return len(delta)
        found = (await reconcile(self._desired, self._backend)).delta
        # What we had not written yet, or failed to write, is not somebody else's doing.
        if self.stats.syncs and not self._stale:
            self.stats.repairs += max(0, len(found) - len(delta))
            planned = keys_of(delta)
            self._note_repairs(found, [key for key in keys_of(found) if key not in planned])
        return len(found)

    def _note_repairs(self, found: Delta[K, V], keys: Collection[K]) -> None:
        old, new = found.drop, found.put
        repairs = (
            Repair(object_name(key, self.name), value_facts(old.get(key)), value_facts(new.get(key))) for key in keys
        )
        if keys:
            self.history.repaired({"objects": len(keys)}, repairs, self.name)

    def _succeeded(self, took_s: float, changes: int) -> None:
        first = not self.stats.syncs
        self.stats.syncs += 1
        self.stats.last_sync = time.time()
        self.stats.last_duration_s = took_s
        if changes or first:
            log.info("synced", rules=self.name, changes=changes, took_ms=round(took_s * 1000, 1))
