"""The nftables backend against a real kernel: what is applied is what is read back, and nothing else is touched."""

import subprocess
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from controlloop.delta import Delta, diff
from controlloop.family import Family
from controlloop.reconcile import reconcile
from proxy.frontends import Balance, Endpoint, Frontend, Protocol, ServiceName, ServicePortName
from proxy.nftables.desired import NftablesPlanner
from proxy.nftables.kernel import NftablesBackend
from proxy.node import Surroundings

pytestmark = pytest.mark.usefixtures("netns")

NETWORK = {Family.V4: "10.{}.{}.{}", Family.V6: "fd00:{}::{}:{}"}
WEB = ServiceName("default", "web")


def nft(*arguments):
    return subprocess.run(["nft", *arguments], check=True, capture_output=True, text=True).stdout


def frontend(family, count, balance=Balance.RANDOM, *, port=80, protocol=Protocol.TCP):
    form = NETWORK[family]
    endpoints = tuple(
        Endpoint(ip_address(form.format(244, 1, number + 2)), 8080, is_local=True) for number in range(count)
    )
    return Frontend(ServicePortName(WEB, "http"), ip_address(form.format(96, 0, 1)), protocol, port, balance, endpoints)


@pytest.fixture(params=list(Family), ids=lambda family: family.nft)
def family(request):
    return request.param


@pytest.fixture
def backend(family):
    return NftablesBackend(family)


@pytest.fixture
def planner(family):
    cidr = {Family.V4: ip_network("10.244.0.0/16"), Family.V6: ip_network("fd00:244::/32")}[family]
    made = NftablesPlanner(Surroundings(family, pods=cidr))
    mixed = [
        frontend(family, 3),
        frontend(family, 2, Balance.ROUND_ROBIN, port=81),
        frontend(family, 3, port=53, protocol=Protocol.UDP),
        frontend(family, 0, port=82),
    ]
    made.replace(WEB, mixed, Delta())
    return made


async def in_sync(planner, backend):
    return not diff(planner.objects, await backend.dump())


async def test_a_fresh_namespace_has_nothing_of_ours(backend):
    assert await backend.dump() == {}


async def test_what_is_applied_is_what_is_read_back(planner, backend):
    report = await reconcile(lambda: planner.objects, backend)
    assert report.delta.put == planner.objects
    assert await in_sync(planner, backend)


async def test_another_process_finds_its_predecessors_rules_and_changes_nothing(planner, backend, family):
    await reconcile(lambda: planner.objects, backend)
    before = nft("-a", "list", "ruleset")
    report = await reconcile(lambda: planner.objects, NftablesBackend(family))
    assert not report.delta
    assert nft("-a", "list", "ruleset") == before


CHANGES = {
    "an endpoint more": lambda family: [frontend(family, 4)],
    "an endpoint less": lambda family: [frontend(family, 2)],
    "no endpoint left": lambda family: [frontend(family, 0)],
    "another balance": lambda family: [frontend(family, 3, Balance.ROUND_ROBIN)],
    "all gone": lambda _: [],
}


@pytest.mark.parametrize("change", CHANGES)
async def test_an_incremental_change_leads_where_a_whole_one_would(planner, backend, family, change):
    await reconcile(lambda: planner.objects, backend)
    delta = Delta()
    planner.replace(WEB, CHANGES[change](family), delta)
    await backend.apply(delta)
    assert await in_sync(planner, backend)


async def test_an_endpoint_is_replaced_in_place(planner, backend, family):
    await reconcile(lambda: planner.objects, backend)
    delta = Delta()
    other = Endpoint(ip_address(NETWORK[family].format(244, 9, 9)), 9090, is_local=False)
    planner.replace(WEB, [replace(frontend(family, 1), endpoints=(other,))], delta)
    await backend.apply(delta)
    assert await in_sync(planner, backend)


DRIFT = {
    "an element deleted": "delete element {ip} netproxy services {{ {address} . tcp . 80 }}",
    "a foreign element": "add element {ip} netproxy cluster-ips {{ {other} }}",
    "a chain flushed": "flush chain {ip} netproxy services",
    "a rule added": "add rule {ip} netproxy services counter",
    "a rule replaced by one like it": "flush chain {ip} netproxy prerouting ; "
    'add rule {ip} netproxy prerouting return comment "is it for a service?"',
    "a foreign chain": "add chain {ip} netproxy guest",
    "a foreign set": "add set {ip} netproxy guest {{ type mark; }}",
    "the table deleted": "delete table {ip} netproxy",
    "everything flushed": "flush ruleset",
    "a base chain on another hook": "delete table {ip} netproxy ; add table {ip} netproxy ; "
    "add chain {ip} netproxy prerouting {{ type filter hook input priority 0; }}",
}


@pytest.mark.parametrize("drift", DRIFT)
async def test_drift_is_found_and_repaired(planner, backend, family, drift):
    await reconcile(lambda: planner.objects, backend)
    form = NETWORK[family]
    nft(DRIFT[drift].format(ip=family.nft, address=form.format(96, 0, 1), other=form.format(96, 9, 9)))
    assert not await in_sync(planner, backend)
    await reconcile(lambda: planner.objects, backend)
    assert await in_sync(planner, backend)


async def test_cleanup_removes_our_table_and_nothing_else(planner, backend, family):
    nft(f"add table {family.nft} foreign ; add chain {family.nft} foreign nat {{ type nat hook output priority 0; }}")
    before = nft("list", "ruleset")
    await reconcile(lambda: planner.objects, backend)
    await backend.cleanup()
    assert nft("list", "ruleset") == before
    await backend.cleanup()
