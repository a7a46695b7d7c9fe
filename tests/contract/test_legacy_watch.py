"""Changes to iptables-legacy that somebody else makes are noticed, and our own are not."""

import asyncio

import pytest
from deadline import PATIENCE_S

from controlloop.command import run
from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.iptables.kernel import Variant
from controlloop.reconcile import reconcile
from proxy.iptables.desired import IptablesPlanner
from proxy.iptables.kernel import IptablesBackend
from proxy.node import Surroundings

OURS = ("filter", "NETPROXY-EXTRA")


@pytest.fixture
def planner():
    return IptablesPlanner(Surroundings(Family.V4, localhost_node_ports=True))


@pytest.fixture
async def backend(netns, planner):
    made = IptablesBackend(Family.V4, Variant.LEGACY)
    await reconcile(lambda: planner.objects, made)
    return made


@pytest.fixture
async def woken(backend, planner):
    """(an event for each time that somebody woke us, the watch)"""
    event = asyncio.Event()
    watch = await backend.watch(lambda: planner.objects)
    watch.start(event.set)
    yield event, watch
    watch.close()


@pytest.mark.parametrize(
    "change",
    ["-F", "-t nat -F NETPROXY-POSTROUTING", "-t raw -D PREROUTING 1", "-t nat -D OUTPUT -j NETPROXY-SERVICES"],
)
async def test_a_change_of_somebody_else_wakes_us(woken, change):
    event, watch = woken
    await run(["iptables-legacy", "-w", *change.split()])
    async with asyncio.timeout(PATIENCE_S):
        await event.wait()
    assert watch.take().everything
    assert not watch.take()


async def test_what_we_write_is_not_drift(woken, backend):
    _, watch = woken
    await backend.apply(Delta(put={OURS: ("-j RETURN",)}))
    await backend.apply(Delta(drop={OURS: ("-j RETURN",)}))
    assert not watch.take()


async def test_what_changed_before_we_write_is(woken, backend):
    _, watch = woken
    await run(["iptables-legacy", "-w", "-F"])
    await backend.apply(Delta(put={OURS: ("-j RETURN",)}))
    assert watch.take().everything


async def test_a_closed_watch_keeps_nobody_from_writing(woken, backend):
    _, watch = woken
    watch.close()
    await backend.apply(Delta(put={OURS: ("-j RETURN",)}))
    assert not watch.take()
