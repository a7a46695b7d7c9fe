"""Two agents, one etcd, and each backend from the configuration to the packet; the next backend after a restart."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from deadline import eventually
from node_pair import V4, V6, Pair

from lab.etcd import etcd_argv, health_argv
from lab.wiring import ip
from netagent.subnet_file import read_subnets

ETCD = "http://[2001:db8::1]:2379"
RANGES = {V4: {"Network": "10.6.0.0/16"}, V6: {"IPv6Network": "fd00:6::/48", "EnableIPv6": True}}
DEVICE = {V4: "flannel.1", V6: "flannel-v6.1"}
NETAGENT = str(Path(sys.executable).parent / "netagent")


@pytest.fixture
def pair(tmp_path):
    made = Pair(tmp_path)
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture
def etcd(pair, tmp_path):
    argv = etcd_argv(tmp_path, client_url=ETCD, peer_url="http://127.0.0.1:2380")
    with (tmp_path / "etcd.log").open("wb") as log, pair.hosts[1].popen(argv, stdout=log, stderr=log) as server:
        eventually(lambda: pair.hosts[1].succeeds(health_argv(ETCD)))
        yield
        server.terminate()


@contextmanager
def agents(pair, families, backend):
    """Both agents on one configuration, until what they say is in the subnet file."""
    config = {"EnableIPv4": V4 in families, "Backend": backend}
    for family in families:
        config |= RANGES[family]
    pair.hosts[1].run(["etcdctl", "--endpoints", ETCD, "put", "/coreos.com/network/config", json.dumps(config)])
    running = []
    try:
        for number, host in pair.hosts.items():
            subnet_env(pair, number).unlink(missing_ok=True)
            argv = [NETAGENT, "--etcd-endpoints", ETCD, "--node-name", host.name, "--iface", "eth0"]
            with (host.folder / "netagent.log").open("ab") as log:
                running.append(host.popen(argv, stdout=log, stderr=subprocess.STDOUT))
        for number in pair.hosts:
            eventually(lambda number=number: subnet_env(pair, number).exists(), 30)
        yield
    finally:
        for each in running:
            each.terminate()
        for each in running:
            each.wait(20)


def subnet_env(pair, number):
    return pair.hosts[number].run_dir / "flannel" / "subnet.env"


def pod(pair, number, family):
    """The first address of a node's subnet, where its bridge would be; made there if need be."""
    address = read_subnets(subnet_env(pair, number))[family][1]
    nodad = ["nodad"] if family is V6 else []
    pair.hosts[number].run(["ip", "addr", "replace", f"{address}/{family.bits}", "dev", "lo", *nodad])
    return address


def reach_each_other(pair, families, mtu):
    """A packet of the size that the subnet file promises gets there and back."""
    assert f"FLANNEL_MTU={mtu}\n" in subnet_env(pair, 1).read_text()
    for family in families:
        here, there = pod(pair, 1, family), pod(pair, 2, family)
        size = str(mtu - (28 if family is V4 else 48))
        ping = ["ping", "-c1", "-W2", "-M", "do", "-s", size, "-I", str(here), str(there)]
        eventually(lambda ping=ping: pair.hosts[1].succeeds(ping), 20)


CASES = {
    "vxlan IPv6": ([V6], {"Type": "vxlan"}, 1430),
    "vxlan dual": ([V4, V6], {"Type": "vxlan"}, 1430),
    "vxlan DirectRouting dual": ([V4, V6], {"Type": "vxlan", "DirectRouting": True}, 1430),
    "host-gw IPv6": ([V6], {"Type": "host-gw"}, 1500),
    "host-gw dual": ([V4, V6], {"Type": "host-gw"}, 1500),
}


@pytest.mark.flannel("19", "22", "23", "44", "A6")
@pytest.mark.parametrize("case", CASES)
def test_two_agents_connect_their_pods(pair, etcd, case):
    families, backend, mtu = CASES[case]
    with agents(pair, families, backend):
        reach_each_other(pair, families, mtu)
        subnets = [read_subnets(subnet_env(pair, number)) for number in pair.hosts]
        assert all(subnets[0][family] != subnets[1][family] for family in families)
        encapsulated = backend == {"Type": "vxlan"}
        assert pair.routes() == sorted(DEVICE[family] if encapsulated else "eth0" for family in families)


STEPS = [
    ({"Type": "vxlan"}, 1430),
    ({"Type": "host-gw"}, 1500),
    ({"Type": "wireguard"}, 1420),
    ({"Type": "vxlan", "VNI": 5, "Port": 4789, "MTU": 1400}, 1330),
]


needs_wireguard = pytest.mark.skipif(
    shutil.which("wg") is None or shutil.which("wireguard-go") is None or not Path("/dev/net/tun").exists(),
    reason="needs wireguard-tools, wireguard-go and /dev/net/tun",
)


@pytest.mark.flannel("19", "41", "B4")
@needs_wireguard
def test_a_restart_with_another_backend_connects_the_same_subnets_and_leaves_nothing(pair, etcd):
    before = None
    for backend, mtu in STEPS:
        with agents(pair, [V4, V6], backend):
            reach_each_other(pair, [V4, V6], mtu)
            now = [read_subnets(subnet_env(pair, number)) for number in pair.hosts]
            before = before or now
            assert now == before
            eventually(lambda backend=backend: pair.devices() == devices(backend))


def wireguard_programs(pair, number):
    """Process ids of wireguard-go on a node."""
    pids = map(int, ip("netns", "pids", pair.hosts[number].namespace).split())
    return [pid for pid in pids if Path(f"/proc/{pid}/comm").read_text().strip() == "wireguard-go"]


@needs_wireguard
def test_wireguard_comes_back_with_its_peers_when_its_program_or_device_is_gone(pair, etcd):
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
