from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest
from builders import json, make_endpoint, make_endpoint_slice, make_service

from controlloop.errors import Skipped
from proxy.frontends import Balance, Endpoint, Frontend, Protocol, ServiceName, ServicePortName
from proxy.node import Node
from proxy.objects import Kind, ObjectName
from proxy.services import Options
from proxy.sources import Batch, Update
from proxy.tracker import Tracker

WEB, OTHER = ServiceName("default", "web"), ServiceName("default", "other")
NODE = Node("node-a", zone="a", addresses=(ip_address("192.168.0.1"),))
OLD, NEW, LATER = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"


def update(made):
    metadata = made["metadata"]
    return Update(Kind(made["kind"]), ObjectName(metadata["namespace"], metadata["name"]), json(made))


def body(kind, name, raw):
    return Update(kind, ObjectName("default", name), raw)


def changes(*updates):
    return Batch(tuple(each if isinstance(each, Update) else update(each) for each in updates), listed=False)


def listing(*updates):
    return Batch(changes(*updates).updates, listed=True)


def tracked(*made, node=NODE):
    tracker = Tracker(node, Options())
    tracker.apply(listing(*made))
    return tracker


def served(tracker, service=WEB):
    """`address:port -> endpoints` of each frontend, as an operator would write it."""
    return {
        f"{each.address}:{each.port}/{each.protocol.value}": " ".join(map(str, each.endpoints))
        for each in tracker.frontends(service)
    }


def content(tracker):
    return {service: tracker.frontends(service) for service in tracker.services()}


def test_a_service_with_endpoints_gives_a_frontend():
    tracker = tracked(make_service(), make_endpoint_slice(endpoints=[make_endpoint("10.244.1.5", node="node-a")]))
    assert tracker.services() == {WEB}
    assert tracker.frontends(WEB) == (
        Frontend(
            ServicePortName(WEB, "http"),
            ip_address("10.96.0.10"),
            Protocol.TCP,
            80,
            Balance.RANDOM,
            (Endpoint(ip_address("10.244.1.5"), 8080, is_local=True),),
        ),
    )
    assert tracker.skipped == {}


@pytest.mark.kube_proxy("6.1-31")
def test_service_and_slice_may_come_in_any_order():
    tracker = tracked()
    assert tracker.apply(changes(make_endpoint_slice())) == set()
    assert tracker.apply(changes(make_service())) == {WEB}
    assert served(tracker) == {"10.96.0.10:80/tcp": "10.244.1.5:8080"}


def test_dual_stack_services_have_a_frontend_in_each_family():
    six = make_endpoint_slice(name="web-6", address_type="IPv6", endpoints=["fd00::5"])
    tracker = tracked(make_service(cluster_ips=["10.96.0.10", "fd00::10"]), make_endpoint_slice(), six)
    assert served(tracker) == {"10.96.0.10:80/tcp": "10.244.1.5:8080", "fd00::10:80/tcp": "[fd00::5]:8080"}


def test_a_frontend_without_endpoints_stays():
    assert served(tracked(make_service())) == {"10.96.0.10:80/tcp": ""}


@pytest.mark.kube_proxy("6.1-30", "6.1-33", "gap 5.7-11")
def test_the_same_again_changes_nothing():
    """Nor does what we do not use, nor an order that means nothing."""
    ports = [("http", "TCP", 8080), ("admin", "TCP", 8081)]
    tracker = tracked(make_service(), make_endpoint_slice(ports=ports))
    noisy = make_service(labels={"app": "web"}, annotations={"kubectl": "x"}, ingress=[], selector={"app": "web"})
    noisy["metadata"] |= {"resourceVersion": "7", "managedFields": []}
    noisy["status"]["conditions"] = [{"type": "x"}]
    assert tracker.apply(changes(noisy, make_endpoint_slice(ports=ports, labels={"app": "web"}))) == set()
    there_and_back = [make_endpoint_slice(ports=[("http", "TCP", 9090)]), make_endpoint_slice(ports=ports)]
    before = content(tracker)
    tracker.apply(changes(*there_and_back))
    assert content(tracker) == before
    assert tracker.apply(listing(make_service(), make_endpoint_slice(ports=ports))) == set()


