"""How often a thing may be repaired, on a clock of our own."""

import pytest

from controlloop.repairs import BURST, FORGET_ABOVE, PERIOD_S, RepairLimiter


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def limiter(clock):
    return RepairLimiter(clock=clock)


def test_the_first_repairs_come_at_once_and_then_one_in_each_period(limiter, clock):
    assert [limiter.wait_s("route") for _ in range(BURST)] == [0.0] * BURST
    assert limiter.wait_s("route") == PERIOD_S
    clock.now += PERIOD_S
    assert limiter.wait_s("route") == 0.0
    assert limiter.wait_s("route") == pytest.approx(PERIOD_S)


def test_in_a_minute_of_fighting_there_are_few_repairs(limiter, clock):
    repairs = 0
    for _ in range(1200):
        repairs += limiter.wait_s("route") == 0.0
        clock.now += 0.05
    assert repairs <= BURST + 60 / PERIOD_S


def test_a_fight_over_one_object_delays_no_other(limiter):
    for _ in range(BURST + 1):
        limiter.wait_s("route")
    assert limiter.wait_s("neighbor") == 0.0
    assert dict(limiter.fights) == {"route": 1}


def test_a_fight_is_over_after_peace(limiter, clock):
    for _ in range(BURST + 1):
        limiter.wait_s("route")
    clock.now += (BURST - 1) * PERIOD_S
    assert "route" in limiter.fights
    clock.now += PERIOD_S
    assert not limiter.fights
    assert limiter.wait_s("route") == 0.0


def test_it_remembers_no_more_than_it_must(limiter, clock):
    for number in range(3 * FORGET_ABOVE):
        limiter.wait_s(number)
        clock.now += PERIOD_S
    assert len(limiter._histories) <= FORGET_ABOVE
