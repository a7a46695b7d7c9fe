"""What is kept of what changed: bounded, merged while nobody has read it, and readable from where a reader was."""

import json

import pytest

from controlloop.errors import Skipped
from controlloop.history import KEPT, MANY, MANY_REPAIRS, NAMED, History, Repair
from controlloop.logs import Log
from controlloop.onset import Onsets
from controlloop.skips import SkippedLog


@pytest.fixture
def clock():
    return [1000.0]


@pytest.fixture
def history(clock):
    return History(size=10, clock=lambda: clock[0])


def items(history, after=0):
    return history.document(after)["items"]


def test_an_event_says_what_changed_and_why(history):
    history.note("route 10.5.2.0/24", "repaired", trigger="drift", old=("a",), new=("b",), by="ip (process 7)")
    assert items(history) == [
        {
            "sequence": 1,
            "at": 1000.0,
            "object": "route 10.5.2.0/24",
            "action": "repaired",
            "old": ("a",),
            "new": ("b",),
            "trigger": "drift",
            "by": "ip (process 7)",
            "times": 1,
        }
    ]


def test_a_reader_goes_on_from_where_it_was(history):
    history.note("one", "added", trigger="lease")
    last = history.document()["last"]
    assert items(history, last) == []
    history.note("two", "added", trigger="lease")
    assert [each["object"] for each in items(history, last)] == ["two"]


def test_what_had_to_make_room_is_told(history):
    for number in range(25):
        history.note(f"object {number}", "added", trigger="lease")
    document = history.document(3)
    assert [each["sequence"] for each in document["items"]] == list(range(16, 26))
    assert document["lost"] == 12
    assert history.document(15)["lost"] == 0


def test_a_burst_of_one_object_is_one_event_until_somebody_reads_it(history, clock):
    for number in range(1000):
        history.note("service a", "changed", trigger="slice", old=(f"{number}",), new=(f"{number + 1}",))
    (merged,) = items(history)
    assert (merged["old"], merged["new"], merged["times"]) == (("0",), ("1000",), 1000)
    history.note("service a", "changed", trigger="slice", old=("1000",), new=("1001",))
    assert [each["times"] for each in items(history)] == [1000, 1]
    history.note("service a", "changed", trigger="slice", old=("1001",), new=("1002",))
    clock[0] += 2
    history.note("service a", "changed", trigger="slice", old=("1002",), new=("1003",))
    assert [each["times"] for each in items(history)] == [1000, 1, 1, 1]


def test_a_fight_is_one_event_whoever_fights(history):
    for process in range(5):
        history.note("route a", "repaired", trigger="drift", by=f"ip (process {process})")
    (one,) = items(history)
    assert (one["times"], one["by"]) == (5, "ip (process 4)")


def test_different_actions_are_different_events(history):
    history.note("service a", "added", trigger="service", new=("x",))
    history.note("service a", "removed", trigger="service", old=("x",))
    assert [each["action"] for each in items(history)] == ["added", "removed"]


def in_words(old, new):
    return old, new


def unasked(*_):
    raise AssertionError("nobody reads the words for so many")


def test_changes_that_become_one_event_are_reckoned_together(history):
    def moved(old, new):
        history.note("service a", "changed", trigger="slice", old=old, new=new)
        (one,) = history._events.values()
        return one.old, one.new, one.times

    moved(["a"], ["b"])
    assert moved(["c"], ["d"]) == (("a", "c"), ("b", "d"), 2)
    assert moved(["b"], ["a"]) == (("c",), ("d",), 3)
    assert moved(["d"], ["c"]) == ((), (), 4), "all is as before"


def test_changes_of_many_facts_each_stay_events_of_their_own(history):
    for start in (0, 100):
        facts = [str(number) for number in range(start, start + KEPT + 1)]
        history.note("service a", "changed", trigger="slice", new=facts)
    assert [each["new"][-1] for each in items(history)] == [f"and {KEPT + 1 - NAMED} more"] * 2


def test_merged_events_are_not_lost_ones(history):
    for _ in range(3):
        history.note("service a", "changed", trigger="slice", new=("x",))
    for number in range(9):
        history.note(f"object {number}", "added", trigger="lease")
    assert history.document()["lost"] == 0


