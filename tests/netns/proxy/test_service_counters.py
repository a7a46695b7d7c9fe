"""What each Service's port was used for, as the kernel counts it, on every way that packets take through the node."""

import asyncio

import pytest
from manifests import port, service, slices
from namespace import inside
from network import ADDRESSES
from rig import only_nftables

from controlloop.family import Family
from proxy.nftables.kernel import NftablesBackend, read_counts

pytestmark = [only_nftables, pytest.mark.kube_proxy("gap 5.7-12")]

both_families = pytest.mark.parametrize("family", Family)

DATA = b"x" * 200_000
THERE_AND_BACK = 2 * len(DATA)
WITH_HEADERS = 1.2 * THERE_AND_BACK
"""Less than what is counted when one direction is counted twice."""


@pytest.fixture(autouse=True)
def _from_zero(rig):
    """A place counts for as long as it is there."""
    rig.given()


def counts(rig):
    with inside(rig.namespace):
        return read_counts(Family)


def counted(rig, family, place):
    """Connections and bytes."""
    found = counts(rig)
    return found["connections", (family.value, place)], found["bytes", (family.value, place)]


def cluster_ip(family, protocol="tcp"):
    return f"{ADDRESSES['cluster-ip'][family]} . {protocol} . 80"


def given(rig, *pods, **spec):
    rig.given(service(**spec), slices(*pods), service_counters=True)


@both_families
@pytest.mark.parametrize(
    ("caller", "server"),
    [
        pytest.param("pod-1-3", "pod-2-1", id="forwarded"),
        pytest.param("pod-1-3", "pod-1-1", id="forwarded-and-back-to-the-bridge"),
        pytest.param("pod-1-1", "pod-1-1", id="to-itself"),
        pytest.param("node-1", "pod-2-1", id="from-this-node"),
        pytest.param("client", "node-1", id="to-this-node"),
        pytest.param("node-1", "node-1", id="from-this-node-to-itself"),
    ],
)
def test_each_packet_counts_once(rig, family, caller, server):
    given(rig, server)
    for _ in range(3):
        assert rig.echo(DATA, caller, "cluster-ip", 80, family=family) == len(DATA)
    connections, size = counted(rig, family, cluster_ip(family))
    assert connections == 3
    assert 3 * THERE_AND_BACK < size < 3 * WITH_HEADERS


@both_families
@pytest.mark.parametrize("served", [("node-1",), None], ids=["at-one-address", "at-all-addresses"])
def test_a_call_to_a_node_port_counts_there_alone(rig, family, served):
    addresses = served and (lambda each: frozenset(ADDRESSES[name][each] for name in served))
    made = service(type="NodePort", ports=[port(node=30080)])
    rig.given(made, slices("pod-2-1"), service_counters=True, node_port_addresses=addresses)
    assert rig.echo(DATA, "client", "node-1", 30080, family=family) == len(DATA)
    connections, size = counted(rig, family, "tcp . 30080")
    assert connections == 1
    assert THERE_AND_BACK < size < WITH_HEADERS
    assert counted(rig, family, cluster_ip(family)) == (0, 0)


@both_families
@pytest.mark.parametrize("protocol", ["UDP", "SCTP"])
def test_protocols_without_connections_count_flows(rig, family, protocol):
    rig.given(
        service(ports=[port(protocol=protocol)]), slices("pod-2-1", ports=[port(8080, protocol)]), service_counters=True
    )
    for _ in range(2):
        (call,) = rig.call("pod-1-3", "cluster-ip", 80, protocol=protocol.lower(), family=family)
        assert call.outcome == "pod-2-1"
    connections, size = counted(rig, family, cluster_ip(family, protocol.lower()))
    assert connections == 2
    assert size


@both_families
def test_refused_calls_do_not_count(rig, family):
    given(rig)
    (call,) = rig.call("pod-1-3", "cluster-ip", 80, family=family)
    assert call.outcome == "refused"
    assert counted(rig, family, cluster_ip(family)) == (0, 0)


@both_families
def test_counts_outlive_changes_and_repairs(rig, family):
    given(rig, "pod-1-1")
    assert rig.echo(DATA, "pod-1-3", "cluster-ip", 80, family=family) == len(DATA)
    _, size_before = counted(rig, family, cluster_ip(family))
    rig.add(slices("pod-2-1"))
    rig.add(service(sessionAffinity="ClientIP"))
    rig.add(slices())
    rig.surround(service_counters=True, masquerade_all=True)
    rig.add(service("other", "cluster-ip-2"), slices("pod-1-2", of="other"))
    backend = NftablesBackend(family, service_counters=True)
    with inside(rig.namespace):
        assert asyncio.run(backend.dump()) == rig.planners[family].objects
    # All is read back and compared, and what differs is written: here the elements of another Service.
    rig.remove(service("other", "cluster-ip-2"))
    rig.restart(service(), slices("pod-2-1"))
    connections, size = counted(rig, family, cluster_ip(family))
    assert connections == 1
    assert THERE_AND_BACK < size_before <= size


def test_without_the_flag_nothing_is_left_of_it(rig):
    given(rig, "pod-1-1")
    rig.given(service(), slices("pod-1-1"))
    assert counts(rig) == {}
    with inside(rig.namespace):
        for family in Family:
            assert asyncio.run(NftablesBackend(family).dump()) == rig.planners[family].objects
