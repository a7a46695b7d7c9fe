"""What two tasks may do to one engine between any two of its steps, and what a failure may leave half done."""

import asyncio

import pytest

from controlloop.command import CommandError
from tests.unit.proxy.test_sync import BAD, OTHER, WEB, Engine

REFUSED, GOOD = ("refused",), ("b",)


class Gate:
    """Holds whoever comes until it is opened."""

    def __init__(self):
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def __call__(self):
        self.reached.set()
        await self.opened.wait()


@pytest.fixture(params=[False, True], ids=["asking changes nothing", "asking is doing"])
async def engine(request):
    """After its first sync and audit, with one service."""
    engine = Engine(asking_changes=request.param)
    engine.plan([(WEB, ("a",))])
    await engine.sync()
    await engine.start_watch()
    await engine.audit()
    return engine


def before(monkeypatch, engine, method, step):
    """Let `step` come first, the next time that the backend is asked."""
    original = getattr(engine.rules, method)

    async def gated(*arguments):
        monkeypatch.setattr(engine.rules, method, original)
        await step()
        return await original(*arguments)

    monkeypatch.setattr(engine.rules, method, gated)


async def failing():
    raise CommandError(["nft"], 1, "Cannot allocate memory")


@pytest.mark.parametrize("step", ["dump", "refusal"])
async def test_a_search_for_culprits_that_fails_forgets_no_change(engine, monkeypatch, step):
    engine.plan([(OTHER, GOOD)])
    engine.rules.failures = 1
    before(monkeypatch, engine, step, failing)
    with pytest.raises(CommandError, match="memory"):
        await engine.sync()
    await engine.sync()
    assert engine.rules.rules["default/other"] == GOOD


async def test_a_retry_in_the_middle_of_a_sync_is_not_taken_for_written(engine, monkeypatch):
    engine.plan([(BAD, REFUSED)])
    await engine.sync()
    gate = Gate()
    before(monkeypatch, engine, "apply", gate)
    engine.plan([(OTHER, GOOD)])
    running = asyncio.create_task(engine.sync())
    await gate.reached.wait()
    engine.retry_quarantined()
    gate.opened.set()
    await running
    await engine.sync()
    assert BAD in engine.quarantined
    assert engine.rules.rules == {"base": "chain", "default/web": ("a",), "default/other": GOOD}


async def test_a_retry_wakes_whoever_syncs(engine):
    engine.plan([(BAD, REFUSED)])
    await engine.sync()
    engine.woken.clear()
    engine.retry_quarantined()
    assert engine.woken.is_set()


@pytest.mark.parametrize("change", [GOOD, ()], ids=["changed", "deleted"])
async def test_an_audit_that_begins_while_a_change_is_written_takes_it_for_nobodys(engine, monkeypatch, change):
    gate = Gate()
    before(monkeypatch, engine, "apply", gate)
    engine.plan([(WEB, change)])
    running = asyncio.create_task(engine.sync())
    await gate.reached.wait()
    await engine.audit()
    gate.opened.set()
    await running
    assert engine.in_kernel
    await engine.sync()
    assert not engine.stats.repaired


async def test_an_audit_while_a_sync_asks_what_drifted_takes_no_change_for_drift(engine, monkeypatch):
    gate = Gate()
    before(monkeypatch, engine, "look", gate)
    engine.rules.watching.drift.unread.add("base")
    engine.plan([(WEB, GOOD)])
    running = asyncio.create_task(engine.sync())
    await gate.reached.wait()
    await engine.audit()
    gate.opened.set()
    await running
    assert engine.in_kernel
    await engine.sync()
    assert not engine.stats.repaired


async def test_what_is_held_back_has_one_timer(engine, monkeypatch):
    timers = []
    loop = asyncio.get_running_loop()
    call_later = loop.call_later
    monkeypatch.setattr(loop, "call_later", lambda *what: timers.append(call_later(*what)) or timers[-1])
    for _ in range(30):
        engine.rules.rules.clear()
        engine.rules.watching.drift.actual |= {"base": None, "default/web": None}
        await engine.sync()
    assert len([timer for timer in timers if not timer.cancelled()]) == 1