@pytest.mark.kube_proxy("6.1-31")
def test_endpoints_come_and_go_in_several_slices():
    tracker = tracked(make_service(), make_endpoint_slice(endpoints=["10.0.0.1"]))
    assert tracker.apply(changes(make_endpoint_slice(name="web-2", endpoints=["10.0.0.2"]))) == {WEB}
    assert served(tracker) == {"10.96.0.10:80/tcp": "10.0.0.1:8080 10.0.0.2:8080"}
    assert tracker.apply(changes(body(Kind.ENDPOINT_SLICE, "web-1", None))) == {WEB}
    assert served(tracker) == {"10.96.0.10:80/tcp": "10.0.0.2:8080"}


@pytest.mark.kube_proxy("6.1-31")
def test_a_slice_that_moves_to_another_service_changes_both():
    tracker = tracked(make_service(), make_service(name="other", cluster_ips=["10.96.0.11"]), make_endpoint_slice())
    assert tracker.apply(changes(make_endpoint_slice(service="other"))) == {WEB, OTHER}
    assert served(tracker) == {"10.96.0.10:80/tcp": ""}
    assert served(tracker, OTHER) == {"10.96.0.11:80/tcp": "10.244.1.5:8080"}


@pytest.mark.kube_proxy("6.1-29")
def test_a_service_that_turns_headless_and_back():
    tracker = tracked(make_service(), make_endpoint_slice())
    assert tracker.apply(changes(make_service(cluster_ips=["None"]))) == {WEB}
    assert (tracker.services(), tracker.frontends(WEB)) == (set(), ())
    assert tracker.apply(changes(make_service())) == {WEB}
    assert served(tracker) == {"10.96.0.10:80/tcp": "10.244.1.5:8080"}


@pytest.mark.kube_proxy("6.1-32")
def test_a_renamed_port_finds_its_endpoints_by_the_new_name():
    tracker = tracked(make_service(ports=[("web", "TCP", 80)]), make_endpoint_slice())
    assert served(tracker) == {"10.96.0.10:80/tcp": ""}
    tracker.apply(changes(make_endpoint_slice(ports=[("web", "TCP", 8080)])))
    assert served(tracker) == {"10.96.0.10:80/tcp": "10.244.1.5:8080"}


def test_a_deleted_service_is_gone_and_one_never_known_is_no_change():
    tracker = tracked(make_service())
    assert tracker.apply(changes(body(Kind.SERVICE, "web", None), body(Kind.SERVICE, "never", None))) == {WEB}
    assert (tracker.services(), tracker.frontends(WEB)) == (set(), ())
    assert tracker.apply(changes(body(Kind.ENDPOINT_SLICE, "never", None))) == set()


def test_a_listing_takes_away_what_is_not_in_it_and_nothing_else():
    other = make_service(name="other", cluster_ips=["10.96.0.11"])
    tracker = tracked(make_service(), other, make_endpoint_slice(), body(Kind.SERVICE, "bad", b"{"))
    assert tracker.apply(listing(make_service())) == {WEB, OTHER}
    assert served(tracker) == {"10.96.0.10:80/tcp": ""}
    assert tracker.skipped == {}


def test_a_malformed_update_leaves_the_last_good_version_until_it_is_repaired():
    tracker = tracked(make_service(), make_endpoint_slice())
    bad = make_service(ports=[("http", "TCP", 0)])
    assert tracker.apply(changes(bad, body(Kind.ENDPOINT_SLICE, "web-1", b"{"))) == set()
    assert served(tracker) == {"10.96.0.10:80/tcp": "10.244.1.5:8080"}
    assert set(tracker.skipped) == {"Service default/web", "EndpointSlice default/web-1"}
    assert tracker.skipped["Service default/web"].reason.startswith("spec.ports[0].port:")
    assert tracker.apply(listing(bad, make_endpoint_slice())) == set()
    assert tracker.apply(changes(make_service(ports=[("http", "TCP", 81)]))) == {WEB}
    assert tracker.skipped == {}


def test_a_malformed_object_is_forgotten_when_it_is_deleted():
    tracker = tracked(make_service(), body(Kind.SERVICE, "bad", b"{"))
    assert tracker.apply(changes(body(Kind.SERVICE, "bad", None))) == set()
    assert tracker.skipped == {}


@pytest.mark.parametrize("made", [make_service(name="web2"), make_service(namespace="prod")])
def test_an_object_stored_under_another_name_is_refused(made):
    tracker = tracked(body(Kind.SERVICE, "web", json(made)))
    assert tracker.services() == set()
    assert "metadata: the object says it is" in tracker.skipped["Service default/web"].reason


