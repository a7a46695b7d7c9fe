"""Frontends for the tests of the iptables planner, and what it makes of them."""

from ipaddress import ip_address, ip_network
from pathlib import Path

from controlloop.delta import Delta
from controlloop.family import Family
from proxy.frontends import (
    Balance,
    Endpoint,
    Frontend,
    Protocol,
    Scope,
    ServiceName,
    ServicePortName,
)
from proxy.iptables.balancing import Memory
from proxy.iptables.desired import IptablesPlanner
from proxy.node import Surroundings

GOLDEN = Path(__file__).parents[3] / "golden"
PODS = ip_network("10.244.0.0/16")
WEB = ServiceName("default", "web")
DNS = ServiceName("kube-system", "dns")
LISTED = frozenset(map(ip_address, ("192.0.2.9", "192.0.2.1", "127.0.0.1", "2001:db8::1")))


def endpoint(address, port=8080, *, is_local=False, weight=1):
    return Endpoint(ip_address(address), port, is_local, weight)


def frontend(
    service=WEB,
    port_name="http",
    address="10.96.0.1",
    *,
    protocol=Protocol.TCP,
    port=80,
    balance=Balance.RANDOM,
    endpoints=("10.244.1.2",),
    **others,
):
    places = tuple(one if isinstance(one, Endpoint) else endpoint(one) for one in endpoints)
    name = ServicePortName(service, port_name)
    return Frontend(name, ip_address(address), protocol, port, balance, places, **others)


def node_port(service=WEB, port_name="http", address="0.0.0.0", *, port=30080, **others):
    return frontend(service, port_name, address, port=port, scope=Scope.NODE_PORT, **others)


def planned(*frontends, family=Family.V4, cidr=PODS, memory=Memory.SETS, **surroundings):
    planner = IptablesPlanner(Surroundings(family, pods=cidr, **surroundings), memory)
    for service in dict.fromkeys(one.name.service for one in frontends):
        planner.replace(service, [one for one in frontends if one.name.service == service], Delta())
    return planner.objects


def chains(objects, kind):
    return [rules for (_, chain), rules in objects.items() if chain.startswith(f"NETPROXY-{kind}-")]


def service_chains(objects):
    return chains(objects, "SVC")
