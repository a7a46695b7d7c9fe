"""netproxy as a process: a source feeds the tracker, one task owns the kernel, and a socket tells how it goes."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing, suppress

from controlloop.health import HealthServer
from controlloop.logs import Log
from controlloop.notify import Notifier
from controlloop.pulse import Pulse
from controlloop.runner import Runner
from controlloop.runtime import only_one, runtime_directory
from controlloop.skips import SkippedLog
from proxy.config import Settings
from proxy.frontends import ServiceName
from proxy.leftovers import families, leftovers, remove_rules
from proxy.node import Node, Surroundings
from proxy.rules import Rules, engine
from proxy.services import Options
from proxy.sources.opening import open_source
from proxy.status import ProxyStatus
from proxy.tracker import Tracker

log = Log("netproxy")

RESYNC_S = 30.0


def make_rules(settings: Settings, wake: Callable[[], None]) -> Rules:
    """One engine for each family, in the mode that was asked for."""
    surroundings = (Surroundings(family, pods=settings.detection.cluster_cidrs.get(family)) for family in families())
    return Rules({each.family: engine(settings.mode, each, wake) for each in surroundings}, RESYNC_S)


class Netproxy:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tracker = Tracker(Node(settings.node_name), Options(balance=settings.balance))
        self._source = open_source(settings.source)
        self._changed: set[ServiceName] = set()
        self._listed = asyncio.Event()
        self._leftovers_gone = False
        self._notifier = Notifier()
        self._pulse = Pulse(self._notifier)
        self._runner = Runner(self._sync, resync_s=RESYNC_S, turn=self._pulse.turn)
        self._rules = make_rules(settings, self._runner.wake)
        self._skipped = SkippedLog(log)
        self._status = ProxyStatus(settings, self._source, self._rules, self._skipped)

    async def run(self) -> None:
        routes = {**self._status.routes(), "/healthz": self._pulse.healthz}
        async with asyncio.TaskGroup() as group:
            group.create_task(HealthServer(runtime_directory() / "netproxy.sock", routes).run())
            group.create_task(self._follow())
            group.create_task(self._program())
            group.create_task(self._rules.keep_auditing())

    async def _follow(self) -> None:
        async with aclosing(self._source.batches()) as batches:
            async for batch in batches:
                self._changed |= self._tracker.apply(batch)
                self._skipped.tell(self._tracker.skipped)
                if batch.complete:
                    self._listed.set()
                self._runner.wake()

    async def _program(self) -> None:
        """Write nothing before the first list is in: an empty cluster and an unread one look alike."""
        while not self._listed.is_set():
            self._pulse.turn()
            self._notifier.status("waiting for the first list of services")
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._listed.wait()
        await self._runner.run()

    async def _sync(self, resync: bool) -> None:  # noqa: FBT001 - the runner's contract
        changed, self._changed = self._changed, set()
        frontends = [(service, self._tracker.frontends(service)) for service in changed]
        self._rules.plan(frontends)
        try:
            await self._rules.sync()
        finally:
            self._status.count(frontends)
        # Only now, with every service answering in this mode, may what another mode left go.
        if resync and not self._leftovers_gone:
            self._leftovers_gone = not await remove_rules(leftovers(self._settings.mode))
        if self._rules.in_kernel and not self._status.was_ready:
            self._became_ready()

    def _became_ready(self) -> None:
        self._status.was_ready = True
        mode, services = self._settings.mode.value, len(self._tracker.services())
        log.info("ready", services=services, mode=mode, skipped=len(self._skipped.current))
        self._notifier.ready(f"{services} services in {mode} mode")


async def serve(settings: Settings) -> None:
    with only_one("netproxy"):
        if not settings.detection.cluster_cidrs:
            log.warning("without --cluster-cidr nobody knows who is a pod: callers from outside are not masqueraded")
        await Netproxy(settings).run()
