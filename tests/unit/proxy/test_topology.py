"""kube-proxy's cases of topology and traffic policy, written as tables: endpoints one per letter, seen from node-a."""

from ipaddress import ip_address

import pytest
from builders import json, make_endpoint, make_endpoint_slice, make_service

from controlloop.family import Family
from proxy.endpoints import places, read_slice
from proxy.exposure import external_answer, internal_answer
from proxy.frontends import Protocol, Refusal
from proxy.objects import Kind, decode
from proxy.services import Options, read_service
from proxy.topology import reach

pytestmark = pytest.mark.kube_proxy("6.1-35", "6.2-50")

LETTERS = "abcdefgh"
READY = {"ready": True, "serving": True}
UNREADY = {"ready": False, "serving": False}
TERMINATING = {"ready": False, "serving": True, "terminating": True}
SILENT = {"ready": False, "serving": False, "terminating": True}
HERE, THERE = {"node": "node-a"}, {"node": "node-b"}


def zones(*names):
    return {"for_zones": list(names)}


def nodes(*names):
    return {"for_nodes": list(names)}


def slice_of(endpoints):
    made = [make_endpoint(f"10.0.0.{number}", **each) for number, each in enumerate(endpoints, start=1)]
    decoded = decode(Kind.ENDPOINT_SLICE, json(make_endpoint_slice(endpoints=made)))
    return read_slice(decoded, "node-a", pytest.fail)


def seen(endpoints, zone="zone-a", weights=None):
    return reach(places(slice_of(endpoints), "http", Protocol.TCP, Family.V4), zone, weights or {})


def letters(endpoints):
    return "".join(LETTERS[int(endpoint.address) % 256 - 1] for endpoint in endpoints)


@pytest.mark.parametrize(
    ("endpoints", "chosen"),
    [
        pytest.param([READY, READY, READY], "abc", id="no hints"),
        pytest.param([zones("zone-a"), zones("zone-b"), zones("zone-a")], "ac", id="hints for zones in all"),
        pytest.param([zones("zone-a", "zone-b"), zones("zone-b")], "a", id="one for several zones"),
        pytest.param([zones("zone-a"), zones("zone-b"), READY], "abc", id="one without a hint"),
        pytest.param([zones("zone-a"), zones()], "ab", id="one with an empty hint"),
        pytest.param([zones("zone-b"), zones("zone-c")], "ab", id="none for our zone"),
        pytest.param([zones("zone-a"), UNREADY], "a", id="an unready one needs no hint"),
        pytest.param([zones("zone-b"), {**zones("zone-a"), **UNREADY}], "a", id="an unready one is not for our zone"),
        pytest.param([{**zones("zone-b"), "zone": "zone-a"}, zones("zone-a")], "b", id="where it is does not count"),
        pytest.param([nodes("node-a"), nodes("node-b"), nodes("node-c")], "a", id="hints for nodes in all"),
        pytest.param([nodes("node-a"), READY], "ab", id="a hint for a node in one"),
        pytest.param([nodes("node-b"), nodes("node-c")], "ab", id="hints for other nodes"),
        pytest.param([nodes("node-b", "node-a"), nodes("node-c")], "a", id="a hint for several nodes"),
        pytest.param(
            [nodes("node-a") | zones("zone-a"), nodes("node-b") | zones("zone-a"), nodes("node-c") | zones("zone-b")],
            "a",
            id="nodes before zones",
        ),
        pytest.param(
            [nodes("node-b") | zones("zone-a"), nodes("node-c") | zones("zone-b")], "a", id="zones when no node is ours"
        ),
        pytest.param([nodes("node-a") | zones("zone-a"), zones("zone-b")], "a", id="zones when one has no node"),
        pytest.param(
            [nodes("node-b") | zones("zone-b"), nodes("node-c") | zones("zone-c")], "ab", id="neither is ours"
        ),
        pytest.param([nodes("node-a"), {**nodes("node-b"), **UNREADY}], "a", id="an unready one of another node"),
        pytest.param([{**nodes("node-a"), **UNREADY}, nodes("node-b")], "b", id="ours is unready"),
    ],
)
def test_hints_choose_among_the_ready(endpoints, chosen):
    assert letters(seen(endpoints).cluster) == chosen


@pytest.mark.parametrize("zone", ["", "zone-c"])
def test_a_node_without_a_zone_or_in_one_that_nobody_is_meant_for_uses_all(zone):
    assert letters(seen([zones("zone-a"), zones("zone-b")], zone=zone).cluster) == "ab"


@pytest.mark.kube_proxy("6.1-16", "6.1-17", "6.2-22")
@pytest.mark.parametrize(
    ("endpoints", "cluster", "local"),
    [
        pytest.param([READY | HERE, TERMINATING | HERE, READY | THERE], "ac", "a", id="ready before terminating"),
        pytest.param([TERMINATING | HERE, TERMINATING | THERE], "ab", "a", id="all terminate"),
        pytest.param([TERMINATING | HERE, SILENT | HERE, UNREADY | HERE], "a", "a", id="only who serves"),
        pytest.param([TERMINATING | THERE, SILENT | HERE], "a", "", id="one terminates elsewhere"),
        pytest.param([READY | THERE, TERMINATING | HERE], "a", "b", id="ready elsewhere, terminating here"),
        pytest.param([READY | THERE, UNREADY | HERE], "a", "", id="ready elsewhere, unready here"),
        pytest.param([SILENT | HERE, UNREADY | THERE], "", "", id="nobody"),
        pytest.param([{"ready": True, "terminating": True} | HERE], "a", "a", id="terminating but published as ready"),
        pytest.param(
            [TERMINATING | THERE | zones("zone-b"), TERMINATING | HERE | zones("zone-a")],
            "ab",
            "b",
            id="hints do not hold for the last resort",
        ),
        pytest.param(
            [HERE | zones("zone-b"), THERE | zones("zone-a"), HERE | zones("zone-a")],
            "bc",
            "ac",
            id="hints do not hold for policy Local",
        ),
        pytest.param([HERE | nodes("node-b"), THERE | nodes("node-a")], "b", "a", id="nor do hints for nodes"),
        pytest.param([{}, THERE], "ab", "", id="one that does not say where it is"),
    ],
)
def test_who_serves_under_policy_cluster_and_local(endpoints, cluster, local):
    reached = seen(endpoints)
    assert (letters(reached.cluster), letters(reached.local)) == (cluster, local)


