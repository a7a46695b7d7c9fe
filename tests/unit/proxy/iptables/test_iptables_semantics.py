"""Whatever is served: each caller lands where its frontend says, by netctl's walk through the rules."""

from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlloop.delta import Delta
from controlloop.family import Family
from netctl.explain.walk import Notes, Packet, Place, Verdict
from netctl.explain.walk_iptables import IptablesRules
from proxy.frontends import (
    ANY_NODE_ADDRESS,
    Balance,
    Endpoint,
    Frontend,
    Masquerade,
    Protocol,
    Refusal,
    Scope,
    ServiceName,
    ServicePortName,
)
from proxy.iptables.balancing import Memory
from proxy.iptables.desired import IptablesPlanner
from proxy.node import Interfaces, Surroundings

PODS = ip_network("10.244.0.0/16")
NODE, LOOPBACK, OUTSIDE, NEAR = map(ip_address, ("192.0.2.1", "127.0.0.1", "198.51.100.7", "203.0.113.200"))
BRIDGE, WIRE = "cni0", "eth0"
VERDICT = {Refusal.REJECT: Verdict.REJECT, Refusal.DROP: Verdict.DROP}

# Few of each, so that addresses, ports, endpoints and callers meet.
pods = st.integers(1, 6).map(lambda number: IPv4Address(int(PODS.network_address) + number))
endpoints = st.builds(lambda pod, weight: Endpoint(pod, 8080, int(pod) % 2 == 0, weight), pods, st.integers(0, 3))
several = st.lists(endpoints, max_size=4, unique_by=lambda one: one.address).map(tuple)
networks = st.sampled_from([ip_network("198.51.100.0/24"), ip_network("10.244.0.0/30"), ip_network("0.0.0.0/0")])


@st.composite
def frontends(draw):
    scope = draw(st.sampled_from(Scope))
    place = {Scope.NODE_PORT: ANY_NODE_ADDRESS[Family.V4]}.get(scope)
    served_by = draw(several)
    return Frontend(
        ServicePortName(ServiceName("default", draw(st.sampled_from("abc"))), draw(st.sampled_from(["", "http"]))),
        place or IPv4Address(f"10.96.{draw(st.sampled_from([0, 1, 16]))}.{draw(st.integers(1, 3))}"),
        draw(st.sampled_from(Protocol)),
        30000 + draw(st.integers(0, 20)) if place else draw(st.sampled_from([53, 80])),
        draw(st.sampled_from([Balance.RANDOM, Balance.ROUND_ROBIN, Balance.WEIGHTED])),
        served_by,
        scope,
        None if scope is Scope.CLUSTER_IP else draw(st.none() | several.map(lambda more: joined(served_by, more))),
        refusal=draw(st.sampled_from(Refusal)),
        affinity_s=draw(st.sampled_from([0, 60])),
        sources=draw(st.lists(networks, max_size=2, unique=True).map(tuple)),
    )


def joined(some, more):
    return tuple({one.address: one for one in (*some, *more)}.values())


surroundings = st.builds(
    Surroundings,
    st.just(Family.V4),
    st.sampled_from([PODS, Interfaces(BRIDGE), None]),
    st.sampled_from([None, frozenset({NODE})]),
    st.booleans(),
    masquerade_all=st.booleans(),
    masquerade_bit=st.sampled_from([0, 14, 31]),
)
callers = st.one_of(
    st.tuples(pods, st.just(BRIDGE)),
    st.sampled_from([(NODE, ""), (LOOPBACK, ""), (OUTSIDE, WIRE), (NEAR, WIRE)]),
)


class Sight:
    """A node with one address that has never seen a client."""

    def is_local(self, address):
        return address == NODE or address.is_loopback

    def in_ipset(self, _name, _address):
        return False

    def is_recent(self, _name, _address):
        return False


def walk(objects, hook, packet):
    """Where the packet is behind the hook, with the verdict so far, and the share of each."""

    def listed(table, chain):
        return [f"-A {chain} {rule}" for rule in objects.get((table, chain), ())]

    tables = IptablesRules(tables=("raw", "nat", "filter"), chains=listed, sight=Sight(), name="iptables")
    branches, notes = [(1.0, packet, None)], Notes()
    for base in tables.base_chains(hook):
        branches = [
            (share * after.share, after.packet, after.verdict)
            for share, before, verdict in branches
            for after in ([] if verdict in VERDICT.values() else base.run(before, notes))
        ] + [branch for branch in branches if branch[2] in VERDICT.values()]
    assert not notes.warnings
    return branches


