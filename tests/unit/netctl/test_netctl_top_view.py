"""How `netctl top` adds up, sorts, filters and fits what it has counted to a screen of any size."""

from collections import Counter

import pytest

from netctl.top.command import obey
from netctl.top.messages import Way, seen, size_of
from netctl.top.services import Services
from netctl.top.terminal import split
from netctl.top.usage import Count, Sample, ServicePort, Target, Usage
from netctl.top.view import Choice, Look, chosen, fitted, human, report, screen, sparkline

WEB, API, IDLE = (ServicePort(f"default/{name}", "http", "tcp") for name in ("web", "api", "idle"))
ONE, TWO, THREE = (f"10.244.1.{number}:8080" for number in (1, 2, 3))


def target(owner, *endpoints, weights=None, **more):
    return Target(owner, "random", weights or dict.fromkeys(endpoints, 1), **more)


def counted(*targets, **connections):
    count = Count()
    for each in targets:
        for endpoint, number in connections.items():
            count.add(each, {"one": ONE, "two": TWO, "three": THREE}[endpoint], number, 100 * number)
    return count


@pytest.fixture
def usage():
    made = Usage()
    made.targets = {WEB: [target(WEB, ONE, TWO)], API: [target(API, THREE)], IDLE: [target(IDLE)]}
    made.samples.append(Sample(0.0, 2.0, {API: counted(target(API, THREE), three=90)}, bytes_s=2.0))
    made.samples.append(Sample(2.0, 2.0, {WEB: counted(target(WEB, ONE, TWO), one=3, two=1)}, bytes_s=4.0))
    return made


def test_rates_and_shares(usage):
    one, two = usage.endpoints(WEB)
    assert (one.connections, one.connections_per_s, one.bytes_per_s) == (3, 1.5, 75.0)
    assert (one.share, one.ideal_share, two.share, two.ideal_share) == (0.75, 0.5, 0.25, 0.5)
    assert usage.service(API).connections == 0
    assert usage.service(API).history == [45.0, 0.0]
    assert [each.share for each in usage.endpoints(API)] == [1.0]


def test_a_share_is_of_the_whole_window_and_no_more():
    usage = Usage(window=2)
    usage.targets = {WEB: [target(WEB, ONE, TWO)]}
    for sizes in ({"one": 100}, {"one": 1}, {"two": 3}):
        usage.samples.append(Sample(0.0, 1.0, {WEB: counted(target(WEB, ONE, TWO), **sizes)}))
    assert [each.share for each in usage.endpoints(WEB)] == [0.25, 0.75]


def test_the_ideal_share_is_that_of_the_addresses_that_were_called():
    """One address leads to both, another only to the first: what to expect depends on who was called how often."""
    usage, count = Usage(), Count()
    both, first = target(WEB, ONE, TWO), target(WEB, ONE)
    usage.targets = {WEB: [both, first]}
    count.add(both, ONE, 50, 0)
    count.add(both, TWO, 50, 0)
    count.add(first, ONE, 100, 0)
    usage.samples.append(Sample(0.0, 1.0, {WEB: count}))
    assert [each.ideal_share for each in usage.endpoints(WEB)] == [0.75, 0.25]


def test_where_callers_choose_differently_nobody_knows_the_ideal():
    usage = Usage()
    unequal = target(WEB, ONE, TWO, is_exact=False)
    usage.targets = {WEB: [unequal]}
    usage.samples.append(Sample(0.0, 1.0, {WEB: counted(unequal, one=5)}))
    assert [each.ideal_share for each in usage.endpoints(WEB)] == [None, None]
    assert [each.share for each in usage.endpoints(WEB)] == [1.0, 0.0]


def test_weights_and_no_weight_at_all():
    assert target(WEB, weights={ONE: 3, TWO: 1}).expected() == {ONE: 0.75, TWO: 0.25}
    assert target(WEB, weights={ONE: 0}).expected() == {}


def test_an_endpoint_that_is_gone_is_shown_while_it_is_in_the_window(usage):
    usage.targets = {WEB: [target(WEB, THREE)]}
    assert [each.endpoint for each in usage.endpoints(WEB)] == [ONE, TWO, THREE]
    usage.targets = {}
    assert WEB in chosen(usage, Choice())


