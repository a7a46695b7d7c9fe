"""What each Service's port was used for, as the kernel counts it, on every way that packets take through the node."""

import asyncio

import pytest
from manifests import port, service, slices
from namespace import inside
from network import ADDRESSES

from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.reconcile import reconcile
from proxy.counting.desired import CountingPlanner
from proxy.counting.kernel import CountingBackend, read_counts

pytestmark = pytest.mark.kube_proxy("gap 5.7-12")

both_families = pytest.mark.parametrize("family", Family)

DATA = b"x" * 200_000
THERE_AND_BACK = 2 * len(DATA)
WITH_HEADERS = 1.2 * THERE_AND_BACK
"""Less than what is counted when one direction is counted twice."""


class Counting:
    """Counts beside a proxy of any variant."""

    def __init__(self, rig):
        self.rig = rig
        self.backends = {family: CountingBackend(family) for family in Family}

    def follow(self):
        """What the rig serves by now."""
        for family, backend in self.backends.items():
            planner = CountingPlanner(self.rig.surroundings[family])
            planner.replace_all(self.rig.frontends, Delta())
            with inside(self.rig.namespace):
                asyncio.run(reconcile(lambda planner=planner: planner.objects, backend))

    def given(self, *objects, **surroundings):
        self.rig.given(*objects, **surroundings)
        self.follow()

    def end(self):
        with inside(self.rig.namespace):
            for backend in self.backends.values():
                asyncio.run(backend.cleanup())
        assert counts(self.rig) == {}


@pytest.fixture
def counting(rig):
    made = Counting(rig)
    yield made
    made.end()


def counts(rig):
    with inside(rig.namespace):
        return read_counts(Family)


def counted(rig, family, place):
    """Connections and bytes."""
    found = counts(rig)
    return found["connections", (family.value, place)], found["bytes", (family.value, place)]


def cluster_ip(family, protocol="tcp"):
    return f"{ADDRESSES['cluster-ip'][family]} . {protocol} . 80"


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
def test_each_packet_counts_once(rig, counting, family, caller, server):
    counting.given(service(), slices(server))
    for _ in range(3):
        assert rig.echo(DATA, caller, "cluster-ip", 80, family=family) == len(DATA)
    connections, size = counted(rig, family, cluster_ip(family))
    assert connections == 3
    assert 3 * THERE_AND_BACK < size < 3 * WITH_HEADERS


@both_families
@pytest.mark.parametrize("served", [("node-1",), None], ids=["at-one-address", "at-all-addresses"])
def test_a_call_to_a_node_port_counts_there_alone(rig, counting, family, served):
    addresses = served and (lambda each: frozenset(ADDRESSES[name][each] for name in served))
    made = service(type="NodePort", ports=[port(node=30080)])
    counting.given(made, slices("pod-2-1"), node_port_addresses=addresses)
    assert rig.echo(DATA, "client", "node-1", 30080, family=family) == len(DATA)
    connections, size = counted(rig, family, "tcp . 30080")
    assert connections == 1
    assert THERE_AND_BACK < size < WITH_HEADERS
    assert counted(rig, family, cluster_ip(family)) == (0, 0)


@both_families
@pytest.mark.parametrize("protocol", ["UDP", "SCTP"])
def test_protocols_without_connections_count_flows(rig, counting, family, protocol):
    counting.given(service(ports=[port(protocol=protocol)]), slices("pod-2-1", ports=[port(8080, protocol)]))
    for _ in range(2):
        (call,) = rig.call("pod-1-3", "cluster-ip", 80, protocol=protocol.lower(), family=family)
        assert call.outcome == "pod-2-1"
    connections, size = counted(rig, family, cluster_ip(family, protocol.lower()))
    assert connections == 2
    assert size


@both_families
def test_refused_calls_do_not_count(rig, counting, family):
    counting.given(service(), slices())
    (call,) = rig.call("pod-1-3", "cluster-ip", 80, family=family)
    assert call.outcome == "refused"
    assert counted(rig, family, cluster_ip(family)) == (0, 0)


@both_families
def test_counts_outlive_changes(rig, counting, family):
    counting.given(service(), slices("pod-1-1"))
    assert rig.echo(DATA, "pod-1-3", "cluster-ip", 80, family=family) == len(DATA)
    _, size_before = counted(rig, family, cluster_ip(family))
    rig.add(slices("pod-2-1"))
    rig.add(service(sessionAffinity="ClientIP"))
    rig.add(slices())
    rig.surround(masquerade_all=True)
    rig.add(service("other", "cluster-ip-2"), slices("pod-1-2", of="other"))
    counting.follow()
    rig.remove(service("other", "cluster-ip-2"))
    rig.restart(service(), slices("pod-2-1"))
    counting.follow()
    connections, size = counted(rig, family, cluster_ip(family))
    assert connections == 1
    assert THERE_AND_BACK < size_before <= size
