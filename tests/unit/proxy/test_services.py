from ipaddress import ip_address, ip_network

import pytest
from builders import json, make_service
from hypothesis import given
from hypothesis import strategies as st

from controlloop.family import Family
from proxy.frontends import Balance, Protocol, Scope, ServiceName, ServicePortName
from proxy.objects import Kind, RefusedError, decode
from proxy.service_addresses import NOBODY
from proxy.services import Options, ServicePort, read_service

WEB = ServiceName("default", "web")
VIP = {"ip": "192.0.2.10"}


def read_with_refusals(options=None, **fields):
    refused = []
    return read_service(
        decode(Kind.SERVICE, json(make_service(**fields))), options or Options(), refused.append
    ), refused


def read(options=None, **fields):
    """For a test of what is there: nothing of it may be left out."""
    service, refused = read_with_refusals(options, **fields)
    assert refused == []
    return service


def addresses(*texts):
    return tuple(map(ip_address, texts))


def networks(*texts):
    return tuple(map(ip_network, texts))


def test_ports_and_addresses_of_a_dual_stack_service():
    served = read(cluster_ips=["10.96.0.10", "fd00::10"], ports=[("dns", "UDP", 53), ("dns-tcp", "TCP", 53)])
    assert served.cluster_ips == addresses("10.96.0.10", "fd00::10")
    assert served.families == (Family.V4, Family.V6)
    assert served.ports == (
        ServicePort(ServicePortName(WEB, "dns"), Protocol.UDP, 53),
        ServicePort(ServicePortName(WEB, "dns-tcp"), Protocol.TCP, 53),
    )


def test_fields_left_out_are_filled_in_as_the_api_server_would():
    made = make_service()
    made["spec"] = {"clusterIP": "10.96.0.10", "ports": [{"port": 80}]}
    served = read_service(decode(Kind.SERVICE, json(made)), Options(), pytest.fail)
    assert served.cluster_ips == addresses("10.96.0.10")
    assert served.ports == (ServicePort(ServicePortName(WEB, ""), Protocol.TCP, 80),)
    assert (served.internal_local, served.external_local, served.affinity_s) == (False, False, 0)


@pytest.mark.kube_proxy("6.1-29")
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
def test_a_service_that_is_not_ours_is_left_out_and_nothing_of_it_is_complained_about(fields):
    assert read(externalIPs=["no address"], **fields) is None


@pytest.mark.parametrize("kind", ["ClusterIP", "NodePort", "LoadBalancer", None])
def test_every_type_has_its_cluster_ip(kind):
    assert read(type=kind).cluster_ips == addresses("10.96.0.10")


@pytest.mark.kube_proxy("6.1-25")
def test_leading_zeros_are_normalised_and_one_address_is_there_once():
    served = read(
        type="LoadBalancer",
        cluster_ips=["010.096.0.010", "10.96.0.10"],
        externalIPs=["192.000.2.001", "192.0.2.1"],
        ingress=[{"ip": "192.0.2.010"}, VIP],
    )
    assert served.cluster_ips == addresses("10.96.0.10")
    assert served.external_ips == addresses("192.0.2.1")
    assert served.load_balancer_ips == addresses("192.0.2.10")


def test_a_cluster_ip_that_is_no_address_is_named():
    with pytest.raises(RefusedError, match=r"^spec\.clusterIPs: 10\.96\.0\.10; drop is not an IP address$"):
        read(cluster_ips=["10.96.0.10; drop"])


@pytest.mark.parametrize(
    ("ports", "said"),
    [
        ([("http", "TCP", 80), ("http", "UDP", 81)], r"spec\.ports\[1\]\.name: http is there twice"),
        ([("", "TCP", 80), ("", "TCP", 81)], r"spec\.ports\[1\]\.name: no name is there twice"),
        ([("a", "TCP", 80), ("b", "TCP", 80)], r"spec\.ports\[1\]\.port: 80/tcp is there twice"),
        ([("a", "TCP", 80, 30080), ("b", "TCP", 81, 30080)], r"spec\.ports\[1\]\.nodePort: 30080/tcp is there twice"),
    ],
)
def test_ports_that_contradict_each_other_refuse_the_service(ports, said):
    with pytest.raises(RefusedError, match=f"^{said}$"):
        read(type="NodePort", ports=ports)


