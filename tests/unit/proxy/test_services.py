from ipaddress import ip_address

import pytest
from builders import json, make_service

from proxy.frontends import Balance, Protocol, ServiceName, ServicePortName
from proxy.objects import Kind, RefusedError, decode
from proxy.services import ServicePort, read_service

WEB = ServiceName("default", "web")


def read(default_balance=Balance.RANDOM, **fields):
    return read_service(decode(Kind.SERVICE, json(make_service(**fields))), default_balance)


def test_ports_and_addresses_of_a_dual_stack_service():
    served = read(cluster_ips=["10.96.0.10", "fd00::10"], ports=[("dns", "UDP", 53), ("dns-tcp", "TCP", 53)])
    assert served.addresses == (ip_address("10.96.0.10"), ip_address("fd00::10"))
    assert served.ports == (
        ServicePort(ServicePortName(WEB, "dns"), Protocol.UDP, 53),
        ServicePort(ServicePortName(WEB, "dns-tcp"), Protocol.TCP, 53),
    )


def test_fields_left_out_are_filled_in_as_the_api_server_would():
    made = make_service()
    made["spec"] = {"clusterIP": "10.96.0.10", "ports": [{"port": 80}]}
    served = read_service(decode(Kind.SERVICE, json(made)), Balance.RANDOM)
    assert served.addresses == (ip_address("10.96.0.10"),)
    assert served.ports == (ServicePort(ServicePortName(WEB, ""), Protocol.TCP, 80),)


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "ExternalName"},
        {"cluster_ips": []},
        {"cluster_ips": [""]},
        {"cluster_ips": ["None"]},
        {"labels": {"service.kubernetes.io/service-proxy-name": "other"}},
        {"labels": {"service.kubernetes.io/service-proxy-name": ""}},
    ],
)
def test_a_service_that_is_not_ours_is_left_out(fields):
    assert read(**fields) is None


@pytest.mark.parametrize("kind", ["ClusterIP", "NodePort", "LoadBalancer"])
def test_other_types_have_their_cluster_ip(kind):
    assert read(type=kind).addresses == (ip_address("10.96.0.10"),)


def test_leading_zeros_are_normalised_and_one_address_is_there_once():
    assert read(cluster_ips=["010.096.0.010", "10.96.0.10"]).addresses == (ip_address("10.96.0.10"),)


def test_an_address_that_is_none_is_named():
    with pytest.raises(RefusedError, match=r"^spec\.clusterIPs: 10\.96\.0\.10; drop is not an IP address$"):
        read(cluster_ips=["10.96.0.10; drop"])


@pytest.mark.parametrize(
    ("ports", "field"),
    [
        ([("http", "TCP", 80), ("http", "UDP", 81)], r"spec\.ports\[1\]\.name"),
        ([("", "TCP", 80), ("", "TCP", 81)], r"spec\.ports\[1\]\.name"),
        ([("a", "TCP", 80), ("b", "TCP", 80)], r"spec\.ports\[1\]\.port"),
    ],
)
def test_ports_that_contradict_each_other_refuse_the_service(ports, field):
    with pytest.raises(RefusedError, match=field):
        read(ports=ports)


def test_one_number_may_be_a_port_of_each_protocol():
    assert len(read(ports=[("a", "TCP", 80), ("b", "UDP", 80), ("c", "SCTP", 80)]).ports) == 3


def test_balance_comes_from_the_annotation_or_the_default():
    assert read(Balance.ROUND_ROBIN).balance is Balance.ROUND_ROBIN
    assert read(annotations={"nodenet.io/balance": "round-robin"}).balance is Balance.ROUND_ROBIN
    assert read(annotations={"nodenet.io/balance": "random"}).warning == ""


def test_an_unknown_balance_gives_the_default_and_a_warning_that_names_it():
    served = read(annotations={"nodenet.io/balance": "fair\x1b\n"})
    assert served.balance is Balance.RANDOM
    assert r"nodenet.io/balance: fair\x1b\n is none of random, round-robin; random is used" in served.warning
