"""When what is wrong began, as looks tell it."""

import pytest

from controlloop.onset import Onsets


@pytest.fixture
def watched():
    class Watched:
        now, wrong = 100.0, ()

    it = Watched()
    it.onsets = Onsets(lambda: it.wrong, lambda: it.now)
    return it


def look(watched, now, *wrong):
    watched.now, watched.wrong = now, wrong
    watched.onsets.look()


def test_what_goes_on_began_when_it_was_seen_first(watched):
    look(watched, 100, "a")
    look(watched, 105, "a", "b")
    look(watched, 110, "a", "b")
    assert (watched.onsets.since("a"), watched.onsets.since("b")) == (100, 105)


def test_what_was_over_begins_anew(watched):
    look(watched, 100, "a")
    look(watched, 105)
    look(watched, 110, "a")
    assert watched.onsets.since("a") == 110


def test_what_nobody_saw_began_now_and_keeps_its_time(watched):
    look(watched, 100)
    watched.now = 102
    assert watched.onsets.since("a") == 102
    look(watched, 110, "a")
    assert watched.onsets.since("a") == 102


def test_a_loop_that_turns_all_the_time_looks_once_a_second(watched):
    look(watched, 100)
    look(watched, 100.5, "a")
    look(watched, 101, "a")
    assert watched.onsets.since("a") == 101
