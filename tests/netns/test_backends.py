"""Each backend between two nodes, with packets, in IPv4, in IPv6 and in both; and from one backend to the next.

The nodes are two namespaces and a cable. Their kernels are programmed from leases, as the agent does it.
"""

import asyncio
import base64
import os
import pickle
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from controlloop.errors import Skipped
from controlloop.family import Family
from lab.host import Host
from lab.wiring import ip
from netagent.backends.backend import Node
from netagent.backends.choice import parse_backend
from netagent.backends.host_gw import HostGw
from netagent.backends.vxlan import Vxlan
from netagent.backends.wg_key import with_key
from netagent.desired import lease_attrs, own_state, peer_state, pod_mtu
from netagent.state import Underlay
from subnet_alloc.codec import parse_lease, render_attrs, render_key
from subnet_alloc.model import Lease

V4, V6 = Family.V4, Family.V6
UNDERLAY = {V4: "192.0.2.{}", V6: "2001:db8::{}"}
LINK = {V4: ip_network("192.0.2.0/24"), V6: ip_network("2001:db8::/64")}
NETWORK = {V4: ip_network("10.5.0.0/16"), V6: ip_network("fd00:5::/48")}
SUBNET = {V4: "10.5.{}.0/24", V6: "fd00:5:0:{}::/64"}
POD = {V4: "10.5.{}.1", V6: "fd00:5:0:{}::1"}

CONVERGE = """
import asyncio, base64, pickle, sys
from controlloop.reconcile import reconcile
from netagent.kernel import OverlayKernel
async def main():
    desired, kernel = pickle.loads(base64.b64decode(sys.stdin.read())), OverlayKernel()
    await reconcile(lambda: desired, kernel)
    assert dict(await kernel.dump()) == desired
asyncio.run(main())
"""


class Pair:
    """Two nodes with a pod's address each."""

    def __init__(self, folder):
        self.hosts = {}
        for number in (1, 2):
            name = f"nodenet-backends-{os.getpid()}-{number}"
            (folder / str(number) / "run" / "netns").mkdir(parents=True)
            self.hosts[number] = Host(f"node-{number}", name, folder / str(number), private_run=True)

    def up(self):
        first, second = (host.namespace for host in self.hosts.values())
        ip("netns", "add", first)
        ip("netns", "add", second)
        ip("link", "add", "eth0", "netns", first, "type", "veth", "peer", "name", "eth0", "netns", second)
        for number, host in self.hosts.items():
            lines = ["link set lo up", "link set eth0 up"]
            for family in Family:
                nodad = "nodad" if family is V6 else ""
                lines.append(f"addr add {UNDERLAY[family].format(number)}/{LINK[family].prefixlen} dev eth0 {nodad}")
                lines.append(f"addr add {POD[family].format(number)}/{family.bits} dev lo {nodad}")
            ip("-n", host.namespace, batch=lines)

    def down(self):
        for host in self.hosts.values():
            # With its device goes wireguard-go.
            for device in ("flannel-wg", "flannel-wg-v6"):
                with suppress(RuntimeError):
                    ip("-n", host.namespace, "link", "del", device)
            ip("netns", "delete", host.namespace)

    def wireguard(self, number, monkeypatch, **options):
        """The backend with a key of the node's own."""
        monkeypatch.setenv("WIREGUARD_KEY_FILE", str(self.hosts[number].folder / "wgkey"))
        return asyncio.run(with_key(parse_backend("wireguard", options)))

    def node(self, number, backend, families, *, connected=True):
        underlay = {
            family: Underlay("eth0", 1500, address_of(family, number), frozenset([LINK[family]] if connected else []))
            for family in families
        }
        public_ip = {family: each.address for family, each in underlay.items()}
        return Node(f"node-{number}", backend, underlay, public_ip, {family: NETWORK[family] for family in families})

    def run(self, backends, families, *, connected=True):
        """Both nodes take up the backend, and each learns of the other by its lease."""
        for number, host in self.hosts.items():
            desired = self.desired(number, backends, families, connected=connected)
            host.run([sys.executable, "-c", CONVERGE], stdin=desired)
        return pod_mtu(self.node(1, backends[1], families))

    def desired(self, number, backends, families, *, connected=True):
        """What a node's kernel should hold, in a form that goes through a pipe."""
        nodes = {each: self.node(each, backends[each], families, connected=connected) for each in self.hosts}
        leases = {each: through_etcd(lease(each, node)) for each, node in nodes.items()}
        peer = peer_state("peer", leases[3 - number], nodes[number], leases[number])
        assert not isinstance(peer, Skipped), peer
        state = {**own_state(nodes[number], leases[number]), **peer}
        return base64.b64encode(pickle.dumps(state)).decode()

    def ping(self, family, size=56):
        argv = ["ping", "-c1", "-W5", "-M", "do", "-s", str(size), "-I", POD[family].format(1), POD[family].format(2)]
        self.hosts[1].run(argv)

    def shows(self, command, number=1):
        return self.hosts[number].run(command.split())


