"""Who is asked when, and what answers say: with a clock of the test's own."""

from collections import Counter
from itertools import count, pairwise

import pytest

from netagent.probing.findings import NAMED, findings
from netagent.probing.growth import MANY, WINDOW_S, Growth
from netagent.probing.paths import LOST_AFTER, PER_TICK, PERIOD_S, TICK_S, Paths, Reach, Size


class Run:
    """An agent's ticks, and peers that answer or do not."""

    def __init__(self, *peers, own="own"):
        self.paths = Paths(own)
        self.paths.follow(set(peers))
        self.now = 1000.0
        self.nonces = count()
        self.asked = []
        self.deaf = set()
        self.narrow = set()

    def tick(self, ticks=1, rtt_s=0.002):
        for _ in range(ticks):
            self.paths.expire(self.now)
            for question in self.paths.due():
                self.asked.append((self.now, question))
                nonce = next(self.nonces)
                self.paths.asked(nonce, question, self.now)
                if question.peer not in (self.narrow if question.size is Size.LARGE else self.deaf):
                    self.paths.answered(nonce, question.peer, self.now + rtt_s)
            self.now += TICK_S
        return self

    def path(self, peer):
        return self.paths.all[peer]

    def times(self, peer, size=Size.SMALL):
        return [now for now, question in self.asked if question == (peer, size)]


def test_a_new_peer_is_asked_at_once_and_then_once_in_a_period():
    times = Run("a").tick(31).times("a")
    assert times[0] == 1000.0
    assert {round(later - earlier) for earlier, later in pairwise(times)} == {PERIOD_S}


def test_a_peer_that_answers_is_reachable_with_a_smoothed_time():
    run = Run("a").tick(rtt_s=0.008)
    assert run.path("a").reach is Reach.REACHABLE
    assert run.path("a").rtt_s == pytest.approx(0.008)
    run.tick(10, rtt_s=0.016)
    assert run.path("a").rtt_s == pytest.approx(0.009)


def test_a_peer_that_never_answered_is_silent_and_no_finding():
    run = Run("flanneld")
    run.deaf = {"flanneld"}
    run.tick(60)
    assert run.path("flanneld").reach is Reach.SILENT
    assert run.path("flanneld").lost_since is None
    assert not run.times("flanneld", Size.LARGE)
    assert not list(findings(run.paths.all, Growth(), 1450, 0))


def test_who_falls_silent_is_asked_again_at_once_and_is_lost_since_the_first_miss():
    run = Run("a").tick(2)
    run.deaf = {"a"}
    run.tick(20)
    assert run.path("a").reach is Reach.LOST
    first_miss = run.times("a")[1]
    assert run.path("a").lost_since == first_miss
    assert run.times("a")[1 : 1 + LOST_AFTER] == [first_miss + TICK_S * n for n in range(LOST_AFTER)]
    run.deaf = set()
    run.tick(11)
    assert run.path("a").reach is Reach.REACHABLE
    assert run.path("a").lost_since is None


def test_one_lost_datagram_is_nothing():
    run = Run("a").tick(2)
    run.deaf = {"a"}
    run.tick(10)
    run.deaf = set()
    run.tick(3)
    assert run.path("a").reach is Reach.REACHABLE
    assert run.path("a").small.misses == 0


def test_a_way_that_only_small_packets_pass_is_a_finding_and_ends_with_a_large_answer():
    run = Run("a")
    run.narrow = {"a"}
    run.tick(40)
    (found,) = findings(run.paths.all, Growth(), 1450, 500.0)
    assert found.name == "a"
    assert found.since == run.times("a", Size.LARGE)[0] + 500.0
    assert run.path("a").reach is Reach.REACHABLE
    run.narrow = set()
    run.tick(11)
    assert not list(findings(run.paths.all, Growth(), 1450, 0))


def test_a_cut_way_is_not_called_narrow():
    run = Run("a").tick(15)
    run.deaf = run.narrow = {"a"}
    run.tick(30)
    assert run.path("a").too_small_since is None
    assert run.path("a").large.misses == 0


def test_many_peers_take_longer_and_not_more():
    peers = [f"p{number}" for number in range(5000)]
    run = Run(*peers).tick(1200)
    assert max(Counter(now for now, _ in run.asked).values()) <= PER_TICK
    assert all(run.path(peer).reach is Reach.REACHABLE for peer in peers)


def test_no_two_nodes_take_their_peers_in_the_same_order():
    peers = [f"p{number}" for number in range(50)]
    orders = [[question.peer for _, question in Run(*peers, own=own).tick(5).asked] for own in ("x", "y")]
    assert orders[0] != orders[1]


def test_a_lost_peer_is_not_kept_from_its_turn_by_peers_that_are_new():
    run = Run("a").tick(2)
    run.paths.follow({"a", *(f"p{number}" for number in range(500))})
    run.deaf = {"a"}
    run.tick(80)
    assert run.path("a").small.misses == 0 or run.path("a").reach is Reach.LOST


def test_peers_that_go_are_forgotten_and_those_that_stay_keep_what_is_known():
    run = Run("a", "b").tick(2)
    rtt_s = run.path("a").rtt_s
    run.paths.follow({"a", "c"})
    assert set(run.paths.all) == {"a", "c"}
    assert run.path("a").rtt_s == rtt_s
    run.tick(30)
    assert {question.peer for now, question in run.asked if now > 1002} == {"a", "c"}


def test_an_answer_counts_once_for_whom_was_asked_and_not_too_late():
    run = Run("a", "b")
    (question, *_) = [each for each in run.paths.due() if each.peer == "a"]
    run.paths.asked(7, question, run.now)
    run.paths.answered(8, "a", run.now)
    run.paths.answered(7, "b", run.now)
    assert run.path("a").reach is Reach.SILENT
    run.paths.expire(run.now + TICK_S)
    run.paths.answered(7, "a", run.now + 2)
    assert run.path("a").reach is Reach.SILENT


def test_an_answer_of_a_peer_that_went_meanwhile_is_nothing():
    run = Run("a")
    (question,) = run.paths.due()
    run.paths.asked(7, question, run.now)
    run.paths.follow(set())
    run.paths.answered(7, "a", run.now)
    run.paths.expire(run.now + TICK_S)
    assert not run.paths.all


@pytest.mark.parametrize("kind", ["lost", "narrow"])
def test_of_many_that_are_wrong_a_few_are_named_and_all_counted(kind):
    peers = [f"p{number:02}" for number in range(NAMED + 5)]
    run = Run(*peers).tick(5)
    run.narrow = set(peers)
    run.deaf = set(peers) if kind == "lost" else set()
    run.tick(80)
    found = list(findings(run.paths.all, Growth(), 1450, 0))
    assert len(found) == NAMED + 1
    assert found[-1].name == "5 more peers"
    assert all(each.remedy for each in found)


def test_checksum_errors_are_a_finding_while_many_come_in_a_minute():
    growth = Growth()
    growth.note(0.0, 100)
    growth.note(10.0, 100 + MANY - 1)
    assert growth.since is None
    growth.note(20.0, 100 + MANY)
    assert growth.since == 0.0
    (found,) = findings({}, growth, 1450, 0)
    assert "--tx-checksum-off" in found.remedy
    growth.note(20.0 + WINDOW_S + 1, 100 + MANY)
    assert growth.since is None
    growth.note(90.0, 0)
    assert growth.amount == 0
