"""Whatever comes in whatever order, the tracker ends where a start would begin; no value at any place harms others."""

import re
from copy import deepcopy
from ipaddress import ip_address

import pytest
from builders import json, make_endpoint, make_endpoint_slice, make_service
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tracker import NEW, OLD, body, changes, content, listing, make_endpoints, served, tracked, update

from proxy.frontends import ServiceName
from proxy.node import Node
from proxy.objects import Kind, ObjectName
from proxy.services import Options
from proxy.sources import Update
from proxy.tracker import Tracker

NAMES = st.sampled_from(["a", "b", "c"])
ADDRESSES = st.sampled_from(["10.96.0.1", "10.96.0.2", "192.0.2.1"])
POLICY = st.sampled_from(["Cluster", "Local"])
SERVICES = st.builds(
    lambda port, node_port, ingress, **fields: update(
        make_service(
            ports=[("http", "TCP", port, node_port)], ingress=[{"ip": address} for address in ingress], **fields
        )
    ),
    name=NAMES,
    type=st.sampled_from(["NodePort", "LoadBalancer", "ExternalName"]),
    cluster_ips=st.sampled_from([["10.96.0.1"], ["10.96.0.2"], ["10.96.0.1", "fd00::1"], ["None"]]),
    externalIPs=st.lists(ADDRESSES, max_size=2),
    ingress=st.lists(ADDRESSES, max_size=2),
    loadBalancerSourceRanges=st.lists(st.sampled_from(["10.0.0.0/8", "192.168.0.0/16", "bad"]), max_size=1),
    internalTrafficPolicy=POLICY,
    externalTrafficPolicy=POLICY,
    healthCheckNodePort=st.sampled_from([0, 32000]),
    port=st.sampled_from([80, 81]),
    node_port=st.sampled_from([0, 30080]),
    created=st.sampled_from([OLD, NEW, None]),
)
CONDITION = st.sampled_from([None, True, False])
ENDPOINTS = st.builds(
    make_endpoint,
    st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
    node=st.sampled_from([None, "node-a", "node-b"]),
    for_zones=st.none() | st.just(["a"]) | st.just(["b"]),
    ready=CONDITION,
    terminating=CONDITION,
)
SLICES = st.builds(
    lambda name, service, endpoints: update(make_endpoint_slice(name=name, service=service, endpoints=endpoints)),
    NAMES,
    NAMES,
    st.lists(ENDPOINTS, max_size=3),
) | st.builds(
    lambda name, addresses: update(make_endpoints(*addresses, name=name)),
    NAMES,
    st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2"]), max_size=2),
)
GARBAGE = st.builds(body, st.sampled_from(Kind), NAMES, st.binary(max_size=8) | st.just(b'{"metadata":{"name":"_"}}'))
DELETED = st.builds(body, st.sampled_from(Kind), NAMES, st.none())
HISTORY = st.lists(st.lists(SERVICES | SLICES | GARBAGE | DELETED, max_size=4), max_size=12)


def local(tracker):
    return dict(tracker.health_checks()), dict(tracker.no_local_endpoints())


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
    fresh = tracked(*good.values())
    assert content(tracker) == content(fresh)
    assert local(tracker) == local(fresh)
    keys = [frontend.key for frontends in content(tracker).values() for frontend in frontends]
    assert len(keys) == len(set(keys))
    assert {f"{kind.value} {name}" for kind, name in bad} <= set(tracker.skipped)
    assert tracker.apply(listing(*good.values())) == set()


@given(
    st.lists(SERVICES | SLICES, max_size=8),
    st.sampled_from(["", "a", "b"]),
    st.sampled_from([(), ("10.1.1.1",), ("192.168.0.1", "fd00::9")]),
)
def test_a_node_that_changes_ends_where_a_start_there_begins(history, zone, addresses):
    node = Node("node-a", zone, tuple(map(ip_address, addresses)))
    tracker = tracked(*history)
    before = content(tracker)
    changed = tracker.settle(node)
    after = content(tracker)
    assert {name for name in before if before[name] != after[name]} <= changed <= tracker.services()
    fresh = Tracker(node, Options())
    fresh.apply(listing(*history))
    assert (after, local(tracker)) == (content(fresh), local(fresh))


