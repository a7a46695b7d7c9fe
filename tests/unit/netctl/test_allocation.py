"""What a Service lacks, what it keeps, and what is free."""

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from controlloop.errors import OperatorError
from netctl.apply.allocation import claims_of, free, given, kept, lacking, parse_pools

POOLS = parse_pools("10.96.0.0/24", "30000-30003")
DUAL = parse_pools("10.96.0.0/24,fd00:96::/112", "30000-30003")


def service(*ports, **spec):
    """Ports as numbers, or whole."""
    listed = [port if isinstance(port, dict) else {"port": port} for port in ports]
    return {"metadata": {"name": "web"}, "spec": {"ports": listed, **spec}}


def kinds(document, pools=POOLS):
    return [pool.kind if pool.family is None else pool.family.value for pool in lacking(document, pools)]


@pytest.mark.parametrize(
    ("spec", "pools", "lacks"),
    [
        ({}, POOLS, [4]),
        ({"clusterIP": ""}, POOLS, [4]),
        ({"clusterIP": "10.96.0.9"}, POOLS, []),
        ({"clusterIPs": ["10.96.0.9"]}, DUAL, []),
        ({"clusterIP": "None"}, POOLS, []),
        ({"type": "ExternalName"}, POOLS, []),
        ({}, DUAL, [4]),
        ({"ipFamilies": ["IPv6"]}, DUAL, [6]),
        ({"ipFamilyPolicy": "PreferDualStack"}, DUAL, [4, 6]),
        ({"ipFamilyPolicy": "PreferDualStack"}, POOLS, [4]),
        ({"ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "RequireDualStack"}, DUAL, [6, 4]),
        ({"clusterIP": "10.96.0.9", "ipFamilyPolicy": "PreferDualStack"}, DUAL, [6]),
        ({"clusterIP": "10.96.0.9", "type": "NodePort"}, POOLS, ["nodeports"]),
        ({"clusterIP": "10.96.0.9", "type": "LoadBalancer"}, POOLS, ["nodeports"]),
        ({"clusterIP": "10.96.0.9", "type": "LoadBalancer", "allocateLoadBalancerNodePorts": False}, POOLS, []),
        (
            {"clusterIP": "10.96.0.9", "type": "LoadBalancer", "externalTrafficPolicy": "Local"},
            POOLS,
            ["nodeports", "nodeports"],
        ),
    ],
)
def test_what_is_missing(spec, pools, lacks):
    assert kinds(service(80, **spec), pools) == lacks


def test_an_address_counts_however_it_is_spelt():
    odd = service(80, clusterIP="10.096.000.9", ipFamilyPolicy="PreferDualStack")
    assert kinds(odd, DUAL) == [6]
    assert claims_of(odd) == {"clusterips/10.96.0.9"}
    assert claims_of({"spec": {"clusterIPs": [7, "x", "None", None]}}) == set()


def test_a_node_port_that_is_given_is_not_missing():
    assert kinds(service({"port": 80, "nodePort": 30007}, 443, type="NodePort", clusterIP="10.96.0.9")) == ["nodeports"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"ipFamilies": ["IPv6"]}, "ipFamilies IPv6: no address range of that family"),
        ({"ipFamilyPolicy": "RequireDualStack"}, "RequireDualStack: the address ranges have one family"),
    ],
)
def test_a_family_without_a_range_is_named(spec, words):
    with pytest.raises(OperatorError, match=words):
        lacking(service(80, **spec), POOLS)


def test_what_is_given_stands_where_it_was_missing():
    made = given(
        service(80, {"port": 443, "nodePort": 30007}, type="LoadBalancer", externalTrafficPolicy="Local"),
        ["clusterips/10.96.0.5", "nodeports/30000", "nodeports/30001"],
    )
    assert (made["spec"]["clusterIP"], made["spec"]["clusterIPs"]) == ("10.96.0.5", ["10.96.0.5"])
    assert [port["nodePort"] for port in made["spec"]["ports"]] == [30000, 30007]
    assert made["spec"]["healthCheckNodePort"] == 30001
    assert lacking(made, POOLS) == []
    assert claims_of(made) == {"clusterips/10.96.0.5", "nodeports/30000", "nodeports/30001", "nodeports/30007"}


def test_what_was_given_is_kept_for_the_port_it_was_given_to():
    stored = given(service(80, 443, type="NodePort"), ["clusterips/10.96.0.5", "nodeports/30000", "nodeports/30001"])
    again = kept(service(443, {"port": 53, "protocol": "UDP"}, 80, type="NodePort"), stored)
    assert again["spec"]["clusterIPs"] == ["10.96.0.5"]
    assert [port.get("nodePort") for port in again["spec"]["ports"]] == [30001, None, 30000]
    assert kept(service(80), stored)["spec"] == {
        "ports": [{"port": 80}],
        "clusterIP": "10.96.0.5",
        "clusterIPs": ["10.96.0.5"],
    }


def test_what_asks_for_something_else_is_not_given_the_old():
    stored = given(service(80, type="NodePort"), ["clusterips/10.96.0.5", "nodeports/30000"])
    for asked in (
        service(80, clusterIP="10.96.0.6"),
        service(80, clusterIP="None"),
        service(type="ExternalName"),
        service({"port": 80, "nodePort": 30003}, clusterIP="10.96.0.6", type="NodePort"),
    ):
        assert kept(asked, stored) == asked
    assert kept(service(80), service(80, clusterIP="None")) == service(80), "a headless one had no address to keep"


def test_free_is_what_nobody_took_from_one_place_on_and_around():
    assert list(free(POOLS.ports, {"nodeports/30001"}, 2)) == ["nodeports/30002", "nodeports/30003", "nodeports/30000"]
    (addresses,) = POOLS.addresses.values()
    claims = list(free(addresses, set(), 0))
    assert (claims[0], claims[-1], len(claims)) == ("clusterips/10.96.0.1", "clusterips/10.96.0.254", 254)
    assert next(free(DUAL.addresses[list(DUAL.addresses)[1]], set(), 3)) == "clusterips/fd00:96::4"


@pytest.mark.parametrize("text", ["10.96.0.1/12", "10.96.0.0/31", "10.0.0.0/8,10.96.0.0/12", "x", ""])
def test_a_range_of_addresses_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match=r"\S"):
        parse_pools(text, "1-2")


@pytest.mark.parametrize("text", ["30000", "2-1", "0-5", "1-65536", "a-b", "-1-5"])
def test_a_range_of_ports_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="is not FIRST-LAST"):
        parse_pools("10.96.0.0/12", text)


@for_all(st.sets(st.integers(30000, 30003), max_size=3), st.integers(0, 3))
def test_a_free_one_is_always_found(taken, start):
    claims = {f"nodeports/{number}" for number in taken}
    assert set(free(POOLS.ports, claims, start)) == {f"nodeports/{number}" for number in range(30000, 30004)} - claims
