"""Holds the own lease, follows the peers' leases and keeps the kernel as they want it.

Three tasks. Two know the registry and only take notes and wake the third, which alone touches the kernel.
"""

import asyncio
import random
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Never

from controlloop.delta import Delta
from controlloop.errors import OperatorError, Skipped, UnavailableError
from controlloop.logs import Log
from controlloop.memory import give_back
from controlloop.reconcile import Kernel, describe, keys_of, reconcile
from controlloop.runner import Backoff, Runner
from netagent import subnet_file
from netagent.backends.backend import Node
from netagent.desired import lease_attrs, pod_mtu
from netagent.drift import Judge
from netagent.healing import Healing
from netagent.kernel import OverlayError
from netagent.links import decode_link
from netagent.messages import forget_addresses
from netagent.monitor import Monitor
from netagent.overlay import Overlay
from netagent.roster import Roster
from netagent.state import Key, Link, LinkAddress, Object, OverlayState
from netagent.status import LastReconcile, Status
from subnet_alloc.codec import render_attrs
from subnet_alloc.leasing import TTL_S, LeaseLostError, OwnLease, acquire, follow, keep
from subnet_alloc.model import Lease, LeaseAttrs, NetworkConfig
from subnet_alloc.registry import ConflictError, Registry
from subnet_alloc.snapshot import LeaseSnapshot

log = Log("netagent")

RESYNC_S = 300.0
"""The kernel tells what changes (netagent.monitor), so a look at everything only guards against our own mistakes. With
5,000 peers it takes 0.2 s of a processor: every 30 s that would be more than all else an idle agent does."""

BURST_S = 0.01
"""Changes that come closer than this are taken together: one for itself costs as much as fifty at once."""
BURST_RUNS = 4
"""Runs within BURST_S that make a burst."""

MANY = 1000
"""Changes in one run that leave memory worth giving back."""

UNDERLAY_RETRY_S = 2.0
"""The kernel tells when an interface comes back; this is for what it did not tell."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the agent works with."""

    node: Node
    config: NetworkConfig
    registry: Registry
    kernel: Kernel[Key, Object]
    subnet_file: Path
    survey: Callable[[], Awaitable[Node]] | None = None
    """Looks at the machine again; OperatorError while there is no way to join. None: nothing ever changes."""
    monitor: Monitor | None = None
    """None: nobody tells what changes in the kernel."""
    reconnect: Callable[[], Awaitable[None]] | None = None
    """Leave connections to the registry that were made from an address we no longer have."""
    settle: Callable[[], None] = lambda: None
    """Sets on our devices what is no object of the kernel's; called after each run that went well."""


