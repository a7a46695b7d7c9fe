"""Clients that keep their endpoint in iptables mode: sets of addresses, and the match `recent` where there are none."""

import select
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from ipaddress import ip_address

import pytest
from deadline import PATIENCE_S, eventually
from pyroute2 import IPSet

from controlloop.command import run
from controlloop.delta import Delta, diff
from controlloop.family import Family
from controlloop.iptables.kernel import Variant
from controlloop.reconcile import reconcile
from proxy.frontends import Balance, Endpoint, Frontend, Protocol, ServiceName, ServicePortName
from proxy.iptables.address_sets import AddressSets
from proxy.iptables.balancing import Memory, memory_name
from proxy.iptables.desired import IptablesPlanner
from proxy.iptables.kernel import IptablesBackend, affinity_memory
from proxy.node import Surroundings

pytestmark = pytest.mark.usefixtures("netns")

WEB = ServiceName("default", "web")
SERVICE = {Family.V4: "10.96.0.1", Family.V6: "fd00:96::1"}
PLACES = {Family.V4: "10.244.1.{}", Family.V6: "fd00:244::{}"}
CLIENTS = {Family.V4: "172.30.0.0/16", Family.V6: "fd00:172::/64"}
MANY = 12_000
LISTENER_PORT = 8080
FREEBIND = {Family.V4: (socket.SOL_IP, 15), Family.V6: (socket.IPPROTO_IPV6, 78)}


@pytest.fixture(params=list(Variant), ids=lambda variant: variant.value)
def variant(request):
    return request.param


@pytest.fixture(params=list(Family), ids=lambda family: family.nft)
def family(request):
    return request.param


@pytest.fixture
def backend(family, variant):
    return IptablesBackend(family, variant)


def frontend(family, *, count=3, affinity_s=600, balance=Balance.RANDOM, first=1):
    places = tuple(
        Endpoint(ip_address(PLACES[family].format(number)), LISTENER_PORT, is_local=False)
        for number in range(first, first + count)
    )
    name = ServicePortName(WEB, "dns")
    return Frontend(name, ip_address(SERVICE[family]), Protocol.UDP, 53, balance, places, affinity_s=affinity_s)


class Service:
    """Endpoints on this host, behind rules that a test changes; clients have an address each."""

    def __init__(self, stack, family, backend, memory):
        self.family, self.backend = family, backend
        self.planner = IptablesPlanner(Surroundings(family), memory)
        self._stack = stack
        self._listeners = []

    async def start(self, **options):
        for local in (CLIENTS[self.family], PLACES[self.family].format(0) + "/24"):
            await run(["ip", f"-{self.family.value}", "route", "add", "local", local, "dev", "lo"])
        # The way to the service only has to be there: no packet takes it.
        await run(["ip", f"-{self.family.value}", "route", "add", SERVICE[self.family], "dev", "lo"])
        wanted = frontend(self.family, **options)
        self.planner.replace(WEB, [wanted], Delta())
        await reconcile(lambda: self.planner.objects, self.backend)
        for endpoint in wanted.endpoints:
            self._listeners.append(self._socket(str(endpoint.address), LISTENER_PORT))

    async def change(self, **options):
        delta = Delta()
        self.planner.replace(WEB, [frontend(self.family, **options)], delta)
        await self.backend.apply(delta)

    def call(self, client):
        """The number of the endpoint that a new flow of this client lands on."""
        first = ip_address(CLIENTS[self.family].partition("/")[0])
        with self._socket(str(first + 1 + client), 0) as caller:
            caller.sendto(b"?", (SERVICE[self.family], 53))
            ready, _, _ = select.select(self._listeners, [], [], PATIENCE_S)
            ready[0].recv(1)
        return self._listeners.index(ready[0])

    def _socket(self, address, port):
        made = self._stack.enter_context(socket.socket(self.family.af, socket.SOCK_DGRAM))
        made.setsockopt(*FREEBIND[self.family], 1)
        made.bind((address, port))
        return made


def remembered():
    """Seconds that are left to each address in a set, as pyroute2 reads them, which runs a loop of its own."""
    with ThreadPoolExecutor() as thread:
        return thread.submit(_remembered).result()


