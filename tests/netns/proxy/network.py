"""A node under test and what surrounds it, in both families, without daemons. Names stand for addresses in every test.

    client ── switch ── node-1 ── pod-1-1, pod-1-2, pod-1-3     node-1 is the one under test: the client's way to
                │         │       (bridge cni0)                 pods, services, load balancer and external addresses
                └────── node-2 ── pod-2-1, pod-2-2, pod-2-3     node-2 only routes, over a link of its own to node-1

That link has addresses of its own, as an overlay has: node-1 masquerading towards node-2 differs from node-1 calling.
Node-2 answers the client through node-1 too, so that a call which nobody masqueraded comes back the way it went; its
pods call Services there.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from controlloop.family import Family, IPAddress, IPNetwork
from lab.cluster import STATE_DIR, Cluster, State
from lab.processes import identify
from lab.topology import Spec
from lab.wiring import ip, set_sysctls, wire

BRIDGE = "cni0"
Both = dict[Family, IPAddress]


def both(v4: str, v6: str) -> Both:
    return {Family.V4: ip_address(v4), Family.V6: ip_address(v6)}


def networks(v4: str, v6: str) -> dict[Family, IPNetwork]:
    return {Family.V4: ip_network(v4), Family.V6: ip_network(v6)}


POD_NETWORKS = networks("10.244.0.0/16", "fd00:10:244::/48")
SERVICE_NETWORKS = networks("10.96.0.0/12", "fd00:10:96::/112")
BALANCER_NETWORKS = networks("203.0.113.0/24", "2001:db8:cb::/64")
EXTERNAL_NETWORKS = networks("192.0.2.0/24", "2001:db8:c0::/64")
CROWD_NETWORKS = networks("172.30.0.0/16", "fd00:172:30::/64")
"""Many clients: addresses behind the client."""
FARM_NETWORKS = networks("10.245.0.0/16", "fd00:10:245::/64")
"""Many endpoints: addresses that pod-2-1 has beside its own."""

PODS = {
    f"pod-{node}-{number}": both(f"10.244.{node}.1{number}", f"fd00:10:244:{node}::1{number}")
    for node in (1, 2)
    for number in (1, 2, 3)
}
ADDRESSES: dict[str, Both] = {
    **PODS,
    "node-1": both("10.10.0.1", "fd00:10:10::1"),
    "second": both("10.10.100.1", "fd00:10:10::6401"),
    "gateway": both("10.244.1.1", "fd00:10:244:1::1"),
    "node-2": both("10.10.0.2", "fd00:10:10::2"),
    "client": both("10.10.255.2", "fd00:10:10::ff02"),
    "stranger": both("172.30.0.1", "fd00:172:30::1"),
    "localhost": both("127.0.0.1", "::1"),
    "cluster-ip": both("10.96.0.80", "fd00:10:96::80"),
    "cluster-ip-2": both("10.96.0.81", "fd00:10:96::81"),
    "cluster-ip-3": both("10.96.0.82", "fd00:10:96::82"),
    "unallocated": both("10.96.9.9", "fd00:10:96::99"),
    "vip": both("203.0.113.1", "2001:db8:cb::1"),
    "vip-2": both("203.0.113.2", "2001:db8:cb::2"),
    "vip-3": both("203.0.113.3", "2001:db8:cb::3"),
    "real-balancer": both("203.0.113.9", "2001:db8:cb::9"),
    "external-ip": both("192.0.2.1", "2001:db8:c0::1"),
    "external-ip-2": both("192.0.2.2", "2001:db8:c0::2"),
}
"""`second` is another address of node-1, `gateway` the one that its pods know; `stranger` is one of the crowd. The
client has `real-balancer`, where a load balancer would stand that is no node, and `unallocated`: no Service has it, and
who gets out of the cluster with it arrives there."""

AT_CLIENT = ("real-balancer", "unallocated")
HOST_OF = {
    **dict.fromkeys(("localhost", "second", "gateway"), "node-1"),
    **dict.fromkeys(("stranger", *AT_CLIENT), "client"),
}
"""Where an address is at home that is not named after its host."""

LINK = {"node-1": both("10.20.0.1", "fd00:10:20::1"), "node-2": both("10.20.0.2", "fd00:10:20::2")}
ANYWHERE = networks("0.0.0.0/0", "::/0")
PREFIX = {Family.V4: 16, Family.V6: 64}
POD_PREFIX = {Family.V4: 24, Family.V6: 64}

FARM_WAYS = {
    "node-1": {family: f"{FARM_NETWORKS[family]} via {LINK['node-2'][family]}" for family in Family},
    "node-2": {family: f"{FARM_NETWORKS[family]} via {PODS['pod-2-1'][family]}" for family in Family},
    "pod-2-1": {family: f"local {FARM_NETWORKS[family]} dev lo" for family in Family},
}

AT_ONCE = ("net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.eth0.accept_dad=0")
"""A new IPv6 address is of use without a second of asking whether somebody else has it."""
EVERY_REFUSAL = (
    "net.ipv4.icmp_ratelimit=0",
    "net.ipv4.icmp_msgs_burst=10000",
    "net.ipv4.icmp_msgs_per_sec=10000",
    "net.ipv6.icmp.ratelimit=0",
)
"""Each one is judged, so none may be withheld by the kernel's limits, of a node or of a pod that does not listen."""
NODE_SYSCTLS = (
    "net.ipv4.ip_forward=1",
    "net.ipv6.conf.all.forwarding=1",
    "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.conf.default.rp_filter=0",
    "net.ipv4.conf.eth0.rp_filter=0",
)
SYSCTLS = {
    "client": (
        "net.ipv4.conf.eth0.accept_redirects=0",
        "net.ipv6.conf.eth0.accept_redirects=0",
        # IPv4 lets a socket have any address that a local route has; IPv6 wants to be asked.
        "net.ipv6.ip_nonlocal_bind=1",
    ),
    "node-1": NODE_SYSCTLS,
    "node-2": NODE_SYSCTLS,
}


