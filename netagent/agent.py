"""Holds the own lease, follows the peers' leases and keeps the kernel as they want it.

Three tasks. Two know the registry and only take notes and wake the third, which alone touches the kernel.
"""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from controlloop.delta import Delta
from controlloop.errors import Skipped
from controlloop.family import IPAddress
from controlloop.logs import Log
from controlloop.memory import give_back
from controlloop.reconcile import Kernel, describe
from controlloop.runner import Runner
from controlloop.skips import SkippedLog
from netagent import subnet_file
from netagent.backends.backend import Node
from netagent.burst import Burst
from netagent.change_history import PeerHistory
from netagent.convergence import Convergence, Suspects
from netagent.desired import lease_attrs, pod_mtu
from netagent.drift import Drift, Judge
from netagent.firewall.firewall import Firewall
from netagent.footing import Footing, Survey
from netagent.healing import Healing, Suspicion
from netagent.kernel import Failure, OverlayError, decode_link
from netagent.messages import forget_addresses
from netagent.monitor import Monitor
from netagent.overlay import Overlay
from netagent.patrol import Patrol, Untold
from netagent.roster import Roster
from netagent.state import Key, Link, LinkAddress, Object, OverlayState
from netagent.status import LastReconcile, Status
from netagent.tenancy import Tenancy
from subnet_alloc.leasing import OwnLease, follow
from subnet_alloc.lessor import Lessor
from subnet_alloc.model import NetworkConfig
from subnet_alloc.registry import Leases
from subnet_alloc.snapshot import LeaseSnapshot

log = Log("netagent")

RESYNC_S = 300.0
"""The kernel tells what changes (netagent.monitor), so a look at everything only guards against our own mistakes. With
5,000 peers it takes 0.2 s of a processor: every 30 s that would be more than all else an idle agent does."""

BURST = (4, 0.01)
"""Runs within so many seconds, after which peers are taken together: one for itself costs as much as fifty at once."""
NEWCOMERS_BURST = (2, 0.15)
"""The same for peers that we hear of for the first time: they have no pods yet to whom or from whom packets would be
lost. When a cluster starts, each of its nodes hears of all others within seconds."""
GUARD_BURST = (2, 0.1)
"""The same for the firewall, which needs a thread and a transaction for each run, and a process for some."""

MANY = 1000
"""Changes in one run that leave memory worth giving back."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the agent works with."""

    node: Node
    config: NetworkConfig
    leases: Leases
    lessor: Lessor
    kernel: Kernel[Key, Object]
    subnet_file: Path
    ip_masq: bool = False
    """Whether pods need not masquerade themselves; CNI plugins read it."""
    survey: Survey | None = None
    monitor: Monitor | None = None
    """None: nobody tells what changes in the kernel."""
    untold: Callable[[OverlayState], Awaitable[Untold]] | None = None
    """Finds what differs of things whose change nobody tells; None: there are none."""
    firewall: Firewall | None = None
    firewall_resync_s: float = RESYNC_S
    """How often to look at all of its rules: where nobody tells what changes in them, more often."""
    reconnect: Callable[[], Awaitable[None]] | None = None
    """Leave connections to the registry that were made from an address we no longer have."""
    settle: Callable[[], None] = lambda: None
    """Sets on our devices what is no object of the kernel's; called after each run that went well."""


