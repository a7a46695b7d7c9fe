"""`netctl diff` and `get routes` over each kind of overlay: a healthy one has no drift, whatever it is made of."""

import json
import sys
from pathlib import Path

import pytest
from agent_pair import agents, cluster, forget_leases, needs_wireguard, reach_each_other
from deadline import becomes
from node_pair import V4, V6
from schemas import validated

NETCTL = str(Path(sys.executable).parent / "netctl")
CASES = {
    "vxlan": ([V4, V6], {"Type": "vxlan"}, 1430),
    "vxlan DirectRouting": ([V4, V6], {"Type": "vxlan", "DirectRouting": True}, 1430),
    "host-gw": ([V4, V6], {"Type": "host-gw"}, 1500),
    "wireguard": pytest.param(([V4, V6], {"Type": "wireguard"}, 1420), marks=needs_wireguard),
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("pair")) as made:
        yield made


def asked(pair, *words):
    return validated(json.loads(pair.hosts[1].run([NETCTL, *words, "-o", "json"], check=False)))


def overlay_drift(pair):
    """No netproxy runs here, and that is all that is unread."""
    document = asked(pair, "diff")
    assert [each["daemon"] for each in document["unread"]] == ["netproxy"]
    assert document["compared"] > 4
    return document["items"]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_healthy_overlay_has_no_drift_and_its_routes_have_peers(pair, case):
    families, backend, mtu = case
    forget_leases(pair)
    with agents(pair, families, backend):
        reach_each_other(pair, families, mtu)
        becomes(lambda: overlay_drift(pair), [])
        routes = [each for each in asked(pair, "get", "routes")["items"] if each["type"] == "unicast"]
        assert {each["state"] for each in routes} == {"ok"}
        # WireGuard's driver chooses the peer: one route leads to all of them.
        assert any(each["peer"] for each in routes) == (backend["Type"] != "wireguard")
