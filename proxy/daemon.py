"""netproxy as a process: a source feeds the tracker, one task owns the kernel, and a socket tells how it goes."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from controlloop import __version__
from controlloop.command import CommandError
from controlloop.etcd import Etcd
from controlloop.family import Family
from controlloop.health import HealthServer, json_answer, yes_or_no
from controlloop.logs import Log
from controlloop.notify import Notifier
from controlloop.runner import Runner
from controlloop.runtime import runtime_directory
from proxy.config import ProxyMode, Settings, SourceKind
from proxy.frontends import ServiceName
from proxy.iptables.desired import IptablesPlanner
from proxy.iptables.kernel import IptablesBackend
from proxy.nftables.desired import NftablesPlanner
from proxy.nftables.kernel import NftablesBackend
from proxy.sources import Source
from proxy.sources.etcd import EtcdSource
from proxy.sources.files import FilesSource
from proxy.sync import ServiceSync
from proxy.tracker import Tracker

log = Log("netproxy")

RESYNC_S = 30.0


def families() -> list[Family]:
    """Those the kernel speaks; it may be built or booted without IPv6."""
    return [family for family in Family if family is Family.V4 or Path("/proc/net/if_inet6").exists()]


def engines(settings: Settings) -> list[ServiceSync[Any, Any]]:
    """One engine for each family, in the mode that was asked for. `Any`: the two modes have objects of their own."""
    made: list[ServiceSync[Any, Any]] = []
    for family in families():
        cidr = settings.cluster_cidrs.get(family)
        name = f"{settings.mode.value}-{family.nft}"
        if settings.mode is ProxyMode.NFTABLES:
            made.append(ServiceSync(name, NftablesPlanner(family, cidr), NftablesBackend(family)))
        else:
            made.append(ServiceSync(name, IptablesPlanner(family, cidr), IptablesBackend(family)))
    return made


def make_source(settings: Settings) -> Source:
    if settings.source is SourceKind.FILES:
        return FilesSource(Path(settings.manifests))
    return EtcdSource(Etcd(settings.etcd_endpoints), settings.etcd_prefix)


class Netproxy:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tracker = Tracker(settings.node_name, settings.balance)
        self._engines = engines(settings)
        self._changed: set[ServiceName] = set()
        self._listed = asyncio.Event()
        self._notifier = Notifier()
        self._ready = False
        self._runner = Runner(self._sync, resync_s=RESYNC_S, turn=self._notifier.watchdog)

    async def run(self) -> None:
        routes = {"/status": self._status, "/healthz": self._healthz, "/readyz": self._readyz}
        async with asyncio.TaskGroup() as group:
            group.create_task(HealthServer(runtime_directory() / "netproxy.sock", routes).run())
            group.create_task(self._follow(make_source(self._settings)))
            group.create_task(self._program())

    async def _follow(self, source: Source) -> None:
        async for batch in source.batches():
            self._changed |= self._tracker.apply(batch)
            if batch.listed:
                self._listed.set()
            self._runner.wake()

    async def _program(self) -> None:
        """Write nothing before the first list is in: an empty cluster and an unread one look alike."""
        while not self._listed.is_set():
            self._notifier.watchdog()
            try:
                async with asyncio.timeout(1.0):
                    await self._listed.wait()
            except TimeoutError:
                self._notifier.status("waiting for the first list of services")
        await self._runner.run()

    async def _sync(self, resync: bool) -> None:  # noqa: FBT001 - the runner's contract
        changed, self._changed = self._changed, set()
        frontends = [(service, self._tracker.frontends(service)) for service in changed]
        for engine in self._engines:
            engine.plan(frontends)
        # One family's failure must not keep the other family's services from being right.
        outcomes = await asyncio.gather(
            *(engine.sync(resync=resync) for engine in self._engines), return_exceptions=True
        )
        for failure in filter(None, outcomes):
            raise failure
        if not self._ready:
            await self._became_ready()

    async def _became_ready(self) -> None:
        self._ready = True
        # Only now, with every service answering in this mode, may the other mode's rules go.
        await remove_rules_of(other_mode(self._settings.mode))
        services = len(list(self._tracker.services()))
        log.info("ready", services=services, mode=self._settings.mode.value, skipped=len(self._tracker.skipped))
        self._notifier.ready(f"{services} services in {self._settings.mode.value} mode")

    def _status(self) -> Any:
        return json_answer(self._document())

    def _document(self) -> dict[str, Any]:
        names = list(self._tracker.services())
        frontends = [frontend for name in names for frontend in self._tracker.frontends(name)]
        return {
            "apiVersion": "nodenet.io/v1alpha1",
            "kind": "NetproxyStatus",
            "version": __version__,
            "node": self._settings.node_name,
            "mode": self._settings.mode.value,
            "source": self._settings.source.value,
            "ready": self._in_kernel(),
            "services": len(names),
            "frontends": len(frontends),
            "endpoints": sum(len(frontend.endpoints) for frontend in frontends),
            "skipped": [{"name": item.name, "reason": item.reason} for item in self._tracker.skipped.values()],
            "rules": {engine.name: engine.stats for engine in self._engines},
        }

    def _in_kernel(self) -> bool:
        return self._ready and all(engine.in_kernel for engine in self._engines)

    def _healthz(self) -> Any:
        return yes_or_no(good=True, text="the loop turns")

    def _readyz(self) -> Any:
        ready = self._in_kernel()
        return yes_or_no(good=ready, text="the kernel holds what is desired" if ready else "not in sync")


def other_mode(mode: ProxyMode) -> ProxyMode:
    return ProxyMode.IPTABLES if mode is ProxyMode.NFTABLES else ProxyMode.NFTABLES


def backends_of(mode: ProxyMode) -> Iterator[NftablesBackend | IptablesBackend]:
    make = NftablesBackend if mode is ProxyMode.NFTABLES else IptablesBackend
    return (make(family) for family in families())


async def remove_rules_of(mode: ProxyMode) -> None:
    """Best effort: what cannot be read (a program that is not installed) cannot be ours."""
    for backend in backends_of(mode):
        try:
            await backend.cleanup()
        except CommandError as error:
            log.warning("cleanup failed", mode=mode.value, error=error)


async def cleanup() -> None:
    for mode in ProxyMode:
        await remove_rules_of(mode)


async def serve(settings: Settings) -> None:
    await Netproxy(settings).run()