@pytest.mark.parametrize("cursor", ["-1", "x", "", "1_0", "\u0661", "9" * 5000, "1/2", " 1"])
def test_a_cursor_that_is_no_number_is_refused(history, cursor):
    assert history.page(cursor).status == 404


def test_a_cursor_from_the_future_reads_nothing(history):
    history.note("one", "added", trigger="lease")
    assert json.loads(history.page("9" * 18).body)["items"] == []


def test_many_objects_at_once_are_one_event(history):
    history.noted("service", {f"default/{number}": ((), ("x",)) for number in range(MANY + 1)}, "slice", unasked)
    (one,) = items(history)
    assert (one["object"], one["new"]) == (f"{MANY + 1} services", (f"{MANY + 1} added",))


def test_what_did_not_change_is_not_told(history):
    history.noted("peer", {"a": (("x", "y"), ("y", "z")), "b": (("x",), ("x",)), "c": (("x",), ())}, "lease", in_words)
    told = [(each["object"], each["action"], each["old"], each["new"]) for each in items(history)]
    assert told == [("peer a", "changed", ("x",), ("z",)), ("peer c", "removed", ("x",), ())]


def test_repairs_of_many_are_counted_and_not_described(history):
    def repairs():
        yield Repair("chain x", (), (), "nft")
        raise AssertionError("nobody needs the others")

    history.repaired({"element": MANY_REPAIRS, "chain": 1}, repairs(), "nftables-ip")
    (one,) = items(history)
    assert (one["object"], one["by"]) == (f"{MANY_REPAIRS + 1} objects of nftables-ip", "nft")
    assert one["new"] == ("1 chain", f"{MANY_REPAIRS} element")
    history.repaired({"chain": 1}, [Repair("chain x", ("a", "b"), ("b",), "nft")])
    assert items(history)[-1]["old"] == ("a",)


def test_facts_are_bounded_and_cannot_move_a_cursor(history):
    history.note("service \x1b[2J", "added", trigger="service", new=["x" * 5000, *map(str, range(20))])
    (one,) = items(history)
    assert "\x1b" not in one["object"]
    assert len(one["new"][0]) < 200
    assert one["new"][-1] == f"and {21 - NAMED} more"


@pytest.mark.parametrize("after", ["", "x", "1/2"])
def test_a_page_that_is_no_number(history, after):
    assert history.page(after).status == 404


def test_the_page(history):
    history.note("one", "added", trigger="lease")
    assert json.loads(history.page().body)["items"][0]["object"] == "one"
    assert json.loads(history.page("1").body)["items"] == []


def test_what_is_skipped_is_told_with_its_reason(history):
    skipped = SkippedLog(Log("test"), history)
    skipped.tell({"service a/b": Skipped("service a/b", "no port")})
    skipped.tell({})
    told = [(each["object"], each["action"], each["old"], each["new"]) for each in items(history)]
    assert told == [
        ("object service a/b", "skipped", (), ("no port",)),
        ("object service a/b", "no longer skipped", ("no port",), ()),
    ]


def test_states_and_findings_in_words(history):
    for kind, is_wrong in (("not ready", True), ("not ready", False), ("NN207", True), ("NN207", False)):
        history.turned(kind, "netproxy", is_wrong=is_wrong, reason="a reason")
    assert [(each["action"], each["new"]) for each in items(history)] == [
        ("not ready", ("a reason",)),
        ("ready", ()),
        ("finding NN207", ("a reason",)),
        ("finding NN207 is over", ()),
    ]


def test_what_turns_wrong_and_right_is_told_once(clock):
    wrong, told = [], []
    onsets = Onsets(lambda: wrong, lambda: clock[0], lambda thing, is_wrong: told.append((thing, is_wrong)))
    for now in (["a"], ["a"], ["a", "b"], []):
        wrong[:] = now
        clock[0] += 2
        onsets.look()
    assert told[:2] == [("a", True), ("b", True)]
    assert sorted(told[2:]) == [("a", False), ("b", False)]
