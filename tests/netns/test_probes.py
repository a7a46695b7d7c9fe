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

OTHERS = ("node-2", "node-3", "node-4")
"""Of node-1, which is asked what it sees."""

WRONG_CHECKSUMS = """
import socket, struct
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
for _ in range(20):
    raw.sendto(struct.pack("!4H", 40000, 8472, 16, 0x1234) + bytes(8), ("10.10.0.1", 0))
"""


@pytest.fixture(scope="module")
def cluster():
    made = bring_up(nodes=4, pods_per_node=0, mode="nftables")
    yield made
    made.down()


def page(cluster, node, name):
    return get_json(cluster.host(node).run_dir / "nodenet" / "netagent.sock", name)


def address(cluster, node):
    return str(cluster.spec.attached[node].ip)


def peer_of(cluster, node, other):
    """What `node` knows of another."""
    [peer] = [
        each for each in page(cluster, node, "/peers")["items"] if each["public_ips"] == [address(cluster, other)]
    ]
    return peer


def gets(cluster, other, reach):
    """Until node-1 sees it so."""
    return eventually(lambda: peer_of(cluster, "node-1", other), WAIT_S, that=lambda peer: peer["reach"] == reach)


def findings(cluster, node):
    return {found["name"]: found for found in page(cluster, node, "/status")["findings"]}


def port_of(cluster, node, *change):
    ip("-n", cluster.spec.namespace("switch"), "link", "set", node, *change)


def restart_node_4(cluster, *flags):
    node = cluster.host("node-4")
    cluster.stop("node-4", "netagent", signal.SIGTERM)
    cluster.start(node, "netagent", [*cluster.daemon_argv("node-4", "netagent"), *flags])
    sock = node.run_dir / "nodenet" / "netagent.sock"
    eventually(lambda: page(cluster, "node-4", "/status")["ready"] if sock.is_socket() else None)


def test_peers_answer_each_other_and_are_told_with_what_leads_to_them(cluster):
    for other in OTHERS:
        peer = gets(cluster, other, "reachable")
        assert cluster.leases()[peer["key"]]["BackendData"]["VtepMAC"] == peer["mac"]
        assert (peer["device"], peer["programmed"], peer["skipped"]) == ("flannel.1", True, None)
        assert 0 < peer["rtt_ms"] < 1000
    for node in cluster.spec.node_names:
        assert findings(cluster, node) == {}


def test_netctl_lists_peers_and_leases(cluster):
    node = cluster.host("node-1")
    keys = {gets(cluster, other, "reachable")["key"]: address(cluster, other) for other in OTHERS}
    title, *rows = node.run(["netctl", "peers"]).splitlines()
    assert title.split()[0] == "PEER"
    shown = sorted(row.split()[:4] for row in rows)
    assert shown == sorted([key, at, "yes", "reachable"] for key, at in keys.items())
    assert sorted(node.run(["netctl", "peers", "-o", "name"]).split()) == sorted(f"peer/{key}" for key in keys)
    leases = json.loads(node.run(["netctl", "leases", "-o", "json"]))
    own = {each["key"]: each["own"] for each in leases["items"]}
    assert own == dict.fromkeys(cluster.leases(), True) | dict.fromkeys(keys, False)


@pytest.mark.flannel("47")
@pytest.mark.parametrize(
    ("daemon", "lines"),
    [
        (
            "netagent",
            [
                "netagent_ready 1",
                "netagent_peers 3",
                "netagent_leases 4",
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
    for other in OTHERS:
        gets(cluster, other, "reachable")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(cluster.host("node-1").run_dir / "nodenet" / f"{daemon}.sock"))
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b"")).decode()
    assert "text/plain; version=0.0.4" in answer
    for line in lines:
        assert f"\n{line}\n" in answer


# From here on all others are in trouble, each in its own way: who waits for one turn of questions waits for all.


@pytest.fixture(scope="module")
def troubled(cluster):
    """node-2's cable is pulled, that of node-3 takes no full packet, node-4 does not answer; node-1 gets bad UDP."""
    for other in OTHERS:
        gets(cluster, other, "reachable")
    assert findings(cluster, "node-1") == {}
    cluster.host("node-2").run([sys.executable, "-c", WRONG_CHECKSUMS])
    port_of(cluster, "node-2", "down")
    port_of(cluster, "node-3", "mtu", "1400")
    restart_node_4(cluster, "--healthz-ip=10.10.0.4", "--healthz-port=10254", "--tx-checksum-off", "--no-probe")
    return cluster


def test_a_peer_whose_link_is_cut_is_lost(troubled):
    peer = gets(troubled, "node-2", "lost")
    assert peer["last_answer"] <= peer["lost_since"]
    assert peer["programmed"]
    found = findings(troubled, "node-1")[peer["key"]]
    assert found["code"] == "NN104"
    assert found["since"] == pytest.approx(peer["lost_since"], abs=0.1)


def test_an_underlay_that_takes_no_full_packet_is_named(troubled):
    key = peer_of(troubled, "node-1", "node-3")["key"]
    found = eventually(lambda: findings(troubled, "node-1"), WAIT_S, that=lambda found: key in found)[key]
    assert found["reason"] == "MTU: packets of 1450 bytes do not arrive, small ones do"
    assert (found["code"], "MTU" in found["remedy"]) == ("NN105", True)
    assert peer_of(troubled, "node-1", "node-3")["reach"] == "reachable"


def test_udp_that_comes_with_wrong_checksums_is_named_with_the_flag_that_helps(troubled):
    """Of all of them: the first look may come while they are still being sent."""
    told = "20 datagrams with a wrong checksum "
    found = eventually(
        lambda: findings(troubled, "node-1").get("UDP checksums"),
        WAIT_S,
        that=lambda found: found and found["reason"].startswith(told),
    )
    assert (found["code"], "--tx-checksum-off" in found["remedy"]) == ("NN106", True)


def asked_from_node_1(cluster, path):
    code = f"import urllib.request as r; print(r.urlopen('http://10.10.0.4:10254{path}').read().decode())"
    return cluster.host("node-1").run([sys.executable, "-c", code])


def test_flags_open_a_port_switch_probes_off_and_offload_too(troubled):
    assert asked_from_node_1(troubled, "/readyz") == "ok\n\n"
    metrics = asked_from_node_1(troubled, "/metrics")
    assert "netagent_peers 3\n" in metrics
    assert "netagent_paths" not in metrics
    node = troubled.host("node-4")
    assert ":8478 " not in node.run(["ss", "-Huln"])
    assert [peer["reach"] for peer in page(troubled, "node-4", "/peers")["items"]] == [None] * 3
    offload = "from netagent.offload import tx_checksum; print(tx_checksum('flannel.1'))"
    assert node.run([sys.executable, "-c", offload]) == "False\n"
    gets(troubled, "node-4", "lost")


def test_who_answers_again_is_reachable_and_what_was_found_is_gone(troubled):
    """But for the checksums: those of the last minute count."""
    port_of(troubled, "node-2", "up")
    port_of(troubled, "node-3", "mtu", "1500")
    restart_node_4(troubled)
    for other in OTHERS:
        assert gets(troubled, other, "reachable")["lost_since"] is None
    eventually(lambda: findings(troubled, "node-1"), WAIT_S, that=lambda found: found.keys() <= {"UDP checksums"})