WHOLE_SERVICE = make_service(
    name="bad",
    type="LoadBalancer",
    cluster_ips=["10.96.0.12", "fd00::12"],
    ports=[("http", "TCP", 80, 30081), ("dns", "UDP", 53, 30053)],
    created=OLD,
    labels={"app": "web"},
    annotations={"nodenet.io/balance": "weighted", "nodenet.io/weights": "a=1", "nodenet.io/drain-timeout": "1s"},
    ingress=[{"ip": "192.0.2.1", "ipMode": "VIP"}, {"hostname": "x"}],
    externalIPs=["192.0.2.2"],
    loadBalancerSourceRanges=["10.0.0.0/8"],
    allocateLoadBalancerNodePorts=True,
    sessionAffinity="ClientIP",
    sessionAffinityConfig={"clientIP": {"timeoutSeconds": 60}},
    internalTrafficPolicy="Local",
    externalTrafficPolicy="Local",
    healthCheckNodePort=32000,
)
WHOLE_SLICE = make_endpoint_slice(
    name="bad-1",
    service="bad",
    ports=[("http", "TCP", 8080), ("dns", "UDP", 53)],
    endpoints=[
        make_endpoint("10.0.0.1", node="node-a", zone="a", for_zones=["a"], for_nodes=["node-a"], ready=True),
        make_endpoint("10.0.0.2", ready=False, serving=True, terminating=True),
    ],
)
WHOLE_ENDPOINTS = make_endpoints("10.0.0.1", "10.0.0.2", name="bad")
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(
        ["", "None", "127.0.0.1", "fd00::9", "10.96.0.99", "$(reboot)", "} flush ruleset", "a;b", "Local"]
    )
    | st.sampled_from([0, -1, 65536, 1 << 70]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
ABSENT = object()


def places_in(value):
    """Where something stands in an object, as keys and indices."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield [key]
        yield from ([key, *rest] for rest in places_in(inner))


def with_value(made, place, value):
    changed = deepcopy(made)
    *way, last = place
    holder = changed
    for key in way:
        holder = holder[key]
    if value is ABSENT:
        del holder[last]
    else:
        holder[last] = value
    return changed


@pytest.mark.kube_proxy("gap 5.5-2")
@pytest.mark.parametrize("made", [WHOLE_SERVICE, WHOLE_SLICE, WHOLE_ENDPOINTS], ids=["service", "slice", "endpoints"])
@given(data=st.data())
def test_any_value_at_any_place_is_used_left_out_or_refused_by_name(made, data):
    """Whatever stands there, or does not, other Services are served, and what is served holds no foreign text."""
    bad = with_value(made, data.draw(st.sampled_from(list(places_in(made)))), data.draw(st.just(ABSENT) | JSON_VALUES))
    kind, name = Kind(made["kind"]), ObjectName("default", made["metadata"]["name"])
    good = make_service(cluster_ips=["10.96.0.98"], created=OLD)
    rest = [each for each in (WHOLE_SERVICE, WHOLE_SLICE) if each["kind"] != made["kind"]]
    tracker = tracked(good, make_endpoint_slice(), *rest, Update(kind, name, json(bad)))
    assert served(tracker) == {"10.96.0.98:80/tcp": "10.244.1.5:8080"}
    assert tracker.skipped.keys() <= {f"{kind.value} default/{name.name}"}
    assert all(str(skipped).isprintable() for skipped in tracker.skipped.values())
    for frontend in tracker.frontends(ServiceName("default", "bad")):
        assert re.fullmatch(r"[-a-z0-9/:]+", str(frontend.name))
        assert all(re.fullmatch(r"[][0-9a-f.:]+", str(endpoint)) for endpoint in frontend.endpoints)
