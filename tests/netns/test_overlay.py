"""What travels between nodes, captured on the underlay and taken apart, beside what etcd says it must be."""

import subprocess

import pytest
from deadline import eventually
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN
from scapy.utils import rdpcap

from lab.cluster import SUBNETS_KEY
from lab.topology import ETCD_URL
from lab.workload import ping_all


@pytest.fixture(scope="module")
def vtep_mac(cluster):
    """Each node's MAC as it stands in etcd, by the node's address."""
    return {lease["PublicIP"]: lease["BackendData"]["VtepMAC"] for lease in cluster.leases().values()}


@pytest.mark.flannel("5")
def test_a_lease_is_written_as_flannel_writes_it(cluster, vtep_mac):
    keys = cluster.leases()
    assert len(keys) == 3
    for key in keys:
        value = cluster.host("etcd").run(
            ["etcdctl", "--endpoints", ETCD_URL, "get", "--print-value-only", f"{SUBNETS_KEY}/{key}"]
        )
        address = keys[key]["PublicIP"]
        assert value.strip() == (
            f'{{"PublicIP":"{address}","PublicIPv6":null,"BackendType":"vxlan",'
            f'"BackendData":{{"VNI":1,"VtepMAC":"{vtep_mac[address]}"}}}}'
        )


@pytest.fixture(scope="module")
def captured(cluster, tmp_path_factory):
    """Three pings from pod-1-1 to pod-2-1, as they pass node 2's underlay interface."""
    file = tmp_path_factory.mktemp("capture") / "underlay.pcap"
    argv = ["tcpdump", "-i", "eth0", "-n", "-U", "--immediate-mode", "-w", str(file), "udp port 8472"]
    with cluster.host("node-2").popen(argv, stderr=subprocess.PIPE, text=True) as tcpdump:
        assert "listening" in tcpdump.stderr.readline()
        cluster.host("pod-1-1").run(["ping", "-c3", "-i0.05", "-W30", str(cluster.pod_address("pod-2-1"))])
        eventually(lambda: file.exists() and len(pings(rdpcap(str(file)))) >= 6)
        tcpdump.terminate()
    return rdpcap(str(file))


def pings(captured):
    """Without what agents ask each other meanwhile."""
    return [packet for packet in captured if VXLAN in packet and ICMP in packet[VXLAN]]


def requests(captured):
    return [packet for packet in pings(captured) if packet[VXLAN][ICMP].type == 8]


def test_a_packet_between_pods_travels_as_the_leases_say(cluster, captured, vtep_mac):
    assert len(requests(captured)) == 3
    for packet in requests(captured):
        assert (packet[IP].src, packet[IP].dst) == ("10.10.0.1", "10.10.0.2")
        assert packet[UDP].dport == 8472
        assert packet[VXLAN].vni == 1
        inner = packet[VXLAN][Ether]
        assert inner.src == vtep_mac["10.10.0.1"]
        assert inner.dst == vtep_mac["10.10.0.2"]
        assert (inner[IP].src, inner[IP].dst) == tuple(str(cluster.pod_address(pod)) for pod in ("pod-1-1", "pod-2-1"))


def test_the_largest_packet_a_pod_may_send_fits_the_underlay(cluster):
    """1450 bytes inside, 1500 outside, and nothing is fragmented."""
    target = str(cluster.pod_address("pod-3-1"))
    cluster.host("pod-1-1").run(["ping", "-c1", "-W30", "-M", "do", "-s", str(1450 - 28), target])


def test_every_pod_reaches_every_pod(cluster):
    for source, answered in ping_all(cluster):
        assert all(answered.values()), (source, answered)
