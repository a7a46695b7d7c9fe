"""The patrol against a place that changes while nobody tells."""

import asyncio

import pytest
from deadline import PATIENCE_S

from netagent import patrol
from netagent.patrol import LOOK_S, SHARE, USUAL, Patrol
from netagent.state import Key

PEER = Key("wireguard peer", ("flannel-wg", "key"))


class Place:
    def __init__(self):
        self.differs, self.looks = {}, 0

    async def look(self, desired):
        assert desired == {"what": "is desired"}
        self.looks += 1
        return dict(self.differs)


@pytest.fixture
def place():
    return Place()


async def woken(place, one):
    """Let it walk until it wakes us."""
    awake = asyncio.Event()
    walk = asyncio.create_task(one.run(awake.set))
    await asyncio.wait_for(awake.wait(), PATIENCE_S)
    walk.cancel()
    await asyncio.wait([walk])


async def test_it_goes_again_and_again_and_wakes_only_when_something_differs(place, monkeypatch):
    monkeypatch.setattr(patrol, "LOOK_S", 0.001)
    monkeypatch.setattr(patrol, "SHARE", 1e-9)
    one, awake = Patrol(place.look, lambda: {"what": "is desired"}), asyncio.Event()
    walk = asyncio.create_task(one.run(awake.set))
    async with asyncio.timeout(PATIENCE_S):
        while place.looks < 3:  # noqa: ASYNC110 - any turn of the loop may make it true
            await asyncio.sleep(0)
        assert not awake.is_set()
        place.differs = {PEER: None}
        await awake.wait()
    walk.cancel()
    await asyncio.wait([walk])
    assert await one.take() == {PEER: None}


async def test_what_is_as_desired_by_now_was_a_change_of_our_own(place):
    one = Patrol(place.look, lambda: {"what": "is desired"})
    place.differs = {PEER: None}
    await woken(place, one)
    place.differs = {}
    assert await one.take() == {}


async def test_whoever_writes_need_not_look_before_something_was_found(place):
    one = Patrol(place.look, lambda: {"what": "is desired"})
    place.differs = {PEER: None}
    assert await one.take() == {}
    assert place.looks == 0
    await woken(place, one)
    assert await one.take() == {PEER: None}
    looks = place.looks
    assert await one.take() == {}
    assert place.looks == looks


def pauses(one, *spent_s):
    return [one._pause_s(each) for each in spent_s]


def test_the_dearer_looks_are_the_fewer_are_made(place):
    assert pauses(Patrol(place.look, dict), *[0.5 * LOOK_S / SHARE] * 20) == [LOOK_S] * 20
    assert pauses(Patrol(place.look, dict), *[2 * LOOK_S / SHARE] * 20) == [2 * LOOK_S] * 20


def test_a_few_dear_looks_do_not_keep_the_next_from_coming_soon_but_many_in_a_row_do(place):
    made = pauses(Patrol(place.look, dict), 0.0, *[2 * LOOK_S / SHARE] * 20)
    assert made == [LOOK_S] * USUAL + [2 * LOOK_S] * (21 - USUAL)