def test_a_service_that_asks_for_too_many_frontends_is_refused():
    ports = [(f"p-{number}", "TCP", number) for number in range(1, 1001)]
    external = [f"192.0.{number >> 8}.{number & 255}" for number in range(20)]
    assert len(read(ports=ports, externalIPs=external[:19]).external_ips) == 19
    with pytest.raises(RefusedError, match=r"^spec: 1000 ports at 21 addresses are more than 20000$"):
        read(ports=ports, externalIPs=external)


def test_one_number_may_be_a_port_of_each_protocol():
    ports = [("a", "TCP", 80, 30080), ("b", "UDP", 80, 30080), ("c", "SCTP", 80, 30080), ("d", "TCP", 30080, 80)]
    assert len(read(type="NodePort", ports=ports).ports) == 4


def exposed(served, family=Family.V4):
    return [(scope, str(address), number) for scope, address, number in served.exposures(served.ports[0], family)]


@pytest.mark.parametrize("kind", ["NodePort", "LoadBalancer"])
def test_a_node_port_is_served_at_any_address_of_the_node(kind):
    served = read(type=kind, cluster_ips=["10.96.0.10", "fd00::10"], ports=[("http", "TCP", 80, 30080)])
    assert exposed(served) == [(Scope.CLUSTER_IP, "10.96.0.10", 80), (Scope.NODE_PORT, "0.0.0.0", 30080)]
    assert exposed(served, Family.V6) == [(Scope.CLUSTER_IP, "fd00::10", 80), (Scope.NODE_PORT, "::", 30080)]


def test_a_node_port_of_another_type_is_left_out_by_name():
    served, refused = read_with_refusals(ports=[("http", "TCP", 80, 30080)])
    assert exposed(served) == [(Scope.CLUSTER_IP, "10.96.0.10", 80)]
    assert refused == ["spec.ports[0].nodePort: 30080 is left out: the type is neither NodePort nor LoadBalancer"]


def test_a_load_balancer_without_node_ports_has_its_addresses():
    served = read(type="LoadBalancer", allocateLoadBalancerNodePorts=False, ingress=[VIP, {"hostname": "lb.example"}])
    assert exposed(served) == [(Scope.CLUSTER_IP, "10.96.0.10", 80), (Scope.LOAD_BALANCER, "192.0.2.10", 80)]


@pytest.mark.kube_proxy("6.1-24")
@pytest.mark.parametrize(("mode", "served"), [(None, ["192.0.2.10"]), ("VIP", ["192.0.2.10"]), ("Proxy", [])])
def test_a_load_balancer_that_wants_to_see_the_packets_itself_is_not_programmed(mode, served):
    service = read(type="LoadBalancer", ingress=[{**VIP, "ipMode": mode}])
    assert list(map(str, service.load_balancer_ips)) == served


@pytest.mark.parametrize("kind", ["ClusterIP", "NodePort", None])
def test_a_load_balancer_that_the_service_no_longer_has_is_not_programmed(kind):
    assert read(type=kind, ingress=[VIP], loadBalancerSourceRanges=["10.0.0.0/8"]).load_balancer_ips == ()


def test_external_addresses_are_served_whatever_the_type():
    served = read(externalIPs=["192.0.2.1", "192.0.2.2"])
    assert exposed(served)[1:] == [(Scope.EXTERNAL_IP, "192.0.2.1", 80), (Scope.EXTERNAL_IP, "192.0.2.2", 80)]


def test_an_address_of_two_kinds_is_there_once_and_source_ranges_hold_for_it():
    served = read(type="LoadBalancer", ingress=[VIP], externalIPs=["192.0.2.10", "10.96.0.10", "192.0.2.1"])
    assert [scope.value for scope, *_ in exposed(served)] == ["ClusterIP", "LoadBalancer", "ExternalIP"]


BAD_ADDRESSES = ["127.0.0.1", "169.254.169.254", "0.0.0.0", "192.0.2.1 }; flush ruleset", "fd00::1", "$(id)", ""]


