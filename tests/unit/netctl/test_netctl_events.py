"""`netctl events`: merged, filtered, readable on any width, and followed over a daemon's restart."""

import json
from functools import partial
from itertools import islice

import pytest
from schemas import validated

from controlloop.client import UnreachableError
from controlloop.flags import run_command
from controlloop.history import History
from netctl.events.cli import events
from netctl.events.following import Cursor, lines
from netctl.events.reading import Filter, clock, list_events, sentence
from netctl.exit_codes import OK, UNREACHABLE, USAGE

NOW = 1_795_400_000.0


class TwoDaemons:
    is_live = True
    now = NOW
    daemons = ("netagent", "netproxy")

    def __init__(self):
        self.time = [NOW]
        clock = partial(self.time.__getitem__, 0)
        self.histories = {daemon: History(clock=clock) for daemon in self.daemons}
        self.away = set()

    def page(self, daemon, page):
        if daemon in self.away:
            raise UnreachableError("/run/nodenet/x.sock: Connection refused")
        return json.loads(self.histories[daemon].page(page.removeprefix("/events").strip("/") or "0").body)

    def happens(self, daemon, what, ago_s=0.0, action="changed", **more):
        self.time[0] = NOW - ago_s
        self.histories[daemon].note(what, action, **{"trigger": "slice", "new": ("b",), **more})


@pytest.fixture
def node():
    made = TwoDaemons()
    made.happens("netproxy", "service default/web", 10, old=("10.1.1.1:80",), new=("10.1.1.2:80",))
    made.happens("netagent", "route 10.5.2.0/24", 100, action="repaired", trigger="drift", by="ip (process 7)")
    return made


def test_events_of_all_daemons_by_time(node, capsys):
    assert list_events(node, Filter(), "table") == OK
    assert capsys.readouterr().out.splitlines() == [
        "TIME      TRIGGER  WHAT HAPPENED (UTC)",
        f"{clock(NOW - 100, NOW)}  drift    route 10.5.2.0/24 repaired, undone by ip (process 7): b",
        f"{clock(NOW - 10, NOW)}  slice    service default/web changed: -10.1.1.1:80 +10.1.1.2:80",
    ]


def test_the_document_is_as_its_schema_says(node, capsys):
    list_events(node, Filter(), "json")
    document = validated(json.loads(capsys.readouterr().out))
    assert [each["daemon"] for each in document["items"]] == ["netagent", "netproxy"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter("WEB"), ["service/default/web"]),
        (Filter("route"), ["route/10.5.2.0/24"]),
        (Filter(since_s=60), ["service/default/web"]),
        (Filter("nothing"), []),
    ],
)
def test_filters(node, capsys, wanted, found):
    list_events(node, wanted, "name")
    assert capsys.readouterr().out.split("\n")[:-1] == found


def test_a_daemon_that_is_away_is_told_and_the_other_shown(node, capsys):
    node.away = {"netagent"}
    assert list_events(node, Filter(), "table") == UNREACHABLE
    told = capsys.readouterr()
    assert "service default/web" in told.out
    assert "netagent does not answer" in told.err


def test_a_long_sentence_is_cut_with_an_ellipsis_and_not_when_wide(node, capsys):
    node.happens("netproxy", "service default/long", new=("x" * 110,))
    list_events(node, Filter("long"), "table")
    line = capsys.readouterr().out.splitlines()[1]
    assert len(line) == 80
    assert line.endswith("...")
    list_events(node, Filter("long"), "wide")
    assert "x" * 110 in capsys.readouterr().out


def test_sentences():
    item = {"object": "lease 10.5.0.0-24", "action": "acquired", "old": [], "new": ["a", "b"], "times": 1, "by": None}
    assert sentence(item) == "lease 10.5.0.0-24 acquired: a, b"
    assert sentence({**item, "times": 3, "new": []}) == "lease 10.5.0.0-24 acquired (3 times)"
    found = {**item, "object": "a route", "action": "finding NN108", "new": ["why"]}
    assert sentence(found) == "finding NN108 a route: why"
    assert clock(NOW - 3 * 86_400, NOW) != clock(NOW, NOW)


def test_a_follower_hears_each_event_once_also_behind_a_restart(node, capsys):
    cursor = Cursor(node, "netproxy")
    assert [each["object"] for each in cursor.news()] == ["service default/web"]
    assert cursor.news() == []
    node.happens("netproxy", "service default/new")
    assert [each["object"] for each in cursor.news()] == ["service default/new"]
    node.away = {"netproxy"}
    assert cursor.news() == cursor.news() == []
    assert capsys.readouterr().err.count("does not answer") == 1
    node.away = set()
    node.histories["netproxy"] = History(clock=lambda: NOW + 5)
    for number in range(5):
        node.histories["netproxy"].note(f"service default/{number}", "added", trigger="service")
    assert [each["object"] for each in cursor.news()] == [f"service default/{number}" for number in range(5)]
    assert "answers again" in capsys.readouterr().err


def test_what_came_faster_than_it_was_read_is_told(node, capsys):
    cursor = Cursor(node, "netproxy")
    cursor.news()
    for number in range(1200):
        node.histories["netproxy"].note(f"service default/{number}", "added", trigger="service")
    assert len(cursor.news()) == 1000
    assert "200 events of netproxy" in capsys.readouterr().err


def test_a_line_of_json_for_each_event(node):
    cursors = {daemon: Cursor(node, daemon) for daemon in node.daemons}
    found = [validated(json.loads(line)) for line in islice(lines(node, cursors, Filter(), "json"), 2)]
    assert [each["object"] for each in found] == ["route 10.5.2.0/24", "service default/web"]


@pytest.mark.parametrize(
    ("argv", "named"), [(["--since", "5"], "'5'"), (["--since=-5m"], "future"), (["--since", "x" * 50], "xxx")]
)
def test_bad_usage_is_named(argv, named, capsys):
    assert run_command(events, argv) == USAGE
    told = capsys.readouterr().err
    assert named in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("answer", [None, [], {}, {"items": 3}, {"started": 1.0, "last": 1, "lost": 0, "items": [{}]}])
def test_what_is_no_page_of_events_is_one_line(node, capsys, answer):
    node.page = lambda *_: answer
    assert list_events(node, Filter(), "table") == UNREACHABLE
    assert capsys.readouterr().err.count("\n") == 2
    assert Cursor(node, "netproxy").news() == []


def test_no_character_of_an_object_reaches_the_terminal_as_it_is(node, capsys):
    node.page = lambda *_: json.loads(BAD)
    list_events(node, Filter("evil"), "table")
    assert "\x1b" not in capsys.readouterr().out


BAD = json.dumps(
    {
        "started": 1.0,
        "last": 1,
        "lost": 0,
        "items": [
            {
                "sequence": 1,
                "at": NOW,
                "object": "evil \x1b[2J",
                "action": "added",
                "old": [],
                "new": ["\x07"],
                "trigger": "slice",
                "by": None,
                "times": 1,
            }
        ],
    }
).encode()
