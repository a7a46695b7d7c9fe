"""netproxy as a process: a source feeds the tracker, one task owns the rules, and sockets tell how it goes."""

import asyncio
import gc
import time
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from controlloop.command import CommandError, find
from controlloop.errors import OperatorError
from controlloop.family import Family, IPAddress
from controlloop.history import History
from controlloop.logs import Log
from controlloop.notify import Notifier
from controlloop.pulse import Pulse
from controlloop.runner import Runner
from controlloop.runtime import only_one
from controlloop.skips import SkippedLog
from proxy import sysctls
from proxy.belief_pages import BeliefPages
from proxy.change_history import ChangeHistory
from proxy.config import DetectLocal, ProxyMode, Settings, apply_live
from proxy.conntrack.keeper import FlowKeeper
from proxy.counting.kernel import read_counts
from proxy.frontends import Frontend, ServiceName
from proxy.iptables.kernel import IptablesBackend, affinity_limit
from proxy.leftovers import families, leftovers, remove_rules, tell_of_kube_proxy
from proxy.node import Node
from proxy.node_watch import NodeWatch
from proxy.rules import BALANCES, Rules, counter, engine
from proxy.servers import Servers
from proxy.service_counts import ServiceCounts
from proxy.services import Options
from proxy.sources.opening import open_source
from proxy.status import ProxyStatus
from proxy.tracker import Tracker

AT_ONCE = 500
"""Services planned before anybody else has a turn: 30 ms."""
LAST_WORDS_S = 2.0
"""What an Event may take that tells why we exit."""

log = Log("netproxy")

Changes = Sequence[tuple[ServiceName, tuple[Frontend, ...]]]