@pytest.mark.parametrize("bad", BAD_ADDRESSES)
def test_one_bad_external_address_is_left_out_by_name_and_the_others_are_served(bad):
    served, refused = read_with_refusals(externalIPs=["192.0.2.1", bad, "192.0.2.3"])
    assert served.external_ips == addresses("192.0.2.1", "192.0.2.3")
    assert [reason.startswith("spec.externalIPs[1]: ") for reason in refused] == [True]


@pytest.mark.parametrize("bad", [text for text in BAD_ADDRESSES if text])
def test_one_bad_load_balancer_address_is_left_out_by_name(bad):
    served, refused = read_with_refusals(type="LoadBalancer", ingress=[VIP, {"ip": bad}])
    assert served.load_balancer_ips == addresses("192.0.2.10")
    assert [reason.startswith("status.loadBalancer.ingress[1].ip: ") for reason in refused] == [True]


def test_external_addresses_outside_the_allowed_ranges_are_left_out_by_name():
    """CVE-2020-8554: whoever may write a Service could claim any address of the world."""
    options = Options(external_ranges=networks("192.0.2.0/25", "2001:db8::/64"))
    served, refused = read_with_refusals(
        options,
        type="LoadBalancer",
        cluster_ips=["10.96.0.10", "fd00::10"],
        externalIPs=["192.0.2.1", "192.0.2.200", "2001:db8::1"],
        ingress=[VIP, {"ip": "8.8.8.8"}],
    )
    assert served.external_ips == addresses("192.0.2.1", "2001:db8::1")
    assert served.load_balancer_ips == addresses("192.0.2.10")
    reason = "is left out, as it is in none of the ranges for external addresses"
    assert refused == [
        f"status.loadBalancer.ingress[1].ip: 8.8.8.8 {reason}",
        f"spec.externalIPs[1]: 192.0.2.200 {reason}",
    ]


def test_no_allowed_range_at_all_switches_external_addresses_off():
    served, refused = read_with_refusals(Options(external_ranges=()), externalIPs=["192.0.2.1"])
    assert (served.external_ips, len(refused)) == ((), 1)


def source_ranges(*texts):
    served, refused = read_with_refusals(type="LoadBalancer", ingress=[VIP], loadBalancerSourceRanges=list(texts))
    return served.source_ranges, refused


def test_source_ranges_are_trimmed_sorted_and_without_overlaps():
    found, refused = source_ranges("192.0.2.0/24 ", " 10.1.0.0/16", "10.0.0.0/8", "fd00::/8", "10.0.0.0/8")
    assert (found, refused) == (networks("10.0.0.0/8", "192.0.2.0/24", "fd00::/8"), [])


@pytest.mark.kube_proxy("6.2-43")
def test_two_halves_are_the_whole():
    assert source_ranges("0.0.0.0/1", "128.0.0.0/1") == (networks("0.0.0.0/0"), [])


def test_a_range_that_cannot_be_read_lets_nobody_in():
    found, refused = source_ranges("10.0.0.0/33")
    assert found == NOBODY
    assert refused == [
        "spec.loadBalancerSourceRanges[0]: 10.0.0.0/33 is not a network ADDRESS/LENGTH; nobody is let in for it"
    ]
    assert ip_network("10.0.0.0/8") in source_ranges("10.0.0.0/8", "no")[0]


def test_source_ranges_are_for_load_balancers():
    assert read(type="NodePort", loadBalancerSourceRanges=["10.0.0.0/8"]).source_ranges == ()


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, 0),
        ({"sessionAffinity": "None", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}}, 0),
        ({"sessionAffinity": "ClientIP"}, 10800),
        ({"sessionAffinity": "ClientIP", "sessionAffinityConfig": None}, 10800),
        ({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": None}}}, 10800),
        ({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}}, 60),
    ],
)
def test_affinity_lasts_three_hours_unless_said_otherwise(fields, seconds):
    assert read(**fields).affinity_s == seconds


@pytest.mark.parametrize(("affinity", "told"), [("ClientIP", ["spec.sessionAffinity: 100 clients"]), ("None", [])])
def test_a_host_that_forgets_clients_is_told_of_each_service_with_affinity(affinity, told):
    served, refused = read_with_refusals(Options(affinity_limit="100 clients"), sessionAffinity=affinity)
    assert bool(served.affinity_s) == bool(refused)
    assert refused == told


