"""The nftables backend against a real kernel: what is applied is what is read back, and nothing else is touched."""

import json
import re
import subprocess
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from five_services import five_services
from msgspec import structs
from namespace import fresh_namespace

from controlloop.delta import Delta, diff
from controlloop.family import Family
from controlloop.nft.state import Key
from controlloop.reconcile import reconcile
from proxy.frontends import (
    ANY_NODE_ADDRESS,
    Balance,
    Endpoint,
    Frontend,
    Protocol,
    Refusal,
    Scope,
    ServiceName,
    ServicePortName,
)
from proxy.nftables.desired import NftablesPlanner
from proxy.nftables.kernel import NftablesBackend
from proxy.node import Interfaces, Surroundings

pytestmark = pytest.mark.usefixtures("netns")

GOLDEN = Path(__file__).parents[1] / "golden" / "five_services.nft"
NETWORK = {Family.V4: "10.{}.{}.{}", Family.V6: "fd00:{}::{}:{}"}
PODS = {Family.V4: ip_network("10.244.0.0/16"), Family.V6: ip_network("fd00:244::/32")}
SERVICES = {Family.V4: (ip_network("10.96.0.0/16"),), Family.V6: (ip_network("fd00:96::/32"),)}
WEB = ServiceName("default", "web")


def nft(*arguments, text=""):
    return subprocess.run(["nft", *arguments], input=text, check=True, capture_output=True, text=True).stdout


def places(family, count, net=1):
    form = NETWORK[family]
    return tuple(
        Endpoint(ip_address(form.format(244, net, number + 2)), 8080, is_local=True, weight=number % 3)
        for number in range(count)
    )


def frontend(family, count, balance=Balance.RANDOM, *, port=80, protocol=Protocol.TCP, **others):
    address = ip_address(NETWORK[family].format(96, 0, 1))
    if others.get("scope") is Scope.NODE_PORT:
        address = ANY_NODE_ADDRESS[family]
    name = ServicePortName(WEB, f"port-{port}")
    return Frontend(name, address, protocol, port, balance, places(family, count), **others)


BALANCES = [balance for balance in Balance if balance is not Balance.CONSISTENT]


def mixed(family):
    """A frontend of every kind, but those with thousands of slots."""
    sources = (*SERVICES[family], *PODS[family].subnets(prefixlen_diff=1))
    balancer = {"scope": Scope.LOAD_BALANCER, "sources": sources}
    local = {"inside": places(family, 3, net=2), "refusal": Refusal.DROP}
    node_port = {"scope": Scope.NODE_PORT}
    return [
        *(frontend(family, 3, balance, port=80 + n) for n, balance in enumerate(BALANCES)),
        *(frontend(family, 3, balance, port=90 + n, affinity_s=60) for n, balance in enumerate(BALANCES)),
        *(frontend(family, 3, port=53, protocol=protocol) for protocol in Protocol),
        *(frontend(family, 3, port=30053, protocol=protocol, **node_port) for protocol in Protocol),
        frontend(family, 0, port=182),
        frontend(family, 0, port=30082, **node_port, refusal=Refusal.DROP),
        frontend(family, 3, port=183, **balancer),
        frontend(family, 1, port=184, **balancer, **local),
        frontend(family, 0, port=185, **balancer, **local, affinity_s=60),
        frontend(family, 0, port=30085, **node_port, **local),
        frontend(family, 2, Balance.ROUND_ROBIN, port=30086, **node_port, **local, affinity_s=86400),
    ]


@pytest.fixture(params=list(Family), ids=lambda family: family.nft)
def family(request):
    return request.param


@pytest.fixture
def backend(family):
    return NftablesBackend(family)


@pytest.fixture
def planner(family):
    made = NftablesPlanner(Surroundings(family, pods=PODS[family], service_cidrs=SERVICES[family]))
    made.replace(WEB, mixed(family), Delta())
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


async def test_five_services_as_a_whole_ruleset():
    """Loaded by nft, the golden file is what we write: rule for rule, element for element."""
    surroundings = Surroundings(
        Family.V4,
        pods=PODS[Family.V4],
        service_cidrs=SERVICES[Family.V4],
        node_port_addresses=frozenset({ip_address("192.0.2.1")}),
    )
    planner, backend = NftablesPlanner(surroundings), NftablesBackend(Family.V4)
    for service, frontends in five_services().items():
        planner.replace(service, frontends, Delta())
    await reconcile(lambda: planner.objects, backend)
    ours = nft("--terse", "list", "ruleset")
    with fresh_namespace():
        nft("--file", str(GOLDEN))
        assert sorted(nft("--terse", "list", "ruleset").splitlines()) == sorted(ours.splitlines())
        assert await in_sync(planner, backend)


