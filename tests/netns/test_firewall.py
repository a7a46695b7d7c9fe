"""Packets as judge of the firewall: who sees which source, in both modes and families; and whose VXLAN gets in.

One node with a pod, a network outside and, where the overlay would be, a peer's node: three neighbors on veth pairs.
"""

import itertools
import socket
import subprocess
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address, ip_network

import pytest
from deadline import PATIENCE_S, eventually
from namespace import fresh_namespace, setns
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN

from controlloop import command
from controlloop.family import Family
from netagent.config import FirewallSettings
from netagent.firewall.desired import Mode, Policy
from netagent.firewall.firewall import Firewall
from netagent.firewall.nftables import Tunnel

AF = {Family.V4: socket.AF_INET, Family.V6: socket.AF_INET6}
NETWORK = {Family.V4: ip_network("10.244.0.0/16"), Family.V6: ip_network("fd00:244::/48")}
OWN = {Family.V4: ip_network("10.244.1.0/24"), Family.V6: ip_network("fd00:244:0:1::/64")}
EXCLUDED = (ip_network("172.16.0.0/12"), ip_network("2001:db8:e::/48"))
PORT = 7777
numbers = itertools.count(1)


@dataclass(frozen=True)
class Places:
    """Where things are in one family. `bridge` is the node's address among its pods."""

    pod: str
    bridge: str
    peer_pod: str
    node_to_peer: str
    outside: str
    node_outside: str
    excluded: str
    group: str
    lengths: tuple[int, int, int]


PLACES = {
    Family.V4: Places(
        pod="10.244.1.5",
        bridge="10.244.1.1",
        peer_pod="10.244.2.5",
        node_to_peer="10.10.0.1",
        outside="192.0.2.9",
        node_outside="192.0.2.1",
        excluded="172.16.0.9",
        group="239.1.2.3",
        lengths=(24, 16, 24),
    ),
    Family.V6: Places(
        pod="fd00:244:0:1::5",
        bridge="fd00:244:0:1::1",
        peer_pod="fd00:244:0:2::5",
        node_to_peer="fd00:10::1",
        outside="2001:db8::9",
        node_outside="2001:db8::1",
        excluded="2001:db8:e::9",
        group="ff15::1234",
        lengths=(64, 64, 64),
    ),
}


def run(*argv):
    subprocess.run(argv, check=True, capture_output=True)


def ip(line):
    run("ip", *line.split())


def address(text, length, device):
    nodad = " nodad" if ":" in text else ""
    ip(f"address add {text}/{length} dev {device}{nodad}")


@contextmanager
def entered(name):
    """Do something in another namespace: a socket that is made there stays there."""
    with open("/proc/thread-self/ns/net") as home:  # noqa: PTH123
        setns(f"/run/netns/{name}")
        try:
            yield
        finally:
            setns(f"/proc/self/fd/{home.fileno()}")


class Host:
    def __init__(self, stack):
        self._stack = stack
        self.name = stack.enter_context(fresh_namespace())

    def socket(self, family, bind, *, mark=0):
        with entered(self.name):
            made = self._stack.enter_context(socket.socket(AF[family], socket.SOCK_DGRAM))
        made.settimeout(PATIENCE_S)
        if mark:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        made.bind(bind)
        return made


class Lab:
    """Made from the outside in: this thread stays on the node, where the firewall is to be."""

    def __init__(self, stack):
        self.pod, self.peer, self.outside, self.node = (Host(stack) for _ in range(4))
        run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for host in ("pod", "peer", "outside"):
            other = getattr(self, host)
            ip(f"link add {host} type veth peer name eth0 netns {other.name}")
            ip(f"link set {host} up")
            with entered(other.name):
                ip("link set eth0 up")
        for places in PLACES.values():
            self._address(places)

    def _address(self, places):
        pods, wire, world = places.lengths
        for mine, length, host, theirs in (
            (places.bridge, pods, "pod", [places.pod]),
            (places.node_to_peer, wire, "peer", []),
            (places.node_outside, world, "outside", [places.outside]),
        ):
            address(mine, length, host)
            with entered(getattr(self, host).name):
                for each in theirs:
                    address(each, length, "eth0")
        with entered(self.peer.name):
            address(str(ip_address(places.node_to_peer) + 1), wire, "eth0")
            address(places.peer_pod, "128" if ":" in places.peer_pod else "32", "lo")
        with entered(self.outside.name):
            address(places.excluded, "128" if ":" in places.excluded else "32", "lo")
        for host, gateway in (
            (self.pod, places.bridge),
            (self.peer, places.node_to_peer),
            (self.outside, places.node_outside),
        ):
            with entered(host.name):
                ip(f"route add default via {gateway}")
        ip(f"route add {places.peer_pod} via {ip_address(places.node_to_peer) + 1}")
        ip(f"route add {places.excluded} via {places.outside}")


