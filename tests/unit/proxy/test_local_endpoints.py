"""What load balancers and metrics are told of this node."""

import pytest
from builders import json, make_endpoint, make_endpoint_slice, make_service

from controlloop.family import Family
from proxy.frontends import ServiceName
from proxy.local_endpoints import HealthCheck, Policy
from proxy.node import Node
from proxy.objects import Kind, ObjectName
from proxy.services import Options
from proxy.sources import Batch, Update
from proxy.tracker import Tracker

WEB = ServiceName("default", "web")
HERE, THERE = make_endpoint("10.0.0.1", node="node-a"), make_endpoint("10.0.0.2", node="node-b")
UNREADY = make_endpoint("10.0.0.3", node="node-a", ready=False, serving=False)
TERMINATING = make_endpoint("10.0.0.4", node="node-a", ready=False, serving=True, terminating=True)
CHECKED = {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32000}


def apply(tracker, *made):
    updates = []
    for each in made:
        metadata = each["metadata"]
        updates.append(Update(Kind(each["kind"]), ObjectName(metadata["namespace"], metadata["name"]), json(each)))
    tracker.apply(Batch(tuple(updates), listed=False))
    return tracker


def tracked(*made):
    return apply(Tracker(Node("node-a"), Options()), *made)


@pytest.mark.kube_proxy("6.1-36")
@pytest.mark.parametrize(
    ("endpoints", "count"),
    [([HERE, THERE], 1), ([THERE], 0), ([UNREADY], 0), ([TERMINATING], 0), ([HERE, TERMINATING], 1), ([], 0)],
)
def test_a_load_balancer_counts_ready_endpoints_on_this_node(endpoints, count):
    tracker = tracked(make_service(**CHECKED), make_endpoint_slice(endpoints=endpoints))
    assert tracker.health_checks() == {WEB: HealthCheck(32000, count)}


@pytest.mark.kube_proxy("6.1-36")
def test_an_endpoint_counts_once_whatever_its_ports_slices_and_families():
    six = make_endpoint("fd01::1", node="node-a")
    more = make_endpoint("fd01::2", node="node-a")
    tracker = tracked(
        make_service(cluster_ips=["10.96.0.10", "fd00::10"], **CHECKED),
        make_endpoint_slice(ports=[("http", "TCP", 80), ("dns", "UDP", 53)], endpoints=[HERE]),
        make_endpoint_slice(name="web-2", endpoints=[HERE, THERE]),
        make_endpoint_slice(name="web-3", ports=[], endpoints=[make_endpoint("10.0.0.9", node="node-a")]),
        make_endpoint_slice(name="web-6", address_type="IPv6", endpoints=[six]),
    )
    assert tracker.health_checks()[WEB].local_endpoints == 1
    apply(tracker, make_endpoint_slice(name="web-6", address_type="IPv6", endpoints=[six, more]))
    assert tracker.health_checks()[WEB].local_endpoints == 2


def test_endpoints_of_a_family_that_the_service_does_not_have_do_not_count():
    six = make_endpoint_slice(address_type="IPv6", endpoints=[make_endpoint("fd01::1", node="node-a")])
    assert tracked(make_service(**CHECKED), six).health_checks()[WEB].local_endpoints == 0


@pytest.mark.parametrize(
    "change", [{"externalTrafficPolicy": "Cluster"}, {"type": "NodePort"}, {"cluster_ips": ["None"]}]
)
def test_a_health_check_goes_when_nobody_asks_any_more(change):
    tracker = tracked(make_service(**CHECKED), make_endpoint_slice(endpoints=[HERE]))
    assert WEB in tracker.health_checks()
    apply(tracker, make_service(**(CHECKED | change)))
    assert tracker.health_checks() == {}


def missing(tracker):
    return {f"{policy.value} {family.nft}": count for (policy, family), count in tracker.no_local_endpoints().items()}


@pytest.mark.kube_proxy("6.1-23")
@pytest.mark.parametrize(
    ("endpoints", "internal", "external", "counts"),
    [
        ([HERE, THERE], "Local", "Local", (0, 0)),
        ([THERE], "Cluster", "Cluster", (0, 0)),
        ([THERE], "Local", "Cluster", (1, 0)),
        ([THERE], "Cluster", "Local", (0, 1)),
        ([THERE], "Local", "Local", (1, 1)),
        ([UNREADY, THERE], "Local", "Local", (1, 1)),
        ([TERMINATING, THERE], "Local", "Local", (0, 0)),
        ([UNREADY], "Local", "Local", (0, 0)),
        ([], "Local", "Local", (0, 0)),
    ],
)
def test_ports_that_only_others_serve_are_counted(endpoints, internal, external, counts):
    service = make_service(
        type="NodePort",
        ports=[("http", "TCP", 80, 30080)],
        internalTrafficPolicy=internal,
        externalTrafficPolicy=external,
    )
    tracker = tracked(service, make_endpoint_slice(endpoints=endpoints))
    assert missing(tracker) == {
        "internal ip": counts[0],
        "external ip": counts[1],
        "internal ip6": 0,
        "external ip6": 0,
    }


def test_policy_local_for_outsiders_does_not_count_where_none_can_come():
    service = make_service(externalTrafficPolicy="Local")
    assert set(missing(tracked(service, make_endpoint_slice(endpoints=[THERE]))).values()) == {0}


def test_counts_follow_each_change_and_each_family():
    ports = [("http", "TCP", 80), ("admin", "TCP", 81)]
    service = make_service(cluster_ips=["10.96.0.10", "fd00::10"], ports=ports, internalTrafficPolicy="Local")
    six = make_endpoint_slice(name="web-6", address_type="IPv6", endpoints=[make_endpoint("fd01::2", node="node-b")])
    tracker = tracked(service, make_endpoint_slice(ports=ports, endpoints=[THERE]), six)
    assert tracker.no_local_endpoints()[Policy.INTERNAL, Family.V4] == 2
    assert tracker.no_local_endpoints()[Policy.INTERNAL, Family.V6] == 1
    apply(tracker, make_endpoint_slice(ports=ports, endpoints=[HERE, THERE]))
    assert tracker.no_local_endpoints()[Policy.INTERNAL, Family.V4] == 0
    apply(tracker, make_service(cluster_ips=["None"]))
    assert set(missing(tracker).values()) == {0}