def outcome(objects, packet):
    """Shares by (where it lands, whether masqueraded), or by the verdict; None: nobody cared for it."""
    found = Counter()
    for share, translated, verdict in walk(objects, "prerouting" if packet.came_in else "output", packet):
        if verdict in VERDICT.values():
            found[verdict] += share
        else:
            found[behind_routing(objects, translated)] += share
    return found


def behind_routing(objects, packet):
    hook = "input" if Sight().is_local(packet.to.address) else "forward"
    ((_, _, verdict),) = walk(objects, hook, packet)
    if verdict in VERDICT.values():
        return verdict
    ((_, leaving, _),) = walk(objects, "postrouting", packet)
    return (str(packet.to), leaving.masqueraded) if packet.called else None


def expected(frontend, node, caller, came_in):
    is_node = caller in (NODE, LOOPBACK)
    is_pod = node.pods is not None and came_in == BRIDGE
    everybody = (*frontend.endpoints, *(frontend.inside or ()))
    if everybody and frontend.sources and not any(caller in network for network in frontend.sources):
        return {VERDICT[Refusal.DROP if frontend.endpoints else frontend.refusal]: 1.0}
    served_by = frontend.endpoints
    if frontend.inside is not None and (is_pod or is_node):
        served_by = frontend.inside
    if not served_by:
        return {VERDICT[frontend.refusal]: 1.0}
    masqueraded = {
        Masquerade.ALWAYS: True,
        Masquerade.IF_NODE: is_node,
        Masquerade.UNLESS_POD: node.masquerade_all or (node.pods is not None and not is_pod),
    }[frontend.masquerade]
    weights = [one.weight if frontend.balance is Balance.WEIGHTED else 1 for one in served_by]
    if not sum(weights):
        weights = [1] * len(served_by)
    return {
        (str(one), masqueraded or (one.address == caller and one.is_local)): weight / sum(weights)
        for one, weight in zip(served_by, weights, strict=True)
        if weight
    }


def planned(node, served, memory=Memory.SETS):
    planner = IptablesPlanner(node, memory)
    for service in {one.name.service for one in served}:
        planner.replace(service, [one for one in served if one.name.service == service], Delta())
    return planner.objects


@given(
    st.lists(frontends(), min_size=1, max_size=12, unique_by=lambda one: one.key),
    surroundings,
    callers,
    st.sampled_from(Memory),
    st.data(),
)
def test_each_caller_lands_where_its_frontend_says(served, node, caller, memory, data):
    frontend = data.draw(st.sampled_from(served))
    source, came_in = caller
    called = NODE if frontend.scope is Scope.NODE_PORT else frontend.address
    if source == LOOPBACK and frontend.scope is Scope.NODE_PORT and node.localhost_node_ports:
        called = LOOPBACK
    packet = Packet(source, Place(called, frontend.port), frontend.protocol.value, came_in)
    found = outcome(planned(node, served, memory), packet)
    assert found == pytest.approx(expected(frontend, node, *caller), abs=1e-6)


@given(st.lists(frontends(), max_size=12, unique_by=lambda one: one.key), surroundings, callers, st.integers(1, 65535))
def test_what_is_for_no_service_is_left_alone(served, node, caller, port):
    source, came_in = caller
    objects = planned(node, served)
    for address in (IPv4Address("10.96.0.9"), OUTSIDE, NODE if port < 30000 else NEAR):
        packet = Packet(source, Place(address, port), "tcp", came_in)
        assert outcome(objects, packet) == {None: 1.0}


@given(surroundings)
def test_nobody_on_the_wire_reaches_loopback_or_speaks_in_its_name(node):
    """Where localhost node ports are off the kernel itself refuses such packets."""
    objects = IptablesPlanner(replace(node, localhost_node_ports=True)).objects
    for source, target in ((OUTSIDE, LOOPBACK), (LOOPBACK, NODE)):
        assert outcome(objects, Packet(source, Place(target, 30000), "tcp", WIRE)) == {Verdict.DROP: 1.0}
