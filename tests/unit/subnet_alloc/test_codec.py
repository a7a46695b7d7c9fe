import json
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlloop.errors import OperatorError
from controlloop.family import Family
from subnet_alloc.codec import (
    ConfigError,
    MalformedError,
    option,
    parse_config,
    parse_key,
    parse_lease,
    render_attrs,
    render_key,
)
from subnet_alloc.model import LeaseAttrs

KEY = "10.5.34.0-24"
DUAL_KEY = "10.5.34.0-24&fc00:5:22::-64"
VTEP = {"VNI": 1, "VtepMAC": "82:4b:b6:2f:54:4e"}


def v4_range(text):
    return parse_config(text.encode()).ranges[Family.V4]


def v6_range(**fields):
    document = {"EnableIPv4": False, "EnableIPv6": True, **fields}
    return parse_config(json.dumps(document).encode()).ranges[Family.V6]


def shape(subnets):
    return subnets.subnet_len, str(subnets.subnet_min), str(subnets.subnet_max)


# -- network configuration ------------------------------------------------------------------------------------------


@pytest.mark.flannel("1")
@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("10.5.0.0/16", (24, "10.5.1.0", "10.5.255.0")),
        ("10.5.0.0/22", (24, "10.5.1.0", "10.5.3.0")),
        ("10.5.0.0/23", (25, "10.5.0.128", "10.5.1.128")),
        ("10.5.0.0/28", (30, "10.5.0.4", "10.5.0.12")),
    ],
)
def test_ipv4_defaults(network, expected):
    assert shape(v4_range(json.dumps({"Network": network}))) == expected


@pytest.mark.flannel("1")
@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("fc00::/48", (64, "fc00:0:0:1::", "fc00:0:0:ffff::")),
        ("fc00::/63", (65, "fc00::8000:0:0:0", "fc00:0:0:1:8000::")),
    ],
)
def test_ipv6_defaults(network, expected):
    assert shape(v6_range(IPv6Network=network)) == expected


@pytest.mark.flannel("2")
def test_given_lengths_and_bounds_are_kept():
    text = '{"Network":"10.3.0.0/16","SubnetMin":"10.3.5.0","SubnetMax":"10.3.8.0","SubnetLen":28}'
    assert shape(v4_range(text)) == (28, "10.3.5.0", "10.3.8.0")
    bounds = {"IPv6SubnetMin": "fc00::10", "IPv6SubnetMax": "fc00::20"}
    assert shape(v6_range(IPv6Network="fc00::/48", IPv6SubnetLen=124, **bounds)) == (124, "fc00::10", "fc00::20")


def test_the_first_subnet_is_allowed_when_asked_for():
    assert shape(v4_range('{"Network":"10.3.0.0/16","SubnetMin":"10.3.0.0"}'))[1] == "10.3.0.0"


def test_host_bits_of_the_network_are_masked():
    assert v4_range('{"Network":"10.5.3.4/16"}').network == IPv4Network("10.5.0.0/16")


def test_both_families_at_once():
    config = parse_config(b'{"EnableIPv6":true,"Network":"10.5.0.0/16","IPv6Network":"fc00::/48"}')
    assert {family: within.network for family, within in config.ranges.items()} == {
        Family.V4: IPv4Network("10.5.0.0/16"),
        Family.V6: IPv6Network("fc00::/48"),
    }


@pytest.mark.flannel("1")
def test_names_match_in_any_case_and_unknown_ones_are_ignored():
    config = parse_config(b'{"network":"10.5.0.0/16","SUBNETLEN":26,"wibble":[1],"backend":{"tYPE":"VXLAN","vni":7}}')
    assert config.ranges[Family.V4].subnet_len == 26
    assert config.backend_type == "vxlan"
    assert config.backend_options == {"vni": 7}


@pytest.mark.parametrize(
    "text",
    [
        '{"Network":"10.1.0.0/16","Network":"10.2.0.0/16"}',
        '{"Network":"10.1.0.0/16","network":"10.2.0.0/16"}',
        '{"network":"10.3.0.0/16","Network":"10.1.0.0/16","network":"10.2.0.0/16"}',
    ],
)
def test_the_last_duplicate_counts(text):
    assert v4_range(text).network == IPv4Network("10.2.0.0/16")


