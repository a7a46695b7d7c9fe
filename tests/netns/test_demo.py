"""`make demo` as whoever comes by would run it, and what it leaves on their machine: nothing."""

import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from deadline import eventually

from lab.cluster import STATE_DIR

LONG_S = 240
"""A demo takes some ten seconds on a quiet machine, and two at once are no quiet machine."""
PODS = [f"pod-{node}-{number}" for node in (1, 2, 3) for number in (1, 2)]
MACHINE = (
    "ip addr",
    "ip route show table all",
    "ip -6 route show table all",
    "ip rule",
    "nft list ruleset",
    "iptables-save",
)


def machine():
    """The network of the machine itself, without what changes by itself: lifetimes, counters, dates."""
    texts = [subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout for command in MACHINE]
    lines = [line for line in "\n".join(texts).splitlines() if not line.startswith("#")]
    files = [path for path in ("/run/flannel", "/run/cni") if Path(path).exists()]
    return [re.sub(r"[0-9]+sec|packets [0-9]+ bytes [0-9]+|\[[0-9]+:[0-9]+\]", "N", line) for line in lines] + files


class Demo:
    """A run, whose processes are known by the HOME that they all inherit."""

    def __init__(self, home):
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lab.demo"],
            env={**os.environ, "HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.name = f"demo-{self.process.pid}"

    def read_until(self, text):
        for line in self.process.stdout:
            if text in line:
                return
        raise AssertionError(f"the demo never said {text!r}: {self.process.stderr.read()}")

    def leftovers(self):
        namespaces = [path.name for path in Path("/run/netns").glob(f"nodenet-{self.name}-*")]
        files = [str(path) for path in (STATE_DIR / self.name, *self.home.iterdir()) if path.exists()]
        return namespaces + files + self.running()

    def running(self):
        mark = b"HOME=" + os.fsencode(self.home)
        return [path.name for path in Path("/proc").glob("[0-9]*") if mark in environment(path)]


def environment(process):
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


@contextmanager
def demo(home):
    home.mkdir()
    started = Demo(home)
    with started.process:
        yield started
        started.process.terminate()


@pytest.fixture(scope="module")
def two_at_once(tmp_path_factory):
    """Two whole runs beside each other: (run, exit code, stdout, stderr) of each, and the machine before."""
    before, home = machine(), tmp_path_factory.mktemp("two")
    with ExitStack() as stack:
        runs = [stack.enter_context(demo(home / name)) for name in ("one", "other")]
        ended = [(run, *run.process.communicate(timeout=LONG_S)) for run in runs]
    return before, [(run, run.process.returncode, stdout, stderr) for run, stdout, stderr in ended]


def test_two_demos_at_once_both_succeed_and_say_nothing_else(two_at_once):
    assert [(code, stderr) for _, code, _, stderr in two_at_once[1]] == [(0, "")] * 2


def test_the_machine_is_left_as_it_was(two_at_once):
    before, runs = two_at_once
    assert machine() == before
    assert [run.leftovers() for run, *_ in runs] == [[], []]


@pytest.fixture
def output(two_at_once):
    return two_at_once[1][0][2]


def test_the_demo_shows_a_lease_for_each_node(output):
    leases = re.findall(
        r"^ +10\.244\.\d+\.0-24 +(node-\d) 10\.10\.0\.\d  VTEP (?:\w\w:){5}\w\w  pods 10", output, re.MULTILINE
    )
    assert sorted(leases) == ["node-1", "node-2", "node-3"]


def test_the_demo_shows_that_every_pod_reaches_every_pod(output):
    rows = re.findall(r"^ +(pod-\d-\d) +((?:yes|NO)(?: +(?:yes|NO))*)$", output, re.MULTILINE)
    assert [(pod, answers.split()) for pod, answers in rows] == [(pod, ["yes"] * 6) for pod in PODS]


@pytest.mark.parametrize("mode", ["nftables", "iptables"])
def test_the_demo_spreads_300_connections_over_three_nodes(output, mode):
    def counts(balance):
        part = output.partition(f"{balance}, in {mode} mode\n")[2]
        return [int(count) for count in re.findall(r"^ +pod-\d-1 +(\d+)  #+$", part, re.MULTILINE)[:3]]

    assert counts("round-robin") == [100, 100, 100]
    assert sum(counts("random")) == 300


def test_the_demo_ends_with_what_to_try_next(output):
    ending = output.partition("the lab is gone; nothing is left behind\n")[2]
    assert "What to try next" in ending
    assert ending.rstrip().endswith("netctl lab down")


@pytest.mark.parametrize("moment", ["starting netagent and netproxy", "every pod to every pod"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_an_interrupted_demo_takes_its_lab_with_it(tmp_path, moment, number):
    with demo(tmp_path / "home") as run:
        run.read_until(moment)
        run.process.send_signal(number)
        _, stderr = run.process.communicate(timeout=LONG_S)
    assert run.process.returncode == 130
    assert stderr.endswith("demo: interrupted; the lab is gone\n")
    assert run.leftovers() == []


def test_an_impatient_second_ctrl_c_does_not_stop_the_clean_up(tmp_path):
    with demo(tmp_path / "home") as run:
        run.read_until("every pod to every pod")
        for _ in range(2):
            run.process.send_signal(signal.SIGINT)
            eventually(lambda: pending(run.process.pid) == 0)
        run.process.communicate(timeout=LONG_S)
    assert run.process.returncode == 130
    assert run.leftovers() == []


def pending(pid):
    """Signals sent to a process and not yet taken (proc(5), ShdPnd); none for one that is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0
    return int(re.search(r"^ShdPnd:\s+(\w+)", status, re.MULTILINE)[1], 16)


def test_what_a_killed_demo_left_is_taken_down_by_the_next_one(tmp_path):
    before = machine()
    with demo(tmp_path / "killed") as killed:
        killed.read_until("every pod to every pod")
        killed.process.kill()
    assert killed.leftovers()
    with demo(tmp_path / "next") as following:
        assert following.process.wait(timeout=LONG_S) == 0
    assert killed.leftovers() == following.leftovers() == []
    assert machine() == before
