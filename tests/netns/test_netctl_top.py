"""`netctl top` beside real connections, in each variant: what it counts is what was called, and who answered."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from collections import Counter
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import pytest
from deadline import eventually
from namespace import inside
from proxy_lab import NODE, VARIANTS, bring_up_proxy
from schemas import validated

from netctl.node import LiveNode
from netctl.top.command import Watch
from netctl.top.flows import Flows
from netctl.top.usage import Count, ServicePort

NETCTL = str(Path(sys.executable).with_name("netctl"))
PODS = ("pod-1-1", "pod-1-2", "pod-1-3")
TURNS, CHANCE, NAMES, WEIGHED = "10.96.70.1", "10.96.70.2", "10.96.70.3", "10.96.70.4"
CALLS = 60
# Chance makes the chi-square of evenly shared connections larger once in 10**9 times (2 degrees of freedom).
LIMIT = 41.45


in_one_variant = pytest.mark.parametrize("proxy", ["nftables"], indirect=True, scope="module")
"""What does not depend on it."""


@pytest.fixture(scope="module", params=VARIANTS)
def proxy(request):
    made = bring_up_proxy(request.param, name="top")
    try:
        made.sh("echo 1 > /proc/sys/net/netfilter/nf_conntrack_acct")
        made.serve("turns", TURNS, PODS, annotations={"nodenet.io/balance": "round-robin"})
        made.serve("chance", CHANCE, PODS, type="NodePort", ports=[port(80, nodePort=30070)])
        made.serve("names", NAMES, ["pod-1-1"], protocol="UDP")
        weights = {"nodenet.io/balance": "weighted", "nodenet.io/weights": f"{address(made, 'pod-1-1')}=4"}
        made.serve("weighed", WEIGHED, PODS[:2], annotations=weights)
        for each in (TURNS, CHANCE):
            made.answers(each, PODS)
        made.answers(WEIGHED, PODS[:2])
        yield made
    finally:
        made.down()


def port(number, **more):
    return {"name": "main", "protocol": "TCP", "port": number, **more}


def address(proxy, pod):
    return str(proxy.pod_address(pod))


@contextmanager
def watching(proxy, **options):
    """A function that takes a sample, and the usage that it adds to."""
    with inside(proxy.node.namespace):
        flows = Flows(**options)
        watch = Watch(LiveNode(proxy.node.run_dir / "nodenet"), flows)

    def take():
        with inside(proxy.node.namespace):
            return watch.take(all_bytes=True)

    try:
        yield take, watch
    finally:
        flows.close()


def call(proxy, where, count=CALLS, number=80, caller="pod-1-3"):
    return Counter(proxy.call(caller, where, number) for _ in range(count))


def row(name, protocol="tcp"):
    return ServicePort(f"default/{name}", "main", protocol)


def by_pod(proxy, counted, number=8080):
    pods = {f"{address(proxy, pod)}:{number}": pod for pod in PODS}
    return {pods[endpoint]: count for endpoint, count in counted.items()}


@pytest.mark.parametrize("where", [CHANCE, "10.10.0.1"])
def test_connections_are_counted_one_by_one_at_the_endpoint_that_took_them(proxy, where):
    number = 80 if where == CHANCE else 30070
    caller = "pod-1-3" if where == CHANCE else "client"
    with watching(proxy) as (take, _):
        answered = call(proxy, where, number=number, caller=caller)
        sample = take()
    assert by_pod(proxy, sample.counts[row("chance")].connections) == answered
    assert (sample.overflows, sample.unattributed) == (0, 0)


def test_shares_of_taking_turns_are_exact(proxy):
    with watching(proxy) as (take, watch):
        call(proxy, TURNS)
        take()
        found = watch.usage.endpoints(row("turns"))
    assert [each.connections for each in found] == [CALLS // 3] * 3
    assert {(each.share, each.ideal_share) for each in found} == {(1 / 3, 1 / 3)}


def test_shares_of_chance_are_near_the_ideal_ones(proxy):
    with watching(proxy) as (take, watch):
        call(proxy, CHANCE, count=5 * CALLS)
        take()
        found = watch.usage.endpoints(row("chance"))
    assert [each.ideal_share for each in found] == [pytest.approx(1 / 3)] * 3
    expected = [each.ideal_share * 5 * CALLS for each in found]
    far = sum((each.connections - most) ** 2 / most for each, most in zip(found, expected, strict=True))
    assert far < LIMIT, found


def test_ideal_shares_of_weights(proxy):
    with watching(proxy) as (take, watch):
        call(proxy, WEIGHED)
        take()
        found = {each.endpoint: each for each in watch.usage.endpoints(row("weighed"))}
    assert found[f"{address(proxy, 'pod-1-1')}:8080"].ideal_share == pytest.approx(0.8)
    assert sum(each.share for each in found.values()) == pytest.approx(1)


def test_datagrams_of_one_flow_are_one_connection(proxy):
    with watching(proxy) as (take, _):
        with proxy.datagrams("pod-1-3", NAMES) as ask:
            assert [ask() for _ in range(5)] == ["pod-1-1"] * 5
        sample = take()
    assert sample.counts[row("names", "udp")].connections.total() == 1


def test_bytes_are_those_that_conntrack_has_counted(proxy):
    proxy.sh("conntrack -F 2>/dev/null")
    sizes = Counter()

    def caught_up(take):
        sizes.update(take().counts.get(row("turns"), Count()).bytes)
        return sizes.total() == listed_bytes(proxy, TURNS)

    with watching(proxy) as (take, _):
        with proxy.connection("pod-1-3", TURNS) as held:
            held.recv(256)
            eventually(lambda: caught_up(take) and sizes.total() > 100)
            opened = sizes.total()
        eventually(lambda: "TIME_WAIT" in proxy.sh(f"conntrack -L -d {TURNS} 2>/dev/null"))
        eventually(lambda: caught_up(take))
        assert sizes.total() > opened
        proxy.sh("conntrack -F 2>/dev/null")
        assert row("turns") not in take().counts, "a flow that ends brings nothing anew"


def listed_bytes(proxy, where):
    listing = proxy.sh(f"conntrack -L -d {where} 2>/dev/null").split()
    return sum(int(word.removeprefix("bytes=")) for word in listing if word.startswith("bytes="))


@in_one_variant
def test_bytes_of_a_flow_that_ended_before_it_was_seen(proxy):
    """Its end tells them."""
    with watching(proxy) as (take, _):
        assert call(proxy, TURNS, count=3).total() == 3
        # They are in TIME_WAIT, and forgetting them ends them.
        there = listed_bytes(proxy, TURNS)
        proxy.sh(f"conntrack -D -d {TURNS} 2>/dev/null")
        assert take().counts[row("turns")].bytes.total() >= there - 200 > 0


def test_a_service_that_comes_changes_or_goes_is_seen(proxy):
    where = "10.96.70.9"
    with watching(proxy) as (take, watch):
        proxy.serve("late", where, ["pod-1-1"])
        proxy.answers(where, ["pod-1-1"])
        take()
        assert watch.usage.service(row("late")).endpoints == 1
        proxy.back("late", ["pod-1-2"])
        proxy.answers(where, ["pod-1-2"])
        take()
        call(proxy, where, count=4)
        assert by_pod(proxy, take().counts[row("late")].connections) == {"pod-1-2": 4}
        proxy.take_away("late")
        eventually(lambda: take() and row("late") not in watch.usage.targets)


@in_one_variant
def test_what_came_faster_than_it_was_read_is_told_and_not_hidden(proxy):
    with watching(proxy, receive_buffer=1) as (take, watch):
        call(proxy, TURNS, count=2 * CALLS)
        sample = take()
        assert sample.overflows > 0
        assert any("INCOMPLETE" in note for note in watch.notes())
        assert watch.usage.document([])["complete"] is False
        call(proxy, TURNS, count=1)
        assert take().overflows == 0


def test_connections_that_others_translate_are_nobodys(proxy):
    proxy.sh("""
        nft add table ip somebody-else
        nft add chain ip somebody-else out '{ type nat hook prerouting priority -110; }'
    """)
    pod = address(proxy, "pod-1-1")
    proxy.sh(f"nft add rule ip somebody-else out ip daddr 203.0.113.7 tcp dport 80 dnat to {pod}:8080")
    try:
        with watching(proxy) as (take, _):
            assert call(proxy, "203.0.113.7", count=3) == {"pod-1-1": 3}
            sample = take()
    finally:
        proxy.sh("nft delete table ip somebody-else")
    assert (sample.unattributed, sample.counts) == (3, {})


@in_one_variant
def test_a_line_of_json_for_each_sample(proxy):
    argv = [NETCTL, "top", "--interval", "0.2", "-o", "json", "turns"]
    with proxy.node.popen(argv, stdout=subprocess.PIPE, text=True) as running:
        samples = map(validated, map(json.loads, running.stdout))
        assert [each["service"] for each in next(samples)["items"]] == ["default/turns"]
        call(proxy, TURNS, count=6)
        counts = (each["items"][0]["connections"] for each in samples)
        assert next(total for total in accumulate(counts) if total >= 6) == 6
        running.send_signal(signal.SIGINT)
    assert running.returncode == 128 + signal.SIGINT


@in_one_variant
def test_as_many_samples_as_one_wants(proxy):
    lines = proxy.node.run([NETCTL, "top", "--count", "3", "--interval", "0.1", "-o", "json"]).splitlines()
    assert [validated(json.loads(line))["complete"] for line in lines] == [True] * 3


@in_one_variant
def test_once(proxy):
    document = validated(json.loads(proxy.node.run([NETCTL, "top", "--once", "--interval", "0.2", "-o", "json"])))
    assert document["complete"]
    assert {each["service"] for each in document["items"]} >= {"default/turns", "default/chance", "default/names"}
    table = proxy.node.run([NETCTL, "top", "--once", "--interval", "0.2"])
    assert max(map(len, table.splitlines())) <= 80
    assert "ideal 33.3%" in table


@in_one_variant
def test_without_the_right_to_hear_is_refused_in_one_line(proxy):
    argv = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", NETCTL, "top", "--once"]
    with proxy.node.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as refused:
        out, err = refused.communicate()
    assert (refused.returncode, out, err.count("\n")) == (5, "", 1)
    assert "CAP_NET_ADMIN" in err


class Screen:
    """A terminal with the command in it; what it printed so far."""

    def __init__(self, proxy, *arguments, size=(24, 80)):
        self._ours, theirs = pty.openpty()
        self.resize(*size)
        self.before = termios.tcgetattr(self._ours)
        environment = {"TERM": "xterm", "PYTHONUTF8": "1"}
        argv = [NETCTL, "top", *arguments]
        self.process = proxy.node.popen(
            argv, stdin=theirs, stdout=theirs, stderr=theirs, environment=environment, start_new_session=True
        )
        os.close(theirs)
        self.text = ""

    def resize(self, lines, width):
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, width, 0, 0))

    def press(self, keys):
        self.text = ""
        os.write(self._ours, keys.encode())

    def shows(self, *texts):
        eventually(lambda: self._read() and all(text in self.last for text in texts))

    @property
    def last(self):
        """The last whole picture."""
        return self.text.rpartition("\x1b[J")[0].rpartition("\x1b[H")[2].replace("\x1b[K", "")

    def ended(self):
        """The exit code, when it has given the terminal back."""
        code = eventually(lambda: self._read() and self.process.poll() is not None) and self.process.returncode
        self._read()
        assert self.text.endswith("\x1b[?25h\x1b[?1049l") or "\x1b[?1049l" in self.text
        assert termios.tcgetattr(self._ours) == self.before
        return code

    def _read(self):
        while select.select([self._ours], [], [], 0.05)[0]:
            try:
                self.text += os.read(self._ours, 65536).decode(errors="replace")
            except OSError:
                break
        return True

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.fixture
def screen(proxy):
    made = Screen(proxy, "--interval", "0.2")
    yield made
    made.close()


@in_one_variant
def test_the_screen_obeys_keys(proxy, screen):
    screen.shows("default/turns:main", "default/chance:main", "q quit")
    screen.press("n")
    screen.shows("by name", "> default/chance:main")
    screen.press("j\r")
    screen.shows("> default/names:main/udp", f"{address(proxy, 'pod-1-1')}:8080", "ideal 100.0%")
    screen.press("/turns\r")
    screen.shows("filter turns", "1 of 4", "> default/turns:main")
    assert "chance" not in screen.last
    call(proxy, TURNS, count=9)
    screen.press("\x1b")
    screen.shows("default/chance:main")
    screen.press("c")
    screen.shows("by connections", "default/chance:main")
    screen.press("q")
    assert screen.ended() == 0


@in_one_variant
def test_the_screen_follows_the_terminals_size(screen):
    screen.shows("BYTES/S")
    for lines, width in ((10, 40), (5, 20), (2, 10), (24, 80)):
        screen.text = ""
        screen.resize(lines, width)
        eventually(lambda lines=lines: screen._read() and screen.last.count("\r\n") == lines - 1)
        assert max(map(len, screen.last.split("\r\n"))) <= width


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)], ids=str
)
@in_one_variant
def test_the_terminal_is_given_back_whatever_ends_it(screen, number, code):
    screen.shows("default/turns:main")
    screen.process.send_signal(number)
    assert screen.ended() == code


@in_one_variant
def test_a_daemon_that_is_away_is_told(proxy, screen):
    screen.shows("default/turns:main")
    proxy.stop(NODE, "netproxy", signal.SIGTERM)
    try:
        screen.shows("netproxy does not answer", "default/turns:main")
        with proxy.node.popen(
            [NETCTL, "top", "--once", "--interval", "0.1"], stderr=subprocess.PIPE, text=True
        ) as once:
            assert "netproxy does not answer" in once.communicate()[1]
        assert once.returncode == 3
    finally:
        proxy.start_daemons([(NODE, "netproxy")])
    eventually(lambda: screen._read() and "does not answer" not in screen.last)
