"""Planned causes of lost packets. `netctl trace` must name each: the rule and whose it is, or what the kernel says."""

import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from calls import Call
from manifests import service, slices
from namespace import inside
from network import ADDRESSES
from rig import only_iptables, only_nftables
from tables import DROPPED_AFTER_S
from tracing import Tracing

from controlloop.family import Family
from netctl.explain.command import explained
from netctl.explain.flow_words import Target
from netctl.explain.walk import Place
from netctl.node import LiveNode

NOWHERE = LiveNode(Path("/nonexistent"))
POD = ADDRESSES["pod-2-1"][Family.V4]
"""The endpoint, on the other node."""


@contextmanager
def done(rig, does, undoes):
    """Somebody on node-1 runs this, and takes it back."""
    with inside(rig.namespace):
        subprocess.run(["sh", "-ec", does], check=True)
        try:
            yield
        finally:
            subprocess.run(["sh", "-ec", undoes], check=True)


def traced(rig, caller="pod-1-3", target="cluster-ip", number=80, family=Family.V4):
    """What is said of the first packet of one call."""
    address = ADDRESSES[target][family]
    at = Place(address, number)
    with Tracing(rig.namespace, "any", f"{at}/tcp") as tracing:
        rig.board.place([Call(caller, address, number)], wait=lambda _: DROPPED_AFTER_S)
        code, (item,) = tracing.packets()
    rig.board.hang_up()
    assert (code, item["arrives"]) == (1, False)
    print(item)
    return item


# -- by our own rules -------------------------------------------------------------------------------------------------


def test_no_endpoints(rig):
    rig.given(service())
    item = traced(rig)
    assert (item["verdict"], item["reason"]["code"]) == ("reject", "no-endpoints")
    assert "netproxy" in item["rule"].lower()


def test_policy_local_without_a_local_endpoint(rig):
    rig.given(service(internalTrafficPolicy="Local"), slices("pod-2-1"))
    item = traced(rig)
    assert (item["verdict"], item["reason"]["code"]) == ("drop", "policy-local")


def test_a_caller_outside_of_the_source_ranges(rig):
    balanced = {"type": "LoadBalancer", "balancer": ["vip"], "loadBalancerSourceRanges": ["198.51.100.0/24"]}
    rig.given(service(**balanced), slices("pod-2-1"))
    item = traced(rig, "client", "vip")
    assert (item["verdict"], item["reason"]["code"]) == ("drop", "source-ranges")


@only_nftables
def test_a_port_that_the_service_does_not_have(rig):
    rig.given(service(), slices("pod-2-1"))
    item = traced(rig, number=81)
    assert (item["verdict"], item["reason"]["code"]) == ("reject", "undefined-port")


@only_nftables
def test_an_address_that_no_service_has(rig):
    rig.given(service(), slices("pod-2-1"))
    item = traced(rig, target="unallocated")
    assert (item["verdict"], item["reason"]["code"]) == ("drop", "unallocated-address")


# -- by somebody else's rules -----------------------------------------------------------------------------------------

