"""--ip-blackhole-route: what is sent to a node's subnet and is no pod's ends there, where no bridge has the subnet."""

import json

import pytest
from agent_pair import agents, cluster, forget_leases, reach_each_other, subnet_env
from deadline import eventually
from node_pair import UNDERLAY, V4, V6

from lab.wiring import ip
from netagent.subnet_file import read_subnets

FAMILIES = [V4, V6]
VXLAN = {"Type": "vxlan"}
ON = [["-ip-blackhole-route=true"]] * 2
COUNTER = (
    "table inet back {{ chain in {{ type filter hook prerouting priority -300; {family} daddr {address} counter; }}; }}"
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """As in Canal: no bridge has the whole subnet. What is not known goes on to a router, here the other node."""
    with cluster(tmp_path_factory.mktemp("pair")) as made:
        made.hosts[1].run(["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])
        for family in FAMILIES:
            ip("-n", made.hosts[1].namespace, "route", "add", "default", "via", UNDERLAY[family].format(2))
        yield made


def come_back(pair, family):
    """Packets for nobody in node 1's subnet that node 2 sends there and has come back."""
    nobody = str(read_subnets(subnet_env(pair, 1))[family][99])
    pair.hosts[2].run(["nft", "-f", "-"], stdin=COUNTER.format(family=family.nft, address=nobody))
    try:
        pair.hosts[2].run(["ping", "-c3", "-i0.1", "-W1", nobody], check=False)
        listed = json.loads(pair.shows("nft -j list table inet back", 2))["nftables"]
    finally:
        pair.shows("nft delete table inet back", 2)
    [rule] = [each["rule"] for each in listed if "rule" in each]
    return rule["expr"][-1]["counter"]["packets"]


def blackholes(pair, family):
    return [line for line in routes(pair, family) if line.startswith("blackhole ")]


def routes(pair, family):
    return pair.shows(f"ip -{family.value} route show proto 78").splitlines()


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_what_no_pod_has_is_dropped_and_does_not_go_round(pair, family):
    forget_leases(pair)
    with agents(pair, FAMILIES, VXLAN):
        reach_each_other(pair, FAMILIES, 1430)
        eventually(lambda: not blackholes(pair, family))
        assert come_back(pair, family)
    with agents(pair, FAMILIES, VXLAN, ON):
        eventually(lambda: blackholes(pair, family))
        assert come_back(pair, family) == 0
        reach_each_other(pair, FAMILIES, 1430)


def test_it_is_mended_and_goes_with_the_flag(pair):
    with agents(pair, FAMILIES, VXLAN, ON):
        eventually(lambda: all(blackholes(pair, family) for family in FAMILIES))
        before = {family: routes(pair, family) for family in FAMILIES}
        for family in FAMILIES:
            pair.shows(f"ip -{family.value} route flush proto 78")
        eventually(lambda: {family: routes(pair, family) for family in FAMILIES} == before)
    with agents(pair, FAMILIES, VXLAN):
        eventually(lambda: not any(blackholes(pair, family) for family in FAMILIES))


def test_pods_behind_a_bridge_are_still_reached(pair):
    """The bridge's own route covers the same subnet, and goes first."""
    with agents(pair, [V4], VXLAN, ON):
        eventually(lambda: blackholes(pair, V4))
        subnet = read_subnets(subnet_env(pair, 1))[V4]
        namespace = pair.hosts[1].namespace
        lines = ["link add cni0 type bridge", "link set cni0 up", f"addr add {subnet[1]}/{subnet.prefixlen} dev cni0"]
        ip("-n", namespace, batch=lines)
        try:
            assert f"{subnet[9]} dev cni0 " in pair.shows(f"ip route get {subnet[9]}")
        finally:
            ip("-n", namespace, "link", "del", "cni0")
        assert blackholes(pair, V4)
