"""Few runs pass at once; a burst is gathered."""

import asyncio

from netagent.burst import Burst


class Clock:
    """Sleeps that take no time, and are counted."""

    def __init__(self, monkeypatch):
        self.now, self.slept = 100.0, []
        monkeypatch.setattr("netagent.burst.time.monotonic", lambda: self.now)
        monkeypatch.setattr(asyncio, "sleep", self.sleep)

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


async def test_the_first_few_are_not_kept_waiting(monkeypatch):
    clock, burst = Clock(monkeypatch), Burst(3, 0.5)
    for _ in range(3):
        await burst.gather()
    assert clock.slept == []


async def test_one_more_within_the_time_waits_for_what_else_is_coming(monkeypatch):
    clock, burst = Clock(monkeypatch), Burst(3, 0.5)
    for _ in range(4):
        await burst.gather()
    assert clock.slept == [0.5]


async def test_whoever_comes_seldom_never_waits(monkeypatch):
    clock, burst = Clock(monkeypatch), Burst(2, 0.5)
    for _ in range(10):
        await burst.gather()
        clock.now += 0.3
    assert clock.slept == []