def _remembered():
    with IPSet() as sets:
        contents = [message.get_attr("IPSET_ATTR_ADT") for message in sets.list()]
    entries = [entry for content in contents if content for entry in content.get_attrs("IPSET_ATTR_DATA")]
    return [entry.get_attr("IPSET_ATTR_TIMEOUT") for entry in entries]


@pytest.fixture
def service(family, backend):
    with ExitStack() as stack:
        yield Service(stack, family, backend, Memory.SETS)


async def test_more_than_ten_thousand_clients_each_keep_their_endpoint(service):
    await service.start()
    first = [service.call(client) for client in range(MANY)]
    assert [service.call(client) for client in range(MANY)] == first
    assert all(0.8 * MANY / 3 < count < 1.2 * MANY / 3 for count in Counter(first).values())


async def test_a_full_set_takes_who_is_new_and_grows_no_more(service):
    await service.start(count=1)
    for client in range(12_000):
        service.call(client)
    assert 8_000 < len(remembered()) < 8_400


async def test_clients_of_a_gone_endpoint_find_another_and_those_of_the_others_stay(service):
    await service.start()
    first = [service.call(client) for client in range(300)]
    await service.change(count=2)
    then = [service.call(client) for client in range(300)]
    assert all(after == before if before < 2 else after < 2 for before, after in zip(first, then, strict=True))


async def test_an_endpoint_that_comes_back_finds_none_of_its_old_clients(service, family, backend):
    """At once, while nf_tables may still hold the old set."""
    await service.start(count=1)
    before = [service.call(client) for client in range(100)]
    await service.change(count=1, first=2)
    await service.change(count=1)
    assert set(before) == {0}
    assert remembered() == []
    assert not diff(service.planner.objects, await backend.dump())


async def test_each_new_connection_starts_the_time_anew(service):
    await service.start(count=1, affinity_s=600)
    service.call(1)
    (left,) = remembered()
    assert 590 <= left <= 600
    await service.change(count=1, affinity_s=900)
    service.call(1)
    (left,) = remembered()
    assert 890 <= left <= 900


async def test_who_does_not_call_is_forgotten(service):
    await service.start(affinity_s=2)
    for client in range(10):
        service.call(client)
    assert len(remembered()) == 10
    eventually(lambda: not remembered())


@pytest.mark.parametrize("memory", list(Memory))
async def test_round_robin_chooses_for_who_is_new(family, backend, memory):
    with ExitStack() as stack:
        service = Service(stack, family, backend, memory)
        await service.start(balance=Balance.ROUND_ROBIN)
        first = [service.call(client) for client in range(30)]
        assert first == [0, 1, 2] * 10
        assert [service.call(client) for client in range(30)] == first


async def test_what_was_applied_is_what_is_read_back(service, backend):
    await service.start()
    assert await backend.dump() == dict(service.planner.objects)


async def test_cleanup_leaves_no_set(service, family, backend):
    await service.start()
    await backend.cleanup()
    assert AddressSets(family, "").names() == set()
    assert await backend.dump() == {}


async def test_the_other_variants_sets_are_left_to_it(service, family, variant, backend):
    await service.start()
    (other,) = set(Variant) - {variant}
    await IptablesBackend(family, other).cleanup()
    assert not diff(service.planner.objects, await backend.dump())


async def test_sets_of_others_are_neither_seen_nor_touched(service, family, backend):
    stranger = Frontend(ServicePortName(WEB, "x"), ip_address("::1"), Protocol.TCP, 1, Balance.RANDOM, ())
    other_family = memory_name(stranger, Endpoint(ip_address("::1"), 1, is_local=False))
    theirs = {"THEIRS", other_family if family is Family.V4 else other_family.replace("-6-", "-4-")}
    AddressSets(Family.V4, "").make(theirs)
    await service.start()
    await backend.cleanup()
    assert AddressSets(family, "").names() == theirs


async def test_this_kernel_has_sets(family):
    assert affinity_memory(family) is Memory.SETS


def test_a_set_that_cannot_be_is_named():
    with pytest.raises(OSError, match="ipset NETPROXY-4-" + "X" * 40):
        AddressSets(Family.V4, "NETPROXY-4-").make(["NETPROXY-4-" + "X" * 40])
