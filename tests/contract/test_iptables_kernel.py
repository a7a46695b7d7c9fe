"""The iptables backend against a real kernel, through both variants of iptables and in both families."""

import os
import re
import select
import socket
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from deadline import PATIENCE_S
from msgspec.structs import replace

from controlloop.command import CommandError, run
from controlloop.delta import Delta, diff
from controlloop.family import Family
from controlloop.iptables.kernel import Variant, detect_variant
from controlloop.reconcile import reconcile
from lab.enter import opened_up
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
from proxy.iptables.address_sets import AddressSets
from proxy.iptables.desired import IptablesPlanner
from proxy.iptables.kernel import IptablesBackend
from proxy.node import Interfaces, Surroundings

pytestmark = pytest.mark.usefixtures("netns")

REPOSITORY = Path(__file__).parents[2]
PODS = {Family.V4: ip_network("10.244.0.0/16"), Family.V6: ip_network("fd00:244::/64")}
NOBODYS = {Family.V4: ip_network("192.0.2.0/24"), Family.V6: ip_network("2001:db8::/32")}
SERVICES = {Family.V4: "10.96.{}.{}", Family.V6: "fd00:96::{}:{}"}
WEB = ServiceName("default", "web")
NOBODY = 65534
FREEBIND = {Family.V4: (socket.SOL_IP, 15), Family.V6: (socket.IPPROTO_IPV6, 78)}
"""IP_FREEBIND (linux/in.h) and IPV6_FREEBIND (linux/in6.h)."""


@pytest.fixture(params=list(Variant), ids=lambda variant: variant.value)
def variant(request):
    return request.param


@pytest.fixture(params=list(Family), ids=lambda family: family.nft)
def family(request):
    return request.param


@pytest.fixture
def backend(family, variant):
    return IptablesBackend(family, variant)


def service_address(family, number):
    return ip_address(SERVICES[family].format(number >> 8, f"{number & 255:{'x' if family is Family.V6 else 'd'}}"))


def endpoints(family, count):
    first = PODS[family].network_address
    return tuple(Endpoint(first + 258 + number, 8080, is_local=number == 0) for number in range(count))


def frontend(family, service=WEB, number=1, *, count=3, balance=Balance.RANDOM, protocol=Protocol.TCP, port=80):
    name = ServicePortName(service, "http")
    return Frontend(name, service_address(family, number), protocol, port, balance, endpoints(family, count))


def external(family, scope=Scope.NODE_PORT, number=200, **others):
    address = ANY_NODE_ADDRESS[family] if scope is Scope.NODE_PORT else service_address(family, number)
    port = 30000 + number if scope is Scope.NODE_PORT else 80
    return replace(frontend(family), scope=scope, address=address, port=port, **others)


def mixed(family):
    """Each protocol, balance and kind of address, with many endpoints, one and none."""
    weighted = tuple(
        Endpoint(one.address, 8080, one.is_local, weight) for weight, one in enumerate(endpoints(family, 4))
    )
    local = {"endpoints": endpoints(family, 1), "inside": endpoints(family, 3), "refusal": Refusal.DROP}
    return [
        external(family),
        external(family, number=201, endpoints=()),
        external(family, number=202, **local),
        external(family, number=203, **{**local, "endpoints": ()}),
        external(family, Scope.EXTERNAL_IP, affinity_s=60),
        external(family, Scope.LOAD_BALANCER, 201, sources=(PODS[family], NOBODYS[family]), **local),
        replace(frontend(family, port=83, balance=Balance.WEIGHTED), endpoints=weighted),
        frontend(family, count=7),
        frontend(family, port=81, balance=Balance.ROUND_ROBIN),
        frontend(family, port=53, protocol=Protocol.UDP, count=1),
        frontend(family, port=132, protocol=Protocol.SCTP),
        frontend(family, port=82, count=0),
        frontend(family, port=132, number=2, protocol=Protocol.SCTP, count=0),
    ]


@pytest.fixture
def planner(family):
    """Enough services for a tree of several levels in both tables."""
    made = IptablesPlanner(Surroundings(family, pods=PODS[family]))
    made.replace(WEB, mixed(family), Delta())
    for number in range(60):
        service = ServiceName("default", f"s{number}")
        made.replace(service, [frontend(family, service, 40 * number + 9, count=number % 3)], Delta())
    return made


async def in_sync(planner, backend):
    return not diff(planner.objects, await backend.dump())


