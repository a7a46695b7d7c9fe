"""The registry in memory: for tests, and for the lab where no etcd is wanted. It passes etcd's contract suite.

It has what makes a registry hard: revisions, expiry, compaction, and times when it does not answer.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from subnet_alloc.registry import (
    AlreadyExistsError,
    Batch,
    CompactedError,
    ConflictError,
    Listing,
    Record,
    UnavailableError,
)


@dataclass(slots=True)
class _Lease:
    ttl_s: int
    expiration: float


@dataclass(frozen=True, slots=True)
class _Event:
    revision: int
    key: str
    record: Record | None
    """None: deleted or expired."""


class MemoryRegistry:
    def __init__(self, config: bytes | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds. After moving a clock of your own, call `tick`."""
        self.config = config
        self._clock = clock
        self._revision = 1
        self._compacted = 0
        self._records: dict[str, Record] = {}
        self._leases: dict[int, _Lease] = {}
        self._last_lease_id = 0
        self._events: list[_Event] = []
        self._available = True
        self._moved = asyncio.Event()

    def stop(self) -> None:
        """Answer nobody until `start`. Leases run on."""
        self._available = False
        self._wake()

    def start(self) -> None:
        self._available = True

    def tick(self) -> None:
        """Let what is due expire."""
        now = self._clock()
        due = [lease_id for lease_id, lease in self._leases.items() if lease.expiration <= now]
        for lease_id in due:
            del self._leases[lease_id]
            for key in [key for key, record in self._records.items() if record.lease_id == lease_id]:
                self._forget(key)

    def compact(self) -> None:
        """Forget how it came to be as it is."""
        self._compacted = self._revision
        self._events.clear()

    async def network_config(self) -> bytes | None:
        self._look()
        return self.config

    async def list(self) -> Listing:
        self._look()
        return Listing(self._revision, tuple(self._records[key] for key in sorted(self._records)))

    async def create(self, key: str, value: bytes, ttl_s: int) -> Record:
        self._look()
        if key in self._records:
            raise AlreadyExistsError(key)
        return self._write(Record(key, value, 0, self._grant(ttl_s)))

    async def update(self, record: Record, value: bytes, ttl_s: int) -> Record:
        self._look()
        self._refuse_unless_known(record)
        lease = self._leases.get(record.lease_id)
        if lease is None or lease.ttl_s != ttl_s:
            return self._write(replace(record, value=value, lease_id=self._grant(ttl_s)))
        self._renew(lease)
        return self._write(replace(record, value=value))

    async def remove(self, record: Record) -> None:
        self._look()
        self._refuse_unless_known(record)
        self._forget(record.key)

    async def keep_alive(self, record: Record) -> int:
        self._look()
        lease = self._leases.get(record.lease_id)
        if lease is None:
            raise ConflictError(f"lease {record.lease_id} is gone")
        self._renew(lease)
        return lease.ttl_s

    async def watch(self, after: int) -> AsyncGenerator[Batch, None]:
        seen = after
        while True:
            self._look()
            if seen + 1 < self._compacted or seen > self._revision:
                raise CompactedError(f"nothing is known between revisions {seen} and {self._revision}")
            if seen < self._revision:
                batch = self._batch(seen)
                seen = self._revision
                yield batch
            else:
                await self._wait()

    def _look(self) -> None:
        if not self._available:
            raise UnavailableError("the registry in memory is stopped")
        self.tick()

    def _refuse_unless_known(self, record: Record) -> None:
        known = self._records.get(record.key)
        if known is None or known.revision != record.revision:
            raise ConflictError(f"{record.key} is not at revision {record.revision} any more")

    def _grant(self, ttl_s: int) -> int:
        if not ttl_s:
            return 0
        self._last_lease_id += 1
        self._leases[self._last_lease_id] = _Lease(ttl_s, self._clock() + ttl_s)
        return self._last_lease_id

    def _renew(self, lease: _Lease) -> None:
        lease.expiration = self._clock() + lease.ttl_s

    def _write(self, record: Record) -> Record:
        self._revision += 1
        written = replace(record, revision=self._revision, created=record.created or self._revision)
        self._records[record.key] = written
        self._note(record.key, written)
        return written

    def _forget(self, key: str) -> None:
        self._revision += 1
        del self._records[key]
        self._note(key, None)

    def _note(self, key: str, record: Record | None) -> None:
        self._events.append(_Event(self._revision, key, record))
        self._wake()

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    async def _wait(self) -> None:
        """Until something happens, or the next lease is due."""
        due = min((lease.expiration for lease in self._leases.values()), default=None)
        timeout_s = None if due is None else max(0.0, due - self._clock())
        moved = self._moved
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await moved.wait()

    def _batch(self, after: int) -> Batch:
        last = {event.key: event.record for event in self._events if event.revision > after}
        put = tuple(record for record in last.values() if record is not None)
        return Batch(self._revision, put, tuple(key for key, record in last.items() if record is None))
