"""Which places are counted, and that no change of what is behind them touches what they counted."""

from ipaddress import ip_address

from controlloop.delta import Delta
from controlloop.family import Family
from proxy.counting.desired import CountingPlanner
from proxy.frontends import (
    ANY_NODE_ADDRESS,
    Balance,
    Endpoint,
    Frontend,
    Protocol,
    Scope,
    ServiceName,
    ServicePortName,
)
from proxy.node import Surroundings

WEB = ServiceName("default", "web")
SETS = ("connections", "traffic")


def frontend(*endpoints, address="10.96.0.1", port=80, balance=Balance.RANDOM, **others):
    behind = tuple(Endpoint(ip_address(each), 8080, is_local=True) for each in endpoints)
    name = ServicePortName(WEB, "http")
    return Frontend(name, ip_address(address), Protocol.TCP, port, balance, behind, **others)


def node_port(*endpoints, port=30080):
    return frontend(*endpoints, address=str(ANY_NODE_ADDRESS[Family.V4]), port=port, scope=Scope.NODE_PORT)


def planned(*frontends, **surroundings):
    planner = CountingPlanner(Surroundings(Family.V4, **surroundings))
    planner.replace(WEB, frontends, Delta())
    return planner


def places(planner):
    return {key[1:] for key in planner.objects if key.kind == "element"}


def test_each_called_place_is_counted_in_both_ways():
    counted = places(planned(frontend("10.244.1.2"), node_port("10.244.1.2"), frontend("::1", address="fd00::1")))
    at_services = {(kind, "10.96.0.1 . tcp . 80") for kind in SETS}
    assert counted == at_services | {(f"node-port-{kind}", "tcp . 30080") for kind in SETS}


def test_no_change_behind_a_place_touches_it():
    planner = planned(frontend("10.244.1.2"))
    for now in frontend("10.244.1.3"), frontend(), frontend("10.244.1.2", affinity_s=60, balance=Balance.ROUND_ROBIN):
        delta = Delta()
        planner.replace(WEB, [now], delta)
        assert not delta


def test_where_node_ports_are_served_is_followed():
    planner, delta = planned(node_port("10.244.1.2")), Delta()
    served = frozenset({ip_address("10.10.0.1"), ip_address("127.0.0.1")})
    planner.settle(Surroundings(Family.V4, node_port_addresses=served), delta)
    assert ("node-port-addresses", "10.10.0.1") in places(planner)
    assert {key.kind for key in delta.put} == {"element", "chain"}
    assert planner.objects == planned(node_port("10.244.1.2"), node_port_addresses=served).objects
