"""Flows that outlive a change: datagrams of a client that keeps its port, and connections that are held."""

import socket
from contextlib import ExitStack

import pytest
from calls import Call
from deadline import eventually
from disturbances import sysctl
from manifests import endpoint, port, service, slices
from network import ADDRESSES
from rig import only_iptables

from controlloop.family import Family
from proxy.config import ConntrackSettings
from proxy.frontends import Protocol
from proxy.sysctls import conntrack_behaviour

kube_proxy = pytest.mark.kube_proxy
both_families = pytest.mark.parametrize("family", Family)

WITHIN_S = 30.0
NOTHING_AFTER_S = 0.1

PROTOCOLS = ("TCP", "UDP", "SCTP")
TARGETS = [port(8080, protocol, name=protocol.lower()) for protocol in PROTOCOLS]

EVERYWHERE = [
    ("pod-1-3", "cluster-ip", 80),
    ("node-1", "cluster-ip", 80),
    ("client", "cluster-ip", 80),
    ("client", "vip", 80),
    ("client", "external-ip", 80),
    ("client", "node-1", 30080),
    ("node-1", "node-1", 30080),
]
"""Every kind of caller and address."""


def balanced(**spec):
    ports = [port(80, protocol, name=protocol.lower(), node=30080) for protocol in PROTOCOLS]
    made = {"type": "LoadBalancer", "ports": ports, "balancer": ["vip"], "external": ["external-ip"], **spec}
    return service(**made)


def serving(*endpoints):
    return slices(*endpoints, ports=TARGETS)


def held(rig, family, protocol, flows=EVERYWHERE):
    return [call for flow in flows for call in rig.call(*flow, protocol=protocol, family=family)]


def again(rig, calls):
    """What becomes of the next packet of each flow."""
    return {rig.board.repeat(call, wait_s=WITHIN_S) for call in calls}


@kube_proxy("6.1-37", "6.2-29", "6.2-46", "gap 5.2-2")
@both_families
def test_datagrams_follow_when_the_server_is_replaced(rig, family):
    rig.given(balanced(), serving("pod-1-1"))
    calls = held(rig, family, "udp")
    assert {call.outcome for call in calls} == {"pod-1-1"}
    rig.add(serving("pod-2-1"))
    assert again(rig, calls) == {"pod-2-1"}
    rig.add(serving("pod-1-2"))
    assert again(rig, calls) == {"pod-1-2"}


@kube_proxy("6.1-37", "6.2-29")
@both_families
@pytest.mark.parametrize("policy", ["internalTrafficPolicy", "externalTrafficPolicy"])
def test_datagrams_follow_under_policy_local(rig, family, policy):
    rig.given(balanced(**{policy: "Local"}), serving("pod-1-1"))
    calls = held(rig, family, "udp")
    rig.add(serving("pod-1-2"))
    assert again(rig, calls) == {"pod-1-2"}


@kube_proxy("6.1-37")
@both_families
def test_flows_to_endpoints_that_stay_are_left_alone(rig, family):
    rig.given(balanced(), serving("pod-1-1", "pod-2-1"))
    calls = [call for _ in range(4) for call in held(rig, family, "udp")]
    before = [call.outcome for call in calls]
    assert set(before) == {"pod-1-1", "pod-2-1"}
    rig.add(serving("pod-1-1"))
    for call, home in zip(calls, before, strict=True):
        assert rig.tracked(call) or home != "pod-1-1"
    assert again(rig, calls) == {"pod-1-1"}
    rig.add(serving("pod-1-1", "pod-1-2", "pod-2-1", "pod-2-2"))
    assert again(rig, calls) == {"pod-1-1"}


@kube_proxy("6.1-37", "gap 3.9-6", "gap 5.7-7", "gap 5.2-4")
@both_families
def test_what_is_no_flow_to_the_service_is_left_alone(rig, family):
    """Other destinations with the node port's number, the endpoint itself, other protocols."""
    rig.given(balanced(), serving("pod-1-1"))
    others = held(rig, family, "udp", [("pod-1-3", "pod-1-1", 8080), ("client", "pod-1-1", 8080)])
    elsewhere = [Call("pod-1-3", ADDRESSES["real-balancer"][family], 30080, Protocol.UDP)]
    rig.board.place(elsewhere, wait=lambda _: NOTHING_AFTER_S)
    streams = held(rig, family, "tcp", [("pod-1-3", "cluster-ip", 80), ("client", "node-1", 30080)])
    associations = held(rig, family, "sctp", [("pod-1-3", "cluster-ip", 80)])
    rig.add(serving("pod-2-1"))
    assert all(rig.tracked(call) for call in (*others, *elsewhere, *streams, *associations))
    assert again(rig, [*others, *associations]) == {"pod-1-1"}
    assert all(rig.board.echo(call, b"still there", within_s=WITHIN_S) == 11 for call in streams)


@kube_proxy("6.1-39", "gap 5.2-2")
@both_families
def test_datagrams_to_a_service_that_has_lost_all_endpoints(rig, family):
    rig.given(balanced(), serving("pod-1-1"))
    calls = held(rig, family, "udp")
    rig.add(serving())
    assert again(rig, calls) == {"refused"}
    rig.add(serving("pod-2-1"))
    assert again(rig, calls) == {"pod-2-1"}


