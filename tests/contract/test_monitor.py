"""The monitor against the real kernel: what it hears, what it does not, and what a storm does to it."""

import asyncio
import os
import socket
import subprocess
import time

import pytest
from deadline import PATIENCE_S

from controlloop.delta import Delta
from netagent.drift import Drift, Judge
from netagent.monitor import PORTION, Monitor
from netagent.state import METRIC, Route

if os.geteuid() != 0:
    pytest.skip("needs root for network namespaces", allow_module_level=True)


def sh(*lines):
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines) + "\n", text=True, check=True, capture_output=True)


@pytest.fixture
def eth0(netns):
    sh(
        "link add eth0 type veth peer name eth1",
        "link set eth0 up",
        "link set eth1 up",
        "address add 192.0.2.1/24 dev eth0",
    )


@pytest.fixture
def ours(eth0):
    from ipaddress import ip_network  # noqa: PLC0415

    from controlloop.family import Family  # noqa: PLC0415

    return Route(ip_network("10.5.2.0/24"), None, "eth0", onlink=False, metric=METRIC[Family.V4])


class Listening:
    def __init__(self, desired, **options):
        self.heard, self.looked_at = [], 0
        self.monitor = Monitor(**options)
        self._judge = Judge(lambda: desired, frozenset, lambda _: None, dict(socket.if_nameindex()))

    def judge(self, message):
        self.looked_at += 1
        return self._judge.judge(message)

    async def __aenter__(self):
        self.monitor.start(self, lambda drift, port: self.heard.append((drift, port)))
        return self

    async def __aexit__(self, *_):
        self.monitor.close()

    async def until(self, condition):
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, self.heard[:5]
            await asyncio.sleep(0.005)


async def test_it_hears_what_others_break_and_who_they_are(ours):
    sh("route add 10.5.2.0/24 dev eth0 proto 78")
    async with Listening({ours.key: ours}) as listening:
        process = subprocess.Popen(["ip", "route", "del", "10.5.2.0/24"])  # noqa: ASYNC220
        process.wait()
        await listening.until(lambda: listening.heard)
        assert listening.heard == [(Drift(ours.key), process.pid)]


async def test_it_does_not_hear_the_echo_of_our_own_socket(ours):
    from netagent.kernel import OverlayKernel  # noqa: PLC0415 - loads slowly

    kernel = OverlayKernel()
    async with Listening({}, ignore_port=kernel.port) as listening:
        await kernel.apply(Delta({ours.key: ours}))
        sh("route add 10.5.3.0/24 dev eth0 proto 78")
        await listening.until(lambda: listening.heard)
        assert [drift.key for drift, _ in listening.heard] != [ours.key]
        assert len(listening.heard) == 1
    kernel.close()


def storm(count):
    sh(
        *(
            f"neigh replace 192.0.2.{n % 250 + 2} lladdr 02:00:00:00:{n >> 8:02x}:{n & 255:02x} dev eth0"
            for n in range(count)
        )
    )


@pytest.mark.flannel("B5")
async def test_a_storm_that_overflows_the_socket_means_one_look_at_everything(ours):
    async with Listening({ours.key: ours}, receive_buffer=4096) as listening:
        for _ in range(5):
            storm(2000)  # nobody reads meanwhile
            listening.monitor.drain()
        await listening.until(lambda: listening.heard)
        assert listening.heard == [(Drift(everything=True, underlay=True), 0)]
        assert listening.monitor.overflows > 1
        [finding] = listening.monitor.findings()
        assert finding.name == "rtnetlink socket"
        assert f"overflowed, {listening.monitor.overflows} times" in finding.reason


async def test_a_socket_that_kept_up_is_no_finding(ours):
    async with Listening({ours.key: ours}) as listening:
        sh("route add 10.5.2.0/24 dev eth0 proto 79")
        await listening.until(lambda: listening.looked_at)
        assert listening.monitor.findings() == []


async def test_ten_thousand_foreign_changes_are_read_in_portions_and_tell_nothing(ours):
    async with Listening({ours.key: ours}) as listening:
        for _ in range(5):
            await asyncio.to_thread(storm, 2000)
        await listening.until(lambda: listening.looked_at >= 10_000 or listening.monitor.overflows)
        assert [drift for drift, _ in listening.heard if not drift.everything] == []
        assert PORTION < 1000
