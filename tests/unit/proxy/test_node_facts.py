"""What is known of a node, and what follows from it for rules and topology."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import msgspec
import pytest

from controlloop.etcd_settings import EtcdSettings
from controlloop.family import Family
from controlloop.goflags import Given
from proxy.config import (
    Detection,
    DetectLocal,
    KubernetesSettings,
    NodePortAddresses,
    ProxyMode,
    Settings,
)
from proxy.node import Interfaces
from proxy.node_facts import ApiNode, Facts, is_enough, node_of, surroundings_of

KUBERNETES = Settings("me", KubernetesSettings(Given("--kubeconfig", "/k"), Given("--master", "")))
ETCD = Settings("me", EtcdSettings(("http://e",), "/nodenet"))


def addresses(*texts):
    return tuple(map(ip_address, texts))


def networks(*texts):
    return tuple(map(ip_network, texts))


def api_node(*typed, pod_cidrs=(), zone="", **metadata):
    """Addresses as `InternalIP=10.0.0.1`."""
    made = {
        "metadata": {"name": "me", "labels": {"topology.kubernetes.io/zone": zone} if zone else None, **metadata},
        "spec": {"podCIDR": next(iter(pod_cidrs), ""), "podCIDRs": list(pod_cidrs) or None, "providerID": "x://1"},
        "status": {"addresses": [dict(zip(("type", "address"), each.split("="), strict=True)) for each in typed]},
    }
    return msgspec.json.decode(msgspec.json.encode(made), type=ApiNode)


@pytest.mark.kube_proxy("6.1-45")
@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ([], ()),
        (["Hostname=me"], ()),
        (["InternalIP=10.0.0.1"], ("10.0.0.1",)),
        (["ExternalIP=192.0.2.1", "InternalIP=10.0.0.1"], ("10.0.0.1",)),
        (["ExternalIP=192.0.2.1"], ("192.0.2.1",)),
        (["InternalIP=fd00::1", "InternalIP=10.0.0.1", "InternalIP=10.0.0.2"], ("fd00::1", "10.0.0.1")),
        (["InternalIP=10.0.0.1", "ExternalIP=fd00::1"], ("10.0.0.1", "fd00::1")),
        (["InternalIP=nonsense", "InternalIP=10.0.0.1"], ("10.0.0.1",)),
    ],
)
def test_the_nodes_addresses_are_the_first_of_each_family(typed, found):
    assert node_of(KUBERNETES, Facts(api_node(*typed))).addresses == addresses(*found)


@pytest.mark.kube_proxy("6.1-45")
def test_a_bind_address_is_the_first_of_its_family():
    facts = Facts(api_node("InternalIP=10.0.0.1", "InternalIP=fd00::1"))
    bound = replace(KUBERNETES, bind_address=ip_address("fd00::9"))
    assert node_of(bound, facts).addresses == addresses("fd00::9", "10.0.0.1")


def test_without_an_api_the_address_towards_the_world_and_the_flags_count():
    facts = Facts(outgoing=addresses("10.0.0.1", "fd00::1"))
    assert node_of(replace(ETCD, node_zone="b"), facts).addresses == addresses("10.0.0.1", "fd00::1")
    assert node_of(replace(ETCD, node_zone="b"), facts).zone == "b"
    assert node_of(replace(KUBERNETES, node_zone="b"), Facts(api_node(zone="a"))).zone == "a"
    assert node_of(replace(ETCD, bind_address=ip_address("10.9.9.9")), facts).addresses == addresses(
        "10.9.9.9", "fd00::1"
    )


CLUSTER = {Family.V4: ip_network("10.244.0.0/16")}
CIDRS = ("10.244.7.0/24", "fd00:7::/64")


@pytest.mark.kube_proxy("6.1-47")
@pytest.mark.parametrize(
    ("detection", "pod_cidrs", "v4", "v6"),
    [
        (Detection(), (), None, None),
        (Detection(cluster_cidrs=CLUSTER), CIDRS, ip_network("10.244.0.0/16"), None),
        (Detection(DetectLocal.NODE_CIDR, CLUSTER), CIDRS, ip_network("10.244.7.0/24"), ip_network("fd00:7::/64")),
        (Detection(DetectLocal.NODE_CIDR), CIDRS[:1], ip_network("10.244.7.0/24"), None),
        (Detection(DetectLocal.NODE_CIDR, CLUSTER), (), None, None),
        (Detection(DetectLocal.BRIDGE_INTERFACE, {}, "cni0"), CIDRS, Interfaces("cni0"), Interfaces("cni0")),
        (
            Detection(DetectLocal.INTERFACE_NAME_PREFIX, {}, "veth"),
            (),
            Interfaces("veth", is_prefix=True),
            Interfaces("veth", is_prefix=True),
        ),
    ],
)
def test_who_is_a_pod(detection, pod_cidrs, v4, v6):
    settings, facts = replace(KUBERNETES, detection=detection), Facts(api_node(pod_cidrs=pod_cidrs))
    assert [surroundings_of(settings, facts, family).pods for family in Family] == [v4, v6]


LOCAL = frozenset(addresses("127.0.0.1", "::1", "10.0.0.1", "192.0.2.1", "fd00::1"))
NODE = api_node("InternalIP=10.0.0.1")


@pytest.mark.parametrize(
    ("mode", "wanted", "v4", "v6"),
    [
        (ProxyMode.IPTABLES, NodePortAddresses(), None, None),
        (ProxyMode.NFTABLES, NodePortAddresses(), {"10.0.0.1"}, None),
        (ProxyMode.IPTABLES, NodePortAddresses(primary=True), {"10.0.0.1"}, None),
        (ProxyMode.NFTABLES, NodePortAddresses(networks=networks("0.0.0.0/0")), None, None),
        (ProxyMode.IPTABLES, NodePortAddresses(networks=networks("192.0.2.0/24")), {"192.0.2.1"}, None),
        (
            ProxyMode.NFTABLES,
            NodePortAddresses(networks=networks("192.0.2.0/24", "fd00::/8")),
            {"192.0.2.1"},
            {"fd00::1"},
        ),
        (ProxyMode.IPTABLES, NodePortAddresses(networks=networks("198.51.100.0/24")), set(), None),
        (ProxyMode.IPTABLES, NodePortAddresses(networks=networks("127.0.0.0/8", "10.0.0.0/8")), {"10.0.0.1"}, None),
    ],
)
def test_where_node_ports_are_served(mode, wanted, v4, v6):
    settings = replace(KUBERNETES, mode=mode, node_port_addresses=wanted)
    found = [surroundings_of(settings, Facts(NODE, LOCAL), family).node_port_addresses for family in Family]
    assert found == [None if texts is None else frozenset(map(ip_address, texts)) for texts in (v4, v6)]


def test_primary_with_an_unknown_address_limits_nothing():
    settings = replace(KUBERNETES, mode=ProxyMode.NFTABLES)
    assert surroundings_of(settings, Facts(local=LOCAL), Family.V4).node_port_addresses is None


@pytest.mark.parametrize(
    ("wanted", "on"),
    [
        (NodePortAddresses(), True),
        (NodePortAddresses(primary=True), False),
        (NodePortAddresses(networks=networks("10.0.0.0/8")), False),
        (NodePortAddresses(networks=networks("10.0.0.0/8", "127.0.0.0/8")), True),
        (NodePortAddresses(networks=networks("127.0.0.1/32")), True),
        (NodePortAddresses(networks=networks("0.0.0.0/0")), True),
        (NodePortAddresses(networks=networks("fd00::/8")), True),
    ],
)
def test_localhost_is_served_in_iptables_mode_and_ipv4_unless_the_list_leaves_it_out(wanted, on):
    settings = replace(KUBERNETES, node_port_addresses=wanted)

    def served(settings, family=Family.V4):
        return surroundings_of(settings, Facts(NODE, LOCAL), family).localhost_node_ports

    assert served(settings) is on
    assert not served(settings, Family.V6)
    assert not served(replace(settings, localhost_node_ports=False))
    assert not served(replace(settings, mode=ProxyMode.NFTABLES))


def test_the_rest_of_the_surroundings():
    settings = replace(KUBERNETES, masquerade_all=True, masquerade_bit=3)
    settings = replace(settings, conntrack=replace(settings.conntrack, tcp_be_liberal=True))
    facts = Facts(NODE, service_cidrs=networks("10.96.0.0/12", "fd00:96::/108", "10.200.0.0/16"))
    found = surroundings_of(settings, facts, Family.V4)
    assert (found.masquerade_all, found.mark, found.tcp_be_liberal) == (True, 8, True)
    assert found.service_cidrs == networks("10.96.0.0/12", "10.200.0.0/16")


@pytest.mark.kube_proxy("6.1-44")
def test_a_node_is_waited_for_until_its_addresses_and_where_needed_its_pod_cidrs_are_there():
    by_cidr = replace(KUBERNETES, detection=Detection(DetectLocal.NODE_CIDR))
    assert not is_enough(KUBERNETES, Facts())
    assert not is_enough(KUBERNETES, Facts(api_node()))
    assert is_enough(KUBERNETES, Facts(NODE))
    assert not is_enough(by_cidr, Facts(NODE))
    assert is_enough(by_cidr, Facts(api_node("InternalIP=10.0.0.1", pod_cidrs=CIDRS)))
    assert is_enough(ETCD, Facts())


@pytest.mark.kube_proxy("6.1-43")
def test_a_node_that_is_about_to_go_is_no_place_to_send_to():
    assert api_node().is_eligible
    assert not api_node(deletionTimestamp="2026-01-01T00:00:00Z").is_eligible
    leaving = {"metadata": {}, "spec": {"taints": [{"key": "x"}, {"key": "ToBeDeletedByClusterAutoscaler"}]}}
    assert not msgspec.convert(leaving, ApiNode).is_eligible