@pytest.fixture
def lab():
    with ExitStack() as stack:
        yield Lab(stack)


@pytest.fixture(params=list(Family), ids=lambda family: family.nft)
def family(request):
    return request.param


@pytest.fixture(params=["nftables", "iptables-nft", "iptables-legacy"])
def mode(request, monkeypatch, tmp_path):
    """The agent's mode, on a host whose iptables is of the variant behind the hyphen."""
    name, _, variant = request.param.partition("-")
    if variant:
        monkeypatch.setattr(command, "SEARCH_PATH", f"{programs_of(variant, tmp_path)}:{command.SEARCH_PATH}")
    return Mode(name)


def programs_of(variant, folder):
    """A folder in which plain names such as `iptables-save` are the programs of this variant."""
    for name in ("iptables", "ip6tables"):
        for action in ("", "-save", "-restore"):
            (folder / f"{name}{action}").symlink_to(command.find(f"{name}-{variant}{action}"))
    return folder


SETTINGS = FirewallSettings(
    ip_masq=True, masq_exclude=EXCLUDED, random_fully=True, forward_rules=True, resync_s=5, peer_filter=True
)


async def started(mode, settings=SETTINGS):
    made = Firewall(Policy(settings, mode, None))
    made.plan(NETWORK, OWN)
    await made.sync(resync=True)
    return made


def seen(sender, receiver, to):
    """The source that the receiver sees."""
    text = f"packet {next(numbers)}".encode()
    sender.sendto(text, (to, PORT))
    while True:
        got, source = receiver.recvfrom(100)
        if got == text:
            return str(ip_address(source[0].partition("%")[0]))


# From where, from which address, with which mark, to whom at which address, and whose address is seen.
FLOWS = {
    "our pod to a pod elsewhere": ("pod", "pod", 0, "peer", "peer_pod", "pod"),
    "a pod elsewhere to our pod": ("peer", "peer_pod", 0, "pod", "pod", "peer_pod"),
    "our pod to the world": ("pod", "pod", 0, "outside", "outside", "node_outside"),
    "our pod to an excluded network": ("pod", "pod", 0, "outside", "excluded", "pod"),
    "the world to our pod": ("outside", "outside", 0, "pod", "pod", "outside"),
    "the world through us to a pod elsewhere": ("outside", "outside", 0, "peer", "peer_pod", "node_to_peer"),
    "the host to a pod elsewhere": ("node", "node_outside", 0, "peer", "peer_pod", "node_to_peer"),
    "the host to our pod": ("node", "node_outside", 0, "pod", "pod", "node_outside"),
    "the host to the world": ("node", "node_to_peer", 0, "outside", "outside", "node_to_peer"),
    "kube-proxy's mark": ("node", "bridge", 0x4000, "outside", "outside", "bridge"),
    "kube-proxy's mark among others": ("node", "bridge", 0x4003, "outside", "outside", "bridge"),
    "somebody else's mark": ("node", "bridge", 0x8003, "outside", "outside", "node_outside"),
    "no mark": ("node", "bridge", 0, "outside", "outside", "node_outside"),
}


def flow(lab, family, case):
    places = PLACES[family]
    origin, source, mark, target, to, _ = FLOWS[case]
    with (
        getattr(lab, origin).socket(family, (getattr(places, source), 0), mark=mark) as sender,
        getattr(lab, target).socket(family, (getattr(places, to), PORT)) as receiver,
    ):
        return seen(sender, receiver, getattr(places, to))


@pytest.mark.flannel("46", "A10")
async def test_each_flow_shows_the_source_that_it_should(lab, family, mode):
    await started(mode)
    places = PLACES[family]
    answers = {case: flow(lab, family, case) for case in FLOWS}
    assert answers == {case: getattr(places, wanted) for case, (*_, wanted) in FLOWS.items()}


