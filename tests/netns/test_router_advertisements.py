"""A pod that poses as a router, on its bridge or through the overlay, changes nothing on a host (CVE-2020-10749)."""

import sys
from pathlib import Path

import pytest
from deadline import eventually
from overlay_lab import overlay_lab
from settled import has_settled

ADVERTISE = [sys.executable, str(Path(__file__).with_name("advertise.py"))]
COUNT = "20"


@pytest.fixture(scope="module")
def lab():
    with overlay_lab("router", nodes=2, pods_per_node=1) as made:
        # As on a node whose pods have IPv4 alone: who forwards IPv6 believes no router anyway.
        node = made.host("node-1")
        node.run(["sysctl", "-qw", "net.ipv6.conf.all.forwarding=0"])
        yield made


def from_a_pod(lab):
    lab.host("pod-1-1").run([*ADVERTISE, "eth0", COUNT])


def through_the_overlay(lab):
    """From a peer's address: the firewall lets it in."""
    node = str(lab.spec.attached["node-1"].ip)
    [lease] = [lease for lease in lab.leases().values() if lease["PublicIP"] == node]
    lab.host("node-2").run([*ADVERTISE, node, "1", lease["BackendData"]["VtepMAC"], COUNT])


def believed(lab):
    """What a router may tell a host: addresses, routes, and how large packets may be."""
    node = lab.host("node-1")
    commands = ("ip -6 -o address show", "ip -6 route show table all", r"sysctl -a -r net\.ipv6\.conf\..*\.mtu$")
    # The first two also tell how long something will last.
    lines = [line for command in commands for line in node.run(command.split()).splitlines()]
    return sorted({line.partition(" expires ")[0].partition(" valid_lft ")[0] for line in lines})


@pytest.mark.parametrize(("sent", "device"), [(from_a_pod, "cni0"), (through_the_overlay, "flannel.1")])
def test_a_router_among_the_pods_is_not_believed(lab, sent, device):
    node, setting = lab.host("node-1"), f"net/ipv6/conf/{device}/accept_ra"
    eventually(lambda: has_settled(node.run))
    before = believed(lab)
    sent(lab)
    # A ping behind them has been answered when they have been dealt with.
    lab.host("pod-1-1").run(["ping", "-c1", "-W30", str(lab.pod_address("pod-2-1"))])
    assert believed(lab) == before
    # The same packets are believed where the setting is Linux's default, so they did arrive.
    node.run(["sysctl", "-qw", f"{setting}=1"])
    sent(lab)
    eventually(lambda: f"default via fe80::bad dev {device}" in node.run(["ip", "-6", "route"]))
    eventually(lambda: "2001:db8:bad:" in node.run(["ip", "-6", "address", "show", "dev", device]))
    node.run(["sysctl", "-qw", f"{setting}=0"])