@kube_proxy("gap 5.2-2")
@both_families
def test_datagrams_to_a_service_that_was_deleted(rig, family):
    rig.given(balanced(), serving("pod-1-1"))
    calls = held(rig, family, "udp", [("client", "node-1", 30080), ("node-1", "node-1", 30080)])
    rig.remove(balanced())
    assert again(rig, calls) == {"node-1:30080"}


@kube_proxy("6.2-30", "gap 5.2-2")
@both_families
def test_datagrams_that_came_before_the_service_or_its_endpoints(rig, family):
    """Their flow is known untranslated by then."""
    rig.given(service_cidrs=())
    early = [("client", "node-1", 30080), ("node-1", "node-1", 30080)]
    calls = held(rig, family, "udp", early)
    assert {call.outcome for call in calls} == {"node-1:30080"}
    nowhere = [Call(caller, ADDRESSES["cluster-ip"][family], 80, Protocol.UDP) for caller in ("pod-1-3", "node-1")]
    rig.board.place(nowhere, wait=lambda _: NOTHING_AFTER_S)
    assert {call.outcome for call in nowhere} == {""}
    rig.add(balanced())
    assert again(rig, [*calls, *nowhere]) == {"refused"}
    rig.add(serving(endpoint("pod-1-1", ready=False)))
    assert again(rig, [*calls, *nowhere]) == {"refused"}
    rig.add(serving(endpoint("pod-1-1", ready=True)))
    assert again(rig, [*calls, *nowhere]) == {"pod-1-1"}


@kube_proxy("6.2-32")
@both_families
def test_datagrams_follow_to_another_target_port(rig, family):
    rig.given(balanced(), serving("pod-1-1"))
    calls = held(rig, family, "udp")
    rig.add(slices("pod-1-1", ports=[port(8081, protocol, name=protocol.lower()) for protocol in PROTOCOLS]))
    assert again(rig, calls) == {"pod-1-1:8081"}


@kube_proxy("gap 5.2-1", "6.2-54")
@both_families
def test_connections_are_reset_when_their_time_to_drain_is_over(rig, family):
    rig.given(balanced(annotations={"nodenet.io/drain-timeout": "30s"}), serving("pod-1-1"))
    calls = held(rig, family, "tcp", EVERYWHERE[:1] + EVERYWHERE[3:6])
    rig.add(serving(endpoint("pod-1-1", ready=False, serving=True, terminating=True), "pod-2-1"))
    rig.later(40)
    assert all(rig.board.echo(call, b"terminating", within_s=WITHIN_S) == 11 for call in calls)
    rig.add(serving("pod-2-1"))
    rig.later(20)
    assert all(rig.board.echo(call, b"still there", within_s=WITHIN_S) == 11 for call in calls)
    rig.later(20)
    assert not any(rig.tracked(call) for call in calls)
    assert again(rig, calls) == {"refused"}


@kube_proxy("gap 5.2-1")
def test_connections_of_services_without_a_time_to_drain_stay(rig):
    rig.given(balanced(), serving("pod-1-1"))
    calls = held(rig, Family.V4, "tcp")
    rig.add(serving("pod-2-1"))
    rig.later(100_000)
    assert all(rig.board.echo(call, b"still there", within_s=WITHIN_S) == 11 for call in calls)


@kube_proxy("6.2-31", "6.1-11", "gap 5.2-3")
@only_iptables
@both_families
def test_a_packet_outside_of_the_window_resets_no_connection(rig, family):
    """Conntrack cannot tell whose it is and leaves its addresses as they are. Where it passed, the caller would see a
    stranger in it and reset the connection.
    """
    rig.given(service(), slices("pod-2-1"))
    (call,) = rig.call("pod-1-3", "cluster-ip", 80, family=family)
    rig.stray("pod-2-1", call)
    assert rig.board.echo(call, b"still there", within_s=WITHIN_S) == 11
    rig.surround(tcp_be_liberal=True)
    rig.stray("pod-2-1", call)
    assert rig.board.repeat(call, wait_s=WITHIN_S) == "refused", "the same packet where nothing stops it"


@kube_proxy("6.2-33", "6.1-40")
@both_families
def test_a_half_closed_connection_has_an_hour(rig, family):
    """The kernel alone would give it a minute."""
    rig.given(service(), slices("pod-2-1"))
    settings = [(each.path, str(each.value)) for each in conntrack_behaviour(ConntrackSettings())]
    with ExitStack() as stack:
        for path, value in settings:
            stack.enter_context(sysctl(rig.board.network, path, value))
        (call,) = rig.call("client", "cluster-ip", 80, family=family)
        call.opened.shutdown(socket.SHUT_WR)
        eventually(lambda: rig.tracked(call), that=lambda found: "CLOSE_WAIT" in found)
        _, _, seconds, *_ = rig.tracked(call)
    assert 3500 < int(seconds) <= 3600