def test_an_unknown_balance_is_named_while_the_service_is_served():
    tracker = tracked(make_service(annotations={"nodenet.io/balance": "fair"}))
    assert served(tracker) == {"10.96.0.10:80/tcp": ""}
    assert "fair is none of" in tracker.skipped["Service default/web"].reason
    tracker.apply(changes(make_service(annotations={"nodenet.io/balance": "random"})))
    assert tracker.skipped == {}


def test_what_a_source_cannot_read_is_passed_on_until_the_next_batch():
    tracker = tracked()
    tracker.apply(Batch((), listed=False, skipped=(Skipped("/m/a.yaml", "line 3: no"),)))
    assert tracker.skipped["/m/a.yaml"].reason == "line 3: no"
    tracker.apply(changes())
    assert tracker.skipped == {}


def test_the_older_of_two_claims_has_the_frontend():
    young = make_service(created=NEW, ports=[("http", "TCP", 80), ("admin", "TCP", 81)])
    tracker = tracked(young, make_service(name="other", created=OLD))
    assert served(tracker) == {"10.96.0.10:81/tcp": ""}
    assert served(tracker, OTHER) == {"10.96.0.10:80/tcp": ""}
    assert "10.96.0.10 80/tcp belongs to default/other" in tracker.skipped["Service default/web"].reason


def test_of_two_claims_without_a_date_the_first_name_has_the_frontend():
    tracker = tracked(make_service(), make_service(name="other"), make_service(name="zoo", created=NEW))
    assert [bool(tracker.frontends(each)) for each in (WEB, OTHER, ServiceName("default", "zoo"))] == [
        False,
        False,
        True,
    ]
    assert set(tracker.skipped) == {"Service default/web", "Service default/other"}


def test_the_loser_gets_the_frontend_when_the_winner_goes():
    tracker = tracked(make_service(), make_service(name="other", created=OLD), make_endpoint_slice())
    assert tracker.apply(changes(body(Kind.SERVICE, "other", None))) == {WEB, OTHER}
    assert served(tracker) == {"10.96.0.10:80/tcp": "10.244.1.5:8080"}
    assert tracker.skipped == {}


def test_the_loser_gets_the_frontend_when_the_winner_moves_away():
    tracker = tracked(make_service(), make_service(name="other", created=OLD))
    moved = make_service(name="other", created=OLD, cluster_ips=["10.96.0.11"])
    assert tracker.apply(changes(moved)) == {WEB, OTHER}
    assert served(tracker) == {"10.96.0.10:80/tcp": ""}


def test_an_older_claim_that_comes_later_takes_the_frontend():
    tracker = tracked(make_service(created=NEW))
    assert tracker.apply(changes(make_service(name="other", created=OLD))) == {WEB, OTHER}
    assert (served(tracker), len(served(tracker, OTHER))) == ({}, 1)
    third = make_service(name="third", created=NEW)
    assert tracker.apply(changes(third)) == {ServiceName("default", "third")}


VIP = [{"ip": "192.0.2.1"}]
NODE_PORT = {"type": "NodePort", "ports": [("http", "TCP", 80, 30080)]}


@pytest.mark.parametrize(
    ("mine", "theirs", "what"),
    [
        ({"externalIPs": ["192.0.2.1"]}, {"externalIPs": ["192.0.2.1"]}, "192.0.2.1 80/tcp"),
        ({"externalIPs": ["10.96.0.11"]}, {}, "10.96.0.11 80/tcp"),
        ({"type": "LoadBalancer", "ingress": VIP}, {"externalIPs": ["192.0.2.1"]}, "192.0.2.1 80/tcp"),
        ({"type": "LoadBalancer", "ingress": VIP}, {"type": "LoadBalancer", "ingress": VIP}, "192.0.2.1 80/tcp"),
        (NODE_PORT, NODE_PORT, "IPv4 node port 30080/tcp"),
        (NODE_PORT, NODE_PORT | {"type": "LoadBalancer", "ingress": VIP}, "IPv4 node port 30080/tcp"),
    ],
)
def test_any_kind_of_address_belongs_to_the_older_service_and_the_other_is_named(mine, theirs, what):
    young = make_service(created=NEW, **mine)
    old = make_service(name="other", created=OLD, cluster_ips=["10.96.0.11"], **theirs)
    tracker = tracked(young, old)
    assert served(tracker) == {"10.96.0.10:80/tcp": ""}
    assert len(served(tracker, OTHER)) >= 1
    reason = f"{what} belongs to default/other, which claims it too and goes first"
    assert tracker.skipped == {"Service default/web": Skipped("Service default/web", reason)}
    assert tracker.apply(changes(body(Kind.SERVICE, "other", None))) == {WEB, OTHER}
    assert len(served(tracker)) >= 2
    assert tracker.skipped == {}


