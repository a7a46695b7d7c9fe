"""What is written while the first plan is made, and what becomes of a kernel that refuses it."""

import asyncio

import pytest
from test_sync import Engine

from controlloop.command import CommandError
from proxy.frontends import ServiceName
from proxy.head_start import LEAST, MOST, HeadStart


def services(first, count):
    return [(ServiceName("default", f"s{number}"), ("a",)) for number in range(first, first + count)]


@pytest.fixture
async def engine():
    made = Engine()
    made.rules.is_quick = True
    await made.prepare()
    return made


async def turns(count=20):
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_nothing_leads_to_is_written_before_the_first_sync_and_the_rest_by_it(engine):
    engine.plan(services(0, LEAST))
    await turns()
    assert len(engine.rules.rules) == LEAST
    assert "base" not in engine.rules.rules
    engine.plan(services(LEAST, 10))
    await engine.sync()
    assert engine.rules.rules == engine.desired
    assert [len(put) for put, _ in engine.rules.applied] == [LEAST, 11]
    assert not engine.rules.dumps


async def test_little_is_not_worth_a_portion(engine):
    engine.plan(services(0, LEAST - 1))
    await turns()
    assert not engine.rules.applied
    await engine.sync()
    assert len(engine.rules.applied) == 1


async def test_a_change_of_mind_is_written_by_the_first_sync(engine):
    engine.plan(services(0, LEAST))
    await turns()
    name = ServiceName("default", "s0")
    engine.plan([(name, ("b",)), (ServiceName("default", "s1"), ())])
    await engine.sync()
    assert engine.rules.rules == engine.desired
    assert engine.rules.rules["default/s0"] == ("b",)
    assert "default/s1" not in engine.rules.rules


async def test_where_something_of_ours_is_nothing_goes_ahead():
    engine = Engine()
    engine.rules.is_quick = True
    engine.rules.rules = {"default/gone": ("x",)}
    await engine.prepare()
    engine.plan(services(0, LEAST))
    await turns()
    assert not engine.rules.applied
    await engine.sync()
    assert engine.rules.rules == engine.desired


async def test_one_that_is_refused_costs_the_others_nothing(engine):
    bad = ServiceName("default", "bad")
    engine.plan([(bad, ("refused",)), *services(0, LEAST)])
    await turns()
    assert not engine.rules.rules
    await engine.sync()
    assert engine.quarantined.keys() == {bad}
    assert len(engine.rules.rules) == LEAST + 1


class Slow:
    """Writes one portion when it is told to."""

    may_last = True

    def __init__(self):
        self.go, self.portions = asyncio.Event(), []

    def goes_ahead(self, _key, _value):
        return True

    async def apply_ahead(self, delta):
        await self.go.wait()
        self.portions.append(len(delta.put))
        if len(self.portions) > 2:
            raise CommandError(["nft"], 1, "Invalid argument")


async def test_while_a_portion_is_under_way_the_next_one_gathers_up_to_a_limit():
    slow = Slow()
    start = HeadStart(slow, {})
    start.go_on(dict.fromkeys(range(LEAST), "a"))
    await turns()
    start.go_on(dict.fromkeys(range(LEAST, LEAST + MOST + 100), "a"))
    await turns()
    slow.go.set()
    await turns()
    start.go_on({})
    assert (await start.finish()).keys() == set(range(LEAST + MOST))
    assert slow.portions == [LEAST, MOST]


async def test_what_the_kernel_holds_is_unknown_after_a_refusal():
    slow = Slow()
    slow.go.set()
    start = HeadStart(slow, {})
    for portion in range(4):
        start.go_on(dict.fromkeys(range(portion * LEAST, (portion + 1) * LEAST), "a"))
        await turns()
    assert await start.finish() is None
    assert len(slow.portions) == 3