class Programs:
    """The programs of one variant and family, for what somebody else does on the host."""

    def __init__(self, family, variant):
        self._stem = f"{'iptables' if family is Family.V4 else 'ip6tables'}-{variant.value}"

    def rules(self, table):
        """As saved, without the lines that carry a date."""
        saved = subprocess.run([f"{self._stem}-save", "-t", table], check=True, capture_output=True, text=True).stdout
        return [line for line in saved.splitlines() if not line.startswith("#")]

    def __call__(self, *arguments):
        subprocess.run([self._stem, "-w", *arguments], check=True, capture_output=True)


@pytest.fixture
def iptables(family, variant):
    return Programs(family, variant)


async def test_a_fresh_host_holds_nothing_of_ours(backend):
    assert await backend.dump() == {}


async def test_what_was_applied_is_what_is_read_back(planner, backend):
    await backend.apply(diff(planner.objects, await backend.dump()))
    assert await backend.dump() == dict(planner.objects)


async def test_a_restart_finds_its_rules_and_changes_nothing(planner, backend):
    await reconcile(lambda: planner.objects, backend)
    report = await reconcile(lambda: planner.objects, backend)
    assert not report.delta


async def test_one_changed_endpoint_rewrites_one_chain(planner, backend, family, iptables):
    await reconcile(lambda: planner.objects, backend)
    before = iptables.rules("nat")
    delta = Delta()
    service = ServiceName("default", "s1")
    planner.replace(service, [frontend(family, service, 49, count=4)], delta)
    await backend.apply(delta)
    changed = {line.split()[1] for line in set(before) ^ set(iptables.rules("nat"))}
    assert changed == {chain for _, chain in delta.put}
    assert len(changed) == 1
    assert await in_sync(planner, backend)


async def test_services_come_and_go_one_by_one(planner, backend, family):
    await reconcile(lambda: planner.objects, backend)
    for number in range(0, 60, 7):
        service = ServiceName("default", f"s{number}")
        for wanted in ([], [frontend(family, service, 40 * number + 9, count=number % 2)]):
            delta = Delta()
            planner.replace(service, wanted, delta)
            await backend.apply(delta)
        assert await in_sync(planner, backend)


SURROUNDINGS = (
    {},
    {"pods": Interfaces("cni0"), "localhost_node_ports": True, "health_check_ports": frozenset(range(31000, 31040))},
    {"pods": Interfaces("cali", is_prefix=True), "masquerade_bit": 31, "tcp_be_liberal": True},
    {"masquerade_all": True, "node_port_addresses": frozenset(map(ip_address, ("192.0.2.1", "2001:db8::1")))},
)


async def test_each_kind_of_surroundings_follows_on_each_other(planner, backend, family):
    """A delta at a time; the ways back are others than the ways there."""
    await reconcile(lambda: planner.objects, backend)
    for given in (*SURROUNDINGS, *reversed(SURROUNDINGS)):
        delta = Delta()
        planner.settle(Surroundings(family, **given), delta)
        await backend.apply(delta)
        assert await in_sync(planner, backend)


async def test_without_services_only_the_constant_chains_are_left(planner, backend, family):
    await reconcile(lambda: planner.objects, backend)
    delta = Delta()
    for service in [WEB, *(ServiceName("default", f"s{number}") for number in range(60))]:
        planner.replace(service, [], delta)
    await backend.apply(delta)
    assert await backend.dump() == dict(IptablesPlanner(Surroundings(family, pods=PODS[family])).objects)


async def test_rules_of_others_stay_as_they_are(planner, backend, iptables):
    iptables("-t", "nat", "-N", "DOCKER")
    iptables("-t", "nat", "-A", "DOCKER", "-j", "RETURN")
    iptables("-t", "nat", "-A", "OUTPUT", "-m", "comment", "--comment", "not -j NETPROXY-SERVICES", "-j", "DOCKER")
    iptables("-A", "INPUT", "-p", "tcp", "--dport", "22", "-j", "ACCEPT")
    iptables("-t", "mangle", "-N", "NETPROXY-SERVICES")
    tables = ("nat", "filter", "mangle")
    before = {table: iptables.rules(table) for table in tables}
    await reconcile(lambda: planner.objects, backend)
    for table in tables:
        assert set(before[table]) <= set(iptables.rules(table))
    await backend.cleanup()
    assert {table: iptables.rules(table) for table in tables} == before


async def test_cleanup_removes_everything_and_may_be_repeated(planner, backend, iptables):
    await reconcile(lambda: planner.objects, backend)
    await backend.cleanup()
    await backend.cleanup()
    for table in ("nat", "filter"):
        assert not [line for line in iptables.rules(table) if "NETPROXY" in line]