@pytest.mark.parametrize(
    ("backend", "expected"),
    [("", "udp"), (',"Backend":{}', ""), (',"Backend":null', ""), (',"Backend":{"Type":"host-gw"}', "host-gw")],
)
def test_backend_type(backend, expected):
    assert parse_config(f'{{"Network":"10.5.0.0/16"{backend}}}'.encode()).backend_type == expected


def test_nftables_is_off_unless_enabled():
    assert not parse_config(b'{"Network":"10.5.0.0/16"}').enable_nftables
    assert parse_config(b'{"Network":"10.5.0.0/16","enableNFTables":true}').enable_nftables


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ('{"Network":"10.5.0.0/16"} x', "is not JSON"),
        ('{"SubnetLen":NaN}', "NaN is no JSON number"),
        ("[]", "[] is not a JSON object"),
        ("{}", "Network is missing"),
        ('{"EnableIPv4":false}', "no IP family is left"),
        ('{"EnableIPv4":"yes"}', 'EnableIPv4 "yes" is neither true nor false'),
        ('{"EnableIPv6":true,"Network":"10.5.0.0/16"}', "IPv6Network is missing"),
        ('{"Network":"fc00::/48"}', 'Network "fc00::/48" is not an IPv4 network'),
        ('{"Network":"10.5.0.0"}', 'Network "10.5.0.0" is not an IPv4 network'),
        ('{"Network":"10.5.0.0/255.255.0.0"}', "is not an IPv4 network"),
        ('{"Network":"10.5.0.0/33"}', "is not an IPv4 network"),
        ('{"Network":10}', "Network 10 is not a string"),
        ('{"Network":"10.5.0.0/29"}', "Network 10.5.0.0/29 is too small: /28 at the most"),
        ('{"Network":"10.5.0.0/16","SubnetLen":31}', "SubnetLen 31 is not within 18 and 30"),
        ('{"Network":"10.5.0.0/16","SubnetLen":17}', "SubnetLen 17 is not within 18 and 30"),
        ('{"Network":"10.5.0.0/16","SubnetLen":"24"}', 'SubnetLen "24" is not a whole number'),
        ('{"Network":"10.5.0.0/16","SubnetLen":24.0}', "SubnetLen 24.0 is not a whole number"),
        ('{"Network":"10.5.0.0/16","SubnetLen":-1}', "SubnetLen -1 is not a whole number"),
        ('{"Network":"10.5.0.0/16","SubnetLen":true}', "SubnetLen true is not a whole number"),
        ('{"Network":"10.5.0.0/16","SubnetMin":"10.6.0.0"}', "SubnetMin 10.6.0.0 is outside 10.5.0.0/16"),
        ('{"Network":"10.5.0.0/16","SubnetMax":"10.5.9.7"}', "SubnetMax 10.5.9.7 is not where a subnet begins"),
        ('{"Network":"10.5.0.0/16","SubnetMin":"10.5.x"}', 'SubnetMin "10.5.x" is not an IPv4 address'),
        (
            '{"Network":"10.5.0.0/16","SubnetMin":"10.5.9.0","SubnetMax":"10.5.8.0"}',
            "SubnetMin 10.5.9.0 is above SubnetMax 10.5.8.0",
        ),
        ('{"Network":"10.5.0.0/16","Backend":"vxlan"}', 'Backend "vxlan" is not an object'),
        ('{"Network":"10.5.0.0/16","Backend":{"Type":3}}', "Type 3 is not a string"),
    ],
)
def test_a_bad_configuration_is_named_in_one_line(text, said):
    with pytest.raises(ConfigError) as caught:
        parse_config(text.encode())
    assert isinstance(caught.value, OperatorError)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ipv6_is_checked_by_the_same_rules():
    with pytest.raises(ConfigError, match="IPv6SubnetLen 127 is not within 50 and 126"):
        v6_range(IPv6Network="fc00::/48", IPv6SubnetLen=127)
    with pytest.raises(ConfigError, match="IPv6Network fc00::/125 is too small: /124"):
        v6_range(IPv6Network="fc00::/125")
    with pytest.raises(ConfigError, match="IPv6SubnetMin fd00:: is outside"):
        v6_range(IPv6Network="fc00::/48", IPv6SubnetMin="fd00::")


def test_an_option_is_found_in_any_case_and_the_last_one_counts():
    options = parse_config(b'{"Network":"10.5.0.0/16","Backend":{"vni":1,"VNI":2,"Port":null}}').backend_options
    assert option(options, "Vni") == 2
    assert option(options, "port") is None
    assert option(options, "MTU") is None


