"""Localhost node ports make the kernel take loopback addresses from the wire; the guard in table raw does not."""

import socket
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest
from deadline import PATIENCE_S
from namespace import fresh_namespace, inside
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from controlloop.delta import Delta, diff
from controlloop.family import Family
from controlloop.iptables.kernel import Variant
from controlloop.reconcile import reconcile
from proxy.frontends import ANY_NODE_ADDRESS, Balance, Endpoint, Frontend, Protocol, Scope, ServiceName, ServicePortName
from proxy.iptables.desired import IptablesPlanner
from proxy.iptables.kernel import IptablesBackend
from proxy.iptables.loopback import GUARD, ROUTE_LOCALNET
from proxy.node import Surroundings

NODE, NEIGHBOR, LOOPBACK = "192.0.2.1", "192.0.2.2", "127.0.0.1"
OTHER_LOOPBACK = "127.0.0.9"
"""As a source the kernel refuses 127.0.0.1, which is an address of its own, and takes its neighbors."""
NODE_MAC = "02:00:00:00:00:01"
NODE_PORT, ENDPOINT_PORT = 30080, 8080
PORTS = range(20000, 21000)
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
WEB = ServicePortName(ServiceName("default", "web"), "")


@pytest.fixture
def neighbor():
    with fresh_namespace() as name:
        yield name


@pytest.fixture
def node(neighbor, netns):
    """This thread is in the node's namespace; the neighbor is on the other end of `wire`."""
    for at, command in (
        (netns, f"link add wire address {NODE_MAC} type veth peer name wire netns {neighbor}"),
        (netns, f"address add {NODE}/24 dev wire"),
        (neighbor, f"address add {NEIGHBOR}/24 dev wire"),
        (netns, "link set wire up"),
        (neighbor, "link set wire up"),
    ):
        subprocess.run(["ip", "-n", at, *command.split()], check=True)
    for where in ("all", "wire"):
        Path(f"/proc/sys/net/ipv4/conf/{where}/rp_filter").write_text("0")


@pytest.fixture(params=list(Variant), ids=lambda variant: variant.value)
async def backend(request, node):
    made = IptablesBackend(Family.V4, request.param)
    planner = IptablesPlanner(Surroundings(Family.V4, localhost_node_ports=True))
    endpoint = Endpoint(ip_address(NEIGHBOR), ENDPOINT_PORT, is_local=False)
    address = ANY_NODE_ADDRESS[Family.V4]
    node_port = Frontend(WEB, address, Protocol.UDP, NODE_PORT, Balance.RANDOM, (endpoint,), scope=Scope.NODE_PORT)
    planner.replace(WEB.service, [node_port], Delta())
    await reconcile(lambda: planner.objects, made)
    return made


def delivered(neighbor):
    """How many of the neighbor's packets from or to loopback addresses the node takes for its own, of 2,000."""
    pairs = [*((NEIGHBOR, LOOPBACK, port) for port in PORTS), *((OTHER_LOOPBACK, NODE, port) for port in PORTS)]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as hears:
        hears.settimeout(PATIENCE_S)
        hears.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22)
        with inside(neighbor), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind(("wire", 0))
            for source, target, port in (*pairs, (NEIGHBOR, NODE, 9)):
                packet = Ether(dst=NODE_MAC) / IP(src=source, dst=target) / UDP(sport=9, dport=port) / b"forged"
                wire.send(bytes(packet))
        heard = []
        # The last one is welcome; whatever went before it has arrived by then.
        while not heard or UDP(heard[-1][20:]).dport != 9:
            heard.append(hears.recv(1024))
    return len(heard) - 1


async def test_neighbors_reach_nobody_at_loopback_and_nobody_by_its_name(neighbor, backend):
    assert ROUTE_LOCALNET.read_text() == "1\n"
    assert delivered(neighbor) == 0
    await backend.cleanup()
    assert ROUTE_LOCALNET.read_text() == "0\n"
    assert delivered(neighbor) == 0
    ROUTE_LOCALNET.write_text("1")  # the kernel alone would let them in
    assert delivered(neighbor) == 2 * len(PORTS)


async def test_somebody_who_turns_the_sysctl_off_is_noticed_by_an_audit(backend):
    before = dict(await backend.dump())
    ROUTE_LOCALNET.write_text("0")
    missing = diff(before, await backend.dump())
    assert list(missing.put) == [GUARD]
    await backend.apply(missing)
    assert ROUTE_LOCALNET.read_text() == "1\n"
    assert await backend.dump() == before


async def test_who_takes_the_sysctl_along_says_so(backend):
    """The host's variant then looks at its own rules again; when nothing was there, nobody has to."""
    assert not backend.closed_loopback
    await backend.cleanup()
    assert backend.closed_loopback
    another = IptablesBackend(Family.V4, await backend.variant())
    await another.cleanup()
    assert not another.closed_loopback


async def test_a_node_port_answers_at_localhost(neighbor, backend):
    with inside(neighbor):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        server.settimeout(PATIENCE_S)
        client.settimeout(PATIENCE_S)
        server.bind((NEIGHBOR, ENDPOINT_PORT))
        client.connect((LOOPBACK, NODE_PORT))
        client.send(b"?")
        data, source = server.recvfrom(1)
        server.sendto(data, source)
        assert source[0] == NODE
        assert client.recv(1) == b"?"
