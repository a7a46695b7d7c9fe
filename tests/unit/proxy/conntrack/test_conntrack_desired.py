"""Which flows are stale: to which target, to which endpoint, of which protocol."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlloop.family import Family
from proxy.conntrack.desired import Chores, departures, stateless_chores
from proxy.conntrack.messages import Flow, flow, messages
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

NAME = ServicePortName(ServiceName("default", "dns"), "dns")
NODE = {ip_address("192.0.2.1").packed, ip_address("192.0.2.2").packed}
A, B, C = "10.244.1.1", "10.244.1.2", "10.244.1.3"


def endpoints(*addresses):
    return tuple(Endpoint(ip_address(address), 5353, is_local=True) for address in addresses)


def frontend(*addresses, at="10.96.0.10", port=53, protocol=Protocol.UDP, scope=Scope.CLUSTER_IP, **fields):
    address = ANY_NODE_ADDRESS[Family.V4] if scope is Scope.NODE_PORT else ip_address(at)
    return Frontend(NAME, address, protocol, port, Balance.RANDOM, endpoints(*addresses), scope, **fields)


def called(to, endpoint, *, port=53, protocol=Protocol.UDP, endpoint_port=5353):
    def number(value):
        return value.to_bytes(2, "big")

    source = ip_address("10.244.9.9").packed
    return Flow(
        protocol.number, source, number(40000), ip_address(to).packed, number(port),
        ip_address(endpoint).packed, number(endpoint_port), b"id",
    )  # fmt: skip


def stale(before, after, *flows):
    chores = Chores()
    for _, where, verdict in stateless_chores(before, after):
        chores.verdicts[where] = verdict
    return [flow for flow in flows if flow in list(chores.stale(flows, NODE))]


TARGETS = {
    "ClusterIP": ({}, "10.96.0.10", 53),
    "LoadBalancer": ({"scope": Scope.LOAD_BALANCER, "at": "203.0.113.5"}, "203.0.113.5", 53),
    "ExternalIP": ({"scope": Scope.EXTERNAL_IP, "at": "198.51.100.5"}, "198.51.100.5", 53),
    "NodePort": ({"scope": Scope.NODE_PORT, "port": 30053}, "192.0.2.2", 30053),
}


@pytest.mark.kube_proxy("6.1-37")
@pytest.mark.parametrize("name", TARGETS)
def test_a_flow_to_an_endpoint_that_went_is_stale(name):
    fields, to, port = TARGETS[name]
    gone, kept = called(to, A, port=port), called(to, B, port=port)
    assert stale([frontend(A, B, **fields)], [frontend(B, **fields)], gone, kept) == [gone]


@pytest.mark.kube_proxy("6.1-37", "gap 3.9-6")
@pytest.mark.parametrize("name", TARGETS)
def test_other_destinations_ports_and_protocols_are_left_alone(name):
    """kube-proxy takes any flow with a node port's number, whoever it was for."""
    fields, to, port = TARGETS[name]
    others = [
        called("10.96.0.99", A, port=port),
        called(to, A, port=port + 1),
        called(to, A, port=port, protocol=Protocol.TCP),
        called(to, A, port=port, protocol=Protocol.SCTP),
    ]
    assert stale([frontend(A, **fields)], [frontend(B, **fields)], *others) == []


@pytest.mark.kube_proxy("6.1-39")
def test_a_service_that_lost_its_last_endpoint_is_cleaned():
    assert stale([frontend(A)], [frontend()], called("10.96.0.10", A))


def test_a_service_that_was_deleted_is_cleaned_of_what_it_translated():
    translated, passing = called("10.96.0.10", A), called("10.96.0.10", "10.96.0.10", endpoint_port=53)
    assert stale([frontend(A)], [], translated, passing) == [translated]


def test_a_flow_that_began_before_its_service_is_stale():
    passing = called("10.96.0.10", "10.96.0.10", endpoint_port=53)
    assert stale([], [frontend(A)], passing)
    assert stale([frontend()], [frontend(A)], passing)


def test_an_endpoint_that_terminates_keeps_its_flows():
    assert not stale([frontend(A, B)], [frontend(B, lingering=endpoints(A))], called("10.96.0.10", A))


def test_one_with_another_port_is_another_endpoint():
    assert stale([frontend(A)], [frontend(B)], called("10.96.0.10", A, endpoint_port=5353))
    assert stale([frontend(A)], [frontend(B)], called("10.96.0.10", B, endpoint_port=5354))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([frontend(A)], [frontend(A)]),
        ([frontend(A)], [frontend(A, B)]),
        ([frontend(A, protocol=Protocol.TCP)], [frontend(B, protocol=Protocol.TCP)]),
        ([], []),
    ],
    ids=["nothing changed", "an endpoint came", "TCP has an end of its own", "nothing there"],
)
def test_no_flow_is_looked_at_for_nothing(before, after):
    assert not list(stateless_chores(before, after))


def test_tcp_is_drained_only_where_the_service_says_so():
    def tcp(*addresses, **fields):
        return frontend(*addresses, protocol=Protocol.TCP, **fields)

    assert not list(departures([tcp(A, B)], [tcp(B)]))
    ((which, gone),) = departures([tcp(A, B, drain_s=5)], [tcp(B, drain_s=5)])
    assert (which.drain_s, len(gone)) == (5, 1)
    assert list(departures([tcp(A, drain_s=5)], []))
    assert not list(departures([tcp(A, B, drain_s=5)], [tcp(B, drain_s=5, lingering=endpoints(A))]))


@given(st.binary(max_size=300))
def test_any_bytes_are_read_to_their_end(datagram):
    for _, _, at, end in messages(datagram):
        for family in Family:
            flow(family, datagram, at, end)