def test_many_reasons_are_cut():
    tracker = tracked(make_service(externalIPs=[f"no-{number}" for number in range(1000)]))
    reason = tracker.skipped["Service default/web"].reason
    assert reason.startswith("spec.externalIPs[0]: no-0 is not an IP address; spec.externalIPs[1]: ")
    assert reason.endswith("; and 995 more")
    assert served(tracker) == {"10.96.0.10:80/tcp": ""}


def test_one_bad_endpoint_is_named_and_the_others_serve():
    tracker = tracked(make_service(), make_endpoint_slice(endpoints=["10.0.0.1", "127.0.0.1"]))
    assert served(tracker) == {"10.96.0.10:80/tcp": "10.0.0.1:8080"}
    reason = "endpoints[1].addresses[0]: 127.0.0.1 is loopback, link-local, multicast or unspecified"
    assert tracker.skipped["EndpointSlice default/web-1"].reason == reason
    tracker.apply(changes(make_endpoint_slice(endpoints=["10.0.0.1"])))
    assert tracker.skipped == {}


@pytest.mark.kube_proxy("6.1-29", "6.2-13")
def test_a_service_that_changes_its_type():
    external = make_service(type="ExternalName", cluster_ips=[], ports=[], externalName="web.example")
    node_port = make_service(type="NodePort", ports=[("http", "TCP", 80, 30080)])
    tracker = tracked(external, make_endpoint_slice(endpoints=["10.0.0.1"]))
    assert tracker.services() == set()
    for made, expected in (
        (make_service(), {"10.96.0.10:80/tcp": "10.0.0.1:8080"}),
        (node_port, {"10.96.0.10:80/tcp": "10.0.0.1:8080", "0.0.0.0:30080/tcp": "10.0.0.1:8080"}),
        (external, {}),
    ):
        assert tracker.apply(changes(made)) == {WEB}
        assert served(tracker) == expected


@pytest.mark.kube_proxy("6.2-16")
def test_a_service_that_another_proxy_takes_and_gives_back():
    theirs = make_service(labels={"service.kubernetes.io/service-proxy-name": "other"})
    tracker = tracked(make_service())
    assert tracker.apply(changes(theirs)) == {WEB}
    assert served(tracker) == {}
    assert tracker.apply(changes(make_service())) == {WEB}
    assert len(served(tracker)) == 1