def answers(endpoints, **fields):
    made = make_service(type="NodePort", ports=[("http", "TCP", 80, 30080)], **fields)
    service = read_service(decode(Kind.SERVICE, json(made)), Options(), pytest.fail)
    reached = seen(endpoints)
    return [
        (
            letters(answer.endpoints),
            None if answer.inside is None else letters(answer.inside),
            letters(answer.lingering),
            answer.refusal.value,
        )
        for answer in (internal_answer(service, reached), external_answer(service, reached))
    ]


INTERNAL, EXTERNAL = {"internalTrafficPolicy": "Local"}, {"externalTrafficPolicy": "Local"}
BOTH_HERE_AND_THERE = [READY | HERE, READY | THERE]


@pytest.mark.kube_proxy("6.1-13", "6.1-14", "6.1-15", "6.1-16", "6.1-17")
@pytest.mark.parametrize(
    ("endpoints", "policies", "internal", "external"),
    [
        pytest.param(
            BOTH_HERE_AND_THERE, {}, ("ab", None, "", "reject"), ("ab", None, "", "reject"), id="policy Cluster"
        ),
        pytest.param(
            BOTH_HERE_AND_THERE, INTERNAL, ("a", None, "b", "reject"), ("ab", None, "", "reject"), id="internal Local"
        ),
        pytest.param(
            BOTH_HERE_AND_THERE, EXTERNAL, ("ab", None, "", "reject"), ("a", "ab", "", "reject"), id="external Local"
        ),
        pytest.param(
            BOTH_HERE_AND_THERE, INTERNAL | EXTERNAL, ("a", None, "b", "reject"), ("a", "ab", "", "reject"), id="both"
        ),
        pytest.param(
            [READY | THERE],
            INTERNAL | EXTERNAL,
            ("", None, "a", "drop"),
            ("", "a", "", "drop"),
            id="nobody here: dropped, as another node serves",
        ),
        pytest.param(
            [UNREADY | THERE, SILENT | HERE],
            INTERNAL | EXTERNAL,
            ("", None, "", "reject"),
            ("", "", "", "reject"),
            id="nobody anywhere: refused",
        ),
        pytest.param(
            [READY | HERE, TERMINATING | HERE, SILENT | HERE],
            {},
            ("a", None, "b", "reject"),
            ("a", None, "b", "reject"),
            id="who terminates keeps what he has",
        ),
        pytest.param(
            [TERMINATING | THERE],
            INTERNAL | EXTERNAL,
            ("", None, "a", "drop"),
            ("", "a", "", "drop"),
            id="the last one terminates elsewhere",
        ),
        pytest.param(
            [READY | THERE, TERMINATING | HERE],
            EXTERNAL,
            ("a", None, "b", "reject"),
            ("b", "a", "", "reject"),
            id="external callers get who terminates here, inside callers who is ready",
        ),
        pytest.param(
            [HERE | zones("zone-a"), THERE | zones("zone-b")],
            EXTERNAL,
            ("a", None, "b", "reject"),
            ("a", "a", "b", "reject"),
            id="left out by topology",
        ),
    ],
)
def test_policy_says_who_serves_whom(endpoints, policies, internal, external):
    """(endpoints, inside, lingering, refusal) at the cluster IP, and at every other address."""
    assert answers(endpoints, **policies) == [internal, external]


def weight_of(endpoints, weights):
    return [endpoint.weight for endpoint in seen(endpoints, weights=weights).cluster]


def test_weights_are_by_address_then_by_zone_and_one_for_the_rest():
    weights = {ip_address("10.0.0.1"): 5, "zone-a": 3}
    assert weight_of([{"zone": "zone-a"}, {"zone": "zone-a"}, {"zone": "zone-b"}, {}], weights) == [5, 3, 1, 1]


def test_where_nobody_who_is_left_has_a_weight_all_serve_alike():
    annotations = {"nodenet.io/balance": "weighted", "nodenet.io/weights": "zone-a=0,zone-b=4"}
    made = make_service(annotations=annotations, internalTrafficPolicy="Local")
    service = read_service(decode(Kind.SERVICE, json(made)), Options(), pytest.fail)
    both = [HERE | {"zone": "zone-a"}, THERE | {"zone": "zone-b"}]
    reached = seen(both, weights=service.weights)
    assert [each.weight for each in external_answer(service, reached).endpoints] == [0, 4]
    assert [each.weight for each in internal_answer(service, reached).endpoints] == [1]
    assert letters(internal_answer(service, reached).lingering) == "b"


def test_frontends_of_a_port_share_their_endpoints_in_memory():
    reached = seen([READY, READY])
    assert reached.cluster is reached.serving
    made = make_service(type="NodePort", ports=[("http", "TCP", 80, 30080)])
    service = read_service(decode(Kind.SERVICE, json(made)), Options(), pytest.fail)
    assert internal_answer(service, reached).endpoints is external_answer(service, reached).endpoints
    assert external_answer(service, reached).refusal is Refusal.REJECT