async def test_cleanup_and_repair_start_from_what_is_left(planner, backend, iptables):
    """Somebody flushed a table, deleted a jump, doubled another and jumps to us from a chain of their own."""

    def damage():
        iptables("-t", "nat", "-D", "OUTPUT", "-j", "NETPROXY-SERVICES")
        iptables("-t", "nat", "-A", "PREROUTING", "-j", "NETPROXY-SERVICES")
        iptables("-t", "nat", "-A", "THEIRS", "-j", "NETPROXY-HAIRPIN")
        iptables("-F")
        iptables("-X")

    iptables("-t", "nat", "-N", "THEIRS")
    await reconcile(lambda: planner.objects, backend)
    damage()
    await reconcile(lambda: planner.objects, backend)
    assert await in_sync(planner, backend)
    damage()
    await backend.cleanup()
    assert await backend.dump() == {}


async def test_a_refused_line_is_named(backend):
    bad = Delta(put={("nat", "NETPROXY-SVC-X"): ("-j RETURN", "-s nowhere -j RETURN")})
    with pytest.raises(CommandError, match="the line is: -A NETPROXY-SVC-X -s nowhere -j RETURN"):
        await backend.apply(bad)
    assert await backend.dump() == {}


def version(program):
    return subprocess.check_output([program, "--version"])


async def test_the_variant_of_the_host_is_found(family):
    """Both variants answer here under their own names; the plain name is one of them."""
    found = await detect_variant(family)
    plain = "iptables" if family is Family.V4 else "ip6tables"
    assert version(plain) == version(f"{plain}-{found.value}")
    assert await IptablesBackend(family).dump() == {}


async def test_the_golden_ruleset_loads_with_its_comments(variant):
    golden = (REPOSITORY / "tests" / "golden" / "five_services.iptables").read_text()
    sets = AddressSets(Family.V4, "NETPROXY-4-")
    sets.make(set(re.findall(r"-set (NETPROXY-4-\S+)", golden)))
    await run([f"iptables-{variant.value}-restore", "--noflush"], golden.encode())
    state = await IptablesBackend(Family.V4, variant).dump()
    assert len(state["nat", "NETPROXY-SERVICES"]) == 6
    assert len(state["filter", "NETPROXY-REFUSED"]) == 4


AS_NOBODY = """
import asyncio, sys
from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.iptables.kernel import Variant
from controlloop.reconcile import reconcile
from proxy.iptables.desired import IptablesPlanner
from proxy.iptables.kernel import IptablesBackend
from proxy.node import Surroundings

async def main():
    backend = IptablesBackend(Family.V4, Variant(sys.argv[1]))
    planner = IptablesPlanner(Surroundings(Family.V4))
    assert (await reconcile(lambda: planner.objects, backend)).delta
    await backend.cleanup()
    assert not await backend.dump()

asyncio.run(main())
"""


def test_root_is_not_needed(variant, tmp_path):
    """CAP_NET_ADMIN is enough for nft; legacy wants CAP_NET_RAW and a lock file that it may write as well."""
    capabilities = "-all,+net_admin" + (",+net_raw" if variant is Variant.LEGACY else "")
    lock = Path("/tmp") / f"nodenet-test-{os.getpid()}.lock"  # noqa: S108 - pytest's own folders are closed to others
    lock.touch()
    os.chown(lock, NOBODY, NOBODY)
    user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    power = [f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}", f"--bounding-set={capabilities}"]
    try:
        ran = subprocess.run(
            ["setpriv", *user, *power, "--no-new-privs", sys.executable, "-B", "-c", AS_NOBODY, variant.value],
            cwd=REPOSITORY,
            env={**os.environ, "XTABLES_LOCKFILE": str(lock)},
            preexec_fn=opened_up(tmp_path),
            check=False,
            capture_output=True,
            text=True,
        )
    finally:
        lock.unlink()
    assert not ran.returncode, ran.stderr