@pytest.mark.flannel("46")
async def test_multicast_from_a_pod_keeps_its_source(lab, family, mode):
    """Linux forwards no multicast by itself, so the node sends it under a pod's address."""
    await started(mode)
    places = PLACES[family]
    sender = lab.node.socket(family, (places.bridge, 0))
    receiver = lab.outside.socket(family, ("", PORT))
    group = ip_address(places.group).packed
    with entered(lab.node.name):
        out = socket.if_nametoindex("outside")
    with entered(lab.outside.name):
        here = socket.if_nametoindex("eth0")
    if family is Family.V4:
        request = group + bytes(4) + here.to_bytes(4, "little")
        receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, bytes(8) + out.to_bytes(4, "little"))
    else:
        receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + here.to_bytes(4, "little"))
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, out)
    assert seen(sender, receiver, places.group) == places.bridge


async def test_without_the_firewall_a_pods_address_goes_out(lab, family):
    assert flow(lab, family, "our pod to the world") == PLACES[family].pod


@pytest.mark.flannel("46")
async def test_a_restart_and_a_change_of_mode_lose_no_packet_and_change_no_source(lab, family, mode):
    """One flow from before to after, with new ones in between: each is masqueraded at any time."""
    first = await started(mode)
    places = PLACES[family]
    old = lab.pod.socket(family, (places.pod, 0))
    receiver = lab.outside.socket(family, (places.outside, PORT))
    other = next(each for each in Mode if each is not mode)
    for step in (mode, other, mode):
        again = await started(step)
        fresh = lab.pod.socket(family, (places.pod, 0))
        assert {seen(each, receiver, places.outside) for each in (old, fresh)} == {places.node_outside}
        await again.sync(resync=True)
    assert first.in_kernel


@pytest.mark.parametrize("mode", ["iptables-nft", "iptables-legacy"], indirect=True)
async def test_forwarding_is_accepted_where_the_host_drops_it(lab, family, mode):
    """What nftables cannot promise: there a drop in another table is final."""
    for program in ("iptables", "ip6tables"):
        run(command.find(program), "-P", "FORWARD", "DROP")
    await started(mode)
    assert flow(lab, family, "our pod to the world") == PLACES[family].node_outside
    assert flow(lab, family, "the world to our pod") == PLACES[family].outside


@pytest.mark.parametrize(
    ("mode", "variant"), [("iptables-nft", "nft"), ("iptables-legacy", "legacy")], indirect=["mode"]
)
async def test_only_the_variant_that_the_host_uses_is_written(lab, mode, variant):
    """The other one's rules would see every packet, too, and nobody would look for them there."""
    await started(mode)
    saved = {each: await command.run([f"iptables-{each}-save"]) for each in ("nft", "legacy")}
    assert [each for each, rules in saved.items() if b"NETAGENT" in rules] == [variant]


# VXLAN from peers alone

PEER, STRANGER = "10.10.0.2", "10.10.0.66"
VTEP = "02:00:00:00:00:aa"


def envelope(number):
    """A packet from a peer's pod to the node's address among its pods, as it would come through the tunnel."""
    inner = Ether(src="02:00:00:00:00:bb", dst=VTEP) / IP(src="10.244.2.5", dst="10.244.1.1")
    return bytes(VXLAN(vni=1, flags=8) / inner / UDP(sport=9, dport=PORT) / f"{number}".encode())


class Overlay:
    """A node with a VXLAN device, and a neighbor who has a peer's address and a stranger's."""

    def __init__(self, stack, family):
        self.family = family
        self.neighbor, self.node = Host(stack), Host(stack)
        self.peer, self.stranger, local = self._addresses()
        ip(f"link add wire type veth peer name eth0 netns {self.neighbor.name}")
        ip("link set wire up")
        shown = subprocess.run(["ip", "-br", "link", "show", "wire"], check=True, capture_output=True, text=True)
        self.mac = shown.stdout.split()[2]
        length = 24 if family is Family.V4 else 64
        address(local, length, "wire")
        ip(f"link add flannel.1 address {VTEP} type vxlan id 1 dstport 8472 local {local} dev wire nolearning")
        ip("link set flannel.1 up")
        address("10.244.1.1", 32, "lo")
        ip("route add 10.244.2.0/24 dev flannel.1")
        with entered(self.neighbor.name):
            ip("link set eth0 up")
            for each in (self.peer, self.stranger):
                address(each, length, "eth0")
        self.local = local
        self.senders = {each: self.neighbor.socket(family, (each, 0)) for each in (self.peer, self.stranger)}
        self.listener = self.node.socket(Family.V4, ("10.244.1.1", PORT))
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)

    def _addresses(self):
        if self.family is Family.V4:
            return PEER, STRANGER, "10.10.0.1"
        return "fd00:10::2", "fd00:10::66", "fd00:10::1"

    def send(self, sender, numbers):
        for number in numbers:
            self.senders[sender].sendto(envelope(number), (self.local, 8472))

    def delivered(self, last):
        """What came in until the packet `last`, which was sent behind all others on the same wire."""
        got = []
        while not got or got[-1] != last:
            got.append(int(self.listener.recv(100)))
        return got