# -- keys -----------------------------------------------------------------------------------------------------------


@pytest.mark.flannel("3")
def test_keys_of_one_and_of_both_families():
    assert parse_key(KEY) == {Family.V4: ip_network("10.5.34.0/24")}
    assert parse_key(DUAL_KEY) == {Family.V4: ip_network("10.5.34.0/24"), Family.V6: ip_network("fc00:5:22::/64")}


def test_a_node_without_ipv4_has_a_key_that_flannel_can_parse():
    subnets = {Family.V6: ip_network("fc00:5:22::/64")}
    assert render_key(subnets) == "0.0.0.0-0&fc00:5:22::-64"
    assert parse_key("0.0.0.0-0&fc00:5:22::-64") == subnets


@pytest.mark.flannel("3")
@pytest.mark.parametrize(
    "text",
    [
        "10",
        "10.12.13.0",
        "10.12.13-24",
        "10.12.13.300-24",
        "10.12.13.0-24hi",
        *(
            f"10.12.13.0-24&{v6}"
            for v6 in ("", ":12:13:-56", "20011::-56", "2001-56", "2001::", "2001::-56hi", "2001::-128", "2001::-0")
        ),
        "&2001::-56",
        "junk10.5.1.0-24",
        "10.5.1.5-24",
        "10.5.1.0-024",
        "10.5.1.0-32",
        "0.0.0.0-0",
        "010.5.1.0-24",
        "10.5.34.0-24&FC00::-64",
        "10.5.34.0-24&fc00:0::-64",
        "10.5.34.0-24&fc00::1-64",
        "10.5.34.0-24\n",
        "10.5.34.0-٢٤",
        "10.5.34.0-" + "9" * 5000,
    ],
)
def test_a_malformed_key_is_refused(text):
    with pytest.raises(MalformedError):
        parse_key(text)


def networks(version, bits):
    return st.builds(
        lambda address, length: ip_network((address, length), strict=False),
        st.ip_addresses(v=version),
        st.integers(1, bits - 1),
    )


V4, V6 = networks(4, 32), networks(6, 128)
SUBNETS = st.one_of(
    st.fixed_dictionaries({Family.V4: V4}),
    st.fixed_dictionaries({Family.V6: V6}),
    st.fixed_dictionaries({Family.V4: V4, Family.V6: V6}),
)


@given(SUBNETS)
def test_a_key_says_the_subnets_it_was_made_of(subnets):
    assert parse_key(render_key(subnets)) == subnets


# -- lease values ---------------------------------------------------------------------------------------------------


def attrs_of(value):
    return parse_lease(KEY, value.encode()).attrs


@pytest.mark.flannel("5")
def test_the_value_is_what_flannel_writes_for_vxlan():
    attrs = LeaseAttrs({Family.V4: ip_address("1.2.3.4")}, "vxlan", {Family.V4: VTEP})
    assert render_attrs(attrs) == (
        b'{"PublicIP":"1.2.3.4","PublicIPv6":null,"BackendType":"vxlan",'
        b'"BackendData":{"VNI":1,"VtepMAC":"82:4b:b6:2f:54:4e"}}'
    )


def test_the_value_is_what_flannel_writes_for_two_families():
    public_ip = {Family.V4: ip_address("1.2.3.4"), Family.V6: ip_address("fd00::1")}
    assert render_attrs(LeaseAttrs(public_ip, "vxlan", {Family.V4: VTEP, Family.V6: VTEP})) == (
        b'{"PublicIP":"1.2.3.4","PublicIPv6":"fd00::1","BackendType":"vxlan",'
        b'"BackendData":{"VNI":1,"VtepMAC":"82:4b:b6:2f:54:4e"},'
        b'"BackendV6Data":{"VNI":1,"VtepMAC":"82:4b:b6:2f:54:4e"}}'
    )


@pytest.mark.flannel("5")
def test_the_value_leaves_out_what_is_empty():
    assert render_attrs(LeaseAttrs({Family.V4: ip_address("1.2.3.4")}, "")) == (
        b'{"PublicIP":"1.2.3.4","PublicIPv6":null}'
    )
    assert render_attrs(LeaseAttrs({Family.V6: ip_address("fd00::1")}, "host-gw")) == (
        b'{"PublicIP":"0.0.0.0","PublicIPv6":"fd00::1","BackendType":"host-gw"}'
    )