def test_without_accounting_there_are_no_bytes():
    usage = Usage()
    usage.targets = {WEB: [target(WEB, ONE)]}
    usage.samples.append(Sample(0.0, 1.0, {WEB: counted(target(WEB, ONE), one=1)}))
    (item,) = usage.document([WEB])["items"]
    assert (item["bytes"], item["bytes_per_s"], item["endpoints"][0]["bytes"]) == (None, None, None)
    assert usage.document([])["bytes_interval_s"] is None


@pytest.mark.parametrize(
    ("sort", "order"), [("connections", [WEB, API, IDLE]), ("bytes", [WEB, API, IDLE]), ("name", [API, IDLE, WEB])]
)
def test_sorts(usage, sort, order):
    assert chosen(usage, Choice(sort)) == order


def test_a_filter_takes_parts_of_names(usage):
    assert chosen(usage, Choice(text="LT/A")) == [API]


@pytest.mark.parametrize("is_unicode", [True, False])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (20, 5), (1, 1), (200, 50), (80, 2)])
def test_the_screen_is_as_large_as_the_terminal(usage, width, height, is_unicode):
    choice = Choice(open={WEB, API})
    lines = screen(usage, choice, Look(width, height, is_unicode), "a title " * 20, ["a note " * 20])
    assert len(lines) == height
    assert max(map(len, lines)) <= width
    assert is_unicode or all(line.isascii() for line in lines)


def test_the_cursor_stays_in_sight(usage):
    usage.targets = {
        ServicePort(f"default/{number:03}", "", "tcp"): [target(None, *(f"10.0.0.{n}:1" for n in range(5)))]
        for number in range(100)
    }
    everything = set(usage.targets)
    for cursor in (0, 7, 50, 99, 10**6):
        choice = Choice("name", text="0", cursor=cursor, open=everything)
        lines = screen(usage, choice, Look(80, 12), "title", [])
        assert sum(line.startswith(">") for line in lines) == 1
        choice = Choice("name", cursor=cursor)
        assert sum(line.startswith(">") for line in screen(usage, choice, Look(80, 12), "title", [])) == 1


def test_no_service_is_said(usage):
    assert "no Service with 'nothing'" in "\n".join(screen(usage, Choice(text="nothing"), Look(), "", []))


def test_foreign_names_move_no_cursor(usage):
    evil = ServicePort("default/\x1b[2J", "\r", "tcp")
    usage.targets = {evil: [target(evil, "\x07")]}
    shown = "\n".join([*screen(usage, Choice(open={evil}), Look(), "", []), *report(usage, [], wide=True)])
    assert not {"\x1b", "\r", "\x07"} & set(shown)


def test_a_report_cuts_names_with_an_ellipsis_unless_it_is_wide(usage):
    long = ServicePort("a-namespace-of-fifty-characters/" + "x" * 60, "http", "tcp")
    usage.targets = {long: [target(long, ONE)]}
    uses = [long]
    assert max(map(len, report(usage, uses, wide=False))) <= 80
    assert any("…" in line for line in report(usage, uses, wide=False))
    assert any(str(long) in line for line in report(usage, uses, wide=True))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "-"),
        (0, "0"),
        (0.04, "0.0"),
        (4.24, "4.2"),
        (99.94, "99.9"),
        (99.96, "100"),
        (999.4, "999"),
        (999.6, "1.0k"),
        (123_456, "123k"),
        (5e6, "5.0M"),
        (7e15, "7000.0T"),
    ],
)
def test_numbers_for_people(number, text):
    assert human(number) == text


def test_a_sparkline_has_its_highest_at_the_top():
    assert sparkline([0, 1, 4, 8], Look()) == " ▂▅█"
    assert sparkline([0, 1, 4, 8], Look(is_unicode=False)).isascii()
    assert sparkline([], Look()) == ""
    assert sparkline([0, 0], Look()) == "  "
    assert fitted("abcdefghijklmnopqrstuvwxyz", Look(width=20)) == "abcdefghijklmnopqrs…"


@pytest.mark.parametrize(
    ("pressed", "keys"),
    [
        ("q", ["q"]),
        ("\x1b[A\x1bOB", ["up", "down"]),
        ("\x1b", ["escape"]),
        ("/ab\x7f\r", ["/", "a", "b", "erase", "enter"]),
        ("\x1b[5~\x1b[6~", ["page up", "page down"]),
        ("é", ["é"]),
    ],
)
def test_keys(pressed, keys):
    assert split(pressed) == keys


