"""Flows in a real kernel: each that is listed, each that is deleted, and no other."""

import socket
import subprocess
from contextlib import ExitStack
from ipaddress import ip_address

import pytest
from msgspec.structs import replace

from controlloop.family import Family
from proxy.conntrack import kernel
from proxy.conntrack.keeper import FlowKeeper
from proxy.conntrack.kernel import delete, flows
from proxy.conntrack.messages import Flow
from proxy.frontends import Balance, Endpoint, Frontend, Protocol, ServiceName, ServicePortName

pytestmark = pytest.mark.usefixtures("netns")

LOOPBACK = {Family.V4: "127.0.0.1", Family.V6: "::1"}
AF = {Family.V4: socket.AF_INET, Family.V6: socket.AF_INET6}


@pytest.fixture(params=list(Family), ids=lambda family: family.nft)
def family(request):
    """With a rule that makes the kernel remember flows."""
    for name in ("ip", "ip6"):
        rules = f"table {name} t {{ chain o {{ type filter hook output priority 0; ct state new accept; }}; }}"
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    return request.param


@pytest.fixture
def speak(family):
    """Sends one datagram from a socket that stays open; gives back its source port."""
    with ExitStack() as held:

        def send(port):
            made = held.enter_context(socket.socket(AF[family], socket.SOCK_DGRAM))
            made.sendto(b"x", (LOOPBACK[family], port))
            return made.getsockname()[1]

        yield send


def ports(found):
    return {int.from_bytes(flow.destination_port, "big") for flow in found}


def test_all_flows_of_a_family_are_listed(family, speak):
    for port in range(5000, 5300):  # more than one datagram holds
        speak(port)
    assert ports(flows(family, Protocol.UDP)) == set(range(5000, 5300))
    assert ports(flows(family, Protocol.TCP)) == set()
    assert ports(flows(family)) == set(range(5000, 5300))


def test_a_flow_is_listed_as_it_is(family, speak):
    source_port = speak(5000)
    (flow,) = flows(family, Protocol.UDP)
    here = socket.inet_pton(AF[family], LOOPBACK[family])
    expected = Flow(17, here, source_port.to_bytes(2, "big"), here, b"\x13\x88", here, b"\x13\x88", flow.id)
    assert flow == expected


def test_only_what_is_doomed_is_deleted(family, speak):
    for port in range(5000, 5500):
        speak(port)
    doomed = [flow for flow in flows(family) if int.from_bytes(flow.destination_port, "big") % 2]
    assert delete(family, doomed) == 250
    assert ports(flows(family)) == set(range(5000, 5500, 2))


class Counting(socket.socket):
    sent = 0

    def send(self, *arguments):
        Counting.sent += 1
        return super().send(*arguments)


@pytest.mark.kube_proxy("6.1-38")
def test_a_look_is_one_request_and_two_hundred_deletions_are_one(family, speak, monkeypatch):
    """kube-proxy lists twice and deletes one by one; with a million flows that is what takes the time."""
    for port in range(5000, 5450):
        speak(port)
    monkeypatch.setattr(Counting, "sent", 0)
    monkeypatch.setattr(kernel.socket, "socket", Counting)
    doomed = list(flows(family, Protocol.UDP))
    assert Counting.sent == 1
    assert delete(family, doomed) == 450
    assert Counting.sent == 1 + 3


def test_what_is_gone_already_is_no_error(family, speak):
    speak(5000)
    doomed = list(flows(family))
    assert delete(family, doomed) == 1
    assert delete(family, doomed) == 0


def test_a_later_flow_with_the_same_ports_stays(family, speak):
    speak(5000)
    old = [flow._replace(id=b"\xff\xff\xff\xff") for flow in flows(family)]
    assert delete(family, old) == 0
    assert ports(flows(family)) == {5000}


def udp_frontend(family, port, *endpoint_ports, **fields):
    here = ip_address(LOOPBACK[family])
    name = ServicePortName(ServiceName("default", "dns"), "")
    served = tuple(Endpoint(here, number, is_local=True) for number in endpoint_ports)
    return Frontend(name, here, Protocol.UDP, port, Balance.RANDOM, served, **fields)


@pytest.mark.kube_proxy("gap 3.9-3")
async def test_the_keeper_forgets_what_leads_nowhere_and_looks_only_when_something_went(family, speak):
    keeper = FlowKeeper(lambda _: frozenset())
    service = ServiceName("default", "dns")
    speak(5000)
    speak(6000)
    keeper.note([(service, (udp_frontend(family, 5000, 5000, 5001),))])
    await keeper.clean()
    assert ports(flows(family)) == {5000, 6000}
    keeper.note([(service, (udp_frontend(family, 5000, 5001),))])
    await keeper.clean()
    assert ports(flows(family)) == {6000}
    assert keeper.deleted == 1


async def test_tcp_flows_to_an_endpoint_that_went_end_after_the_drain_time(family):
    now = [0.0]
    keeper = FlowKeeper(lambda _: frozenset(), clock=lambda: now[0])
    service = ServiceName("default", "web")

    def web(*endpoint_ports):
        return replace(udp_frontend(family, 8080, *endpoint_ports, drain_s=30), protocol=Protocol.TCP)

    here = (LOOPBACK[family], 8080)
    with ExitStack() as held:
        server = held.enter_context(socket.create_server(here, family=AF[family]))
        held.enter_context(socket.create_connection(here))
        held.enter_context(server.accept()[0])
        keeper.note([(service, (web(8080, 8081),))])
        keeper.note([(service, (web(8081),))])
        await keeper.clean()
        assert keeper.next_due_s == 30
        assert 8080 in ports(flows(family, Protocol.TCP))
        now[0] = 30.0
        await keeper.clean()
        assert 8080 not in ports(flows(family, Protocol.TCP))
    assert keeper.next_due_s is None
