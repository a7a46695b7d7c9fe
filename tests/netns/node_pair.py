"""Two nodes for the tests of backends: two namespaces and a cable, each with a /run of its own."""

import asyncio
import base64
import os
import pickle
import sys
from contextlib import suppress
from ipaddress import ip_address, ip_network

from controlloop.errors import Skipped
from controlloop.family import Family
from lab.host import Host
from lab.wiring import ip
from netagent.backends.backend import Node
from netagent.backends.choice import parse_backend
from netagent.backends.wg_key import with_key
from netagent.desired import grounds, lease_attrs, own_state, peer_state, pod_mtu
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
        peer = peer_state("peer", leases[3 - number], nodes[number], grounds(nodes[number], leases[number]))
        assert not isinstance(peer, Skipped), peer
        state = {**own_state(nodes[number], leases[number]), **peer}
        return base64.b64encode(pickle.dumps(state)).decode()

    def ping(self, family, size=56):
        argv = ["ping", "-c1", "-W30", "-M", "do", "-s", str(size), "-I", POD[family].format(1), POD[family].format(2)]
        self.hosts[1].run(argv)

    def shows(self, command, number=1):
        return self.hosts[number].run(command.split())

    def devices(self, number=1):
        """Names of devices that an overlay made."""
        links = self.shows("ip -o link show", number).splitlines()
        return {name for name in (line.split()[1].rstrip(":").partition("@")[0] for line in links) if "flannel" in name}

    def routes(self, number=1):
        """The devices that our routes leave by, one for each route."""
        lines = [
            line
            for family in Family
            for line in self.shows(f"ip -{family.value} route show proto 78", number).splitlines()
        ]
        return sorted(line.split(" dev ")[1].split()[0] for line in lines)


def address_of(family, number):
    return ip_address(UNDERLAY[family].format(number))


def lease(number, node):
    return Lease({family: ip_network(SUBNET[family].format(number)) for family in node.underlay}, lease_attrs(node))


def through_etcd(told):
    """As a peer reads it."""
    return parse_lease(render_key(told.subnets), render_attrs(told.attrs))