def test_what_keys_do(usage):
    choice = Choice()

    def press(*keys):
        return [obey(key, choice, usage) for key in keys]

    assert press("n", "j", "enter") == [True] * 3
    assert (choice.sort, choice.open) == ("name", {IDLE})
    press("enter")
    assert choice.open == set()
    press("/", "q", "x", "erase", "b", "enter")
    assert (choice.text, choice.typing) == ("qb", False)
    press("/", "w", "escape")
    assert (choice.text, choice.typing) == ("", False)
    press("Z", "b")
    assert choice.sort == "bytes"
    assert press("q") == [False]


class Proxy:
    """Answers the pages that are asked."""

    def __init__(self):
        self.asked = []
        self.started, self.last, self.items, self.lost = 1.0, 0, [], 0
        self.frontends = [frontend("default/web:http", "10.96.0.1", 80, [ONE, TWO])]

    def page(self, _daemon, page):
        self.asked.append(page)
        if page.startswith("/events"):
            return {"started": self.started, "last": self.last, "lost": self.lost, "items": self.items}
        if page == "/frontends":
            return {"items": self.frontends}
        return {"items": [one for one in self.frontends if page.endswith(one["service"].partition(":")[0])]}


def frontend(service, address, port, endpoints, **more):
    port_name = service.partition(":")[2]
    return {
        "service": service,
        "port_name": port_name,
        "address": address,
        "protocol": "tcp",
        "port": port,
        "balance": "random",
        "endpoints": endpoints,
        "weights": None,
        "inside": None,
        **more,
    }


def way(destination, port, endpoint="10.244.1.1", endpoint_port=8080):
    packed = [bytes(map(int, address.split("."))) for address in (destination, endpoint)]
    return Way(6, packed[0], port.to_bytes(2, "big"), packed[1], endpoint_port.to_bytes(2, "big"))


def test_counts_go_to_their_services():
    proxy = Proxy()
    proxy.frontends.append(frontend("default/web:http", "0.0.0.0", 30080, [ONE]))
    services = Services(proxy)
    services.refresh()
    calls = {
        way("10.96.0.1", 80): 2,
        way("10.10.0.1", 30080): 3,
        way("10.10.0.1", 30080, "10.9.9.9"): 5,
        way("10.96.0.9", 80): 7,
    }
    counts, nobodys = services.attribute(Counter(calls), Counter())
    assert (counts[WEB].connections, nobodys) == ({ONE: 5}, 12)


def test_only_what_changed_is_asked_again():
    proxy = Proxy()
    services = Services(proxy)
    services.refresh()
    assert "/frontends" in proxy.asked
    proxy.asked.clear()
    services.refresh()
    assert proxy.asked == ["/events/0"]
    proxy.items, proxy.last = [{"object": "service default/web"}, {"object": "route 10.5.0.0/24"}], 7
    proxy.frontends = [frontend("default/web:http", "10.96.0.1", 80, [THREE])]
    services.refresh()
    assert proxy.asked[-1] == "/frontends-of/default/web"
    assert list(services.owners[WEB][0].weights) == [THREE]
    proxy.items, proxy.frontends = [{"object": "service default/web"}], []
    services.refresh()
    assert services.owners == {}


@pytest.mark.parametrize(
    "change",
    [{"started": 2.0}, {"lost": 1}, {"items": [{"object": "60 services"}]}],
    ids=lambda change: next(iter(change)),
)
def test_what_says_no_names_is_read_whole(change):
    proxy = Proxy()
    services = Services(proxy)
    services.refresh()
    proxy.asked.clear()
    for name, value in change.items():
        setattr(proxy, name, value)
    services.refresh()
    assert "/frontends" in proxy.asked


@pytest.mark.parametrize("datagram", [b"", b"\0" * 16, b"\x30\0\0\0\0\1" + b"\0" * 100, bytes(range(256)) * 4])
def test_garbage_from_the_kernel_is_passed_over(datagram):
    assert list(seen(datagram)) == []
    assert size_of(datagram, 0, len(datagram)) is None