STICKY = {"affinity_s": 60}
CHANGES = {
    "an endpoint more": lambda family: [frontend(family, 4)],
    "an endpoint less": lambda family: [frontend(family, 2)],
    "no endpoint left": lambda family: [frontend(family, 0)],
    "another balance": lambda family: [frontend(family, 3, Balance.ROUND_ROBIN)],
    "consistent hashing": lambda family: [
        frontend(family, 3, Balance.CONSISTENT),
        frontend(family, 3, Balance.CONSISTENT, port=90, affinity_s=60),
    ],
    "affinity on": lambda family: [frontend(family, 3, **STICKY)],
    "affinity off": lambda family: [frontend(family, 3, port=90)],
    "affinity for longer": lambda family: [frontend(family, 3, port=90, affinity_s=61)],
    "another endpoint remembers": lambda family: [
        structs.replace(frontend(family, 3, port=90, **STICKY), endpoints=places(family, 2, net=9))
    ],
    "all gone": lambda _: [],
}


@pytest.mark.parametrize("change", CHANGES)
async def test_an_incremental_change_leads_where_a_whole_one_would_and_back(planner, backend, family, change):
    await reconcile(lambda: planner.objects, backend)
    for frontends in CHANGES[change](family), mixed(family):
        delta = Delta()
        planner.replace(WEB, frontends, delta)
        await backend.apply(delta)
        assert await in_sync(planner, backend)


SURROUNDINGS = {
    "nobody can tell who is a pod": {"pods": None},
    "pods behind interfaces": {"pods": Interfaces("veth", is_prefix=True)},
    "all are masqueraded": {"masquerade_all": True},
    "another mark": {"masquerade_bit": 31},
    "no service CIDRs": {"service_cidrs": ()},
    "node ports at some addresses": {"node_port_addresses": {"192.0.2.1", "2001:db8::1"}},
    "node ports nowhere": {"node_port_addresses": set()},
}


@pytest.mark.parametrize("change", SURROUNDINGS)
async def test_surroundings_change_at_run_time(planner, backend, family, change):
    await reconcile(lambda: planner.objects, backend)
    now = dict(SURROUNDINGS[change])
    if "node_port_addresses" in now:
        addresses = map(ip_address, now["node_port_addresses"])
        now["node_port_addresses"] = frozenset(one for one in addresses if Family.of(one) is family)
    before = Surroundings(family, pods=PODS[family], service_cidrs=SERVICES[family])
    for surroundings in replace(before, **now), before:
        delta = Delta()
        planner.settle(surroundings, delta)
        assert delta
        await backend.apply(delta)
        assert await in_sync(planner, backend)


async def test_an_endpoint_is_replaced_in_place(planner, backend, family):
    await reconcile(lambda: planner.objects, backend)
    delta = Delta()
    other = Endpoint(ip_address(NETWORK[family].format(244, 9, 9)), 9090, is_local=False)
    planner.replace(WEB, [structs.replace(frontend(family, 1), endpoints=(other,))], delta)
    await backend.apply(delta)
    assert await in_sync(planner, backend)


async def test_a_chain_that_somebody_jumps_to_goes_later(planner, backend, family):
    """So it is before Linux 6.2 with any chain that an element led to."""
    await reconcile(lambda: planner.objects, backend)
    table = f"{family.nft} netproxy"
    chain = next(key.name for key in planner.objects if key.name.startswith("endpoint-"))
    nft(f"add chain {table} guest ; add rule {table} guest jump {chain}")
    delta = Delta()
    planner.replace(WEB, [], delta)
    await backend.apply(delta)
    left = diff(planner.objects, await backend.dump())
    assert not left.put
    assert Key("chain", chain) in left.drop
    assert {key.name for key, value in left.drop.items() if key.kind != "chain" or value.rules} == {"guest"}
    await reconcile(lambda: planner.objects, backend)
    assert await in_sync(planner, backend)


async def test_what_the_kernel_refuses_is_told_without_a_change(planner, backend, family):
    await reconcile(lambda: planner.objects, backend)
    before = nft("list", "ruleset")
    bad = Delta()
    planner.replace(WEB, [], bad)
    bad.put[Key("element", "hairpin", "not an address")] = ""
    assert await backend.refusal(bad)
    good = Delta()
    planner.replace(WEB, mixed(family), good)
    assert not await backend.refusal(good)
    assert nft("list", "ruleset") == before