@pytest.fixture
def overlay(family):
    with ExitStack() as stack:
        yield Overlay(stack, family)


async def gated(mode, peers, settings=SETTINGS):
    made = Firewall(Policy(settings, mode, Tunnel(8472, 1)))
    made.plan(NETWORK, OWN)
    made.plan_peers([(each, [ip_address(each)]) for each in peers])
    await made.sync(resync=True)
    return made


async def test_of_a_thousand_forged_packets_none_is_delivered(overlay, mode):
    await gated(mode, [overlay.peer])
    overlay.send(overlay.stranger, range(1000))
    overlay.send(overlay.peer, range(2000, 2010))
    assert overlay.delivered(2009) == list(range(2000, 2010))


async def test_without_the_gate_forged_packets_are_delivered(overlay, mode):
    await gated(mode, [overlay.peer], FirewallSettings(True, EXCLUDED, True, True, 5, peer_filter=False))
    overlay.send(overlay.stranger, range(10))
    overlay.send(overlay.peer, [99])
    assert overlay.delivered(99) == [*range(10), 99]


def fragments(overlay, source, number):
    """The same packet in two pieces, the first so short that it ends before the network identifier."""
    datagram = UDP(sport=9, dport=8472) / envelope(number)
    if overlay.family is Family.V4:
        whole = bytes(IP(src=source, dst=overlay.local, proto=17) / datagram)[20:]
        make = partial(IP, src=source, dst=overlay.local, proto=17, id=number)
        return [make(flags="MF") / whole[:8], make(frag=1) / whole[8:]]
    whole = bytes(IPv6(src=source, dst=overlay.local) / datagram)[40:]
    header = IPv6(src=source, dst=overlay.local)
    make = partial(IPv6ExtHdrFragment, nh=17, id=number)
    return [header / make(m=1) / whole[:8], header / make(offset=1) / whole[8:]]


async def test_fragments_do_not_slip_through(overlay, mode):
    """Without masquerading nothing puts IPv6 fragments together before the gate."""
    await gated(mode, [overlay.peer], FirewallSettings(False, (), True, False, 5, peer_filter=True))
    with entered(overlay.neighbor.name), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("eth0", 0))
        for number, source in enumerate([*[overlay.stranger] * 20, overlay.peer]):
            for piece in fragments(overlay, source, number + 1):
                wire.send(bytes(Ether(dst=overlay.mac) / piece))
    assert overlay.delivered(21) == [21]


async def test_the_gate_follows_the_leases(overlay, mode):
    made = await gated(mode, [overlay.peer])
    made.plan_peers([("late", [ip_address(overlay.stranger)])])
    await made.sync(resync=False)
    overlay.send(overlay.stranger, [1])
    assert overlay.delivered(1) == [1]
    made.plan_peers([("late", [])])
    await made.sync(resync=False)
    overlay.send(overlay.stranger, range(100))
    overlay.send(overlay.peer, [200])
    assert overlay.delivered(200) == [200]


async def test_another_overlay_on_the_same_port_is_not_ours_to_judge(overlay, mode):
    """Its packets differ in the network identifier."""
    ip(f"link add other address {VTEP} type vxlan id 7 dstport 8472 local {overlay.local} dev wire nolearning")
    ip("link set other up")
    await gated(mode, [])
    foreign = bytearray(envelope(5))
    foreign[4:7] = (7).to_bytes(3, "big")
    overlay.senders[overlay.stranger].sendto(bytes(foreign), (overlay.local, 8472))
    eventually(lambda: overlay.delivered(5))
