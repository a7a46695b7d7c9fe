"""What agents learn of each other over the overlay: who is there, who is gone, and what does not fit through."""

import pytest
from conftest import bring_up
from deadline import eventually

from controlloop.client import get_json
from lab.wiring import ip

WAIT_S = 40.0
"""A turn, the questions that follow a miss, and a slow machine."""


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
        assert findings(cluster, "node-1")[key]["since"] == pytest.approx(peer["lost_since"], abs=0.1)
    finally:
        port_of_node_2(cluster, "up")
    assert becomes(cluster, "node-1", "reachable")["lost_since"] is None
    assert findings(cluster, "node-1") == {}


def test_an_underlay_that_takes_no_full_packet_is_named_and_remedied(cluster):
    key = becomes(cluster, "node-1", "reachable")["key"]
    port_of_node_2(cluster, "mtu", "1400")
    try:
        found = eventually(lambda: findings(cluster, "node-1").get(key), 100)
        assert found["reason"] == "MTU: packets of 1450 bytes do not arrive, small ones do"
        assert "MTU" in found["remedy"]
        assert only_peer(cluster, "node-1")["reach"] == "reachable"
    finally:
        port_of_node_2(cluster, "mtu", "1500")
    eventually(lambda: not findings(cluster, "node-1"), WAIT_S)
