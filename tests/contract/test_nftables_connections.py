"""What the rules do to connections where the kernel's limits are reached. All else is in tests/netns/proxy."""

import select
import socket
import subprocess
from collections import Counter
from contextlib import ExitStack
from ipaddress import ip_address

import pytest
from deadline import PATIENCE_S

from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.reconcile import reconcile
from proxy.frontends import Balance, Endpoint, Frontend, Protocol, ServiceName, ServicePortName
from proxy.nftables import services
from proxy.nftables.desired import NftablesPlanner
from proxy.nftables.kernel import NftablesBackend
from proxy.node import Surroundings

pytestmark = pytest.mark.usefixtures("netns")

ADDRESS = "10.96.0.1"
ENDPOINTS = ["10.244.1.2", "10.244.1.3"]
CLIENTS = [f"10.9.0.{number}" for number in range(1, 9)]


def service(**options):
    endpoints = tuple(Endpoint(ip_address(one), 8080, is_local=True) for one in ENDPOINTS)
    name = ServicePortName(ServiceName("default", "web"), "")
    return Frontend(name, ip_address(ADDRESS), Protocol.TCP, 80, Balance.RANDOM, endpoints, **options)


async def written(*frontends):
    planner, backend = NftablesPlanner(Surroundings(Family.V4)), NftablesBackend(Family.V4)
    planner.replace(ServiceName("default", "web"), frontends, Delta())
    await reconcile(lambda: planner.objects, backend)


@pytest.fixture
def servers():
    """Listeners at the endpoints, by address; clients and endpoints are all on this host."""
    for network in "10.9.0.0/16", "10.244.1.0/24":
        subprocess.run(["ip", "route", "add", "local", network, "dev", "lo"], check=True)
    subprocess.run(["ip", "route", "add", "10.96.0.0/16", "dev", "lo"], check=True)
    with ExitStack() as stack:
        yield {one: stack.enter_context(socket.create_server((one, 8080))) for one in ENDPOINTS}


def landed(servers, client):
    """Which endpoint a new connection of the client reaches."""
    with socket.create_connection((ADDRESS, 80), timeout=PATIENCE_S, source_address=(client, 0)):
        ready, _, _ = select.select(servers.values(), [], [], PATIENCE_S)
        (one,) = ready
        one.accept()[0].close()
        return next(address for address, server in servers.items() if server is one)


async def test_a_client_that_is_not_remembered_for_lack_of_room_is_served_all_the_same(servers, monkeypatch):
    monkeypatch.setattr(services, "MOST_CLIENTS", 2)
    await written(service(affinity_s=60))
    first = {client: landed(servers, client) for client in CLIENTS}
    assert max(Counter(first.values()).values()) > 2, "no set was ever full"


async def test_a_client_that_is_remembered_stays(servers):
    await written(service(affinity_s=60))
    first = [landed(servers, client) for client in CLIENTS]
    assert [landed(servers, client) for client in CLIENTS * 3] == first * 3
