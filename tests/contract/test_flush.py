"""A flush by another program, of more chains than are remembered one by one."""

import asyncio
import subprocess
from ipaddress import ip_address, ip_network

import pytest
from deadline import PATIENCE_S

from controlloop.drift import MOST
from controlloop.family import Family
from controlloop.iptables.kernel import Variant
from proxy.frontends import Balance, Endpoint, Frontend, Protocol, ServiceName, ServicePortName
from proxy.iptables.balancing import Memory
from proxy.iptables.desired import IptablesPlanner
from proxy.iptables.kernel import IptablesBackend
from proxy.node import Surroundings
from proxy.sync import RuleSync

pytestmark = pytest.mark.usefixtures("netns")

ENDPOINTS = (Endpoint(ip_address("10.244.1.2"), 8080, is_local=True),)
STRANGER = "-A POSTROUTING -s 192.0.2.1/32 -j RETURN"


def served(number):
    name = ServicePortName(ServiceName("default", f"s{number}"), "http")
    frontend = Frontend(name, ip_address("10.96.0.0") + number, Protocol.TCP, 80, Balance.RANDOM, ENDPOINTS)
    return name.service, (frontend,)


@pytest.fixture
async def rules():
    planner = IptablesPlanner(Surroundings(Family.V4, pods=ip_network("10.244.0.0/16")), Memory.SETS)
    made = RuleSync("iptables", planner, IptablesBackend(Family.V4, Variant.NFT))
    made.plan([served(number) for number in range(1, MOST + 100)])
    await made.sync()
    await made.audit()
    await made.start_watch()
    yield made
    made.close()


async def run(*command):
    await asyncio.to_thread(subprocess.run, command, check=True)


async def heard(watch):
    async with asyncio.timeout(PATIENCE_S):
        while not watch._drift.much:
            watch.drain()
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("command", ["iptables-nft -t nat -F", "nft flush ruleset"])
async def test_what_was_flushed_is_back_before_anything_is_read(rules, command):
    await run(*command.split())
    await heard(rules._watch)
    await run("iptables-nft", *("-t nat " + STRANGER).split())
    rules.audit_due.clear()
    await rules.sync()
    assert rules.audit_due.is_set()
    assert rules.stats.audits == 1
    assert await rules.backend.dump() == rules.desired
    await run("iptables-nft", *f"-t nat {STRANGER.replace('-A', '-C')}".split())
