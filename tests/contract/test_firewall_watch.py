"""Drift that somebody else causes is heard of, repaired soon, and never by our own echo."""

import asyncio
import subprocess
import time
from ipaddress import ip_address, ip_network

import pytest
from deadline import PATIENCE_S

from controlloop.family import Family
from controlloop.repairs import BURST, PERIOD_S
from netagent.config import FirewallSettings
from netagent.firewall.desired import Mode, Policy
from netagent.firewall.firewall import Firewall
from netagent.firewall.nftables import Tunnel

pytestmark = pytest.mark.usefixtures("netns")

SETTINGS = FirewallSettings(
    ip_masq=True, masq_exclude=(), random_fully=True, forward_rules=True, resync_s=5, peer_filter=True
)


def nft(*arguments):
    return subprocess.run(["nft", *arguments], check=True, capture_output=True, text=True).stdout


class Loop:
    """What an agent does: sync when woken, and nothing else."""

    def __init__(self, mode):
        self.firewall = Firewall(Policy(SETTINGS, mode, Tunnel(8472, 1)))
        self.firewall.plan({Family.V4: ip_network("10.244.0.0/16")}, {Family.V4: ip_network("10.244.1.0/24")})
        self.firewall.plan_peers([("a", [ip_address("10.10.0.2")])])
        self.woken = asyncio.Event()
        self.wakes = 0

    def wake(self):
        self.wakes += 1
        self.woken.set()

    async def repaired(self):
        async with asyncio.timeout(PATIENCE_S):
            await self.woken.wait()
        self.woken.clear()
        await self.firewall.sync(resync=False)

    @property
    def repairs(self):
        return sum(stats.repairs for stats in self.firewall.stats.values())


@pytest.fixture(params=list(Mode), ids=lambda mode: mode.value)
async def loop(request):
    made = Loop(request.param)
    await made.firewall.sync(resync=True)
    made.firewall.watch(made.wake)
    yield made
    made.firewall.close()


COMMON = [
    "delete table ip netagent",
    "flush chain ip netagent input",
    "delete element ip netagent peers { 10.10.0.2 }",
    "flush ruleset",
]
DRIFT = {
    Mode.NFTABLES: [*COMMON, "flush chain ip netagent postrouting"],
    Mode.IPTABLES: [
        *COMMON,
        "flush chain ip nat POSTROUTING",
        "flush chain ip nat NETAGENT-POSTROUTING",
        "delete table ip filter",
    ],
}


@pytest.mark.parametrize(
    ("loop", "drift"), [(mode, drift) for mode, listed in DRIFT.items() for drift in listed], indirect=["loop"]
)
async def test_what_somebody_else_takes_away_comes_back(loop, drift):
    before = sorted(nft("list", "ruleset").splitlines())
    nft(drift)
    await loop.repaired()
    assert loop.repairs
    ours = [line for line in nft("list", "ruleset").splitlines() if "netagent" in line.lower()]
    assert sorted(ours) == [line for line in before if "netagent" in line.lower()]


async def test_our_own_changes_are_no_news(loop):
    for number in range(20):
        loop.firewall.plan_peers([("b", [ip_address("10.10.1.0") + number])])
        await loop.firewall.sync(resync=False)
    nft("delete element ip netagent peers { 10.10.0.2 }")
    await loop.repaired()
    assert (loop.wakes, loop.repairs) == (1, 1)


async def test_what_others_do_with_what_is_theirs_is_no_news(loop):
    nft("add table ip netproxy ; add chain ip netproxy services ; add rule ip netproxy services counter")
    nft("add table ip nat ; add chain ip nat KUBE-SERVICES ; add rule ip nat KUBE-SERVICES return")
    nft("flush chain ip netproxy services ; flush chain ip nat KUBE-SERVICES")
    nft("delete element ip netagent peers { 10.10.0.2 }")
    await loop.repaired()
    assert (loop.wakes, loop.repairs) == (1, 1)


STORM = "".join(
    ["add table ip others\n", "add set ip others many { type ipv4_addr; }\n", "flush set ip others many\n"]
    + [f"add element ip others many {{ 10.{n >> 8}.{n & 255}.1 }}\n" for n in range(2_000)]
)


def storm():
    subprocess.run(["nft", "-f", "-"], input=STORM, text=True, check=True)


async def until_it_holds_back(loop, disturb):
    """Disturb and repair by turns until no wake comes for a while; how many wakes that may have taken."""
    began, woken = time.monotonic(), True
    while woken:
        disturb()
        woken = await comes_soon(loop.woken)
        if woken:
            await loop.repaired()
    return BURST + (time.monotonic() - began) / PERIOD_S + 1


async def comes_soon(event):
    try:
        await asyncio.wait_for(event.wait(), PERIOD_S / 2)
    except TimeoutError:
        return False
    return True


async def test_a_storm_in_what_is_not_ours_is_told_as_such(loop):
    """More than the socket holds; nobody reads meanwhile. Each time everything is looked at, and then more slowly."""
    most_wakes = await until_it_holds_back(loop, storm)
    assert BURST <= loop.wakes <= most_wakes
    assert loop.repairs == 0
    [finding] = loop.firewall.findings()
    assert "faster than they can be read" in finding.reason
    assert not loop.firewall.is_held


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.value)
async def test_who_undoes_us_where_nobody_tells_is_found_by_looking(mode):
    """As with legacy iptables, which says nothing: each look finds the same."""
    firewall = Loop(mode).firewall
    await firewall.sync(resync=True)
    for _ in range(BURST + 1):
        assert firewall.findings() == []
        nft("flush chain ip netagent input")
        await firewall.sync(resync=True)
    [finding] = firewall.findings()
    assert "last by somebody unknown" in finding.reason
    await firewall.sync(resync=True)
    assert firewall.findings() == []


async def test_a_writer_who_keeps_undoing_us_is_not_followed_for_ever(loop):
    most_wakes = await until_it_holds_back(loop, lambda: nft("flush chain ip netagent input"))
    assert BURST <= loop.wakes <= most_wakes
    assert loop.repairs == loop.wakes
    assert loop.firewall.is_held
    [finding] = loop.firewall.findings()
    assert finding.name.startswith("firewall rules (netagent in ")
    assert "undone again and again, last by nft; " in finding.reason
