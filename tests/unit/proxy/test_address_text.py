from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.address_text import parse_address, parse_network
from proxy.objects import RefusedError

NO_ADDRESS = ["", ":", "10.0.0", "10.0.0.1.", "10..0.1", "10.0.0.256", "10.0.0.1/24", "0x0a.0.0.1", "167772161"]
NO_ADDRESS += ["10.0.0.1 }", "1\u0661.0.0.1", "10.0.0.1\n", " 10.0.0.1", "-1.0.0.1", "10.0.0.0001000"]
SCOPED = ["fd00::1%eth0", "fd00::1%}; flush ruleset"]
SPECIAL = ["127.0.0.1", "0.0.0.0", "224.0.0.1", "169.254.1.1", "::", "::1", "fe80::1", "ff02::1", "::ffff:127.0.0.1"]


@pytest.mark.kube_proxy("6.1-25")
@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("10.96.0.10", "10.96.0.10"),
        ("010.096.000.010", "10.96.0.10"),
        ("0000010.96.0.00255", "10.96.0.255"),
        ("fd00:0:0::1", "fd00::1"),
        ("fd00::0001", "fd00::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("240.0.0.1", "240.0.0.1"),
    ],
)
def test_addresses_are_normalised(text, meant):
    assert parse_address("spec.clusterIP", text) == ip_address(meant)


@pytest.mark.parametrize("text", [*NO_ADDRESS, *SCOPED, *SPECIAL])
def test_what_is_no_usable_address_is_refused(text):
    """The text behind a % would otherwise be printed into a rule as it stands."""
    with pytest.raises(RefusedError, match=r"^spec\.clusterIP: ") as caught:
        parse_address("spec.clusterIP", text)
    assert str(caught.value).isprintable()


def is_elsewhere(address):
    return address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified


EDGES = ["0.0.0.1", "126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0", "223.255.255.255", "240.0.0.0"]
EDGES += ["::2", "fe7f:ffff::", "fec0::", "feff:ffff::", "127.255.255.255", "239.255.255.255", "febf:ffff::", "ffff::"]


@given(st.ip_addresses() | st.sampled_from(EDGES).map(ip_address))
def test_an_address_is_refused_exactly_where_it_means_something_else_on_every_node(address):
    # ::ffff:0:0/96 is another way to write IPv4.
    meant = getattr(address, "ipv4_mapped", None) or address
    if is_elsewhere(meant):
        with pytest.raises(RefusedError, match="is loopback, link-local, multicast or unspecified"):
            parse_address("x", str(address))
    else:
        assert parse_address("x", str(address)) == meant


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        (" 10.0.0.0/8\n", "10.0.0.0/8"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("010.0.0.0/08", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("fd00::1/64", "fd00::/64"),
        ("127.0.0.1/32", "127.0.0.1/32"),
    ],
)
def test_networks_are_trimmed_and_cut_to_their_prefix(text, meant):
    assert parse_network("spec.loadBalancerSourceRanges[0]", text) == ip_network(meant)


NO_NETWORK = ["", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/255.0.0.0"]
NO_NETWORK += ["10.0.0.0/\u0668", "fd00::/129", "fd00::%e/64", "::ffff:10.0.0.0/104", "::ffff:10.0.0.0/8", "/8", "a/8"]
NO_NETWORK += ["10.0.0.0/8/8", "10.0.0.0/8 }; flush ruleset"]


@pytest.mark.parametrize("text", NO_NETWORK)
def test_what_is_no_network_is_refused(text):
    with pytest.raises(RefusedError, match=r"^spec\.x: .*is not a network ADDRESS/LENGTH$"):
        parse_network("spec.x", text)


@given(st.text())
def test_any_text_is_an_address_a_network_or_refused(text):
    for parse in (parse_address, parse_network):
        try:
            parse("x", text)
        except RefusedError as error:
            assert str(error).isprintable()  # noqa: PT017 - most texts are refused, and some may not be