@dataclass(frozen=True, slots=True)
class Network:
    cluster: Cluster

    def namespace(self, host: str) -> str:
        return self.cluster.spec.namespace(host)

    @property
    def hosts(self) -> list[str]:
        return ["client", "node-1", "node-2", *PODS]


def build(name: str) -> Network:
    """Registered as a lab that belongs to this process: what a killed run leaves is swept as any lab's is."""
    spec = Spec(name, nodes=2, pods_per_node=3)
    folder = STATE_DIR / spec.name
    folder.mkdir(parents=True)
    network = Network(Cluster(folder, State(spec, identify("", "owner", os.getpid()))))
    network.cluster.save()
    try:
        wire(spec)
        _extend(network)
    except BaseException:
        network.cluster.down()
        raise
    return network


def _extend(network: Network) -> None:
    for host in ("client", *LINK):
        set_sysctls(network.namespace(host), (*AT_ONCE, *EVERY_REFUSAL, *SYSCTLS[host]))
        ip("-n", network.namespace(host), batch=["link set eth0 down", "link set eth0 up"])
    ip(batch=_cables(network))
    for node in LINK:
        ip("-n", network.namespace(node), batch=_node_lines(node))
    for pod, addresses in PODS.items():
        set_sysctls(network.namespace(pod), (*AT_ONCE, *EVERY_REFUSAL))
        ip("-n", network.namespace(pod), batch=_pod_lines(pod, addresses))
    ip("-n", network.namespace("client"), batch=_client_lines())
    for host, way in FARM_WAYS.items():
        ip("-n", network.namespace(host), batch=[f"route add {way[family]}" for family in Family])
    ip("-n", network.namespace("node-2"), batch=_through_node_1_lines())


def _cables(network: Network) -> Iterator[str]:
    one, two = network.namespace("node-1"), network.namespace("node-2")
    yield f"link add overlay netns {one} type veth peer name overlay netns {two}"
    for pod in PODS:
        node = network.namespace(f"node-{pod[4]}")
        yield f"link add eth0 netns {network.namespace(pod)} type veth peer name {pod} netns {node}"


def _node_lines(node: str) -> Iterator[str]:
    number = node.removeprefix("node-")
    (other,) = LINK.keys() - {node}
    yield f"link add name {BRIDGE} type bridge"
    yield f"link set {BRIDGE} up"
    yield "link set overlay up"
    for pod in PODS:
        if pod[4] == number:
            yield f"link set {pod} master {BRIDGE} up"
            yield f"link set {pod} type bridge_slave hairpin on"
    for family in Family:
        own, pods = ADDRESSES[node][family], pod_gateway(node, family)
        if family is Family.V6:  # the lab has given the other one
            # With nodad it can be a route's source in this moment.
            yield f"addr add {own}/{PREFIX[family]} dev eth0 nodad"
        yield f"addr add {pods}/{POD_PREFIX[family]} dev {BRIDGE}"
        yield f"addr add {LINK[node][family]}/{POD_PREFIX[family]} dev overlay"
        yield f"route add {pod_subnet(other, family)} via {LINK[other][family]}"
        yield f"route replace {ANYWHERE[family]} via {ADDRESSES['client'][family]} src {own}"
    if node == "node-1":
        for family in Family:
            yield f"addr add {ADDRESSES['second'][family]}/{PREFIX[family]} dev eth0"


def _pod_lines(pod: str, addresses: Both) -> Iterator[str]:
    yield "link set eth0 up"
    for family in Family:
        yield f"addr add {addresses[family]}/{POD_PREFIX[family]} dev eth0"
        yield f"route add {ANYWHERE[family]} via {pod_gateway(f'node-{pod[4]}', family)}"


def _client_lines() -> Iterator[str]:
    yield f"addr add {ADDRESSES['client'][Family.V6]}/64 dev eth0"
    for family in Family:
        yield from (f"addr add {ADDRESSES[name][family]}/{family.bits} dev lo" for name in AT_CLIENT)
        yield f"route add local {CROWD_NETWORKS[family]} dev lo"
        for network in (POD_NETWORKS, SERVICE_NETWORKS, BALANCER_NETWORKS, EXTERNAL_NETWORKS):
            yield f"route replace {network[family]} via {ADDRESSES['node-1'][family]}"


def _through_node_1_lines() -> Iterator[str]:
    for family in Family:
        for target in (ADDRESSES["client"][family], CROWD_NETWORKS[family], SERVICE_NETWORKS[family]):
            yield f"route add {target} via {LINK['node-1'][family]}"


def pod_gateway(node: str, family: Family) -> IPAddress:
    return pod_subnet(node, family)[1]


def pod_subnet(node: str, family: Family) -> IPNetwork:
    number = node.removeprefix("node-")
    return networks(f"10.244.{number}.0/24", f"fd00:10:244:{number}::/64")[family]
