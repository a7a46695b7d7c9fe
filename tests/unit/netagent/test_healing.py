"""What is kept of notifications, and how much of it may be repaired."""

import asyncio
import os

import pytest
from deadline import PATIENCE_S

from controlloop.delta import Delta
from controlloop.repairs import BURST
from netagent.drift import Drift
from netagent.healing import KERNEL_CHOSE, NAMED, PROCESS_BITS, SUSPECTS, Healing
from netagent.state import Key

ROUTE, LINK = Key("route", 1), Key("link", "flannel.1")


class Woken:
    def __init__(self):
        self.count = 0
        self.event = asyncio.Event()

    def __call__(self):
        self.count += 1
        self.event.set()


@pytest.fixture
async def woken():
    return Woken()


@pytest.fixture
async def healing(woken):
    return Healing(woken)


async def gathered(woken):
    async with asyncio.timeout(PATIENCE_S):
        await woken.event.wait()
    woken.event.clear()


async def test_what_comes_together_wakes_once(healing, woken):
    for number in range(5):
        healing.heard(Drift(Key("route", number)), 0)
    await gathered(woken)
    assert woken.count == 1
    assert len(healing.take().objects) == 5
    assert not healing.take().objects


async def test_a_run_for_another_reason_leaves_it_to_gather(healing, woken):
    healing.heard(Drift(ROUTE), 0)
    assert not healing.take().objects
    await gathered(woken)
    assert healing.take().objects == {ROUTE: None}


async def test_what_settled_by_itself_is_no_suspect(healing, woken):
    healing.heard(Drift(ROUTE), 0)
    healing.heard(Drift(ROUTE, settled=True), 0)
    await gathered(woken)
    assert not healing.take().objects


async def test_it_holds_no_more_than_its_limit(healing, woken):
    for number in range(3 * SUSPECTS):
        healing.heard(Drift(Key("route", number)), number)
    await gathered(woken)
    taken = healing.take()
    assert taken.everything
    assert len(taken.objects) <= SUSPECTS
    assert len(healing._writers) <= SUSPECTS + 1


async def test_a_repair_is_what_differs_between_seen_and_desired(healing):
    repair = healing.repair(
        {ROUTE: None, Key("route", 2): "stray", Key("route", 3): "same"}, {ROUTE: "r", Key("route", 3): "same"}
    )
    assert repair == Delta({ROUTE: "r"}, {Key("route", 2): "stray"})
    assert healing.repairs == {"route": 2}


async def test_a_device_that_is_fought_over_holds_back_what_stands_on_it(healing):
    for _ in range(BURST):
        healing.repair({LINK: None}, {LINK: "link"})
    found = Delta({LINK: "link", ROUTE: "r"})
    assert not healing.admit(found)
    assert healing.held == {LINK, ROUTE}
    assert healing.repairs == {"link": BURST}


async def test_what_we_want_ourselves_is_neither_counted_nor_held(healing):
    for _ in range(3 * BURST):
        assert healing.admit(Delta({ROUTE: "r"}), expected={ROUTE})
    assert not healing.repairs


async def test_of_many_fights_some_are_named_and_the_others_counted(healing):
    routes = {Key("route", number): None for number in range(NAMED + 5)}
    for _ in range(BURST + 1):
        healing.repair(routes, dict.fromkeys(routes, "wanted"))
    findings = healing.findings(dict.fromkeys(routes, "wanted"))
    assert [finding.name for finding in findings] == ["wanted"] * NAMED + ["5 more objects"]


async def test_a_fight_is_told_with_who_was_heard_last(healing):
    healing.heard(Drift(ROUTE), 2**PROCESS_BITS - 1)
    for _ in range(BURST + 1):
        healing.repair({ROUTE: None}, {ROUTE: "10.5.2.0/24 dev flannel.1"})
    [finding] = healing.findings({ROUTE: "10.5.2.0/24 dev flannel.1"})
    assert finding.name == "10.5.2.0/24 dev flannel.1"
    assert f"process {2**PROCESS_BITS - 1}, which is gone" in finding.reason


@pytest.mark.parametrize("foe", [1, 1 + (20 << PROCESS_BITS)])  # the first socket of a process, and a further one
@pytest.mark.parametrize(
    "ours",
    [os.getpid(), os.getpid() + (20 << PROCESS_BITS), KERNEL_CHOSE + 7],
    ids=["first socket", "another socket", "chosen by the kernel"],
)
async def test_what_we_do_to_a_device_does_not_hide_who_fights_over_it(healing, foe, ours):
    for _ in range(BURST + 1):
        healing.heard(Drift(LINK), foe)
        healing.heard(Drift(LINK), ours)
        healing.admit(Delta({LINK: "device"}))
    (finding,) = healing.findings({LINK: "device"})
    assert "(process 1)" in finding.reason
