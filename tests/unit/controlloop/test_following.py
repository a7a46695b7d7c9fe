"""A listing and what changes after it, through gaps, outages and silence."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass

from deadline import PATIENCE_S

from controlloop.errors import CompactedError, UnavailableError
from controlloop.following import Following


@dataclass(frozen=True)
class Step:
    revision: int
    part: str = "changed"


class Scripted:
    """Each call plays the next scene: steps, and perhaps an error at its end. A scene without one goes on in silence
    when it is a watch.
    """

    def __init__(self, *scenes):
        self.scenes = list(scenes)
        self.calls = []
        self.unheard = 0.0
        self.following = Following("things", self._listing, self._watch, lambda: self.unheard)

    async def _listing(self):
        self.calls.append("list")
        for step in self._scene():
            yield step

    async def _watch(self, after):
        self.calls.append(f"watch {after}")
        for step in self._scene():
            yield step
        await asyncio.Event().wait()

    def _scene(self):
        for step in self.scenes.pop(0) if self.scenes else ():
            if isinstance(step, Exception):
                raise step
            yield step

    async def take(self, count):
        async with aclosing(self.following.news()) as news, asyncio.timeout(PATIENCE_S):
            return [await anext(news) for _ in range(count)]


async def test_a_watch_begins_where_the_last_part_of_the_listing_ends():
    script = Scripted([Step(3, "first"), Step(4, "last")], [Step(5)])
    assert [step.revision for step in await script.take(3)] == [3, 4, 5]
    assert script.calls == ["list", "watch 4"]


async def test_a_listing_that_breaks_off_is_begun_again():
    script = Scripted([Step(3, "first"), UnavailableError("cut")], [Step(4)], [Step(5)])
    assert [step.revision for step in await script.take(3)] == [3, 4, 5]
    assert script.calls == ["list", "list", "watch 4"]


async def test_a_watch_goes_on_where_it_broke_off_and_lists_again_only_after_a_gap():
    script = Scripted([Step(1)], [Step(2), UnavailableError("cut")], [CompactedError("gone")], [Step(9)], [Step(10)])
    assert [step.revision for step in await script.take(4)] == [1, 2, 9, 10]
    assert script.calls == ["list", "watch 1", "watch 2", "list", "watch 9"]


async def test_away_says_why_until_something_is_heard_or_the_watch_stands(caplog):
    script = Scripted([UnavailableError("refused")], [Step(1)], [Step(2), UnavailableError("cut")])
    assert script.following.away == ""
    async with aclosing(script.following.news()) as news, asyncio.timeout(PATIENCE_S):
        first = asyncio.ensure_future(anext(news))
        while not caplog.messages:  # noqa: ASYNC110 - a log line wakes nobody
            await asyncio.sleep(0)
        assert script.following.away == "refused"
        await first
        assert (await anext(news)).revision == 2
        assert script.following.away == ""
        script.unheard = 1.0
        silent = asyncio.ensure_future(anext(news))
        while len(script.calls) < 4:  # noqa: ASYNC110 - the call is in the generator
            await asyncio.sleep(0.01)
        assert script.following.away == "cut"
        script.unheard = 0.0
        assert script.following.away == "", "a watch that stands is quiet, and that is no outage"
        silent.cancel()
        await asyncio.gather(silent, return_exceptions=True)
    assert caplog.messages == ["things are not followed"] * 2


async def test_who_takes_every_watch_and_drops_it_is_asked_ever_more_slowly(caplog):
    drops = [[Step(number), UnavailableError("dropped")] for number in range(2, 6)]
    caplog.set_level("DEBUG")
    await Scripted([Step(1)], *drops).take(4)
    assert [record.fields["retry_in_s"] for record in caplog.records] == [0.1, 0.2]


async def test_a_gap_behind_an_outage_is_listed_without_the_pauses_of_the_outage(caplog):
    outage = [[UnavailableError("refused")]] * 3
    caplog.set_level("DEBUG")
    await Scripted([Step(1)], *outage, [CompactedError("restored")], [Step(0)]).take(2)
    assert [record.fields["retry_in_s"] for record in caplog.records] == [0.1, 0.2, 0.4, 0.1]


async def test_a_store_with_a_gap_behind_every_listing_is_asked_ever_more_slowly(caplog):
    await Scripted(*[[Step(1)], [CompactedError("gone")]] * 3, [Step(1)]).take(4)
    assert [record.fields["retry_in_s"] for record in caplog.records] == [0.1, 0.2, 0.4]


async def test_an_outage_is_one_line_however_long_it_lasts(caplog):
    await Scripted(*[[UnavailableError("refused")]] * 4, [Step(1)]).take(1)
    assert caplog.messages == ["things are not followed"]
