"""Two agents, one etcd, and each backend from the configuration to the packet; the next backend after a restart."""

import os
import signal
from pathlib import Path
from subprocess import PIPE

import pytest
from agent_pair import DEVICE, agents, cluster, forget_leases, needs_wireguard, pod, reach_each_other, subnet_env
from deadline import becomes, eventually
from node_pair import V4, V6

from lab.wiring import ip
from lab.workload import BARE_PYTHON
from netagent.subnet_file import read_subnets


@pytest.fixture(scope="module")
def connected(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("pair")) as made:
        yield made


@pytest.fixture
def pair(connected):
    """Without the leases and pods of the test before."""
    forget_leases(connected)
    return connected


CASES = {
    "vxlan IPv6": ([V6], {"Type": "vxlan"}, 1430),
    "vxlan dual": ([V4, V6], {"Type": "vxlan"}, 1430),
    "vxlan DirectRouting dual": ([V4, V6], {"Type": "vxlan", "DirectRouting": True}, 1430),
    "host-gw IPv6": ([V6], {"Type": "host-gw"}, 1500),
    "host-gw dual": ([V4, V6], {"Type": "host-gw"}, 1500),
}


@pytest.mark.flannel("19", "22", "23", "44", "A6")
@pytest.mark.parametrize("case", CASES)
def test_two_agents_connect_their_pods(pair, case):
    families, backend, mtu = CASES[case]
    with agents(pair, families, backend):
        reach_each_other(pair, families, mtu)
        subnets = [read_subnets(subnet_env(pair, number)) for number in pair.hosts]
        assert all(subnets[0][family] != subnets[1][family] for family in families)
        encapsulated = backend == {"Type": "vxlan"}
        assert pair.routes() == sorted(DEVICE[family] if encapsulated else "eth0" for family in families)


BULK = str(Path(__file__).with_name("bulk.py"))
BULK_BYTES = 20_000_000
BACKENDS = {
    "vxlan": {"Type": "vxlan"},
    "host-gw": {"Type": "host-gw"},
    "wireguard": pytest.param({"Type": "wireguard"}, marks=needs_wireguard),
}


@pytest.mark.flannel("24")
@pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)
def test_a_bulk_transfer_arrives_whole(pair, backend):
    """In segments larger than any packet, as the kernel sends them; how fast, is for bench/."""
    with agents(pair, [V4, V6], backend):
        for family in (V4, V6):
            here, there = str(pod(pair, 1, family)), str(pod(pair, 2, family))
            receiver = pair.hosts[2].popen([*BARE_PYTHON, BULK, "receive", there, "7000"], stdout=PIPE, text=True)
            with receiver:
                assert receiver.stdout.readline() == "listening\n"
                send = [*BARE_PYTHON, BULK, "send", here, there, "7000", str(BULK_BYTES)]
                eventually(lambda here=here, there=there: pings(pair, here, there))
                assert pair.hosts[1].run(send) == receiver.stdout.readline()


def pings(pair, here, there):
    return pair.hosts[1].succeeds(["ping", "-c1", "-W1", "-I", here, there])


BEHIND_NAT = """
table ip router {
    chain in { type nat hook prerouting priority -100; ip daddr 198.51.100.2 dnat to 192.0.2.2; }
    chain out { type nat hook postrouting priority 100; ip saddr 192.0.2.2 udp dport 8472 snat to 198.51.100.2; }
}
"""


@pytest.mark.flannel("45", "A9")
def test_a_node_behind_nat_is_reached_at_its_public_address_and_sends(pair):
    """The node translates for itself what a router in front of it would."""
    pair.hosts[2].run(["nft", "-f", "-"], stdin=BEHIND_NAT)
    pair.shows("ip route add 198.51.100.2 via 192.0.2.2")
    with agents(pair, [V4], {"Type": "vxlan"}, flags=[(), ["--public-ip=198.51.100.2"]]):
        reach_each_other(pair, [V4], 1450)
        assert "local 192.0.2.2 " in pair.shows("ip -d link show flannel.1", 2)
        assert "dst 198.51.100.2 " in pair.shows("bridge fdb show dev flannel.1")
    pair.shows("nft delete table ip router", 2)
    pair.shows("ip route del 198.51.100.2")


STEPS = [
    ({"Type": "vxlan"}, 1430),
    ({"Type": "host-gw"}, 1500),
    ({"Type": "wireguard"}, 1420),
    ({"Type": "vxlan", "VNI": 5, "Port": 4789, "MTU": 1400}, 1330),
]


@pytest.mark.flannel("19", "41", "B4")
@needs_wireguard
def test_a_restart_with_another_backend_connects_the_same_subnets_and_leaves_nothing(pair):
    before = None
    for backend, mtu in STEPS:
        with agents(pair, [V4, V6], backend):
            reach_each_other(pair, [V4, V6], mtu)
            now = [read_subnets(subnet_env(pair, number)) for number in pair.hosts]
            before = before or now
            assert now == before
            becomes(pair.devices, devices(backend))


def wireguard_programs(pair, number):
    """Process ids of wireguard-go on a node."""
    pids = map(int, ip("netns", "pids", pair.hosts[number].namespace).split())
    return [pid for pid in pids if Path(f"/proc/{pid}/comm").read_text().strip() == "wireguard-go"]


@needs_wireguard
def test_wireguard_comes_back_with_its_peers_when_its_program_or_device_is_gone(pair):
    with agents(pair, [V4, V6], {"Type": "wireguard", "PersistentKeepaliveInterval": 1}):
        reach_each_other(pair, [V4, V6], 1420)
        for pid in wireguard_programs(pair, 1):
            os.kill(pid, signal.SIGKILL)
        reach_each_other(pair, [V4, V6], 1420)
        pair.shows("ip link del flannel-wg")
        reach_each_other(pair, [V4, V6], 1420)
        pair.shows("wg set flannel-wg listen-port 999")
    with agents(pair, [V4, V6], {"Type": "wireguard"}):
        assert "listening port: 51820" in pair.shows("wg show flannel-wg")


def devices(backend):
    """The devices that this backend leaves on a node in dual stack."""
    vni = backend.get("VNI", 1)
    return {"vxlan": {f"flannel.{vni}", f"flannel-v6.{vni}"}, "wireguard": {"flannel-wg", "flannel-wg-v6"}}.get(
        backend["Type"], set()
    )
