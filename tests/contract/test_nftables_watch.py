"""What the kernel tells of another program's changes is what a look at the table would have found."""

import subprocess
from ipaddress import ip_address, ip_network

import pytest

from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.nft.state import Key
from controlloop.nft.transaction import transaction
from controlloop.reconcile import reconcile
from proxy.frontends import ANY_NODE_ADDRESS, Balance, Endpoint, Frontend, Protocol, Scope, ServiceName, ServicePortName
from proxy.nftables.desired import NftablesPlanner
from proxy.nftables.kernel import TABLE, NftablesBackend
from proxy.node import Surroundings

pytestmark = pytest.mark.usefixtures("netns")

WEB = ServiceName("default", "web")
ADDRESSES = {
    Family.V4: ["10.96.0.1", "192.0.2.7", "0.0.0.1"],
    Family.V6: ["fd00:96::1", "::ffff:10.96.0.1", "::10.96.0.1", "1::"],
}


@pytest.fixture(params=list(Family), ids=lambda family: family.nft)
def family(request):
    return request.param


@pytest.fixture
def planner(family):
    """Elements in all maps and sets."""
    made = NftablesPlanner(Surroundings(family, node_port_addresses=frozenset(map(ip_address, ADDRESSES[family]))))
    endpoints = tuple(Endpoint(ip_address(one), 65535, is_local=True) for one in ADDRESSES[family])
    source = ip_network(ADDRESSES[family][0])

    def frontend(address, protocol, port, served=endpoints, **others):
        return Frontend(ServicePortName(WEB, ""), address, protocol, port, Balance.RANDOM, served, **others)

    frontends = [
        frontend(address, protocol, port, served, scope=scope, inside=inside, sources=(source,))
        for protocol in Protocol
        for address, scope in [
            *((ip_address(one), Scope.LOAD_BALANCER) for one in ADDRESSES[family]),
            (ANY_NODE_ADDRESS[family], Scope.NODE_PORT),
        ]
        for port, served, inside in [(1, endpoints, None), (255, endpoints, endpoints), (256, (), None)]
    ]
    sticky = frontend(ip_address(ADDRESSES[family][0]), Protocol.TCP, 65535, affinity_s=60)
    made.replace(WEB, [*frontends, sticky], Delta())
    return made


@pytest.fixture
async def watch(planner, family):
    backend = NftablesBackend(family)
    await reconcile(lambda: planner.objects, backend)
    watch = await backend.watch(lambda: planner.objects)
    yield watch
    watch.close()


def another_program(commands):
    subprocess.run(["nft", "--file", "-"], input=commands, text=True, check=True)


def elements(planner):
    return {key: value for key, value in planner.objects.items() if key.kind == "element"}


async def test_elements_that_go_and_come_back(planner, watch, family):
    ours = elements(planner)
    assert {key.name for key in ours} == {
        key.name for key, value in planner.objects.items() if key.kind == "container" and not value.is_dynamic
    }
    another_program(transaction(family, TABLE, Delta(drop=ours)))
    drift = watch.take()
    assert drift.actual == dict.fromkeys(ours)
    assert (drift.unread, drift.everything, drift.by) == (set(), False, "nft")
    another_program(transaction(family, TABLE, Delta(put=ours)))
    assert watch.take().actual == ours


async def test_a_chain_that_is_changed(planner, watch, family):
    another_program(f"flush chain {family.nft} {TABLE} services")
    key = Key("chain", "services")
    assert watch.take().actual.keys() == {key}
    assert watch.take().actual == {}


async def test_clients_that_come_and_go_are_nobodys_drift(planner, watch, family):
    clients = next(key.name for key in planner.objects if key.name.startswith("clients-"))
    address = ADDRESSES[family][0]
    for verb in "add", "delete":
        another_program(f"{verb} element {family.nft} {TABLE} {clients} {{ {address} }}")
    assert not watch.take()


async def test_our_own_changes_are_not_heard(planner, watch, family):
    delta = Delta()
    planner.replace(WEB, [], delta)
    await NftablesBackend(family).apply(delta)
    assert not watch.take()