def address_of(family, number):
    return ip_address(UNDERLAY[family].format(number))


def lease(number, node):
    return Lease({family: ip_network(SUBNET[family].format(number)) for family in node.underlay}, lease_attrs(node))


def through_etcd(told):
    """As a peer reads it."""
    return parse_lease(render_key(told.subnets), render_attrs(told.attrs))


@pytest.fixture
def pair(tmp_path):
    made = Pair(tmp_path)
    try:
        made.up()
        yield made
    finally:
        made.down()


def both(backend):
    return {1: backend, 2: backend}


def fits(pair, families, mtu):
    """The largest packet a pod may send arrives whole, in each family."""
    for family in families:
        header = 28 if family is V4 else 48
        pair.ping(family, mtu - header)


FAMILIES = [[V4], [V6], [V4, V6]]
needs_wireguard = pytest.mark.skipif(
    shutil.which("wg") is None or shutil.which("wireguard-go") is None or not Path("/dev/net/tun").exists(),
    reason="needs wireguard-tools, wireguard-go and /dev/net/tun",
)


@pytest.mark.parametrize(("families", "mtu"), list(zip(FAMILIES, [1450, 1430, 1430], strict=True)), ids=str)
def test_vxlan_carries_each_family_and_the_largest_packet_it_promises(pair, families, mtu):
    assert pair.run(both(Vxlan()), families) == mtu
    fits(pair, families, mtu)


@pytest.mark.parametrize("families", FAMILIES, ids=str)
def test_host_gw_carries_each_family_at_the_full_size_of_the_link(pair, families):
    assert pair.run(both(HostGw()), families) == 1500
    fits(pair, families, 1500)


def carried(pair, device):
    return int(pair.shows(f"ip -s -o link show {device}").split("RX:")[1].split("\\")[1].split()[1])


def test_a_peer_moves_between_its_own_link_and_the_overlay_and_leaves_one_route(pair):
    direct = both(Vxlan(direct_routing=True))
    for connected in (True, False, True):
        pair.run(direct, [V4, V6], connected=connected)
        for family in (V4, V6):
            before = carried(pair, "flannel.1" if family is V4 else "flannel-v6.1")
            pair.ping(family)
            routes = pair.shows(f"ip -{family.value} route show proto 78").splitlines()
            assert len(routes) == 1
            assert ("dev eth0" in routes[0]) is connected
            assert (carried(pair, "flannel.1" if family is V4 else "flannel-v6.1") == before) is connected
        fdb = pair.shows("bridge fdb show dev flannel.1") + pair.shows("ip neigh show dev flannel.1")
        assert (not fdb.strip()) is connected


@needs_wireguard
@pytest.mark.parametrize("families", FAMILIES, ids=str)
def test_wireguard_carries_each_family(pair, families, monkeypatch):
    backends = {number: pair.wireguard(number, monkeypatch) for number in (1, 2)}
    assert pair.run(backends, families) == 1420
    fits(pair, families, 1420)


@needs_wireguard
@pytest.mark.parametrize("mode", ["auto", "ipv4", "ipv6"])
def test_one_wireguard_device_carries_both_families_over_one_with_a_preshared_key(pair, mode, monkeypatch):
    psk = subprocess.run(["wg", "genpsk"], check=True, capture_output=True, text=True).stdout.strip()
    backends = {
        number: pair.wireguard(number, monkeypatch, Mode=mode, PSK=psk, PersistentKeepaliveInterval=25)
        for number in (1, 2)
    }
    pair.run(backends, [V4, V6])
    fits(pair, [V4, V6], 1420)
    assert pair.shows("ip -o link show type tun").count("\n") == 1
    assert ("[2001:db8::2]" in pair.shows("wg show flannel-wg endpoints")) is (mode == "ipv6")
    assert psk in pair.shows("wg show flannel-wg preshared-keys")


