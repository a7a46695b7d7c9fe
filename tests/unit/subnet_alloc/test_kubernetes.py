"""What annotations mean, and whose claim to a subnet counts."""

from contextlib import suppress
from ipaddress import ip_address

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlloop.errors import OperatorError, UnavailableError
from controlloop.family import Family
from subnet_alloc.annotations import OVERWRITE, Annotations, Node, parse_pod_cidrs
from subnet_alloc.claims import Claims
from subnet_alloc.codec import MalformedError, parse_lease, render_attrs
from subnet_alloc.model import Lease, LeaseAttrs
from subnet_alloc.registry import Record

ANNOTATIONS = Annotations.parse("flannel.alpha.coreos.com")


@pytest.mark.flannel("14")
@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("flannel.alpha.coreos.com", "flannel.alpha.coreos.com/"),
        ("flannel.alpha.coreos.com/", "flannel.alpha.coreos.com/"),
        ("flannel.alpha.coreos.com/blue", "flannel.alpha.coreos.com/blue-"),
        ("flannel.alpha.coreos.com/blue-", "flannel.alpha.coreos.com/blue-"),
        ("flannel.alpha.coreos.com/blue_2-", "flannel.alpha.coreos.com/blue_2-"),
        ("a-1.b", "a-1.b/"),
    ],
)
def test_a_prefix_is_completed(text, prefix):
    assert Annotations.parse(text).prefix == prefix


@pytest.mark.flannel("14")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "flannel",
        "flannel/blue",
        "flannel.coreos.com/blue/green",
        "flannel.coreos.com//",
        "Flannel.coreos.com",
        "flannel.coreos.com/Blue",
        "flannel.coreos.com/-",
        "flannel.coreos.com/a b",
        ".coreos.com",
        "flannel..com",
        "-flannel.com",
        "flannel.com\n",
        f"{'a.' * 127}com",
        f"{'a' * 64}.com",
        f"flannel.com/{'a' * 60}",
    ],
)
def test_another_prefix_is_refused_by_name(text):
    with pytest.raises(OperatorError) as caught:
        Annotations.parse(text)
    assert str(caught.value).startswith(f"--kube-annotation-prefix {text}: want ")


def node(*cidrs, name="n", annotations=None):
    raw = {
        "metadata": {"name": name, "resourceVersion": "7", "annotations": annotations or {}},
        "spec": {"podCIDRs": list(cidrs)},
    }
    return msgspec.json.decode(msgspec.json.encode(raw), type=Node)


addresses = {
    Family.V4: st.ip_addresses(v=4).filter(lambda one: not one.is_unspecified),
    Family.V6: st.ip_addresses(v=6),
}
backend_data = st.none() | st.dictionaries(
    st.text(max_size=8), st.text(max_size=8) | st.integers(-9, 9) | st.booleans(), max_size=3
)


@st.composite
def all_attrs(draw):
    families = draw(st.sampled_from([[Family.V4], [Family.V6], [Family.V4, Family.V6]]))
    public_ip = {family: draw(addresses[family]) for family in families}
    data = {family: draw(backend_data) for family in families}
    return LeaseAttrs(public_ip, draw(st.text(max_size=8)), {key: one for key, one in data.items() if one is not None})


@given(all_attrs())
def test_what_is_written_reads_like_a_lease_in_etcd(attrs):
    cidrs = ("10.5.1.0/24", "fc00:5:0:1::/64")
    written = node(
        *cidrs, annotations={f"{ANNOTATIONS.prefix}{k}": v for k, v in ANNOTATIONS.desired(node(), attrs).items()}
    )
    record = ANNOTATIONS.record(written)
    subnets = {family: subnet for family, subnet in parse_pod_cidrs(list(cidrs)).items() if family in attrs.public_ip}
    assert parse_lease(record.key, record.value) == Lease(subnets, attrs)
    assert parse_lease(record.key, render_attrs(attrs)) == Lease(subnets, attrs)
    assert ANNOTATIONS.difference(written, attrs) == {}


@pytest.mark.flannel("28")
@given(
    st.dictionaries(st.sampled_from(["public-ip", "public-ipv6", "backend-data", "backend-type"]), st.text(max_size=30))
)
def test_no_annotation_of_a_peer_raises_more_than_malformed(texts):
    texts = {f"{ANNOTATIONS.prefix}{name}": text for name, text in texts.items()}
    record = ANNOTATIONS.record(
        node("10.5.1.0/24", annotations={f"{ANNOTATIONS.prefix}kube-subnet-manager": "true", **texts})
    )
    with suppress(MalformedError):
        parse_lease(record.key, record.value)


def test_an_overwrite_of_the_other_family_is_refused():
    peer = node("10.5.1.0/24", annotations={f"{ANNOTATIONS.prefix}public-ipv6-overwrite": "10.0.0.1"})
    with pytest.raises(UnavailableError, match=r"public-ipv6-overwrite '10\.0\.0\.1' is not an IPv6 address"):
        ANNOTATIONS.address(peer, OVERWRITE, Family.V6)


def test_deep_backend_data_concerns_its_peer_alone():
    deep = "[" * 100_000
    attrs = {f"{ANNOTATIONS.prefix}{k}": v for k, v in {"kube-subnet-manager": "true", "public-ip": "1.2.3.4"}.items()}
    record = ANNOTATIONS.record(node("10.5.1.0/24", annotations={**attrs, f"{ANNOTATIONS.prefix}backend-data": deep}))
    assert parse_lease(record.key, record.value).attrs.public_ip == {Family.V4: ip_address("1.2.3.4")}


# -- claims ---------------------------------------------------------------------------------------------------------

records = st.none() | st.builds(Record, st.sampled_from("kl"), st.sampled_from([b"1", b"2"]), st.integers(1, 3))


@given(st.lists(st.tuples(st.sampled_from(["a", "me", "z"]), records)))
def test_batches_lead_where_a_fresh_listing_would(steps):
    claims, told, last = Claims("me"), {}, {}
    for node_name, record in steps:
        batch = claims.put(node_name, record, 9)
        assert not {one.key for one in batch.put} & set(batch.removed)
        told = {key: value for key, value in told.items() if key not in batch.removed}
        told.update({one.key: one.value for one in batch.put})
        last[node_name] = record
    fresh = Claims("me")
    fresh.replace(last.items())
    assert told == {one.key: one.value for one in fresh.records()} == {one.key: one.value for one in claims.records()}


def test_the_own_node_comes_first_then_the_first_by_name():
    claims = Claims("me")
    for name in ("z", "b"):
        claims.put(name, Record("k", name.encode(), 1), 1)
    assert claims.put("z", None, 2).put == ()
    claims.put("z", Record("k", b"z", 1), 3)
    assert claims.contested("z") == "b"
    assert claims.put("me", Record("k", b"me", 4), 4).put == (Record("k", b"me", 4),)
    assert (claims.contested("b"), claims.contested("me"), claims.contested("nobody")) == ("me", "", "")


def test_the_same_value_again_is_no_change():
    claims = Claims("me")
    claims.put("a", Record("k", b"1", 1), 1)
    batch = claims.put("a", Record("k", b"1", 2), 2)
    assert (batch.revision, batch.put, batch.removed) == (2, (), ())
