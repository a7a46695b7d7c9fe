"""What agents learn of each other over the overlay: who is there, who is gone, and what does not fit through."""

import json
import signal
import socket
import sys

import pytest
from deadline import eventually
from whole_lab import bring_up

from controlloop.client import get_json
from lab.wiring import ip

WAIT_S = 200.0
"""A turn, the questions that follow a miss, and a slow machine."""

WRONG_CHECKSUMS = """
import socket, struct
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
for _ in range(20):
    raw.sendto(struct.pack("!4H", 40000, 8472, 16, 0x1234) + bytes(8), ("10.10.0.1", 0))
"""


@pytest.fixture(scope="module")
def cluster():
    made = bring_up(nodes=2, pods_per_node=1, mode="nftables")
    yield made
    made.down()


def page(cluster, node, name):
    return get_json(cluster.host(node).run_dir / "nodenet" / "netagent.sock", name)


def only_peer(cluster, node):
    (peer,) = page(cluster, node, "/peers")["items"]
    return peer


def becomes(cluster, node, reach):
    def asked():
        peer = only_peer(cluster, node)
        return peer if peer["reach"] == reach else None

    return eventually(asked, WAIT_S)


def findings(cluster, node):
    return {found["name"]: found for found in page(cluster, node, "/status")["findings"]}


def port_of_node_2(cluster, *change):
    ip("-n", cluster.spec.namespace("switch"), "link", "set", "node-2", *change)


def test_peers_answer_each_other_and_are_told_with_what_leads_to_them(cluster):
    for node, other in (("node-1", "10.10.0.2"), ("node-2", "10.10.0.1")):
        peer = becomes(cluster, node, "reachable")
        assert peer["public_ips"] == [other]
        assert cluster.leases()[peer["key"]]["BackendData"]["VtepMAC"] == peer["mac"]
        assert (peer["device"], peer["programmed"], peer["skipped"]) == ("flannel.1", True, None)
        assert 0 < peer["rtt_ms"] < 1000
        assert findings(cluster, node) == {}


def test_a_link_that_is_cut_makes_the_peer_lost_and_the_answer_after_it_reachable(cluster):
    key = becomes(cluster, "node-1", "reachable")["key"]
    port_of_node_2(cluster, "down")
    try:
        peer = becomes(cluster, "node-1", "lost")
        assert peer["last_answer"] <= peer["lost_since"]
        assert peer["programmed"]
        assert findings(cluster, "node-1")[key]["code"] == "NN104"
        assert findings(cluster, "node-1")[key]["since"] == pytest.approx(peer["lost_since"], abs=0.1)
    finally:
        port_of_node_2(cluster, "up")
    assert becomes(cluster, "node-1", "reachable")["lost_since"] is None
    eventually(lambda: findings(cluster, "node-1") == {})


def test_an_underlay_that_takes_no_full_packet_is_named_and_remedied(cluster):
    key = becomes(cluster, "node-1", "reachable")["key"]
    port_of_node_2(cluster, "mtu", "1400")
    try:
        found = eventually(lambda: findings(cluster, "node-1").get(key), WAIT_S)
        assert found["reason"] == "MTU: packets of 1450 bytes do not arrive, small ones do"
        assert (found["code"], "MTU" in found["remedy"]) == ("NN105", True)
        assert only_peer(cluster, "node-1")["reach"] == "reachable"
    finally:
        port_of_node_2(cluster, "mtu", "1500")
    eventually(lambda: not findings(cluster, "node-1"), WAIT_S)


def test_udp_that_comes_with_wrong_checksums_is_named_with_the_flag_that_helps(cluster):
    assert "UDP checksums" not in findings(cluster, "node-1")
    cluster.host("node-2").run([sys.executable, "-c", WRONG_CHECKSUMS])

    def told():
        """Of all of them: the first look may come while they are still being sent."""
        found = findings(cluster, "node-1").get("UDP checksums")
        return found if found and found["reason"].startswith("20 datagrams with a wrong checksum ") else None

    found = eventually(told, WAIT_S)
    assert (found["code"], "--tx-checksum-off" in found["remedy"]) == ("NN106", True)


def test_netctl_lists_peers_and_leases(cluster):
    node = cluster.host("node-1")
    key = becomes(cluster, "node-1", "reachable")["key"]
    title, row = node.run(["netctl", "peers"]).splitlines()
    assert title.split()[0] == "PEER"
    assert row.split()[:4] == [key, "10.10.0.2", "yes", "reachable"]
    assert node.run(["netctl", "peers", "-o", "name"]) == f"peer/{key}\n"
    leases = json.loads(node.run(["netctl", "leases", "-o", "json"]))
    own = {each["key"]: each["own"] for each in leases["items"]}
    assert own == dict.fromkeys(cluster.leases(), True) | {key: False}


@pytest.mark.flannel("47")
@pytest.mark.parametrize(
    ("daemon", "lines"),
    [
        (
            "netagent",
            [
                "netagent_ready 1",
                "netagent_peers 1",
                "netagent_leases 2",
                'netagent_paths{reach="lost"} 0',
                'netagent_drift_repairs_total{kind="nftables-ip"} 0',
                "netagent_notification_overflows_total 0",
            ],
        ),
        (
            "netproxy",
            ["netproxy_ready 1", "netproxy_services 0", 'netproxy_sync_failures_total{rules="nftables-ip"} 0'],
        ),
    ],
)
def test_metrics_come_from_the_socket(cluster, daemon, lines):
    becomes(cluster, "node-1", "reachable")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(cluster.host("node-1").run_dir / "nodenet" / f"{daemon}.sock"))
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b"")).decode()
    assert "text/plain; version=0.0.4" in answer
    for line in lines:
        assert f"\n{line}\n" in answer


@pytest.fixture
def other_flags(cluster):
    """node-2's agent as its operator wants it differently, and as it was again afterwards."""
    node, plain = cluster.host("node-2"), cluster.daemon_argv("node-2", "netagent")

    def restart(*flags):
        cluster.stop("node-2", "netagent", signal.SIGTERM)
        cluster.start(node, "netagent", [*plain, *flags])
        eventually(lambda: page(cluster, "node-2", "/status")["ready"] if sock.is_socket() else None)

    sock = node.run_dir / "nodenet" / "netagent.sock"
    yield restart
    restart()


def asked_from_node_1(cluster, path):
    code = f"import urllib.request as r; print(r.urlopen('http://10.10.0.2:10254{path}').read().decode())"
    return cluster.host("node-1").run([sys.executable, "-c", code])


def test_flags_open_a_port_switch_probes_off_and_offload_too(cluster, other_flags):
    other_flags("--healthz-ip=10.10.0.2", "--healthz-port=10254", "--tx-checksum-off", "--no-probe")
    assert asked_from_node_1(cluster, "/readyz") == "ok\n\n"
    metrics = asked_from_node_1(cluster, "/metrics")
    assert "netagent_peers 1\n" in metrics
    assert "netagent_paths" not in metrics
    assert ":8478 " not in cluster.host("node-2").run(["ss", "-Huln"])
    assert only_peer(cluster, "node-2")["reach"] is None
    offload = "from netagent.offload import tx_checksum; print(tx_checksum('flannel.1'))"
    assert cluster.host("node-2").run([sys.executable, "-c", offload]) == "False\n"
    becomes(cluster, "node-1", "lost")
