"""Where node ports hang, and who is asked whether an address is local."""

import pytest
from iptables_plans import LISTED, PODS, WEB, endpoint, frontend, node_port, planned

from controlloop.address import host
from controlloop.delta import Delta
from controlloop.family import Family
from proxy.frontends import (
    ANY_NODE_ADDRESS,
    Protocol,
)
from proxy.iptables.desired import IptablesPlanner
from proxy.node import Surroundings

RANGES = "-p tcp -m tcp --dport 28672:32767", "-p udp -m udp --dport 30053"
LOCAL = "-m addrtype --dst-type LOCAL"


@pytest.mark.parametrize(
    ("given", "family", "places"),
    [
        ({}, Family.V4, [f"! -d 127.0.0.0/8 {ports} {LOCAL}" for ports in RANGES]),
        ({"localhost_node_ports": True}, Family.V4, [f"{ports} {LOCAL}" for ports in RANGES]),
        ({"localhost_node_ports": True}, Family.V6, [f"! -d ::1/128 {ports} {LOCAL}" for ports in RANGES]),
        ({"node_port_addresses": LISTED}, Family.V4, ["-d 192.0.2.1/32", "-d 192.0.2.9/32"]),
        ({"node_port_addresses": LISTED}, Family.V6, ["-d 2001:db8::1/128"]),
        (
            {"node_port_addresses": LISTED, "localhost_node_ports": True},
            Family.V4,
            ["-d 192.0.2.1/32", "-d 192.0.2.9/32", "-d 127.0.0.0/8"],
        ),
    ],
)
@pytest.mark.parametrize(
    ("chain", "tree"),
    [
        (("nat", "NETPROXY-SERVICES"), "NETPROXY-NODE-PORTS"),
        (("filter", "NETPROXY-INPUT"), "NETPROXY-REFUSED-PORTS"),
    ],
)
def test_node_ports_are_served_and_refused_in_the_same_places(given, family, places, chain, tree):
    several = [
        node_port(
            port_name=f"p{port}",
            port=port,
            protocol=protocol,
            address=ANY_NODE_ADDRESS[family],
            endpoints=[endpoint(host(family, 7))] if chain[0] == "nat" else (),
        )
        for protocol, port in ((Protocol.TCP, 30080), (Protocol.TCP, 32767), (Protocol.UDP, 30053))
    ]
    objects = planned(*several, family=family, cidr=None, **given)
    assert [rule for rule in objects[chain] if rule.endswith(tree)] == [f"{one} -j {tree}" for one in places]
    guarded = family is Family.V4 and "localhost_node_ports" in given
    assert (("raw", "PREROUTING") in objects) is guarded


def test_without_node_ports_nobody_asks_whether_an_address_is_local():
    web = planned(frontend())
    assert not [rule for rules in web.values() for rule in rules if LOCAL in rule]


def test_ranges_of_node_ports_follow_the_services():
    planner = IptablesPlanner(Surroundings(Family.V4, pods=PODS))
    before = dict(planner.objects)
    low, high = (node_port(port_name=f"p{port}", port=port) for port in (20000, 32767))
    for frontends, ports in (
        ([node_port()], "-p tcp -m tcp --dport 30080"),
        ([node_port(), high], "-p tcp -m tcp --dport 28672:32767"),
        ([node_port(), low], "-p tcp"),
        ([], ""),
    ):
        delta = Delta()
        planner.replace(WEB, frontends, delta)
        delta.apply_to(before)
        assert before == dict(planner.objects)
        asked = [rule for rule in before["nat", "NETPROXY-SERVICES"] if LOCAL in rule]
        assert asked == ([f"! -d 127.0.0.0/8 {ports} {LOCAL} -j NETPROXY-NODE-PORTS"] if ports else [])


def test_many_node_ports_make_a_tree():
    objects = planned(*[node_port(port_name=f"p{port}", port=port) for port in range(30000, 30096)])
    assert objects["nat", "NETPROXY-NODE-PORTS"] == ("-p tcp -m tcp --dport 29952:30207 -j NETPROXY-29952-30207/tcp",)
    assert objects["nat", "NETPROXY-29952-30207/tcp"][-1] == (
        "-p tcp -m tcp --dport 30080:30095 -j NETPROXY-30080-30095/tcp"
    )


def test_the_same_port_of_two_protocols_is_two_node_ports():
    both = [
        node_port(protocol=protocol, endpoints=(f"10.244.1.{number}",)) for number, protocol in enumerate(Protocol, 1)
    ]
    assert len(planned(*both)["nat", "NETPROXY-NODE-PORTS"]) == 3
