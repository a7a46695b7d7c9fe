"""What iptables-legacy reads while the rest is still being planned: it all counts at the end, or nothing does."""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from deadline import PATIENCE_S, eventually

from controlloop.command import own_processes
from controlloop.family import Family
from controlloop.iptables.kernel import Variant, program_name
from proxy.frontends import Balance, Endpoint, Frontend, Protocol, Scope, ServiceName, ServicePortName
from proxy.head_start import LEAST
from proxy.iptables.balancing import Memory
from proxy.iptables.desired import IptablesPlanner
from proxy.iptables.kernel import IptablesBackend
from proxy.node import Surroundings
from proxy.sync import RuleSync

pytestmark = pytest.mark.usefixtures("netns")

REPOSITORY = Path(__file__).parents[2]
FIRST = {Family.V4: ip_address("10.96.0.1"), Family.V6: ip_address("fd00:96::1")}
POD = {Family.V4: ip_address("10.244.1.2"), Family.V6: ip_address("fd00:244::2")}
PODS = {Family.V4: ip_network("10.244.0.0/16"), Family.V6: ip_network("fd00:244::/64")}


def name(number):
    return ServiceName("default", f"s{number}")


def served(family, number, port=8080, affinity_s=0):
    """With an external address, so that there are chains that have to wait for others."""
    port_name, endpoints = ServicePortName(name(number), "http"), (Endpoint(POD[family], port, is_local=True),)
    rest = (Protocol.TCP, 80, Balance.RANDOM, endpoints)
    cluster_ip = Frontend(port_name, FIRST[family] + number, *rest, affinity_s=affinity_s)
    outside = FIRST[family] + 0x10000 + number
    external = Frontend(port_name, outside, *rest, affinity_s=affinity_s, scope=Scope.EXTERNAL_IP)
    return name(number), (cluster_ip, external)


def services(family, count=LEAST):
    return [served(family, number) for number in range(count)]


@pytest.fixture(params=list(Family), ids=lambda family: family.nft)
def family(request):
    return request.param


@pytest.fixture
async def rules(family):
    planner = IptablesPlanner(Surroundings(family, pods=PODS[family]), Memory.SETS)
    made = RuleSync("iptables", planner, IptablesBackend(family, Variant.LEGACY))
    await made.prepare()
    yield made
    made.close()


async def begun():
    """The program was started by a plan; gives back its process id."""
    started = list(own_processes)
    for _ in range(10):
        await asyncio.sleep(0)
    (process,) = (each for each in own_processes if each not in started)
    return process


def saved(family):
    argv = [program_name(family, Variant.LEGACY, "save"), "-t", "nat"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def is_locked():
    """Whether others who write legacy tables would have to wait."""
    with Path(os.environ["XTABLES_LOCKFILE"]).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


async def assert_all_in(rules):
    await rules.audit()
    assert rules.in_kernel
    assert not rules.quarantined
    assert await rules.backend.dump() == rules.desired


async def test_it_reads_ahead_and_all_comes_into_force_with_the_first_sync(rules, family):
    rules.plan(services(family))
    process = await begun()
    eventually(is_locked)
    assert "NETPROXY" not in saved(family)
    rules.plan([served(family, LEAST)])
    await rules.sync()
    assert own_processes[-1] == process, "it needed no other"
    assert not is_locked()
    await assert_all_in(rules)


async def test_one_that_changes_and_one_that_goes_meanwhile_are_as_they_were_last(rules, family):
    rules.plan(services(family))
    process = await begun()
    rules.plan([served(family, 0, 9090), (name(1), ())])
    await rules.sync()
    assert own_processes[-1] == process
    await assert_all_in(rules)
    assert ":9090" in saved(family)


async def test_a_service_that_remembers_its_clients_waits_for_their_sets(rules, family):
    rules.plan([served(family, LEAST, affinity_s=10), *services(family)])
    process = await begun()
    await rules.sync()
    assert own_processes[-1] == process
    await assert_all_in(rules)
    assert "--add-set" in saved(family)


async def test_rules_of_others_stay(rules, family):
    argv = [program_name(family, Variant.LEGACY), "-t", "nat", "-A", "POSTROUTING", "-j", "RETURN"]
    await asyncio.to_thread(subprocess.run, argv, check=True)
    rules.plan(services(family))
    await begun()
    await rules.sync()
    await assert_all_in(rules)
    assert "-A POSTROUTING -j RETURN\n" in saved(family)


async def test_one_that_is_refused_costs_the_others_nothing(rules, family):
    rules.plan([served(family, LEAST, 70_000), *services(family)])
    await begun()
    await rules.sync()
    assert rules.quarantined.keys() == {name(LEAST)}
    rules.quarantined.clear()
    await assert_all_in(rules)


async def test_a_program_that_is_killed_midway_costs_nobody_anything(rules, family):
    rules.plan(services(family))
    os.kill(await begun(), signal.SIGKILL)
    rules.plan([served(family, LEAST)])
    await rules.sync()
    await assert_all_in(rules)


async def test_whoever_looks_at_what_is_there_begins_anew(rules, family):
    rules.plan(services(family))
    await begun()
    assert not await rules.backend.dump()
    assert not is_locked()


@pytest.mark.parametrize("table", ["nat", "filter"])
async def test_beside_a_chain_of_ours_nothing_goes_ahead(rules, family, table):
    argv = [program_name(family, Variant.LEGACY), "-t", table, "-N", "NETPROXY-OLD"]
    await asyncio.to_thread(subprocess.run, argv, check=True)
    assert await rules.backend.ahead() is None


PLANNING = """
import asyncio, sys
from ipaddress import ip_address
sys.path[:0] = sys.argv[1:3]
import test_legacy_head_start as this
from controlloop.family import Family

async def main():
    rules = this.RuleSync("x", this.IptablesPlanner(this.Surroundings(Family.V4), this.Memory.SETS),
                          this.IptablesBackend(Family.V4, this.Variant.LEGACY))
    await rules.prepare()
    rules.plan(this.services(Family.V4, 2 * this.LEAST))
    print(await this.begun(), flush=True)
    await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""


@pytest.fixture
def planning(tmp_path):
    """A process of its own that has not come to its first sync."""
    folders = [str(REPOSITORY), str(REPOSITORY / "tests"), str(REPOSITORY / "tests/contract")]
    argv = [sys.executable, "-c", PLANNING, *folders[:2]]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {**os.environ, "PYTHONPATH": folders[2], "XTABLES_LOCKFILE": str(tmp_path / "lock")}
    with subprocess.Popen(argv, text=True, env=environment, **pipes) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("is_locked_out", [False, True], ids=["reading", "waiting for the lock"])
@pytest.mark.parametrize("is_killed", [False, True], ids=["stopped", "killed"])
def test_when_we_end_before_the_first_sync_we_end_at_once_and_nothing_is_changed(
    planning, tmp_path, is_locked_out, is_killed
):
    with (tmp_path / "lock").open("w") as lock:
        if is_locked_out:
            fcntl.flock(lock, fcntl.LOCK_EX)
        program = Path("/proc", planning.stdout.readline().strip())
        assert program.exists()
        if is_killed:
            planning.kill()
        _, said = planning.communicate("\n", timeout=PATIENCE_S)
        assert not said
    eventually(lambda: not program.exists())
    assert "NETPROXY" not in saved(Family.V4)