def test_traffic_policies():
    served = read(internalTrafficPolicy="Local", externalTrafficPolicy="Cluster")
    assert (served.internal_local, served.external_local) == (True, False)
    served = read(internalTrafficPolicy="Cluster", externalTrafficPolicy="Local")
    assert (served.internal_local, served.external_local) == (False, True)


@pytest.mark.parametrize(
    ("kind", "policy", "port"),
    [
        ("LoadBalancer", "Local", 32000),
        ("LoadBalancer", "Cluster", 0),
        ("LoadBalancer", None, 0),
        ("NodePort", "Local", 0),
    ],
)
def test_a_health_check_port_is_for_load_balancers_with_policy_local(kind, policy, port):
    assert read(type=kind, externalTrafficPolicy=policy, healthCheckNodePort=32000).health_check_port == port


@pytest.mark.kube_proxy("gap 5.7-5", "gap 5.1-2")
def test_balance_comes_from_the_annotation_or_the_default():
    default = Options(balance=Balance.ROUND_ROBIN)
    assert read(default).balance is Balance.ROUND_ROBIN
    assert read(default, annotations={"nodenet.io/balance": "consistent"}).balance is Balance.CONSISTENT


def test_an_unknown_balance_gives_the_default_and_names_what_was_asked_for():
    options = Options(balances=frozenset({Balance.RANDOM, Balance.ROUND_ROBIN, Balance.WEIGHTED}))
    for asked, shown in (("fair\x1b\n", r"fair\x1b\n"), ("consistent", "consistent")):
        served, refused = read_with_refusals(options, annotations={"nodenet.io/balance": asked})
        assert served.balance is Balance.RANDOM
        assert refused == [
            f"annotation nodenet.io/balance: {shown} is none of random, round-robin, weighted; random is used"
        ]


def test_weights_are_read_where_they_are_used():
    annotations = {"nodenet.io/weights": "zone-a=2"}
    assert read(annotations=annotations).weights == {}
    assert read(annotations={**annotations, "nodenet.io/balance": "weighted"}).weights == {"zone-a": 2}


def test_a_drain_timeout_comes_from_the_annotation_or_the_default():
    default = Options(drain_s=60)
    assert (read().drain_s, read(default).drain_s) == (None, 60)
    assert read(default, annotations={"nodenet.io/drain-timeout": "5m"}).drain_s == 300
    served, refused = read_with_refusals(default, annotations={"nodenet.io/drain-timeout": "soon"})
    assert (served.drain_s, len(refused)) == (60, 1)


FIELDS = ["type", "externalIPs", "loadBalancerSourceRanges", "sessionAffinity", "internalTrafficPolicy", "clusterIPs"]
TEXT = st.text() | st.sampled_from(["10.0.0.1", "fd00::1", "10.0.0.0/8", "Local", "ClientIP", "None", "LoadBalancer"])
VALUE = TEXT | st.lists(TEXT, max_size=3) | st.integers() | st.none()


@given(st.dictionaries(st.sampled_from(FIELDS), VALUE), st.lists(st.tuples(TEXT, TEXT), max_size=3), TEXT)
def test_any_value_in_any_field_is_used_left_out_or_refused(spec, ingress, annotation):
    made = make_service(ingress=[{"ip": ip, "ipMode": mode} for ip, mode in ingress], type="LoadBalancer")
    made["spec"].update(spec)
    names = ("balance", "weights", "drain-timeout")
    made["metadata"]["annotations"] = {f"nodenet.io/{name}": annotation for name in names}
    refused = []
    try:
        served = read_service(decode(Kind.SERVICE, json(made)), Options(), refused.append)
    except RefusedError as error:
        refused.append(str(error))
    else:
        if served is not None:
            # Whatever was written, no two of its addresses are one.
            exposures = [each[1:] for family in Family for each in served.exposures(served.ports[0], family)]
            assert len(exposures) == len(set(exposures))
    assert all(reason.isprintable() for reason in refused)