DRIFT = {
    "an element deleted": "delete element {ip} netproxy services {{ {address} . tcp . 80 }}",
    "a foreign element": "add element {ip} netproxy cluster-ips {{ {other} }}",
    "a foreign element with a comment": 'add element {ip} netproxy cluster-ips {{ {other} comment "a, b : c" }}',
    "a foreign element for all others": "add element {ip} netproxy services {{ * : drop }}",
    "an endpoint for all others": "add element {ip} netproxy tcp-endpoints {{ * : {other} . 80 }}",
    "a chain flushed": "flush chain {ip} netproxy services",
    "a rule added": "add rule {ip} netproxy services counter",
    "a rule replaced by one like it": "flush chain {ip} netproxy prerouting ; "
    'add rule {ip} netproxy prerouting return comment "is it for a service?"',
    "a foreign chain": "add chain {ip} netproxy guest",
    "a foreign chain that is jumped to": "add chain {ip} netproxy guest ; add rule {ip} netproxy services jump guest ; "
    "add element {ip} netproxy services {{ {other} . tcp . 1 : goto guest }}",
    "a foreign set": "add set {ip} netproxy guest {{ type mark; }}",
    "a foreign set that is looked into": "add set {ip} netproxy guest {{ type mark; }} ; "
    "add rule {ip} netproxy services meta mark @guest drop",
    "a base chain deleted": "flush chain {ip} netproxy postrouting ; delete chain {ip} netproxy postrouting",
    "a base chain that comes and goes on another hook": "flush chain {ip} netproxy early-output ; "
    "delete chain {ip} netproxy early-output ; "
    "add chain {ip} netproxy early-output {{ type filter hook input priority 5; }}",
    "a base chain that comes and goes without a hook": "flush chain {ip} netproxy early-output ; "
    "delete chain {ip} netproxy early-output ; add chain {ip} netproxy early-output",
    "a set deleted": "flush chain {ip} netproxy postrouting ; delete set {ip} netproxy hairpin",
}
WHOLE = {
    "the table deleted": "delete table {ip} netproxy",
    "everything flushed": "flush ruleset",
    "a base chain on another hook": "delete table {ip} netproxy ; add table {ip} netproxy ; "
    "add chain {ip} netproxy prerouting {{ type filter hook input priority 0; }}",
    "a set of another type": "flush chain {ip} netproxy postrouting ; delete set {ip} netproxy hairpin ; "
    "add set {ip} netproxy hairpin {{ type mark; }}",
}


async def drifted(planner, backend, family, how):
    form = NETWORK[family]
    nft(how.format(ip=family.nft, address=form.format(96, 0, 1), other=form.format(96, 9, 9)))
    assert not await in_sync(planner, backend)


@pytest.mark.parametrize("drift", {**DRIFT, **WHOLE})
async def test_drift_is_found_and_repaired(planner, backend, family, drift):
    await reconcile(lambda: planner.objects, backend)
    await drifted(planner, backend, family, {**DRIFT, **WHOLE}[drift])
    await reconcile(lambda: planner.objects, backend)
    assert await in_sync(planner, backend)


def rules_and_clients(family):
    """The handles of rules that keep a counter, and who is remembered."""
    listed = nft("-a", "list", "table", family.nft, "netproxy")
    counting = re.findall(r"numgen inc .* handle (\d+)", listed)
    sets = json.loads(nft("-j", "list", "sets", family.nft))["nftables"]
    remembered = {each["set"]["name"]: each["set"].get("elem") for each in sets if "set" in each}
    return counting, {name: sorted(map(str, who or ())) for name, who in remembered.items() if "clients" in name}


@pytest.mark.parametrize("drift", DRIFT)
async def test_a_repair_forgets_no_client_and_no_turn(planner, backend, family, drift):
    await reconcile(lambda: planner.objects, backend)
    memory = next(key.name for key in planner.objects if key.name.startswith("clients-"))
    who = ", ".join(f"{NETWORK[family].format(9, 9, number)} timeout 1h" for number in range(1, 4))
    nft(f"add element {family.nft} netproxy {memory} {{ {who} }}")
    assert await in_sync(planner, backend)
    turns, clients = rules_and_clients(family)
    await drifted(planner, backend, family, DRIFT[drift])
    await reconcile(lambda: planner.objects, backend)
    turns_then, clients_then = rules_and_clients(family)
    assert turns_then == turns
    assert {name: len(who) for name, who in clients_then.items()} == {name: len(who) for name, who in clients.items()}
    assert len(clients_then[memory]) == 3


async def test_clients_are_not_read_back(planner, backend, family):
    """What packets put in is not ours to look at, and there may be millions."""
    await reconcile(lambda: planner.objects, backend)
    memory = next(key.name for key in planner.objects if key.name.startswith("clients-"))
    who = ", ".join(f"{NETWORK[family].format(9, i // 250, i % 250 + 1)} timeout 1h" for i in range(20_000))
    nft("--file", "-", text=f"add element {family.nft} netproxy {memory} {{ {who} }}")
    state = await backend.dump()
    assert state == planner.objects


async def test_cleanup_removes_our_table_and_nothing_else(planner, backend, family):
    nft(f"add table {family.nft} foreign ; add chain {family.nft} foreign nat {{ type nat hook output priority 0; }}")
    before = nft("list", "ruleset")
    await reconcile(lambda: planner.objects, backend)
    await backend.cleanup()
    assert nft("list", "ruleset") == before
    await backend.cleanup()
