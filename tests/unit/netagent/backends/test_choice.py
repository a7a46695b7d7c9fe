"""Every backend as its options, its leases and its objects, on one small overlay."""

from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlloop.errors import OperatorError, Skipped
from controlloop.family import Family
from netagent.backends.alloc import Alloc
from netagent.backends.backend import Node
from netagent.backends.choice import parse_backend
from netagent.backends.host_gw import HostGw
from netagent.backends.vxlan import Vxlan
from netagent.desired import grounds, lease_attrs, own_state, peer_state, pod_mtu
from netagent.state import Underlay
from subnet_alloc.codec import parse_lease, render_attrs
from subnet_alloc.model import Lease

UNDERLAY = {
    Family.V4: Underlay("eth0", 1500, ip_address("192.0.2.1"), frozenset({ip_network("192.0.2.0/24")})),
    Family.V6: Underlay("eth0", 1500, ip_address("2001:db8::1"), frozenset({ip_network("2001:db8::/64")})),
}
PUBLIC_IP = {family: underlay.address for family, underlay in UNDERLAY.items()}
OWN_SUBNETS = {Family.V4: ip_network("10.5.1.0/24"), Family.V6: ip_network("fc00:5:1::/64")}


def node(backend):
    return Node("node-a", backend, UNDERLAY, PUBLIC_IP)


def lines(backend, backend_type, data="", ip="192.0.2.2", ip6="2001:db8::2"):
    """What a dual-stack peer with this lease becomes."""
    value = f'{{"PublicIP":"{ip}","PublicIPv6":"{ip6}","BackendType":"{backend_type}"{data}}}'
    here = node(backend)
    own = Lease(OWN_SUBNETS, lease_attrs(here))
    state = peer_state("peer", parse_lease("10.5.2.0-24&fc00:5:2::-64", value.encode()), here, grounds(here, own))
    return state if isinstance(state, Skipped) else [f"{key} {value}" for key, value in state.items()]


REFUSED = {
    'Backend.Type "foo": not a backend': "foo",
    'Backend.Type "": not a backend': "",
    'Backend.Type "udp": it copies each packet through a program; use vxlan': "udp",
    'Backend.Type "ipsec": it needs': "ipsec",
    'Backend.Type "tencent-vpc": it writes': "tencent-vpc",
    'Backend.Type "extension": it runs commands': "extension",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_not_served_is_refused_with_what_to_use_instead(words):
    with pytest.raises(OperatorError) as refused:
        parse_backend(REFUSED[words], {})
    assert str(refused.value).startswith(words)
    assert "use" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_host_gw_routes_through_the_peers_themselves():
    assert parse_backend("Host-GW", {}) == HostGw()
    assert lines(HostGw(), "host-gw") == [
        "route 10.5.2.0/24 via 192.0.2.2 dev eth0 proto 78",
        "route fc00:5:2::/64 via 2001:db8::2 dev eth0 proto 78 metric 1024",
    ]
    assert pod_mtu(node(HostGw())) == 1500
    assert own_state(node(HostGw()), Lease(OWN_SUBNETS, lease_attrs(node(HostGw())))) == {}
    assert render_attrs(lease_attrs(node(HostGw()))) == (
        b'{"PublicIP":"192.0.2.1","PublicIPv6":"2001:db8::1","BackendType":"host-gw"}'
    )


def test_host_gw_does_not_start_where_the_public_ip_is_no_address_of_the_link():
    outside = replace(node(HostGw()), public_ip={**PUBLIC_IP, Family.V4: ip_address("203.0.113.7")})
    with pytest.raises(
        OperatorError, match=r"public IP 203\.0\.113\.7, which must be the address of eth0, 192\.0\.2\.1"
    ):
        HostGw().check(outside)
    HostGw().check(node(HostGw()))


def test_alloc_leases_and_forwards_nothing():
    assert parse_backend("alloc", {}) == Alloc()
    here = node(Alloc())
    assert render_attrs(lease_attrs(here)) == b'{"PublicIP":"192.0.2.1","PublicIPv6":"2001:db8::1"}'
    own = Lease(OWN_SUBNETS, lease_attrs(here))
    assert own_state(here, own) == {}
    peer = parse_lease("10.5.2.0-24", b'{"PublicIP":"192.0.2.2","PublicIPv6":null}')
    assert peer_state("peer", peer, here, grounds(here, own)) == {}


VTEPS = ',"BackendData":{"VNI":1,"VtepMAC":"82:00:00:00:00:02"},"BackendV6Data":{"VNI":1,"VtepMAC":"82:00:00:00:00:22"}'
DIRECT_V4 = "route 10.5.2.0/24 via 192.0.2.2 dev eth0 proto 78"
DIRECT_V6 = "route fc00:5:2::/64 via 2001:db8::2 dev eth0 proto 78 metric 1024"


def test_direct_routing_needs_no_envelope_on_the_own_link():
    assert lines(Vxlan(direct_routing=True), "vxlan", VTEPS) == [DIRECT_V4, DIRECT_V6]


def test_each_family_is_direct_or_not_for_itself():
    found = lines(Vxlan(direct_routing=True), "vxlan", VTEPS, ip6="2001:db8:1::2")
    assert found[0] == DIRECT_V4
    assert [line.split()[0] for line in found[1:]] == ["fdb", "neighbor", "route"]


def test_without_direct_routing_even_neighbors_get_an_envelope():
    assert len(lines(Vxlan(), "vxlan", VTEPS)) == 6


@pytest.mark.parametrize("backend_type", ["vxlan", "Host-GW", ""])
def test_a_lease_of_another_backend_is_skipped(backend_type):
    skipped = lines(HostGw(), backend_type)
    assert skipped.reason == f'BackendType "{backend_type}": this overlay is host-gw'


NAMES = [
    "VNI",
    "port",
    "MTU",
    "GBP",
    "Learning",
    "directRouting",
    "ListenPort",
    "PSK",
    "PersistentKeepaliveInterval",
    "Mode",
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.flannel("28")
@given(
    st.sampled_from(["vxlan", "host-gw", "wireguard", "ipip", "alloc", "udp"]) | st.text(max_size=8),
    st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=8), json_values, max_size=4),
)
def test_any_options_are_understood_or_refused(backend_type, options):
    with suppress(OperatorError):
        parse_backend(backend_type, options)
