"""When rules are written incrementally, when wholly, and what a failure costs whom."""

import asyncio

import pytest

from controlloop.command import CommandError
from proxy import daemon
from proxy.config import ProxyMode, Settings, SourceKind
from proxy.daemon import Netproxy
from proxy.frontends import Balance, ServiceName
from proxy.sync import ServiceSync

WEB, OTHER = ServiceName("default", "web"), ServiceName("default", "other")


class Names:
    """A planner whose objects are the services' names; frontends are anything that compares."""

    def __init__(self):
        self.objects = {"base": "chain"}

    def replace(self, service, frontends, delta):
        delta.record(str(service), self.objects.get(str(service)), frontends or None)
        self.objects = {**self.objects, str(service): frontends}
        if not frontends:
            del self.objects[str(service)]


class MemoryRules:
    def __init__(self):
        self.rules, self.dumps, self.applied = {}, 0, []
        self.failures = 0

    async def dump(self):
        self.dumps += 1
        return dict(self.rules)

    async def apply(self, delta):
        if self.failures:
            self.failures -= 1
            raise CommandError(["nft", "-f", "-"], 1, "Device or resource busy")
        self.applied.append((dict(delta.put), dict(delta.drop)))
        delta.apply_to(self.rules)

    async def cleanup(self):
        self.rules.clear()


class Engine(ServiceSync):
    def __init__(self):
        self.rules = MemoryRules()
        super().__init__("memory", Names(), self.rules)


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
async def synced(engine):
    """An engine after its first sync, with one service."""
    engine.plan([(WEB, ("a",))])
    await engine.sync(resync=True)
    engine.rules.dumps, engine.rules.applied = 0, []
    return engine


async def test_before_the_first_sync_nothing_is_said_to_be_in_the_kernel(engine):
    assert not engine.in_kernel
    await engine.sync(resync=True)
    assert engine.in_kernel


async def test_the_first_sync_takes_over_what_an_earlier_process_left(engine):
    engine.rules.rules = {"base": "chain", "default/web": ("old",), "default/gone": ("x",)}
    engine.plan([(WEB, ("a",))])
    await engine.sync(resync=True)
    assert engine.rules.rules == {"base": "chain", "default/web": ("a",)}
    assert engine.stats.repairs == 0


async def test_a_change_is_written_without_reading_anything_back(synced):
    synced.plan([(OTHER, ("b",))])
    await synced.sync(resync=False)
    assert synced.rules.applied == [({"default/other": ("b",)}, {})]
    assert synced.rules.dumps == 0


async def test_without_a_change_nothing_is_run(synced):
    synced.plan([(WEB, ("a",))])
    await synced.sync(resync=False)
    assert (synced.rules.applied, synced.rules.dumps) == ([], 0)


async def test_a_service_that_came_and_went_between_two_syncs_costs_nothing(synced):
    synced.plan([(OTHER, ("b",))])
    synced.plan([(OTHER, ())])
    await synced.sync(resync=False)
    assert synced.rules.applied == []


async def test_a_resync_repairs_what_somebody_else_changed_and_counts_it(synced):
    synced.rules.rules = {"base": "chain", "default/web": ("meddled",), "stray": "x"}
    await synced.sync(resync=True)
    assert synced.rules.rules == {"base": "chain", "default/web": ("a",)}
    assert synced.stats.repairs == 2


async def test_after_a_failure_the_next_sync_reads_back_and_nothing_planned_is_lost(synced):
    synced.rules.failures = 1
    synced.plan([(OTHER, ("b",))])
    with pytest.raises(CommandError):
        await synced.sync(resync=False)
    assert not synced.in_kernel
    await synced.sync(resync=False)
    assert synced.rules.dumps >= 1
    assert synced.rules.rules == {"base": "chain", "default/web": ("a",), "default/other": ("b",)}
    assert synced.in_kernel
    assert (synced.stats.failures, synced.stats.repairs) == (1, 0)


async def test_a_cancelled_sync_counts_as_a_failed_one(synced):
    """The program may have been ended before or after the kernel took the change."""

    async def cancelled(_delta):
        raise asyncio.CancelledError

    synced.plan([(OTHER, ("b",))])
    synced.rules.apply = cancelled
    with pytest.raises(asyncio.CancelledError):
        await synced.sync(resync=False)
    assert not synced.in_kernel


@pytest.fixture
def proxy(monkeypatch):
    """A Netproxy whose two families are written into memory."""
    made = [Engine(), Engine()]
    monkeypatch.setattr(daemon, "engines", lambda _settings: made)

    async def nothing_left(_backends):
        return []

    monkeypatch.setattr(daemon, "remove_rules", nothing_left)
    settings = Settings(SourceKind.FILES, (), "", "/nowhere", ProxyMode.NFTABLES, {}, "node-a", Balance.RANDOM)
    return Netproxy(settings), made


@pytest.mark.parametrize("failing", [0, 1])
async def test_a_family_that_fails_leaves_the_other_one_right_and_the_node_unready(proxy, failing):
    netproxy, families = proxy
    families[failing].rules.failures = 1
    with pytest.raises(CommandError):
        await netproxy._sync(resync=True)
    assert families[1 - failing].rules.rules == {"base": "chain"}
    assert netproxy._status.readyz().status == 503
    await netproxy._sync(resync=True)
    assert families[failing].rules.rules == {"base": "chain"}
    assert netproxy._status.readyz().status == 200