class Netproxy:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        opened = open_source(settings)
        self._source, self._events = opened.source, opened.events
        limit = next(filter(None, map(affinity_limit, families())), "") if settings.mode is ProxyMode.IPTABLES else ""
        options = Options(settings.balance, BALANCES[settings.mode], settings.external_ranges, settings.drain_s, limit)
        self._tracker = Tracker(Node(settings.node_name), options, datetime.now(UTC))
        self._changed: set[ServiceName] = set()
        self._unfinished: dict[ServiceName, tuple[Frontend, ...]] = {}
        """Planned, and perhaps not yet written by every family."""
        self._listed = asyncio.Event()
        self._leftovers_gone = False
        self._next_drain: asyncio.TimerHandle | None = None
        self._notifier = Notifier()
        self._pulse = Pulse(self._notifier)
        self._runner = Runner(self._sync, resync_s=settings.sync_period_s, turn=self._turn)
        self._cleaner = Runner(self._clean_flows, resync_s=settings.sync_period_s, turn=lambda: None)
        self._watch = NodeWatch(settings, opened.nodes, self._runner.wake)
        self._around = {family: self._watch.surroundings(family) for family in families()}
        wake = self._runner.wake
        counted = self._around if settings.service_counters else {}
        self._rules = Rules(
            {family: engine(settings.mode, each, wake) for family, each in self._around.items()},
            {family: counter(each, wake) for family, each in counted.items()},
            settings.sync_period_s,
        )
        self._flows = FlowKeeper(lambda family: {address.packed for address in self._serving(family)})
        history = History()
        self._changes = ChangeHistory(history)
        self._skipped = SkippedLog(log, history)
        self._status = ProxyStatus(settings, self._source, self._tracker, self._rules, self._skipped)
        self._status.flows = self._flows
        self._pages = BeliefPages(settings.mode, self._tracker, self._rules, self._around.values)
        if counted:
            self._status.counts = ServiceCounts(partial(read_counts, counted))
        self._status.pending = lambda: len(self._changed)

    async def run(self, changed_settings: AsyncGenerator[Settings, None]) -> None:
        async with asyncio.TaskGroup() as group:
            routes = {**self._status.routes(), **self._pages.routes()}
            group.create_task(Servers(self._settings, routes, self._not_served).run())
            group.create_task(self._watch.run())
            group.create_task(self._follow())
            group.create_task(self._follow_settings(changed_settings))
            group.create_task(self._program())
            group.create_task(self._rules.keep_auditing())
            if self._events:
                group.create_task(self._events.run())
                self._events.starting()

    async def _not_served(self, page: str, reason: str) -> None:
        if self._events:
            self._events.not_served(page, reason)
            if self._settings.bind_hard_fail:
                await self._events.sent(LAST_WORDS_S)

    async def _follow(self) -> None:
        async with aclosing(self._source.batches()) as batches:
            async for batch in batches:
                self._status.meters.took_in(batch.updates, time.time())
                changed = self._tracker.apply(batch)
                self._changes.heard(batch.updates, changed)
                self._skipped.tell(self._tracker.skipped)
                if changed:
                    self._changed |= changed
                    self._status.liveness.queued()
                if batch.complete:
                    self._listed.set()
                elif self._rules.plan_early:
                    # Of the others more is to come, as a rule.
                    self._plan([service for service in changed if self._tracker.slices_of(service)])
                self._runner.wake()

    async def _follow_settings(self, changed_settings: AsyncGenerator[Settings, None]) -> None:
        async with aclosing(changed_settings) as changes:
            async for wanted in changes:
                before = self._settings
                self._settings, waiting = apply_live(before, wanted)
                self._changes.configured(before, self._settings)
                log.info("configuration changed", waits_for_restart=" ".join(waiting) or "nothing")
                self._watch.apply(self._settings)

    async def _program(self) -> None:
        """Write nothing before the first list is in: an empty cluster and an unread one look alike."""
        await self._rules.prepare()
        await self._wait("the first list of services", self._listed.wait())
        await self._wait("the own node", self._watch.known())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._runner.run())
            group.create_task(self._cleaner.run())

    async def _wait(self, what: str, until: Coroutine[Any, Any, object]) -> None:
        task = asyncio.ensure_future(until)
        try:
            while not task.done():
                self._turn()
                self._notifier.status(f"waiting for {what}")
                await asyncio.wait([task], timeout=1.0)
        finally:
            task.cancel()

    def _turn(self) -> None:
        self._pulse.turn()
        self._status.onsets.look()

    def _settle(self) -> None:
        """Take in what is different around us since the last sync."""
        self._status.liveness.node_eligible = self._watch.is_eligible
        self._changed |= self._tracker.settle(self._watch.node)
        ports = frozenset(check.port for check in self._tracker.health_checks().values())
        for family, before in self._around.items():
            now = replace(self._watch.surroundings(family), health_check_ports=ports)
            if now != before:
                self._around[family] = now
                self._rules.settle(now)

    def _serving(self, family: Family) -> frozenset[IPAddress]:
        """Where node ports are served."""
        chosen = self._around[family].node_port_addresses
        return self._watch.local_addresses(family) if chosen is None else chosen

    def _health_check_addresses(self) -> Iterator[str]:
        """As kube-proxy: where node ports are served, or everywhere."""
        for family, around in self._around.items():
            if around.node_port_addresses is None:
                yield "0.0.0.0" if family is Family.V4 else "::"  # noqa: S104 - what a load balancer calls
            else:
                yield from sorted(map(str, around.node_port_addresses))

    async def _sync(self, resync: bool) -> None:  # noqa: FBT001 - the runner's contract
        self._status.liveness.queued()  # nobody else tells of drift, and of what came while the last sync ran
        self._settle()
        for some in batched(set(self._changed), AT_ONCE):
            self._plan(some)
            await asyncio.sleep(0)  # what is planned may be on its way to the kernel
        triggers = [trigger for service in self._unfinished for trigger in self._tracker.take_triggers(service)]
        await self._rules.sync(partial(self._written, triggers))
        if not gc.isenabled():
            gc.freeze()
            gc.enable()  # the start is over
        await self._finish()
        # Only now, with every service answering in this mode, may what another mode left go.
        if resync and not self._leftovers_gone:
            unused = await leftovers(self._settings.mode, counts=self._settings.service_counters)
            self._leftovers_gone = not await remove_rules(unused)
            await tell_of_kube_proxy()
            if any(isinstance(one, IptablesBackend) and one.closed_loopback for one in unused):
                self._rules.ask_for_audits()
        if self._rules.in_kernel and not self._status.was_ready:
            self._became_ready()

    def _plan(self, services: Sequence[ServiceName]) -> None:
        self._changed.difference_update(services)
        changes = [(service, self._tracker.frontends(service)) for service in services]
        self._unfinished.update(changes)
        self._status.note(changes)
        self._rules.plan(changes)

    def _written(self, triggers: Sequence[datetime], family: Family) -> None:
        stats = self._rules.engines[family].stats
        self._status.programmed(f"IPv{family.value}", stats, triggers, datetime.now(UTC))

    async def _finish(self) -> None:
        """What follows once the rules are in the kernel."""
        finished, self._unfinished = self._unfinished, {}
        self._changes.programmed(finished, self._flows.frontends)
        self._flows.note(finished.items())
        if finished:
            self._cleaner.wake()
        checks = self._status.health_checks
        await checks.settle(self._tracker.health_checks(), tuple(self._health_check_addresses()))
        if self._events:
            self._events.troubled(checks.failures, dict(self._rules.quarantined()))
            for name, reason in self._rules.fights():
                self._events.fought(name, reason)

    async def _clean_flows(self, resync: bool) -> None:  # noqa: FBT001 - the runner's contract
        del resync  # what is due is due
        await self._flows.clean()
        self._status.meters.cleaned(self._flows.last_duration_s)
        if self._next_drain:
            self._next_drain.cancel()
        if (due_s := self._flows.next_due_s) is not None:
            self._next_drain = asyncio.get_running_loop().call_later(due_s, self._cleaner.wake)

    def _became_ready(self) -> None:
        self._status.was_ready = True
        mode, services = self._settings.mode.value, len(self._tracker.services())
        log.info("ready", services=services, mode=mode, skipped=len(self._skipped.current))
        self._notifier.ready(f"{services} services in {mode} mode")


