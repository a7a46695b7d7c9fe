"""Rules that nft put into chains of iptables, where iptables prints them as something else or not at all.

What `netctl explain` says is laid beside what the kernel does to a datagram: sending what its rules drop is refused.
"""

import socket
import subprocess
from contextlib import closing
from ipaddress import ip_address
from itertools import product
from pathlib import Path

import pytest

from controlloop.family import Family
from netctl.explain.command import explained
from netctl.explain.flow_words import Target
from netctl.explain.kernel import KernelSight
from netctl.explain.rules import RuleReader
from netctl.explain.walk_iptables import parse_rule
from netctl.node import LiveNode

NOWHERE = LiveNode(Path("/nonexistent"))
WIRED = """
ip link add out0 type veth peer name far0
ip link set out0 up
ip link set far0 up
ip address add 10.200.0.1/8 dev out0
ip neighbor add 10.0.0.5 lladdr 02:00:00:00:00:05 dev out0 nud permanent
iptables-nft -N MINE
iptables-nft -A MINE -d 10.0.0.5/32 -p udp -m udp --dport 71 -j DROP
iptables-nft -A OUTPUT -d 10.0.0.77/32 -m comment --comment mine -j DROP
"""
BEHIND = """
iptables-nft -A OUTPUT -p udp -m udp --dport 70 -j DROP
iptables-nft -A OUTPUT -p udp -m udp --dport 71:72 -g MINE
"""
DOORS = "table ip filter { set doors { type inet_service; elements = { 70, 8080 }; }; }\n"
HOSTS = ("10.0.0.5", "10.0.0.77", "10.9.1.1")
PORTS = (7, 70, 71, 81, 8080, 9001)
FLOWS = tuple(product(HOSTS, PORTS))
DECIDED = (
    "udp dport { 8080, 81 } drop",
    "udp dport { 70-80, 9000-9010 } accept",
    "ip daddr 10.0.0.1-10.0.0.9 drop",
    "ip daddr != 10.0.0.1-10.0.0.9 drop",
    "ip daddr { 10.9.0.0/16, 10.0.0.5 } drop",
    "th dport 7 drop",
    "meta l4proto { tcp, udp } drop",
    "udp dport vmap { 7 : drop, 70 : accept, 71 : jump MINE, 81 : goto MINE }",
    "udp dport { 71, 81 } jump MINE",
    "udp dport @doors drop",
    "ct state new udp dport 81 drop",
    "ip daddr 10.0.0.0/8 ip daddr 10.9.0.0/16 drop",
    "udp dport & 1 == 1 drop",
    "udp dport 8000-8100 drop",
    "udp dport > 9000 drop",
    "udp dport 81 counter drop",
)
UNDECIDED = ("udp length 9 drop", "ip dscp 0 drop", "meta length > 1 drop", "ip ttl 1 drop")
"""For want of what a packet of `explain` does not have: it says so."""


@pytest.fixture
def wired(netns):
    run_all(WIRED)
    return netns


def run_all(lines):
    for line in lines.strip().splitlines():
        subprocess.run(line.split(), check=True)


def put(rule, chain="OUTPUT"):
    subprocess.run(["nft", "-f", "-"], input=f"{DOORS}add rule ip filter {chain} {rule}\n", text=True, check=True)
    run_all(BEHIND)


def explanation(host, port):
    return explained("-", Target(ip_address(host), "", str(port), "udp"), NOWHERE)


def is_let_out(host, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
        try:
            return caller.sendto(b"x", (host, port)) == 1
        except PermissionError:
            return False


def compared(chosen=FLOWS):
    """What was explained and what happened, where they differ; and how many were let out."""
    wrong, out = [], 0
    for host, port in chosen:
        said, done = explanation(host, port), is_let_out(host, port)
        out += done
        if said.arrives != done:
            wrong.append((host, port, said.verdict, done))
    return wrong, out


@pytest.mark.parametrize("rule", DECIDED)
def test_a_rule_of_nft_in_a_chain_of_iptables(wired, rule):
    put(rule)
    wrong, out = compared()
    assert wrong == []
    assert out < len(FLOWS)


@pytest.mark.parametrize("rule", UNDECIDED)
def test_what_cannot_be_decided_is_said(wired, rule):
    """A rule that may catch the packet is named, not passed over, and never taken for what iptables prints of it."""
    put(rule)
    said = explanation("10.0.0.5", 8080)
    assert said.verdict == "pass"
    assert any("ip filter OUTPUT may catch it" in warning for warning in said.warnings)


def test_in_a_chain_that_others_jump_to(wired):
    put("udp dport { 71, 72 } drop", "MINE")
    assert compared() == ([], 8)


def test_rules_of_iptables_are_read_as_iptables_prints_them(wired):
    """All that it can write into a chain has the shape that is known: nothing of it is asked of nft."""
    lines = [line for line in OF_IPTABLES.strip().splitlines() if line]
    for line in lines:
        subprocess.run(["iptables-nft", "-A", "INPUT", *line.split()], check=True)
    with closing(KernelSight(Family.V4)) as sight:
        listed = RuleReader(Family.V4, sight)._list_chain("filter", "INPUT")
    assert len(listed) == len(lines) + 1
    assert [each for each in listed if not isinstance(each, str)] == []
    assert [parse_rule(each).target for each in listed[1:]] == [
        line.split()[line.split().index("-j") + 1] for line in lines
    ]


OF_IPTABLES = """
-p icmp -j ACCEPT
-p tcp --dport 22 -j ACCEPT
-p tcp ! --dport 22 --sport 1000:2000 -j ACCEPT
-p tcp -m multiport --dports 22,23 -j ACCEPT
-s 10.0.0.0/8 ! -i eth0 -m mark --mark 0x4/0x4 -j DROP
! -d 10.0.0.0/255.0.255.0 -i eth+ -j DROP
-m limit --limit 5/min -j LOG
-p tcp --syn -m comment --comment hi -j REJECT
-p icmp --icmp-type echo-request -j ACCEPT
-f -j DROP
-m addrtype --dst-type LOCAL -j RETURN
-m conntrack --ctstate NEW,RELATED -j MINE
-p udp -m statistic --mode random --probability 0.5 -j ACCEPT
-m length --length 5 -j NFLOG
"""


def test_a_chain_among_ten_thousand_is_read_alone(wired):
    """As in a table nat with 10,000 Services, which nft takes half a minute to list."""
    chains = "".join(f":C{number} - [0:0]\n" for number in range(10_000))
    rules = "".join(f"-A C{number} -d 10.0.{number % 250}.1/32 -p udp -j DROP\n" for number in range(10_000))
    saved = f"*filter\n{chains}{rules}-A OUTPUT -p udp -m udp --dport 7 -j C5\nCOMMIT\n"
    subprocess.run(["iptables-nft-restore", "--noflush"], input=saved, text=True, check=True)
    put("ct state new udp dport 81 drop")
    with closing(KernelSight(Family.V4)) as sight:
        reader = RuleReader(Family.V4, sight)
        (table,) = reader.rulesets()
        assert [chain.place for chain in table.base_chains("output")] == ["iptables-nft filter OUTPUT"]
    assert compared([("10.0.0.5", 81), ("10.0.5.1", 7), ("10.0.6.1", 7)]) == ([], 1)
