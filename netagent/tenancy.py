"""The node's own lease: taken, kept, and taken again when it is lost, stolen, or must say something else."""

import asyncio
import time
from collections.abc import Callable
from typing import Never

from controlloop.errors import UnavailableError
from controlloop.logs import Log
from controlloop.runner import Backoff
from netagent.change_history import facts
from netagent.status import Status
from subnet_alloc.leasing import LeaseLostError, OwnLease
from subnet_alloc.lessor import Lessor
from subnet_alloc.model import LeaseAttrs, NetworkConfig
from subnet_alloc.snapshot import LeaseSnapshot

log = Log("netagent")

SETTLED_S = 10.0
"""A lease that was held for less is taken again with back-off: two nodes that both think it theirs must not storm."""


class Tenancy:
    def __init__(self, lessor: Lessor, config: NetworkConfig, attrs: Callable[[], LeaseAttrs], status: Status) -> None:
        """`attrs` gives what the peers should be told now."""
        self.own: OwnLease | None = None
        self._lessor = lessor
        self._config = config
        self._attrs = attrs
        self._told: LeaseAttrs | None = None
        self._status = status
        self._snapshot: LeaseSnapshot | None = None
        self._lost = asyncio.Event()
        self._why = ""

    async def hold(self, taken: Callable[[], None]) -> Never:
        """Call `taken` each time the lease is ours (again). Traffic goes on as it is while it is not: peers may still
        have our routes, and pods our addresses.
        """
        backoff = Backoff(limit=30.0)
        while True:
            self.own = await self._take()
            since = time.monotonic()
            self._lost.clear()
            self._note(self.own)
            taken()
            # What was written while we asked is judged by what we hold now.
            self.judge()
            await self._until_lost(self.own)
            if time.monotonic() - since < SETTLED_S:
                await asyncio.sleep(backoff.next())
            else:
                backoff.reset()

    async def _take(self) -> OwnLease:
        backoff = Backoff()
        while True:
            self._told = self._attrs()
            try:
                return await self._lessor.acquire(self._told, config=self._config)
            except UnavailableError as error:
                wait_s = backoff.next()
                log.warning("no lease yet", error=error, retry_in_s=round(wait_s, 1))
                await asyncio.sleep(wait_s)

    def _note(self, own: OwnLease) -> None:
        trigger = "lease" if self._status.lease_at else "startup"
        self._status.history.note(f"lease {own.record.key}", "acquired", new=facts(own.lease), trigger=trigger)
        self._status.lease, self._status.lease_gap, self._status.lease_at = own.record.key, "", time.time()
        log.info("lease held", key=own.record.key)

    async def _until_lost(self, own: OwnLease) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._lessor.keep(own))
                tasks.create_task(self._until_told())
        except* LeaseLostError as lost:
            reason = str(lost.exceptions[0])
            self._status.history.note(f"lease {own.record.key}", "lost", new=(reason,), trigger="lease")
            self._status.lease_gap = f"a lease: {lost.exceptions[0]}"
            log.warning("lease lost, acquiring again", reason=lost.exceptions[0])

    async def _until_told(self) -> Never:
        await self._lost.wait()
        raise LeaseLostError(self._why)

    def look_at(self, snapshot: LeaseSnapshot, *, went_back: bool) -> None:
        """Hold the lease against what the registry says. A store that went back in time was restored or emptied: what
        it says of our lease is old as well.
        """
        self._snapshot = snapshot
        if went_back:
            self._lose("the registry went back in time")
        self.judge()

    def judge(self) -> None:
        own, snapshot = self.own, self._snapshot
        if own is None:
            return
        if self._told != self._attrs():
            self._lose("this node has other things to say")
        elif snapshot is not None and snapshot.revision >= own.record.revision and (why := objection(own, snapshot)):
            self._lose(why)

    def _lose(self, why: str) -> None:
        self._why = why
        self._lost.set()


def objection(own: OwnLease, snapshot: LeaseSnapshot) -> str:
    """Why the record is not as we wrote it; empty when it is."""
    key = own.record.key
    if key in snapshot.skipped:
        return f"somebody wrote over it: {snapshot.skipped[key].reason}"
    if key not in snapshot.records:
        return "it is gone from the registry"
    if (found := snapshot.leases[key]) != own.lease:
        whose = " and ".join(map(str, found.attrs.public_ip.values()))
        return f"somebody wrote something else into it, for {whose}; do two nodes have one public IP (--public-ip)?"
    return ""