class Agent:
    def __init__(self, surroundings: Surroundings, status: Status) -> None:
        self._around = surroundings
        self._status = status
        self._overlay = status.overlay = Overlay(surroundings.node)
        self._runner = Runner(self._program, resync_s=RESYNC_S, turn=status.turn)
        # A task of its own: letting a peer in takes a process, and programming peers must not wait for that.
        self._guard = Runner(self._sync_firewall, resync_s=surroundings.firewall_resync_s, turn=lambda: None)
        self._footing = Footing(surroundings.node, surroundings.survey, self._runner.wake)
        self._tenancy = Tenancy(
            surroundings.lessor, surroundings.config, lambda: lease_attrs(self._footing.node), status
        )
        self._healing = status.healing = Healing(self._runner.wake)
        self._convergence = Convergence(surroundings.kernel, self._overlay, self._healing, surroundings.monitor)
        self._patrol = Patrol(surroundings.untold, lambda: self._overlay.objects) if surroundings.untold else None
        self._snapshot: LeaseSnapshot | None = None
        self._changed: set[str] = set()
        self._judged: set[str] = set()
        """Peers that the firewall has not looked at yet."""
        self._skipped = SkippedLog(log, status.history)
        self._peers = PeerHistory(status.history, self._overlay)
        self._healing.history = status.history
        self._tidy_up_due = True
        self._burst, self._newcomers_burst = Burst(*BURST), Burst(*NEWCOMERS_BURST)
        self._guard_burst = Burst(*GUARD_BURST)
        self._up = asyncio.Event()
        self._unannounced = asyncio.Event()
        status.roster = self._roster
        status.firewall, status.monitor = surroundings.firewall, surroundings.monitor
        status.config = surroundings.config

    async def run(self) -> None:
        around = self._around
        if around.monitor:
            judge = Judge(
                lambda: self._overlay.objects,
                self._footing.interfaces,
                decode_link,
                dict(socket.if_nameindex()),
                around.node.instance.protocol,
            )
            around.monitor.start(judge, self._healing.heard)
        if around.firewall:
            around.firewall.watch(self._guard.wake)
            around.firewall.tell(self._status.history)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tenancy.hold(self._lease_taken))
            tasks.create_task(self._follow_leases())
            tasks.create_task(self._runner.run())
            tasks.create_task(self._announce())
            if around.firewall:
                tasks.create_task(self._guard.run())
            if self._patrol:
                tasks.create_task(self._patrol.run(self._runner.wake))

    def _lease_taken(self) -> None:
        self._unannounced.set()
        self._runner.wake()

    async def _announce(self) -> None:
        """Again with each lease: a Node that was deleted and made anew has lost the announcement, too."""
        await self._up.wait()
        while True:
            await self._unannounced.wait()
            self._unannounced.clear()
            await self._around.lessor.announce()

    async def _follow_leases(self) -> None:
        revision = 0
        async with aclosing(follow(self._around.leases)) as steps:
            async for snapshot, changed in steps:
                self._snapshot = snapshot
                self._changed |= changed
                self._runner.wake()
                # What changed goes into the kernel first; the lease is judged, and the next answer read, behind it.
                await asyncio.sleep(0)
                self._tenancy.look_at(snapshot, went_back=snapshot.revision < revision)
                revision = snapshot.revision

    # The underlay

    async def _look_below(self) -> None:
        before = await self._footing.look()
        if before is None:
            return
        node = self._footing.node
        old, new = ([str(each) for each in one.underlay.values()] for one in (before, node))
        if old != new:
            self._status.history.note("underlay", "changed", old=old, new=new, trigger="node")
        if self._around.reconnect and node.underlay != before.underlay:
            await self._around.reconnect()
        self._overlay.stand_on(node)
        self._convergence.start_over()
        self._tenancy.judge()

    # The kernel

    async def _program(self, resync: bool) -> None:  # noqa: FBT001 - the Runner's shape of a job
        for key, actual in (await self._patrol.take() if self._patrol else {}).items():
            self._healing.heard(Drift(key, actual), 0)
        heard = self._healing.take()
        self._convergence.full_pass_due |= resync or heard.everything
        self._tidy_up_due |= resync
        if heard.underlay or self._footing.gap:
            await self._look_below()
        own, snapshot = self._tenancy.own, self._snapshot
        if own is None or snapshot is None or self._footing.gap:
            self._status.waiting_for = self._missing()
            return
        await self._burst_of(heard).gather()
        changed, self._changed = self._changed, set()
        delta = self._overlay.follow(own.record.key, own.lease, snapshot, changed)
        self._peers.followed()
        self._ask_guard(own)
        changes = await self._bring_in(own, snapshot, delta, heard.objects)
        if self._tidy_up_due or changes > MANY:
            self._tidy_up_due = False
            # Not before what this run holds itself is free.
            asyncio.get_running_loop().call_soon(tidy_up)

    def _burst_of(self, heard: Suspicion) -> Burst:
        """What else has to be done never waits for as long as newcomers may."""
        is_urgent = self._convergence.full_pass_due or heard.objects or any(map(self._overlay.lease, self._changed))
        return self._burst if is_urgent or not self._changed else self._newcomers_burst

    async def _bring_in(
        self, own: OwnLease, snapshot: LeaseSnapshot, delta: Delta[Key, Object], suspects: Suspects
    ) -> int:
        """How many changes went in."""
        started = time.monotonic()
        try:
            applied = await self._convergence.bring_in(delta, suspects)
        except Exception as error:
            self._note(started, Delta(), error)
            refused = error.failures if isinstance(error, OverlayError) else []
            self._tell_skipped(snapshot, refused)
            # A peer that the kernel refuses must not keep this node's pods from starting.
            if refused and not concern_device(refused):
                self._write_subnet_file(own)
            raise
        self._around.settle()
        self._note(started, applied, None)
        self._tell_skipped(snapshot, refused=())
        self._write_subnet_file(own)
        self._tell_ready()
        return len(applied)

    # The firewall

    def _ask_guard(self, own: OwnLease) -> None:
        """To look at those that the overlay has just judged, as soon as the kernel has them."""
        if self._around.firewall:
            self._around.firewall.plan(self._footing.node.networks, own.lease.subnets)
            self._judged |= self._overlay.judged
            self._guard.wake()

    async def _sync_firewall(self, resync: bool) -> None:  # noqa: FBT001 - the Runner's shape of a job
        firewall = self._around.firewall
        assert firewall is not None
        await self._guard_burst.gather()
        judged, self._judged = self._judged, set()
        firewall.plan_peers((name, self._sources_of(name)) for name in judged)
        await firewall.sync(resync=resync)
        if resync or not self._up.is_set():  # the first one looks at everything, too
            give_back()
        self._tell_ready()

    def _sources_of(self, peer: str) -> Collection[IPAddress]:
        """Where it sends from; none for one that is not followed."""
        lease = self._snapshot.leases.get(peer) if self._snapshot else None
        return lease.attrs.public_ip.values() if lease and self._overlay.of(peer) else ()

    def _missing(self) -> str:
        if self._footing.gap:
            return f"the underlay: {self._footing.gap}"
        return "lease" if self._tenancy.own is None else "first listing of leases"

    def _write_subnet_file(self, own: OwnLease) -> None:
        """Tell the node's CNI plugins. The file is looked at again now and then: without it no pod starts."""
        if self._status.published == own.lease.subnets and not self._tidy_up_due:
            return
        networks = {family: within.network for family, within in self._around.config.ranges.items()}
        mtu = pod_mtu(self._footing.node)
        text = subnet_file.render(networks, own.lease.subnets, mtu, ip_masq=self._around.ip_masq)
        if subnet_file.read(self._around.subnet_file) != text:
            subnet_file.write(self._around.subnet_file, text)
            log.info("subnet file written", path=self._around.subnet_file, lease=own.record.key)
        self._status.published = own.lease.subnets

    def _tell_ready(self) -> None:
        """Once, when overlay and firewall are both in the kernel."""
        own, firewall = self._tenancy.own, self._around.firewall
        if own is None or not self._convergence.reached or self._up.is_set() or (firewall and not firewall.in_kernel):
            return
        self._up.set()
        self._status.notifier.ready(f"lease {own.record.key}, {self._overlay.peers} peers")

    # What we tell

    def _roster(self) -> Roster | None:
        own = self._tenancy.own
        if own is None or self._snapshot is None:
            return None
        held, reached = self._healing.held, self._convergence.reached
        return Roster(own.record.key, self._footing.node, self._snapshot, self._overlay, held, reached)

    def _note(self, started: float, applied: Delta[Key, Object], error: Exception | None) -> None:
        took_ms = round((time.monotonic() - started) * 1000)
        self._status.reconciled(LastReconcile(time.time(), took_ms, len(applied), str(error) if error else None))
        self._healing.tell(self._overlay.objects)
        held = self._healing.held
        self._status.waiting_for = f"{len(held)} objects that somebody keeps undoing" if held else ""
        if error:
            self._status.waiting_for = f"the kernel: {error}"
        elif applied:
            log.info("reconcile", changes=len(applied), took_ms=took_ms)
            log.debug("changed", objects=describe(applied))

    def _tell_skipped(self, snapshot: LeaseSnapshot, refused: Iterable[Failure]) -> None:
        by_kernel = {str(each.operation.object): each.reason for each in refused}
        failures = {name: Skipped(name, reason) for name, reason in by_kernel.items()}
        self._skipped.tell({**snapshot.skipped, **self._overlay.skipped, **failures})
        self._status.skipped = tuple(self._skipped.current.values())


def tidy_up() -> None:
    forget_addresses()
    give_back()


def concern_device(failures: Iterable[Failure]) -> bool:
    return any(isinstance(failure.operation.object, Link | LinkAddress) for failure in failures)