def make_endpoints(*addresses, name="web"):
    subset = {"addresses": [{"ip": address} for address in addresses], "ports": [{"name": "http", "port": 8080}]}
    metadata = {"namespace": "default", "name": name}
    return {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": [subset]}


def test_v1_endpoints_count_while_there_is_no_slice():
    tracker = tracked(make_service(), make_endpoints("10.0.0.1"))
    assert served(tracker) == {"10.96.0.10:80/tcp": "10.0.0.1:8080"}
    assert tracker.apply(changes(make_endpoint_slice(endpoints=["10.0.0.2"]))) == {WEB}
    assert served(tracker) == {"10.96.0.10:80/tcp": "10.0.0.2:8080"}
    tracker.apply(changes(make_endpoints("10.0.0.3")))
    assert served(tracker) == {"10.96.0.10:80/tcp": "10.0.0.2:8080"}
    assert tracker.apply(changes(body(Kind.ENDPOINT_SLICE, "web-1", None))) == {WEB}
    assert served(tracker) == {"10.96.0.10:80/tcp": "10.0.0.3:8080"}


def test_a_slice_without_endpoints_is_a_slice():
    tracker = tracked(make_service(), make_endpoints("10.0.0.1"), make_endpoint_slice(endpoints=[]))
    assert served(tracker) == {"10.96.0.10:80/tcp": ""}


HINTED = [make_endpoint("10.0.0.1", for_zones=["a"]), make_endpoint("10.0.0.2", for_zones=["b"])]


@pytest.mark.kube_proxy("6.1-35")
def test_a_node_that_moves_to_another_zone_changes_the_services_that_zones_matter_to():
    other = make_endpoint_slice(name="other-1", service="other", endpoints=["10.0.1.1"])
    unknown = make_endpoint_slice(name="none-1", service="none", endpoints=HINTED)
    tracker = tracked(make_service(), make_service(name="other", cluster_ips=["10.96.0.11"]), other, unknown)
    tracker.apply(changes(make_endpoint_slice(endpoints=HINTED)))
    assert served(tracker) == {"10.96.0.10:80/tcp": "10.0.0.1:8080"}
    assert tracker.settle(replace(NODE, zone="b")) == {WEB}
    assert served(tracker) == {"10.96.0.10:80/tcp": "10.0.0.2:8080"}
    assert tracker.settle(replace(NODE, zone="")) == {WEB}
    assert served(tracker) == {"10.96.0.10:80/tcp": "10.0.0.1:8080 10.0.0.2:8080"}
    assert tracker.settle(replace(NODE, zone="")) == set()


def test_a_node_whose_addresses_change_changes_the_services_that_let_it_in():
    ranged = make_service(type="LoadBalancer", ingress=VIP, loadBalancerSourceRanges=["10.0.0.0/8"])
    tracker = tracked(ranged, make_service(name="other", cluster_ips=["10.96.0.11"]))
    assert tracker.settle(replace(NODE, addresses=(ip_address("192.168.0.2"),))) == set()
    assert tracker.settle(replace(NODE, addresses=(ip_address("10.1.1.1"),))) == {WEB}
    assert [len(each.sources) for each in tracker.frontends(WEB)] == [0, 2]


def triggered(time, *endpoints):
    made = make_endpoint_slice(endpoints=endpoints)
    made["metadata"]["annotations"] = {"endpoints.kubernetes.io/last-change-trigger-time": time}
    return made


@pytest.mark.kube_proxy("6.1-34")
def test_trigger_times_are_kept_until_they_are_taken():
    tracker = Tracker(NODE, Options(), since=datetime(2026, 1, 15, tzinfo=UTC))
    tracker.apply(listing(make_service(), triggered(OLD, "10.0.0.1")))
    assert tracker.take_triggers(WEB) == ()
    tracker.apply(changes(triggered(NEW, "10.0.0.2"), triggered(LATER, "10.0.0.3")))
    assert tracker.take_triggers(WEB) == (datetime.fromisoformat(NEW), datetime.fromisoformat(LATER))
    assert tracker.take_triggers(WEB) == ()


@pytest.mark.kube_proxy("6.1-34")
def test_trigger_times_are_of_changes_to_services_that_are_there():
    tracker = tracked(make_service())
    tracker.apply(changes(triggered("nonsense", "10.0.0.1")))
    tracker.apply(changes(triggered(NEW, "10.0.0.1")))
    assert tracker.take_triggers(WEB) == ()
    tracker.apply(changes(triggered(NEW, "10.0.0.2")))
    tracker.apply(changes(body(Kind.SERVICE, "web", None)))
    tracker.apply(changes(triggered(LATER, "10.0.0.3")))
    assert tracker.apply(changes(make_service())) == {WEB}
    assert tracker.take_triggers(WEB) == ()


def test_many_claims_on_one_frontend_cost_no_more_than_their_number():
    """Ten thousand Services on one address are a mistake, and must not stop the others from converging."""
    crowd = [make_service(name=f"s-{number}") for number in range(10_000)]
    tracker = tracked(*crowd)
    assert sum(bool(tracker.frontends(service)) for service in tracker.services()) == 1
    assert len(tracker.skipped) == 9_999


def test_what_is_wrong_is_gathered_anew_only_when_it_differs():
    tracker = Tracker(Node("n"), Options())
    bad = Update(Kind.SERVICE, ObjectName("default", "bad"), b"{")
    tracker.apply(Batch((bad,), listed=True))
    before = tracker.skipped
    assert len(before) == 1
    tracker.apply(Batch((Update(Kind.SERVICE, ObjectName("default", "gone"), None), bad), listed=False))
    assert tracker.skipped is before
    tracker.apply(Batch((Update(Kind.SERVICE, ObjectName("default", "bad"), None),), listed=False))
    assert tracker.skipped == {}
