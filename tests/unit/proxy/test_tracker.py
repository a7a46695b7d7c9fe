from ipaddress import ip_address

import pytest
from builders import json, make_endpoint, make_endpoint_slice, make_service
from hypothesis import given, settings
from hypothesis import strategies as st

from controlloop.errors import Skipped
from proxy.frontends import Balance, Endpoint, Frontend, Protocol, ServiceName, ServicePortName
from proxy.node import Node
from proxy.objects import Kind, ObjectName
from proxy.services import Options
from proxy.sources import Batch, Update
from proxy.tracker import Tracker

WEB, OTHER = ServiceName("default", "web"), ServiceName("default", "other")
OLD, NEW = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"


def update(made):
    metadata = made["metadata"]
    return Update(Kind(made["kind"]), ObjectName(metadata["namespace"], metadata["name"]), json(made))


def body(kind, name, raw):
    return Update(kind, ObjectName("default", name), raw)


def changes(*updates):
    return Batch(tuple(each if isinstance(each, Update) else update(each) for each in updates), listed=False)


def listing(*updates):
    return Batch(changes(*updates).updates, listed=True)


def tracked(*made):
    tracker = Tracker(Node("node-a"), Options())
    tracker.apply(listing(*made))
    return tracker


def served(tracker, service=WEB):
    """`address:port -> endpoints` of each frontend, as an operator would write it."""
    return {
        f"{each.address}:{each.port}/{each.protocol.value}": " ".join(map(str, each.endpoints))
        for each in tracker.frontends(service)
    }


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


def test_the_same_again_changes_nothing():
    tracker = tracked(make_service(), make_endpoint_slice())
    noisy = make_service(labels={"app": "web"}, annotations={"kubectl": "x"})
    assert tracker.apply(changes(noisy, make_endpoint_slice(labels={"app": "web"}))) == set()
    assert tracker.apply(listing(make_service(), make_endpoint_slice())) == set()


def test_endpoints_come_and_go_in_several_slices():
    tracker = tracked(make_service(), make_endpoint_slice(endpoints=["10.0.0.1"]))
    assert tracker.apply(changes(make_endpoint_slice(name="web-2", endpoints=["10.0.0.2"]))) == {WEB}
    assert served(tracker) == {"10.96.0.10:80/tcp": "10.0.0.1:8080 10.0.0.2:8080"}
    assert tracker.apply(changes(body(Kind.ENDPOINT_SLICE, "web-1", None))) == {WEB}
    assert served(tracker) == {"10.96.0.10:80/tcp": "10.0.0.2:8080"}


def test_a_slice_that_moves_to_another_service_changes_both():
    tracker = tracked(make_service(), make_service(name="other", cluster_ips=["10.96.0.11"]), make_endpoint_slice())
    assert tracker.apply(changes(make_endpoint_slice(service="other"))) == {WEB, OTHER}
    assert served(tracker) == {"10.96.0.10:80/tcp": ""}
    assert served(tracker, OTHER) == {"10.96.0.11:80/tcp": "10.244.1.5:8080"}


def test_a_service_that_turns_headless_and_back():
    tracker = tracked(make_service(), make_endpoint_slice())
    assert tracker.apply(changes(make_service(cluster_ips=["None"]))) == {WEB}
    assert (tracker.services(), tracker.frontends(WEB)) == (set(), ())
    assert tracker.apply(changes(make_service())) == {WEB}
    assert served(tracker) == {"10.96.0.10:80/tcp": "10.244.1.5:8080"}


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


NAMES = st.sampled_from(["a", "b", "c"])
SERVICES = st.builds(
    lambda name, address, port, created: update(
        make_service(name=name, cluster_ips=[address], ports=[("http", "TCP", port)], created=created)
    ),
    NAMES,
    st.sampled_from(["10.96.0.1", "10.96.0.2", "None"]),
    st.sampled_from([80, 81]),
    st.sampled_from([OLD, NEW, None]),
)
SLICES = st.builds(
    lambda name, service, endpoints: update(make_endpoint_slice(name=name, service=service, endpoints=endpoints)),
    NAMES,
    NAMES,
    st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"]), max_size=3),
)
GARBAGE = st.builds(body, st.sampled_from(Kind), NAMES, st.binary(max_size=8) | st.just(b'{"metadata":{"name":"a"}}'))
DELETED = st.builds(body, st.sampled_from(Kind), NAMES, st.none())
HISTORY = st.lists(st.lists(SERVICES | SLICES | GARBAGE | DELETED, max_size=4), max_size=12)


def content(tracker):
    return {service: tracker.frontends(service) for service in tracker.services()}


def is_good(each):
    return each.body is not None and each.body.startswith(b'{"apiVersion"')


@given(HISTORY)
@settings(max_examples=300)
def test_any_history_ends_where_one_listing_of_its_good_objects_begins(history):
    """And no Service changes without being named in the answer to `apply`."""
    tracker = tracked()
    good, bad = {}, set()
    for updates in history:
        before = content(tracker)
        changed = tracker.apply(changes(*updates))
        after = content(tracker)
        assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} <= changed
        for each in updates:
            key = (each.kind, each.name)
            bad.discard(key)
            if is_good(each):
                good[key] = each
            elif each.body is None:
                good.pop(key, None)
            else:
                bad.add(key)
    assert content(tracker) == content(tracked(*good.values()))
    assert {f"{kind.value} {name}" for kind, name in bad} <= set(tracker.skipped)
    assert tracker.apply(listing(*good.values())) == set()


FIELDS = [
    ("metadata", "name"),
    ("metadata", "namespace"),
    ("metadata", "labels"),
    ("spec", "clusterIPs"),
    ("spec", "ports"),
    ("spec", "type"),
]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.sampled_from(FIELDS), JSON_VALUES)
def test_any_value_in_any_field_is_used_or_refused_by_name(field, value):
    """Whatever stands there, other Services are served, and what is served holds no foreign text."""
    made = make_service(name="bad")
    part, name = field
    made[part][name] = value
    tracker = tracked(body(Kind.SERVICE, "bad", json(made)), make_service(cluster_ips=["10.96.0.99"]))
    assert served(tracker) == {"10.96.0.99:80/tcp": ""}
    assert all(str(skipped).isprintable() for skipped in tracker.skipped.values())
    assert len(tracker.services()) + len(tracker.skipped) <= 2


def test_many_claims_on_one_frontend_cost_no_more_than_their_number():
    """Ten thousand Services on one address are a mistake, and must not stop the others from converging."""
    crowd = [make_service(name=f"s-{number}") for number in range(10_000)]
    tracker = tracked(*crowd)
    assert sum(bool(tracker.frontends(service)) for service in tracker.services()) == 1
    assert len(tracker.skipped) == 9_999