SET = "set blocked { type ipv4_addr; elements = { 10.244.1.13 }; }"
FOREIGN = {
    "prerouting": ("chain early { type filter hook prerouting priority -150; tcp dport 80 drop; }", "drop", "early"),
    "raw": ("chain raw { type filter hook prerouting priority -300; tcp dport 80 drop; }", "drop", "raw"),
    "set": (f"{SET}\nchain c {{ type filter hook forward priority 0; ip saddr @blocked drop; }}", "drop", "c"),
    "forward": (f"chain onward {{ type filter hook forward priority 0; ip daddr {POD} drop; }}", "drop", "onward"),
    "refused": (f"chain onward {{ type filter hook forward priority 0; ip daddr {POD} reject; }}", "reject", "onward"),
    "policy": ("chain closed { type filter hook forward priority 10; policy drop; }", "drop", "closed: policy"),
    "jump": (
        "chain deep { tcp dport 8080 drop; }\nchain c { type filter hook forward priority 0; jump deep; }",
        "drop",
        "deep",
    ),
    "state": ("chain c { type filter hook forward priority 0; ct state new drop; }", "drop", "c"),
    "postrouting": (f"chain out {{ type filter hook postrouting priority 0; ip daddr {POD} drop; }}", "drop", "out"),
    "comment": (
        'chain c { type filter hook forward priority 0; tcp dport 8080 drop comment "by order"; }',
        "drop",
        "by order",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_table_of_somebody_else(rig, name):
    rules, verdict, where = FOREIGN[name]
    rig.given(service(), slices("pod-2-1"))
    with done(rig, f"nft -f - <<'END'\ntable inet fw {{\n{rules}\n}}\nEND", "nft delete table inet fw"):
        item = traced(rig)
    assert (item["verdict"], item["reason"]["code"]) == (verdict, "foreign-rule")
    assert "inet fw" in item["rule"]
    assert where in item["rule"]
    assert item["warnings"]


def test_what_this_node_sends(rig):
    rig.given(service(), slices("pod-2-1"))
    rules = "table inet fw { chain o { type filter hook output priority 0; tcp dport 8080 drop; }; }"
    with done(rig, f"nft '{rules}'", "nft delete table inet fw"):
        item = traced(rig, "node-1")
    assert (item["verdict"], item["from"]) == ("drop", "this node")
    assert "inet fw o" in item["rule"]


def test_what_comes_for_this_node(rig):
    rig.given()
    rules = "table inet fw { chain i { type filter hook input priority 0; tcp dport 8080 drop; }; }"
    with done(rig, f"nft '{rules}'", "nft delete table inet fw"):
        item = traced(rig, "client", "node-1", 8080)
    assert item["verdict"] == "drop"
    assert "inet fw i" in item["rule"]


IPTABLES = {
    "filter FORWARD": (f"-I FORWARD -d {POD} -j DROP", "drop"),
    "filter FORWARD refused": (f"-I FORWARD -d {POD} -j REJECT", "reject"),
    "raw PREROUTING": ("-t raw -I PREROUTING -p tcp --dport 80 -j DROP", "drop"),
    "mangle FORWARD": (f"-t mangle -I FORWARD -d {POD} -m comment --comment 'by order' -j DROP", "drop"),
}


@pytest.mark.parametrize("variant", ["iptables-nft", "iptables-legacy"])
@pytest.mark.parametrize("name", IPTABLES)
def test_a_rule_of_iptables(rig, variant, name):
    """Of the variant that netproxy uses, of the other one, and beside nftables mode."""
    rule, verdict = IPTABLES[name]
    rig.given(service(), slices("pod-2-1"))
    with done(rig, f"{variant} {rule}", f"{variant} {rule.replace('-I', '-D')}"):
        item = traced(rig)
    assert (item["verdict"], item["reason"]["code"]) == (verdict, "foreign-rule")
    table, chain, *_ = name.split()
    assert item["rule"].startswith(f"{variant} {table} {chain}: ")
    assert item["rule"].endswith(f"-j {verdict.upper()}") or "REJECT --reject-with" in item["rule"]


FIRST_HANDLE = "$(nft --handle list chain ip filter FORWARD | grep -m1 drop | grep -o 'handle .*')"


@pytest.mark.parametrize("match", ["tcp dport { 8080, 81 }", "ct state new tcp dport 8080"])
def test_a_rule_of_nft_in_a_chain_of_iptables(rig, match):
    """iptables prints the first as `-p tcp -j DROP`, and of the second it cannot print the chain."""
    rig.given(service(), slices("pod-2-1"))
    other = "FORWARD -d 192.0.2.9/32 -j DROP"
    with done(
        rig,
        f"iptables-nft -A {other}; nft 'insert rule ip filter FORWARD {match} drop'",
        f"nft delete rule ip filter FORWARD {FIRST_HANDLE}; iptables-nft -D {other}",
    ):
        item = traced(rig)
    assert (item["verdict"], item["reason"]["code"]) == ("drop", "foreign-rule")
    assert "of ip filter FORWARD" in item["rule"]


@only_iptables
def test_a_policy_of_iptables(rig):
    rig.given(service(), slices("pod-2-1"))
    with done(rig, f"{rig.variant} -P INPUT DROP", f"{rig.variant} -P INPUT ACCEPT"):
        item = traced(rig, "client", "node-1", 8080)
    assert item["verdict"] == "drop"
    assert item["rule"] == f"{rig.variant} filter INPUT: policy drop"


# -- by the kernel itself ---------------------------------------------------------------------------------------------

ROUTES = {
    "blackhole": ("drop", "a blackhole route leads there"),
    "unreachable": ("reject", "an unreachable route leads there"),
    "prohibit": ("reject", "a prohibit route leads there"),
}


@pytest.mark.parametrize("kind", ROUTES)
def test_a_route(rig, kind):
    verdict, words = ROUTES[kind]
    rig.given(service(), slices("pod-2-1"))
    with done(rig, f"ip route add {kind} {POD}", f"ip route del {kind} {POD}"):
        item = traced(rig)
    assert (item["verdict"], item["reason"]["code"]) == (verdict, "no-route")
    assert words in item["reason"]["text"]


FORWARDING = {Family.V4: "net.ipv4.conf.cni0.forwarding", Family.V6: "net.ipv6.conf.all.forwarding"}


@pytest.mark.parametrize("family", Family)
def test_a_node_that_does_not_forward(rig, family):
    """Which `netctl explain` knows beforehand."""
    rig.given(service(), slices("pod-2-1"))
    caller, target = str(ADDRESSES["pod-1-3"][family]), Target(ADDRESSES["cluster-ip"][family], "", "80", "tcp")
    setting = FORWARDING[family]
    with done(rig, f"sysctl -qw {setting}=0", f"sysctl -qw {setting}=1"):
        item = traced(rig, family=family)
        with inside(rig.namespace):
            predicted = explained(caller, target, NOWHERE)
    assert (item["verdict"], item["reason"]["code"]) == ("drop", "no-forwarding")
    assert f"{setting}=0" in item["reason"]["text"]
    assert (predicted.verdict, predicted.reason.code) == ("drop", "no-forwarding")
    assert f"net.ipv{family.value}.conf" in predicted.reason.text


@only_nftables
def test_ipv6_asks_no_device_whether_it_forwards(rig):
    rig.given(service(), slices("pod-2-1"))
    caller, target = str(ADDRESSES["pod-1-3"][Family.V6]), Target(ADDRESSES["cluster-ip"][Family.V6], "", "80", "tcp")
    setting = "net.ipv6.conf.cni0.forwarding"
    with done(rig, f"sysctl -qw {setting}=0", f"sysctl -qw {setting}=1"):
        (call,) = rig.call("pod-1-3", "cluster-ip", 80, family=Family.V6)
        with inside(rig.namespace):
            predicted = explained(caller, target, NOWHERE)
    assert (call.outcome, predicted.arrives) == ("pod-2-1", True)


@pytest.mark.parametrize("family", Family)
def test_a_packet_whose_time_to_live_is_over(rig, family):
    rig.given()
    address = str(ADDRESSES["pod-2-1"][family])
    with Tracing(rig.namespace, "any", address, "--protocol", "icmp") as tracing:
        with inside(rig.board.network.namespace("pod-1-3")):
            subprocess.run(["ping", "-c1", "-W5", "-t1", address], check=False, capture_output=True)
        code, (item,) = tracing.packets()
    assert (code, item["verdict"], item["reason"]["code"]) == (1, "reject", "ttl")


def test_a_caller_that_comes_from_where_no_route_leads_back(rig):
    """The kernel drops it for its reverse path, before it looks where it goes."""
    rig.given(service(), slices("pod-2-1"))
    caller = ADDRESSES["pod-1-3"][Family.V4]
    setting = "net.ipv4.conf.cni0.rp_filter"
    with done(
        rig,
        f"ip route add {caller} dev overlay; sysctl -qw {setting}=1",
        f"sysctl -qw {setting}=0; ip route del {caller} dev overlay",
    ):
        item = traced(rig)
    assert item["verdict"] == "drop"
    assert item["reason"]["code"] in ("routing", "no-route")
    assert "IP_RPFILTER" in item["likely"]