@needs_wireguard
def test_what_wireguard_lost_or_was_told_by_others_is_put_right(pair, monkeypatch):
    backends = {number: pair.wireguard(number, monkeypatch) for number in (1, 2)}
    for command in (
        f"wg set flannel-wg peer {backends[2].public_key} remove",
        f"wg set flannel-wg peer {backends[2].public_key} allowed-ips 10.5.9.0/24",
        "wg set flannel-wg listen-port 4444",
        "ip link set flannel-wg mtu 1300",
        "ip link set flannel-wg down",
        "ip link del flannel-wg",
    ):
        pair.run(backends, [V4])
        pair.shows(command)
        pair.run(backends, [V4])
        pair.ping(V4)


WATCH = CONVERGE.replace("assert", "print('converged', flush=True); input()\n    assert").replace(
    "sys.stdin.read()", "input()"
)


@needs_wireguard
def test_a_peer_that_proves_its_key_from_another_address_has_not_drifted(pair, monkeypatch):
    backends = {number: pair.wireguard(number, monkeypatch) for number in (1, 2)}
    pair.run(backends, [V4])
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with pair.hosts[1].popen([sys.executable, "-c", WATCH], **pipes) as agent:
        agent.stdin.write(pair.desired(1, backends, [V4]) + "\n")
        agent.stdin.flush()
        assert agent.stdout.readline() == "converged\n"
        pair.shows("ip addr add 192.0.2.22/24 dev eth0", 2)
        pair.shows("ip route replace 192.0.2.0/24 dev eth0 src 192.0.2.22", 2)
        pair.shows("wg set flannel-wg listen-port 4444", 2)
        pair.shows(f"ping -c1 -W5 -I {POD[V4].format(2)} {POD[V4].format(1)}", 2)
        assert "192.0.2.2:51820" not in pair.shows("wg show flannel-wg endpoints")
        _, complaint = agent.communicate("go on\n", timeout=30)
        assert agent.returncode == 0, complaint


def leftovers(pair, number):
    """Our traces on a node, by what made them."""
    links = pair.shows("ip -o link show", number)
    found = {
        name
        for name in ("flannel.1", "flannel.7", "flannel-v6.1", "flannel-wg", "flannel-wg-v6")
        if f" {name}:" in links
    }
    routes = [pair.shows(f"ip -{family.value} route show proto 78", number).splitlines() for family in Family]
    return found, sorted({line.split(" dev ")[1].split()[0] for each in routes for line in each})


@needs_wireguard
def test_going_from_one_backend_to_the_next_leaves_nothing_of_the_one_before(pair, monkeypatch):
    wireguard = {number: pair.wireguard(number, monkeypatch) for number in (1, 2)}
    vxlan = ({"flannel.1", "flannel-v6.1"}, ["flannel-v6.1", "flannel.1"])
    steps = [
        (both(Vxlan()), vxlan),
        (both(HostGw()), (set(), ["eth0"])),
        (wireguard, ({"flannel-wg", "flannel-wg-v6"}, ["flannel-wg", "flannel-wg-v6"])),
        (both(Vxlan()), vxlan),
        (both(Vxlan(port=4789, mtu=1400)), vxlan),
    ]
    for backends, expected in steps:
        pair.run(backends, [V4, V6])
        for number in (1, 2):
            assert leftovers(pair, number) == expected
        for family in (V4, V6):
            pair.ping(family)
    pair.run(both(replace(Vxlan(), vni=7)), [V4])
    assert leftovers(pair, 1) == ({"flannel.7"}, ["flannel.7"])
    pair.run(both(parse_backend("alloc", {})), [V4])
    assert leftovers(pair, 1) == (set(), [])


def test_flannelds_leftovers_of_any_backend_are_cleaned_up_or_taken_over(pair):
    pair.shows("ip link add flannel.9 type vxlan id 9 dev eth0 dstport 8472")
    pair.shows("ip route add 10.5.2.0/24 via 192.0.2.2 dev eth0")
    pair.shows("ip route add 10.99.0.0/16 via 192.0.2.2 dev eth0")
    pair.run(both(HostGw()), [V4])
    assert "flannel.9" not in pair.shows("ip link show")
    assert pair.shows("ip route show 10.5.2.0/24").strip() == "10.5.2.0/24 via 192.0.2.2 dev eth0 proto 78"
    assert pair.shows("ip route show 10.99.0.0/16")


def test_ipip_carries_ipv4(pair):
    made = subprocess.run(
        ["ip", "-n", pair.hosts[1].namespace, "link", "add", "probe", "type", "ipip", "local", "192.0.2.1"],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("needs the kernel module ipip")
    pair.shows("ip link del probe")
    assert pair.run(both(parse_backend("ipip", {})), [V4]) == 1480
    fits(pair, [V4], 1480)
