"""Holds the own lease, follows the peers' leases and keeps the kernel as they want it.

Three tasks. Two know the registry and only take notes and wake the third, which alone touches the kernel.
"""

import asyncio
import random
import time
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Never

from controlloop.delta import Delta
from controlloop.errors import Skipped, UnavailableError
from controlloop.logs import Log
from controlloop.reconcile import Kernel, describe, reconcile
from controlloop.runner import Backoff, Runner
from netagent import subnet_file
from netagent.backends.backend import Node
from netagent.desired import lease_attrs, pod_mtu
from netagent.kernel import OverlayError
from netagent.overlay import Overlay
from netagent.state import Key, Link, LinkAddress, Object
from netagent.status import LastReconcile, Status
from subnet_alloc.leasing import LeaseLostError, OwnLease, acquire, follow, keep
from subnet_alloc.model import NetworkConfig
from subnet_alloc.registry import Registry
from subnet_alloc.snapshot import LeaseSnapshot

log = Log("netagent")

RESYNC_S = 30.0

BURST_S = 0.01
"""Changes that come closer than this are taken together: one for itself costs as much as fifty at once."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the agent works with."""

    node: Node
    config: NetworkConfig
    registry: Registry
    kernel: Kernel[Key, Object]
    subnet_file: Path


class Agent:
    def __init__(self, surroundings: Surroundings, status: Status) -> None:
        self._around = surroundings
        self._status = status
        self._overlay = status.overlay = Overlay(surroundings.node)
        self._runner = Runner(self._program, resync_s=RESYNC_S, turn=status.turn)
        self._own: OwnLease | None = None
        self._lost = asyncio.Event()
        self._snapshot: LeaseSnapshot | None = None
        self._changed: set[str] = set()
        self._converged = False
        self._programmed_at = 0.0
        self._published = ""
        self._told: dict[str, Skipped] = {}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hold_lease())
            tasks.create_task(self._follow_leases())
            tasks.create_task(self._runner.run())

    # The own lease

    async def _hold_lease(self) -> Never:
        while True:
            self._own = await self._acquire()
            self._lost.clear()
            self._status.lease = self._own.record.key
            self._runner.wake()
            log.info("lease held", key=self._own.record.key)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(keep(self._around.registry, self._own))
                    tasks.create_task(self._until_lost())
            except* LeaseLostError as lost:
                # Traffic goes on as it is meanwhile: peers may still have our routes, and pods our addresses.
                log.warning("lease lost, acquiring again", reason=lost.exceptions[0])

    async def _acquire(self) -> OwnLease:
        backoff = Backoff()
        while True:
            try:
                return await acquire(
                    self._around.registry,
                    lease_attrs(self._around.node),
                    previous=self._own.lease.subnets if self._own else self._previous_subnets(),
                    config=self._around.config,
                    choose=random.choice,
                )
            except UnavailableError as error:
                wait_s = backoff.next()
                log.warning("no lease yet", error=error, retry_in_s=round(wait_s, 1))
                await asyncio.sleep(wait_s)

    def _previous_subnets(self) -> subnet_file.Subnets | None:
        return subnet_file.read_subnets(self._around.subnet_file)

    async def _until_lost(self) -> Never:
        await self._lost.wait()
        raise LeaseLostError("the registry no longer holds it as we wrote it")

    # Everybody's leases

    async def _follow_leases(self) -> None:
        revision = 0
        async with aclosing(follow(self._around.registry)) as steps:
            async for snapshot, changed in steps:
                self._snapshot = snapshot
                self._changed |= changed
                # A store that went back in time was restored or emptied: what it says of our lease is old as well.
                if snapshot.revision < revision or self._own_is_missing(snapshot):
                    self._lost.set()
                revision = snapshot.revision
                self._runner.wake()

    def _own_is_missing(self, snapshot: LeaseSnapshot) -> bool:
        own = self._own
        if own is None or snapshot.revision < own.record.revision:
            return False
        return snapshot.leases.get(own.record.key) != own.lease

    # The kernel

    async def _program(self, resync: bool) -> None:  # noqa: FBT001 - the Runner's shape of a job
        if self._own is None or self._snapshot is None:
            self._status.waiting_for = "lease" if self._own is None else "first listing of leases"
            return
        await self._gather_burst()
        own, changed = self._own, self._changed
        self._changed = set()
        delta = self._overlay.follow(own.record.key, own.lease, self._snapshot, changed)
        full = resync or not self._converged
        self._converged = False
        self._tell_skipped(self._snapshot, failures=())
        started = time.monotonic()
        try:
            applied = await self._bring_in(delta, full=full)
        except OverlayError as error:
            self._note(started, Delta(), error)
            self._tell_skipped(self._snapshot, failures=skipped_by_kernel(error))
            # A peer that the kernel refuses must not keep this node's pods from starting.
            if not concerns_device(error):
                self._publish(own)
            raise
        except Exception as error:
            self._note(started, Delta(), error)
            raise
        self._converged = True
        self._note(started, applied, None)
        self._publish(own)
        self._status.waiting_for = ""

    async def _gather_burst(self) -> None:
        """A change after a quiet time is not kept waiting."""
        if time.monotonic() - self._programmed_at < BURST_S:
            await asyncio.sleep(BURST_S)

    async def _bring_in(self, delta: Delta[Key, Object], *, full: bool) -> Delta[Key, Object]:
        if full:
            return (await reconcile(lambda: self._overlay.objects, self._around.kernel)).delta
        if delta:
            await self._around.kernel.apply(delta)
        return delta

    def _publish(self, own: OwnLease) -> None:
        """Tell the node's container engine and systemd, once for each lease."""
        networks = {family: within.network for family, within in self._around.config.ranges.items()}
        text = subnet_file.render(networks, own.lease.subnets, pod_mtu(self._around.node))
        if text != self._published:
            subnet_file.write(self._around.subnet_file, text)
            self._published = text
            log.info("subnet file written", path=self._around.subnet_file, lease=own.record.key)
            self._status.notifier.ready(f"lease {own.record.key}, {self._overlay.peers} peers")

    # What we tell

    def _note(self, started: float, applied: Delta[Key, Object], error: Exception | None) -> None:
        self._programmed_at = time.monotonic()
        took_ms = round((self._programmed_at - started) * 1000)
        self._status.last_reconcile = LastReconcile(time.time(), took_ms, len(applied), str(error) if error else None)
        if error:
            self._status.waiting_for = f"the kernel: {error}"
        elif applied:
            log.info("reconcile", changes=len(applied), took_ms=took_ms)
            log.debug("changed", objects=describe(applied))

    def _tell_skipped(self, snapshot: LeaseSnapshot, failures: Iterable[Skipped]) -> None:
        skipped = {**snapshot.skipped, **self._overlay.skipped, **{each.name: each for each in failures}}
        for name, one in self._overlay.skipped.items():
            if self._told.get(name) != one:
                log.warning("peer skipped", key=name, reason=one.reason)
        self._told = dict(skipped)
        self._status.skipped = tuple(skipped.values())


def skipped_by_kernel(error: OverlayError) -> list[Skipped]:
    return [Skipped(str(failure.operation.object), failure.reason) for failure in error.failures]


def concerns_device(error: OverlayError) -> bool:
    return any(isinstance(failure.operation.object, Link | LinkAddress) for failure in error.failures)
