from ipaddress import ip_address

import pytest
from builders import json, make_endpoint, make_endpoint_slice
from hypothesis import given
from hypothesis import strategies as st

from controlloop.family import Family
from proxy.endpoints import places, read_endpoints, read_slice, trigger_time
from proxy.frontends import Protocol, ServiceName
from proxy.objects import EndpointAnnotations, Kind, decode
from proxy.topology import reach


def read_with_refusals(**fields):
    refused = []
    return read_slice(
        decode(Kind.ENDPOINT_SLICE, json(make_endpoint_slice(**fields))), "node-a", refused.append
    ), refused


def read(**fields):
    """For a test of what is there: nothing of it may be left out."""
    slices, refused = read_with_refusals(**fields)
    assert refused == []
    return slices


def served(*slices, port="http", protocol=Protocol.TCP, family=Family.V4):
    """Who takes new connections under policy Cluster."""
    every = [each for some in slices for each in some]
    return [str(endpoint) for endpoint in reach(places(every, port, protocol, family), "", {}).cluster]


def of(*made, **fields):
    return served(read(endpoints=made, **fields))


def test_an_endpoint_without_conditions_is_ready():
    assert of(make_endpoint("10.0.0.1"), make_endpoint("10.0.0.2", ready=None)) == ["10.0.0.1:8080", "10.0.0.2:8080"]


def test_an_unready_endpoint_gets_nothing():
    assert of(make_endpoint("10.0.0.1", ready=False), "10.0.0.2") == ["10.0.0.2:8080"]
    assert of(make_endpoint("10.0.0.1", ready=False)) == []


def test_terminating_endpoints_serve_only_while_none_is_ready():
    leaving = make_endpoint("10.0.0.1", ready=False, serving=True, terminating=True)
    silent = make_endpoint("10.0.0.2", ready=False, serving=False, terminating=True)
    assert of(leaving, silent) == ["10.0.0.1:8080"]
    assert of(leaving, silent, "10.0.0.3") == ["10.0.0.3:8080"]


def test_serving_left_out_means_serving():
    assert of(make_endpoint("10.0.0.1", ready=False, terminating=True)) == ["10.0.0.1:8080"]


def test_an_endpoint_in_two_slices_is_there_once():
    assert served(read(), read(name="web-2")) == ["10.244.1.5:8080"]


def test_of_two_copies_the_one_that_does_not_terminate_counts():
    """A pod's address was taken over: the slice that still has the old pod says less than the other."""
    old = read(endpoints=[make_endpoint("10.0.0.1", ready=False, serving=True, terminating=True)])
    new = read(name="web-2", endpoints=[make_endpoint("10.0.0.1", ready=False, terminating=False)])
    assert served(old, new) == served(new, old) == []
    back = read(name="web-3", endpoints=["10.0.0.1"])
    assert served(old, back) == ["10.0.0.1:8080"]


def test_endpoints_are_ordered_by_number_and_not_by_text():
    assert of("10.0.0.10", "10.0.0.9", "9.0.0.1") == ["9.0.0.1:8080", "10.0.0.9:8080", "10.0.0.10:8080"]


def test_only_the_first_address_counts_and_one_without_is_left_out():
    assert of(make_endpoint("10.0.0.1", "10.0.0.2"), {"addresses": None}, {"addresses": []}) == ["10.0.0.1:8080"]


def test_name_and_protocol_choose_the_port():
    ports = [
        ("http", "TCP", 8080),
        ("http", "UDP", 9),
        ("metrics", "TCP", 9090),
        ("none", "TCP", None),
        ("zero", "TCP", 0),
    ]
    web = read(ports=ports)
    assert served(web) == ["10.244.1.5:8080"]
    assert served(web, port="metrics") == ["10.244.1.5:9090"]
    assert served(web, protocol=Protocol.UDP) == ["10.244.1.5:9"]
    assert served(web, port="none") == served(web, port="zero") == served(web, port="absent") == []


def test_slices_with_different_numbers_for_one_name_are_all_used():
    assert served(read(), read(ports=[("http", "TCP", 9000)])) == ["10.244.1.5:8080", "10.244.1.5:9000"]


def test_a_port_without_a_name_serves_the_unnamed_port():
    made = make_endpoint_slice()
    made["ports"] = [{"port": 8080}]
    web = read_slice(decode(Kind.ENDPOINT_SLICE, json(made)), "node-a", pytest.fail)
    assert served(web, port="") == ["10.244.1.5:8080"]


def test_each_family_has_its_own_endpoints():
    v4, v6 = read(), read(name="web-2", address_type="IPv6", endpoints=["fd00::5"])
    assert served(v4, v6) == ["10.244.1.5:8080"]
    assert served(v4, v6, family=Family.V6) == ["[fd00::5]:8080"]


def test_an_endpoint_that_does_not_say_where_it_is_may_be_here_but_is_not_counted_as_local():
    web = read(
        endpoints=[make_endpoint("10.0.0.1", node="node-a"), make_endpoint("10.0.0.2", node="node-b"), "10.0.0.3"]
    )
    seen = reach(places(web, "http", Protocol.TCP, Family.V4), "", {})
    assert [each.is_local for each in seen.cluster] == [True, False, True]
    assert list(map(str, seen.local)) == ["10.0.0.1:8080"]


