import pytest
from builders import json, make_endpoint, make_endpoint_slice
from hypothesis import given
from hypothesis import strategies as st

from controlloop.family import Family
from proxy.endpoints import endpoints, read_slice
from proxy.frontends import Protocol, ServiceName
from proxy.objects import Kind, RefusedError, decode


def read(**fields):
    return read_slice(decode(Kind.ENDPOINT_SLICE, json(make_endpoint_slice(**fields))), "node-a")


def served(*slices, port="http", protocol=Protocol.TCP, family=Family.V4):
    return [str(endpoint) for endpoint in endpoints(slices, port, protocol, family)]


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
    web = read_slice(decode(Kind.ENDPOINT_SLICE, json(made)), "node-a")
    assert served(web, port="") == ["10.244.1.5:8080"]


def test_each_family_has_its_own_endpoints():
    v4, v6 = read(), read(name="web-2", address_type="IPv6", endpoints=["fd00::5"])
    assert served(v4, v6) == ["10.244.1.5:8080"]
    assert served(v4, v6, family=Family.V6) == ["[fd00::5]:8080"]


def test_local_is_what_runs_on_this_node_or_does_not_say_where():
    web = read(
        endpoints=[make_endpoint("10.0.0.1", node="node-a"), make_endpoint("10.0.0.2", node="node-b"), "10.0.0.3"]
    )
    assert [each.is_local for each in endpoints([web], "http", Protocol.TCP, Family.V4)] == [True, False, True]


def test_slices_that_serve_nothing_are_left_out():
    assert read(service=None) is None
    assert read(labels={"service.kubernetes.io/headless": ""}) is None
    assert read(address_type="FQDN", endpoints=["web.example"]) is None
    assert read(namespace="prod").service == ServiceName("prod", "web")


@pytest.mark.parametrize("address", ["fd00::1", "127.0.0.1", "10.0.0.1 }", "web.example"])
def test_a_wrong_address_refuses_the_slice_and_is_named(address):
    with pytest.raises(RefusedError, match=r"^endpoints\[1\]\.addresses\[0\]: "):
        read(endpoints=["10.0.0.1", address])


CONDITION = st.sampled_from([None, True, False])
ENDPOINT = st.builds(
    lambda last, ready, serving, terminating: make_endpoint(
        f"10.0.0.{last}", ready=ready, serving=serving, terminating=terminating
    ),
    st.integers(1, 4),
    CONDITION,
    CONDITION,
    CONDITION,
)


@given(st.lists(st.lists(ENDPOINT, max_size=4), max_size=4), st.randoms())
def test_the_order_of_slices_and_endpoints_does_not_matter(made, random):
    before = served(*(read(endpoints=each) for each in made))
    random.shuffle(made)
    for each in made:
        random.shuffle(each)
    assert served(*(read(endpoints=each) for each in made)) == before