class Node:
    """A host with pods of its own and listeners at the endpoints; the way to services leads out, to nobody."""

    def __init__(self, stack, family):
        self.family = family
        self.address = {Family.V4: "192.0.2.1", Family.V6: "2001:db8::1"}[family]
        self.pod = str(endpoints(family, 1)[0].address)
        self._stack = stack
        services = {Family.V4: "10.96.0.0/16", Family.V6: "fd00:96::/64"}[family]
        for command in (
            "link add wire type veth peer name far",
            "link set wire up",
            "link set far up",
            f"address add {self.address}/{family.bits} dev lo",
            f"route add local {PODS[family]} dev lo",
            f"route add {services} dev wire",
        ):
            subprocess.run(["ip", f"-{family.value}", *command.split()], check=True)

    def listen(self, kind, count=3):
        """At each endpoint. Its address is local by a route, which IPv6 accepts only from who insists."""
        listeners = []
        for place in endpoints(self.family, count):
            listener = self._socket(kind, str(place.address), place.port)
            if kind is socket.SOCK_STREAM:
                listener.listen()
            listeners.append(listener)
        return listeners

    def connect(self, frontend, kind, source):
        client = self._socket(kind, source, 0)
        client.settimeout(PATIENCE_S)
        client.connect((str(frontend.address), frontend.port))
        client.send(b"?")
        return client

    def reach(self, frontend, listeners, source):
        """Which endpoint a new connection lands on, and the source that it sees."""
        kind = listeners[0].type
        # Both ends stay open: a port used again could still belong to the earlier flow, and follow it.
        self.connect(frontend, kind, source)
        ready, _, _ = select.select(listeners, [], [], PATIENCE_S)
        if kind is socket.SOCK_STREAM:
            accepted, peer = ready[0].accept()
            self._stack.enter_context(accepted)
        else:
            _, peer = ready[0].recvfrom(1)
        return listeners.index(ready[0]), peer[0]

    def _socket(self, kind, address, port):
        made = self._stack.enter_context(
            socket.socket(getattr(socket, f"AF_INET{'6' * (self.family is Family.V6)}"), kind)
        )
        made.setsockopt(*FREEBIND[self.family], 1)
        made.bind((address, port))
        return made


@pytest.fixture
def node(family):
    with ExitStack() as stack:
        yield Node(stack, family)


async def programmed(backend, family, *frontends):
    planner = IptablesPlanner(Surroundings(family, pods=PODS[family]))
    planner.replace(WEB, frontends, Delta())
    await reconcile(lambda: planner.objects, backend)
    return planner


KINDS = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}


@pytest.mark.parametrize("protocol", KINDS)
async def test_round_robin_is_exact(backend, family, node, protocol):
    service = frontend(family, balance=Balance.ROUND_ROBIN, protocol=protocol)
    await programmed(backend, family, service)
    listeners = node.listen(KINDS[protocol])
    hits = Counter(node.reach(service, listeners, node.address)[0] for _ in range(300))
    assert hits == {0: 100, 1: 100, 2: 100}


async def test_random_reaches_all_endpoints_alike(backend, family, node):
    """Six standard deviations on either side."""
    service = frontend(family)
    await programmed(backend, family, service)
    listeners = node.listen(socket.SOCK_STREAM)
    hits = Counter(node.reach(service, listeners, node.address)[0] for _ in range(300))
    assert all(50 <= hits[number] <= 150 for number in range(3)), hits


@pytest.mark.parametrize("variant", [Variant.NFT], ids=["nft"])
async def test_round_robin_goes_on_while_other_services_change_and_over_a_restart(backend, family, node):
    service = frontend(family, balance=Balance.ROUND_ROBIN)
    planner = await programmed(backend, family, service)
    listeners = node.listen(socket.SOCK_STREAM)
    landed = []
    for number in range(6):
        landed.append(node.reach(service, listeners, node.address)[0])
        other = ServiceName("default", f"other{number}")
        planner.replace(other, [frontend(family, other, 100 + number)], Delta())
        await reconcile(lambda: planner.objects, IptablesBackend(family, Variant.NFT))
    assert landed == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("protocol", KINDS)
async def test_a_service_without_endpoints_refuses_at_once(backend, family, node, protocol):
    """Without the rule the packet would leave for the wire, and nobody would answer. UDP hears of it from send()."""
    service = frontend(family, count=0, protocol=protocol)
    await programmed(backend, family, service)
    with pytest.raises((ConnectionRefusedError, PermissionError)):
        node.connect(service, KINDS[protocol], node.address).recv(1)


async def test_who_is_no_pod_is_masqueraded_and_so_is_a_pod_that_reaches_itself(backend, family, node):
    service = frontend(family, balance=Balance.ROUND_ROBIN)
    await programmed(backend, family, service)
    listeners = node.listen(socket.SOCK_STREAM)
    elsewhere = {Family.V4: "10.244.200.7", Family.V6: "fd00:244::200:7"}[family]
    stranger = {Family.V4: "198.51.100.7", Family.V6: "2001:db8::7"}[family]
    await run(["ip", f"-{family.value}", "route", "add", "local", stranger, "dev", "lo"])
    seen = [node.reach(service, listeners, source) for source in (node.pod, node.pod, elsewhere, stranger)]
    assert seen == [(0, node.address), (1, node.pod), (2, elsewhere), (0, node.address)]