def test_slices_that_serve_nothing_are_left_out():
    assert read(service=None) == ()
    assert read(labels={"service.kubernetes.io/headless": ""}) == ()
    assert read(address_type="FQDN", endpoints=["web.example"]) == ()
    assert [each.service for each in read(namespace="prod")] == [ServiceName("prod", "web")]


@pytest.mark.parametrize("address", ["fd00::1", "127.0.0.1", "169.254.1.1", "10.0.0.1 }", "web.example", "224.0.0.1"])
def test_a_wrong_address_is_left_out_by_name_and_the_others_are_served(address):
    slices, refused = read_with_refusals(endpoints=["10.0.0.1", address, "10.0.0.3"])
    assert served(slices) == ["10.0.0.1:8080", "10.0.0.3:8080"]
    assert [reason.startswith(f"endpoints[1].addresses[0]: {address} is ") for reason in refused] == [True]


def test_a_thousand_endpoints_are_all_served():
    made = [f"10.1.{number >> 8}.{number & 255}" for number in range(1, 1001)]
    assert of(*made) == [f"{address}:8080" for address in made]


def read_old(*subsets, **metadata):
    made = {"kind": "Endpoints", "apiVersion": "v1", "metadata": {"name": "web", **metadata}, "subsets": list(subsets)}
    refused = []
    return read_endpoints(decode(Kind.ENDPOINTS, json(made)), "node-a", refused.append), refused


def test_v1_endpoints_are_read_as_slices():
    slices, refused = read_old(
        {
            "addresses": [{"ip": "10.0.0.1", "nodeName": "node-a"}, {"ip": "fd00::1"}],
            "notReadyAddresses": [{"ip": "10.0.0.2"}],
            "ports": [{"name": "http", "port": 8080}],
        },
        {"addresses": [{"ip": "10.0.0.3"}], "ports": [{"name": "http", "port": 9090, "protocol": "TCP"}]},
        {"addresses": None, "ports": None},
    )
    assert refused == []
    assert served(slices) == ["10.0.0.1:8080", "10.0.0.3:9090"]
    assert served(slices, family=Family.V6) == ["[fd00::1]:8080"]
    assert [candidate.is_local for candidate in slices[0].candidates] == [True, False]


def test_v1_endpoints_of_a_headless_service_are_left_out():
    subset = {"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 8080}]}
    assert read_old(subset, labels={"service.kubernetes.io/headless": ""}) == ((), [])


def test_a_wrong_address_in_v1_endpoints_is_left_out_by_name():
    slices, refused = read_old({"addresses": [{"ip": "127.0.0.1"}, {"ip": "10.0.0.1"}], "ports": [{"port": 80}]})
    assert served(slices, port="") == ["10.0.0.1:80"]
    assert [reason.startswith("subsets[0].addresses[0].ip: 127.0.0.1 is ") for reason in refused] == [True]


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("2026-01-01T00:00:00.123456789Z", True),
        ("2026-01-01T00:00:00+01:00", True),
        ("2026-01-01T00:00:00", False),
        ("yesterday", False),
        ("", False),
        (None, False),
    ],
)
def test_a_trigger_time_that_cannot_be_read_is_none(text, there):
    assert (trigger_time(EndpointAnnotations(text)) is not None) == there
    assert trigger_time(None) is None


def test_equal_hints_are_one_value_in_memory():
    """There may be a hundred thousand."""
    made = [make_endpoint(f"10.0.0.{last}", zone="zone-a", for_zones=["b", "a"]) for last in range(1, 4)]
    first, second, third = read(endpoints=made)[0].candidates
    assert first.zone_hints == ("a", "b")
    assert first.zone_hints is second.zone_hints is third.zone_hints
    assert first.address == ip_address("10.0.0.1")


CONDITION = st.sampled_from([None, True, False])
PLACE = st.sampled_from([None, "a", "b"])
NAMES = st.none() | st.lists(st.sampled_from(["node-a", "node-b", "a", "b"]), max_size=2)
ENDPOINT = st.builds(
    lambda last, **fields: make_endpoint(f"10.0.0.{last}", **fields),
    st.integers(1, 4),
    node=st.sampled_from([None, "node-a", "node-b"]),
    zone=PLACE,
    for_zones=NAMES,
    for_nodes=NAMES,
    ready=CONDITION,
    serving=CONDITION,
    terminating=CONDITION,
)


@given(st.lists(st.lists(ENDPOINT, max_size=4), max_size=4), st.randoms())
def test_the_order_of_slices_and_endpoints_does_not_matter(made, random):
    def seen():
        slices = [each for endpoints in made for each in read(endpoints=endpoints)]
        return reach(places(slices, "http", Protocol.TCP, Family.V4), "a", {})

    before = seen()
    random.shuffle(made)
    for each in made:
        random.shuffle(each)
    assert seen() == before