def batched(services: Iterable[ServiceName], most: int) -> Iterator[list[ServiceName]]:
    left = iter(services)
    while some := list(islice(left, most)):
        yield some


async def serve(settings: Settings, changed_settings: AsyncGenerator[Settings, None]) -> None:
    check_programs(settings)
    with only_one("netproxy"):
        proxy = Netproxy(settings)  # first of all, as it refuses what cannot be used
        prepare(settings)
        if settings.detection.mode is DetectLocal.CLUSTER_CIDR and not settings.detection.cluster_cidrs:
            log.warning("without --cluster-cidr nobody knows who is a pod: callers from outside are not masqueraded")
        await proxy.run(changed_settings)


def check_programs(settings: Settings) -> None:
    """OperatorError when this host has no program for the mode: no other mode is taken in its place."""
    needed = {f"--proxy-mode {settings.mode.value}": "nft" if settings.mode is ProxyMode.NFTABLES else "iptables"}
    if settings.service_counters:
        needed["--service-counters"] = "nft"
    for flag, program in needed.items():
        try:
            find(program)
        except CommandError as error:
            raise OperatorError(f"{flag}: {error.stderr}") from error


async def initialise(settings: Settings) -> None:
    """--init-only: what needs more rights than the daemon has."""
    prepare(settings)


def prepare(settings: Settings) -> None:
    """Settings of the kernel. Without the right to make them the daemon runs all the same, and says so."""
    for problem in sysctls.apply(settings):
        log.warning("not set", problem=problem)
    try:
        Path("/proc/self/oom_score_adj").write_text(f"{settings.oom_score_adj}\n")
    except OSError as error:
        log.info("not set", problem=f"oom_score_adj {settings.oom_score_adj}: {error.strerror}")