def test_the_value_escapes_what_go_escapes():
    attrs = LeaseAttrs({Family.V4: ip_address("1.2.3.4")}, "x", {Family.V4: "<é&>\u2028"})
    assert render_attrs(attrs).endswith('"BackendData":"\\u003cé\\u0026\\u003e\\u2028"}'.encode())


def test_the_reader_takes_names_in_any_case():
    attrs = attrs_of('{"publicip":"1.2.3.4","backendTYPE":"vxlan","backenddata":{"VNI":1}}')
    assert attrs == LeaseAttrs({Family.V4: ip_address("1.2.3.4")}, "vxlan", {Family.V4: {"VNI": 1}})


def test_without_public_ip_a_family_is_absent():
    assert attrs_of("{}") == LeaseAttrs({}, "", {})
    assert attrs_of('{"PublicIP":"0.0.0.0","PublicIPv6":null,"BackendData":null}') == LeaseAttrs({}, "", {})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "is not JSON"),
        ('{"PublicIP":"1.2.3.4"}}', "is not JSON"),
        ('"x"', '"x" is not a JSON object'),
        ('{"PublicIP":null}', "PublicIP null is not an IPv4 address"),
        ('{"PublicIP":""}', 'PublicIP "" is not an IPv4 address'),
        ('{"PublicIP":"fd00::1"}', 'PublicIP "fd00::1" is not an IPv4 address'),
        ('{"PublicIP":16909060}', "PublicIP 16909060 is not an IPv4 address"),
        ('{"PublicIPv6":""}', 'PublicIPv6 "" is not an IPv6 address'),
        ('{"PublicIPv6":"fe80::1%eth0"}', "is not an IPv6 address"),
        ('{"BackendType":1}', "BackendType 1 is not a string"),
        ('{"BackendData":"\\ud800"}', "is not JSON"),
        ('{"BackendData":' + "[" * 40 + "]" * 40 + "}", "nests deeper"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_a_malformed_value_is_named(value, said):
    with pytest.raises(MalformedError) as caught:
        attrs_of(value)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 250


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ADDRESSES = st.fixed_dictionaries({}, optional={Family.V4: st.ip_addresses(v=4), Family.V6: st.ip_addresses(v=6)}).map(
    lambda found: {family: address for family, address in found.items() if int(address)}
)
ATTRS = st.builds(
    LeaseAttrs,
    ADDRESSES,
    st.text(max_size=9),
    st.dictionaries(st.sampled_from(Family), JSON.filter(lambda value: value is not None), max_size=2),
)


@given(SUBNETS, ATTRS)
def test_a_lease_says_what_was_written(subnets, attrs):
    lease = parse_lease(render_key(subnets), render_attrs(attrs))
    assert lease.subnets == subnets
    assert lease.attrs.public_ip.get(Family.V4) == attrs.public_ip.get(Family.V4)
    assert lease.attrs.public_ip.get(Family.V6) == attrs.public_ip.get(Family.V6)
    assert lease.attrs.backend_type == attrs.backend_type
    assert lease.attrs.backend_data == attrs.backend_data


FIELDS = (
    "Network IPv6Network SubnetLen SubnetMin EnableIPv4 EnableIPv6 Backend PublicIP PublicIPv6 BackendType publicip"
)
NAMES = st.sampled_from(FIELDS.split())
ODD_VALUES = st.sampled_from(["10.5.0.0/16", "fc00::/48", "10.5.1.0", 24, {"Type": "vxlan"}, "0.0.0.0", "::"])
DOCUMENTS = st.dictionaries(NAMES, JSON | ODD_VALUES).map(lambda document: json.dumps(document).encode())


@pytest.mark.flannel("28")
@given(st.binary() | DOCUMENTS)
def test_a_configuration_of_any_bytes_is_read_or_refused(raw):
    try:
        parse_config(raw)
    except ConfigError as error:
        assert str(error).isprintable()  # noqa: PT017 - most inputs are refused, none may do anything else


@pytest.mark.flannel("28")
@given(st.text() | st.just(KEY), st.binary() | DOCUMENTS)
def test_a_record_of_any_bytes_is_read_or_refused(key, value):
    try:
        parse_lease(key, value)
    except MalformedError as error:
        assert str(error)  # noqa: PT017 - most inputs are refused, none may do anything else
