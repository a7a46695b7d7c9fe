from ipaddress import ip_address, ip_network

import pytest
from builders import json, make_endpoint, make_endpoint_slice, make_service

from controlloop.family import Family
from proxy.endpoints import read_slice
from proxy.exposure import allowed_sources, frontends
from proxy.frontends import Balance, Masquerade, Protocol, Refusal, Scope
from proxy.node import Node
from proxy.objects import Kind, decode
from proxy.services import Options, read_service

NODE = Node("node-a")
VIPS = [{"ip": "192.0.2.10"}, {"ip": "192.0.2.11"}, {"ip": "2001:db8::10"}]
DUAL = ["10.96.0.10", "fd00::10"]


def read(**fields):
    return read_service(decode(Kind.SERVICE, json(make_service(**fields))), Options(), pytest.fail)


def slices(*made):
    return [each for one in made for each in read_slice(decode(Kind.ENDPOINT_SLICE, json(one)), NODE.name, pytest.fail)]


FOUR = make_endpoint_slice(endpoints=[make_endpoint("10.0.0.1", node="node-a"), make_endpoint("10.0.0.2", node="b")])
SIX = make_endpoint_slice(name="web-6", address_type="IPv6", endpoints=[make_endpoint("fd01::1", node="node-a")])


def made(*given, **fields):
    return list(frontends(read(**fields), slices(*given), NODE))


def test_each_kind_of_address_has_its_frontend_in_each_family():
    found = made(
        FOUR,
        SIX,
        type="LoadBalancer",
        cluster_ips=DUAL,
        ports=[("http", "TCP", 80, 30080)],
        externalIPs=["192.0.2.1", "2001:db8::1"],
        ingress=VIPS,
    )
    assert [(each.scope.value, str(each.address), each.port, *map(str, each.endpoints)) for each in found] == [
        ("ClusterIP", "10.96.0.10", 80, "10.0.0.1:8080", "10.0.0.2:8080"),
        ("LoadBalancer", "192.0.2.10", 80, "10.0.0.1:8080", "10.0.0.2:8080"),
        ("LoadBalancer", "192.0.2.11", 80, "10.0.0.1:8080", "10.0.0.2:8080"),
        ("ExternalIP", "192.0.2.1", 80, "10.0.0.1:8080", "10.0.0.2:8080"),
        ("NodePort", "0.0.0.0", 30080, "10.0.0.1:8080", "10.0.0.2:8080"),
        ("ClusterIP", "fd00::10", 80, "[fd01::1]:8080"),
        ("LoadBalancer", "2001:db8::10", 80, "[fd01::1]:8080"),
        ("ExternalIP", "2001:db8::1", 80, "[fd01::1]:8080"),
        ("NodePort", "::", 30080, "[fd01::1]:8080"),
    ]
    assert len({each.key for each in found}) == len(found)


@pytest.mark.kube_proxy("6.1-3", "6.2-2")
def test_one_number_has_the_endpoints_of_each_protocol():
    ports = [("t", "TCP", 8080), ("u", "UDP", 8081), ("s", "SCTP", 8082)]
    service_ports = [("t", "TCP", 80), ("u", "UDP", 80), ("s", "SCTP", 80)]
    found = made(make_endpoint_slice(ports=ports), ports=service_ports)
    assert {(each.protocol, each.port): each.endpoints[0].port for each in found} == {
        (Protocol.TCP, 80): 8080,
        (Protocol.UDP, 80): 8081,
        (Protocol.SCTP, 80): 8082,
    }


def test_who_is_masqueraded_follows_from_scope_and_policy():
    fields = {"type": "NodePort", "ports": [("http", "TCP", 80, 30080)]}
    assert [each.masquerade for each in made(FOUR, **fields)] == [Masquerade.UNLESS_POD, Masquerade.ALWAYS]
    local = made(FOUR, externalTrafficPolicy="Local", **fields)
    assert [each.masquerade for each in local] == [Masquerade.UNLESS_POD, Masquerade.IF_NODE]


@pytest.mark.kube_proxy("6.1-2")
def test_without_endpoints_every_address_refuses():
    fields = {"type": "LoadBalancer", "ports": [("http", "TCP", 80, 30080)], "externalIPs": ["192.0.2.1"]}
    found = made(**fields, ingress=VIPS[:1])
    assert [(each.scope, each.endpoints, each.refusal) for each in found] == [
        (scope, (), Refusal.REJECT)
        for scope in (Scope.CLUSTER_IP, Scope.LOAD_BALANCER, Scope.EXTERNAL_IP, Scope.NODE_PORT)
    ]


def test_what_a_service_asks_for_is_in_all_its_frontends():
    annotations = {"nodenet.io/balance": "consistent", "nodenet.io/drain-timeout": "30s"}
    ports = [("http", "TCP", 80, 30080)]
    found = made(FOUR, type="NodePort", ports=ports, sessionAffinity="ClientIP", annotations=annotations)
    assert {(each.balance, each.drain_s, each.affinity_s) for each in found} == {(Balance.CONSISTENT, 30, 10800)}


def sources(ranges, family=Family.V4, node=()):
    service = read(type="LoadBalancer", cluster_ips=DUAL, ingress=VIPS, loadBalancerSourceRanges=list(ranges))
    return list(map(str, allowed_sources(service, family, Node("node-a", addresses=tuple(map(ip_address, node))))))


@pytest.mark.kube_proxy("6.1-5")
@pytest.mark.parametrize(
    ("ranges", "four", "six"),
    [
        ((), [], []),
        (("10.0.0.0/8", "172.16.0.0/12"), ["10.0.0.0/8", "172.16.0.0/12"], []),
        (("10.0.0.0/8", "fd00::/8"), ["10.0.0.0/8"], ["fd00::/8"]),
        (("10.0.0.0/8", "0.0.0.0/0", "fd00::/8"), [], ["fd00::/8"]),
        (("::/0", "10.0.0.0/8"), ["10.0.0.0/8"], []),
    ],
)
def test_source_ranges_hold_for_their_family(ranges, four, six):
    """A family with none of them has no limit."""
    assert (sources(ranges), sources(ranges, Family.V6)) == (four, six)


@pytest.mark.kube_proxy("6.1-7")
def test_a_node_that_may_connect_may_do_so_with_the_load_balancers_address():
    assert sources(["10.0.0.0/8"], node=["10.1.1.1"]) == ["10.0.0.0/8", "192.0.2.10/31"]
    assert sources(["10.0.0.0/8"], node=["172.16.0.1"]) == ["10.0.0.0/8"]
    assert sources(["fd00::/8"], Family.V6, node=["10.1.1.1", "fd00::1"]) == ["2001:db8::10/128", "fd00::/8"]
    assert sources(["10.0.0.0/8", "192.0.2.0/24"], node=["10.1.1.1"]) == ["10.0.0.0/8", "192.0.2.0/24"]


@pytest.mark.kube_proxy("6.1-6")
def test_source_ranges_are_for_the_load_balancers_addresses_alone():
    found = made(
        FOUR,
        type="LoadBalancer",
        ports=[("http", "TCP", 80, 30080)],
        externalIPs=["192.0.2.1"],
        ingress=VIPS[:1],
        loadBalancerSourceRanges=["10.0.0.0/8"],
    )
    assert {each.scope: each.sources for each in found if each.sources} == {
        Scope.LOAD_BALANCER: (ip_network("10.0.0.0/8"),)
    }
