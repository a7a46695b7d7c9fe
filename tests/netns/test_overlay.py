"""What travels between nodes, captured on the underlay and taken apart, beside what etcd says it must be."""

import json
import subprocess

import pytest
from deadline import eventually
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN
from scapy.utils import rdpcap

from lab.topology import ETCD_URL


@pytest.fixture(scope="module")
def leases(cluster):
    """Each node's lease as it stands in etcd: address of the node -> (subnet, value)."""
    listing = cluster.host("etcd").run(
        ["etcdctl", "--endpoints", ETCD_URL, "get", "--prefix", "/coreos.com/network/subnets/", "-w", "json"]
    )
    found = {}
    for pair in json.loads(listing)["kvs"]:
        key, value = (decode(pair[name]) for name in ("key", "value"))
        found[json.loads(value)["PublicIP"]] = (key.rpartition("/")[2].replace("-", "/"), value)
    return found


def decode(base64_text):
    return subprocess.run(["base64", "-d"], input=base64_text, capture_output=True, text=True, check=True).stdout


def test_a_lease_is_written_as_flannel_writes_it(leases):
    for address, (_, value) in leases.items():
        mac = json.loads(value)["BackendData"]["VtepMAC"]
        expected = '{"PublicIP":"%s","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"%s"}}'
        assert value == expected % (address, mac)
    assert len({subnet for subnet, _ in leases.values()}) == 3


@pytest.fixture(scope="module")
def captured(cluster, tmp_path_factory):
    """Three pings from pod-1-1 to pod-2-1, as they pass node 2's underlay interface."""
    file = tmp_path_factory.mktemp("capture") / "underlay.pcap"
    argv = ["tcpdump", "-i", "eth0", "-n", "-U", "--immediate-mode", "-w", str(file), "udp port 8472"]
    with cluster.host("node-2").popen(argv, stderr=subprocess.PIPE, text=True) as tcpdump:
        assert "listening" in tcpdump.stderr.readline()
        cluster.host("pod-1-1").run(["ping", "-c3", "-i0.05", "-W2", str(cluster.pod_address("pod-2-1"))])
        eventually(lambda: file.exists() and len(rdpcap(str(file))) >= 6)
        tcpdump.terminate()
    return rdpcap(str(file))


def requests(captured):
    return [packet for packet in captured if VXLAN in packet and packet[VXLAN][ICMP].type == 8]


def test_a_packet_between_pods_travels_as_the_leases_say(cluster, captured, leases):
    assert len(requests(captured)) == 3
    for packet in requests(captured):
        assert (packet[IP].src, packet[IP].dst) == ("10.10.0.1", "10.10.0.2")
        assert packet[UDP].dport == 8472
        assert packet[VXLAN].vni == 1
        inner = packet[VXLAN][Ether]
        assert inner.src == json.loads(leases["10.10.0.1"][1])["BackendData"]["VtepMAC"]
        assert inner.dst == json.loads(leases["10.10.0.2"][1])["BackendData"]["VtepMAC"]
        assert (inner[IP].src, inner[IP].dst) == tuple(str(cluster.pod_address(pod)) for pod in ("pod-1-1", "pod-2-1"))


def test_the_largest_packet_a_pod_may_send_fits_the_underlay(cluster):
    """1450 bytes inside, 1500 outside, and nothing is fragmented."""
    target = str(cluster.pod_address("pod-3-1"))
    cluster.host("pod-1-1").run(["ping", "-c1", "-W2", "-M", "do", "-s", str(1450 - 28), target])


def test_every_pod_reaches_every_pod(cluster):
    from lab.workload import ping_all  # noqa: PLC0415

    for source, answered in ping_all(cluster):
        assert all(answered.values()), (source, answered)
