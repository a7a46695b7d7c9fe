"""What netproxy's flags mean, and what it says of those it cannot use."""

from ipaddress import ip_network

import pytest

from controlloop.errors import OperatorError
from controlloop.family import Family
from proxy.config import SourceKind, choose_source, parse_cluster_cidrs, split_endpoints


@pytest.mark.parametrize(
    ("source", "manifests", "kind"),
    [
        (None, "", SourceKind.ETCD),
        ("etcd", "", SourceKind.ETCD),
        (None, "/etc/manifests", SourceKind.FILES),
        ("files", "/etc/manifests", SourceKind.FILES),
    ],
)
def test_where_services_come_from(source, manifests, kind):
    assert choose_source(source, manifests) is kind


@pytest.mark.parametrize(
    ("source", "manifests", "words"),
    [("files", "", "--source files: needs --manifests DIR"), ("etcd", "/x", "--manifests /x: not read")],
)
def test_flags_that_contradict_each_other_are_named(source, manifests, words):
    with pytest.raises(OperatorError, match=words):
        choose_source(source, manifests)


@pytest.mark.parametrize(
    ("text", "networks"),
    [
        ("", {}),
        ("10.244.0.0/16", {Family.V4: "10.244.0.0/16"}),
        ("10.244.0.0/16, fd00::/48", {Family.V4: "10.244.0.0/16", Family.V6: "fd00::/48"}),
    ],
)
def test_the_pod_network_is_known_by_family(text, networks):
    assert parse_cluster_cidrs(text) == {family: ip_network(network) for family, network in networks.items()}


@pytest.mark.parametrize("text", ["10.244.0.0/33", "10.244.0.1/16", "pods", "10.0.0.0/16,10.1.0.0/16"])
def test_a_pod_network_that_is_none_is_named(text):
    with pytest.raises(OperatorError, match=f"^--cluster-cidr {text}: "):
        parse_cluster_cidrs(text)


def test_endpoints_are_split_and_at_least_one_is_needed():
    assert split_endpoints("http://a:1, http://b:2,") == ("http://a:1", "http://b:2")
    with pytest.raises(OperatorError, match="--etcd-endpoints ',': "):
        split_endpoints(",")