class Agent:
    def __init__(self, surroundings: Surroundings, status: Status) -> None:
        self._around = surroundings
        self._status = status
        self._node = surroundings.node
        self._overlay = status.overlay = Overlay(self._node)
        self._runner = Runner(self._program, resync_s=RESYNC_S, turn=status.turn)
        self._healing = status.healing = Healing(self._runner.wake)
        self._own: OwnLease | None = None
        self._lost = asyncio.Event()
        self._snapshot: LeaseSnapshot | None = None
        self._changed: set[str] = set()
        self._no_underlay = ""
        self._converged = False
        """The last pass over everything, and each change since, went in."""
        self._full_pass_due = self._tidy_up_due = True
        self._runs: deque[float] = deque(maxlen=BURST_RUNS)
        self._published = ""
        self._told: dict[str, Skipped] = {}
        status.roster = self._roster

    async def run(self) -> None:
        if self._around.monitor:
            judge = Judge(lambda: self._overlay.objects, self._interfaces, decode_link, dict(socket.if_nameindex()))
            self._around.monitor.start(judge, self._healing.heard)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hold_lease())
            tasks.create_task(self._follow_leases())
            tasks.create_task(self._runner.run())

    def _interfaces(self) -> frozenset[str]:
        return frozenset(underlay.interface for underlay in self._node.underlay.values())

    # The own lease

    async def _hold_lease(self) -> Never:
        while True:
            self._own = await self._take_lease()
            self._lost.clear()
            self._status.lease, self._status.lease_gap = self._own.record.key, ""
            self._status.lease_at = time.time()
            self._runner.wake()
            log.info("lease held", key=self._own.record.key)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(keep(self._around.registry, self._own))
                    tasks.create_task(self._until_lost())
            except* LeaseLostError as lost:
                # Traffic goes on as it is meanwhile: peers may still have our routes, and pods our addresses.
                self._status.lease_gap = f"a lease: {lost.exceptions[0]}"
                log.warning("lease lost, acquiring again", reason=lost.exceptions[0])

    async def _take_lease(self) -> OwnLease:
        backoff = Backoff()
        while True:
            attrs = lease_attrs(self._node)
            try:
                if (
                    self._own
                    and self._own.lease.attrs != attrs
                    and (moved := await self._publish_anew(self._own, attrs))
                ):
                    return moved
                return await acquire(
                    self._around.registry,
                    attrs,
                    previous=self._own.lease.subnets if self._own else self._previous_subnets(),
                    config=self._around.config,
                    choose=random.choice,
                )
            except UnavailableError as error:
                wait_s = backoff.next()
                log.warning("no lease yet", error=error, retry_in_s=round(wait_s, 1))
                await asyncio.sleep(wait_s)

    async def _publish_anew(self, own: OwnLease, attrs: LeaseAttrs) -> OwnLease | None:
        """The same subnet under other words: peers go on with the next thing they hear. A reservation stays one.

        None when the record is not as we left it.
        """
        listing = await self._around.registry.list()
        for record in listing.records:
            if (record.key, record.value) == (own.record.key, own.record.value):
                with suppress(ConflictError):
                    ttl_s = TTL_S if record.lease_id else 0
                    written = await self._around.registry.update(record, render_attrs(attrs), ttl_s)
                    return OwnLease(written, Lease(own.lease.subnets, attrs))
        return None

    def _previous_subnets(self) -> subnet_file.Subnets | None:
        return subnet_file.read_subnets(self._around.subnet_file)

    async def _until_lost(self) -> Never:
        await self._lost.wait()
        raise LeaseLostError("the registry does not hold it as we would write it")

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

    # The interface below

    async def _look_below(self) -> None:
        """Take note of an underlay that moved. While there is none, nothing can be programmed and nothing is taken."""
        if self._around.survey is None:
            return
        try:
            node = await self._around.survey()
        except OperatorError as error:
            if str(error) != self._no_underlay:
                log.warning("underlay lost", reason=error)
            self._no_underlay = str(error)
            asyncio.get_running_loop().call_later(UNDERLAY_RETRY_S, self._runner.wake)
            return
        if self._no_underlay:
            self._no_underlay = ""
            log.info("underlay found", underlay=next(iter(node.underlay.values())))
        if node != self._node:
            log.info("underlay changed", underlay=next(iter(node.underlay.values())))
            await self._move_to(node)

    async def _move_to(self, node: Node) -> None:
        if self._around.reconnect and node.underlay != self._node.underlay:
            await self._around.reconnect()
        self._node = node
        self._overlay.stand_on(node)
        self._converged, self._full_pass_due = False, True
        if self._own and self._own.lease.attrs != lease_attrs(node):
            self._lost.set()

    # The kernel

    async def _program(self, resync: bool) -> None:  # noqa: FBT001 - the Runner's shape of a job
        heard = self._healing.take()
        self._full_pass_due |= resync or heard.everything
        self._tidy_up_due |= resync
        if heard.underlay or self._no_underlay:
            await self._look_below()
        if self._own is None or self._snapshot is None or self._no_underlay:
            self._status.waiting_for = self._missing()
            return
        await self._gather_burst()
        own, changed = self._own, self._changed
        self._changed = set()
        delta = self._overlay.follow(own.record.key, own.lease, self._snapshot, changed)
        self._tell_skipped(self._snapshot, failures=())
        started = time.monotonic()
        try:
            applied = await self._bring_in(delta, heard.objects)
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
        self._around.settle()
        self._note(started, applied, None)
        self._publish(own)
        if self._tidy_up_due or len(applied) > MANY:
            self._tidy_up_due = False
            # Not before what this run holds itself is free.
            asyncio.get_running_loop().call_soon(tidy_up)

    def _missing(self) -> str:
        if self._no_underlay:
            return f"the underlay: {self._no_underlay}"
        return "lease" if self._own is None else "first listing of leases"

    async def _gather_burst(self) -> None:
        """Single changes, even a few in a row, are not kept waiting."""
        if len(self._runs) == BURST_RUNS and time.monotonic() - self._runs[0] < BURST_S:
            await asyncio.sleep(BURST_S)
        self._runs.append(time.monotonic())

    async def _bring_in(self, delta: Delta[Key, Object], suspects: Mapping[Key, Object | None]) -> Delta[Key, Object]:
        converged, self._converged = self._converged, False
        expected = keys_of(delta)
        if converged and not self._full_pass_due:
            if delta:
                await self._around.kernel.apply(delta)
            foreign = {key: actual for key, actual in suspects.items() if key not in expected}
            repair = self._healing.repair(foreign, self._overlay.objects)
            expected |= keys_of(repair)
            if await self._goes_in(repair):
                self._converged = True
                return Delta({**delta.put, **repair.put}, {**delta.drop, **repair.drop})
        # Before the first look nothing was ours to be undone, and after a failure what is missing is no drift.
        admit = partial(self._healing.admit, expected=expected) if converged else None
        report = await reconcile(self._desired_from_now, self._around.kernel, admit=admit)
        self._healing.held = set(report.held)
        if converged and keys_of(report.delta) - expected:
            log.info("drift repaired", objects=describe(report.delta))
        self._converged, self._full_pass_due = True, False
        return report.delta

    async def _goes_in(self, repair: Delta[Key, Object]) -> bool:
        """False when things are not as the notification said, any more."""
        try:
            if repair:
                await self._around.kernel.apply(repair)
                log.info("drift repaired", objects=describe(repair))
        except OverlayError as error:
            log.debug("repair refused", reason=error)
            return False
        return True

    def _desired_from_now(self) -> OverlayState:
        # The dump that follows sees all that was said so far.
        if self._around.monitor:
            self._around.monitor.drain()
        self._healing.forget()
        return self._overlay.objects

    def _publish(self, own: OwnLease) -> None:
        """Tell the node's container engine and systemd, once for each lease."""
        networks = {family: within.network for family, within in self._around.config.ranges.items()}
        text = subnet_file.render(networks, own.lease.subnets, pod_mtu(self._node))
        if text != self._published:
            subnet_file.write(self._around.subnet_file, text)
            self._published = text
            log.info("subnet file written", path=self._around.subnet_file, lease=own.record.key)
            self._status.notifier.ready(f"lease {own.record.key}, {self._overlay.peers} peers")

    # What we tell

    def _roster(self) -> Roster | None:
        if self._own is None or self._snapshot is None:
            return None
        held = self._healing.held
        return Roster(self._own.record.key, self._node, self._snapshot, self._overlay, held, self._converged)

    def _note(self, started: float, applied: Delta[Key, Object], error: Exception | None) -> None:
        took_ms = round((time.monotonic() - started) * 1000)
        self._status.reconciled(LastReconcile(time.time(), took_ms, len(applied), str(error) if error else None))
        self._status.findings = self._healing.tell(self._overlay.objects)
        held = self._healing.held
        self._status.waiting_for = f"{len(held)} objects that somebody keeps undoing" if held else ""
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


def tidy_up() -> None:
    forget_addresses()
    give_back()


def skipped_by_kernel(error: OverlayError) -> list[Skipped]:
    return [Skipped(str(failure.operation.object), failure.reason) for failure in error.failures]


def concerns_device(error: OverlayError) -> bool:
    return any(isinstance(failure.operation.object, Link | LinkAddress) for failure in error.failures)
