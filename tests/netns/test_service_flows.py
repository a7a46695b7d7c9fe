"""From an applied Service to an answered connection: etcd, daemons, overlay and pods of the CNI plugin together.

Where each kind of connection lands is judged without daemons, in tests/netns/proxy.
"""

from functools import partial
from ipaddress import ip_address

import pytest
from deadline import becomes, eventually

from lab.topology import POD_NETWORK
from lab.workload import apply, call, delete, endpoint_slice, service, spread

ONE_ON_EACH_NODE = ["pod-1-1", "pod-2-1", "pod-3-1"]
PROTOCOLS = ["TCP", "UDP"]


@pytest.fixture(scope="module")
def addresses(cluster):
    """A ClusterIP by name, each for TCP and UDP on port 80."""
    wanted = {
        "spread": (ONE_ON_EACH_NODE, "random"),
        "alone": (["pod-1-1"], None),
        "nobody": ([], None),
    }
    objects, result = [], {}
    for number, (name, (pods, balance)) in enumerate(wanted.items(), start=1):
        result[name] = f"10.96.7.{number}"
        for protocol in PROTOCOLS:
            full = f"{name}-{protocol.lower()}"
            objects.append(service(full, result[name], protocol=protocol, balance=balance))
            objects.append(endpoint_slice(full, cluster, pods, protocol=protocol))
    apply(cluster, *objects)
    for node in cluster.nodes:
        for name, address in result.items():
            for protocol in PROTOCOLS:
                answer = "pod-" if wanted[name][0] else "refused"
                eventually(partial(is_answered, node, address, protocol, answer))
    return result


def is_answered(node, address, protocol, answer):
    return call(node, address, 80, protocol=protocol.lower())[0].startswith(answer)


def source_of(answer):
    return ip_address(answer.split()[1])


@pytest.mark.flannel("25")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pod_to_cluster_ip_lands_on_an_endpoint_and_keeps_its_source(cluster, addresses, protocol):
    caller = cluster.host("pod-1-2")
    for answer in call(caller, addresses["spread"], 80, protocol=protocol.lower(), count=20):
        assert answer.split()[0] in ONE_ON_EACH_NODE
        assert source_of(answer) == cluster.pod_address("pod-1-2")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_node_to_cluster_ip_is_masqueraded(cluster, addresses, protocol):
    node = cluster.host("node-2")
    answers = call(node, addresses["spread"], 80, protocol=protocol.lower(), count=60)
    assert set(spread(answers)) == set(ONE_ON_EACH_NODE)
    # From 10.10.0.2 by itself; masqueraded it has the address of the interface it left by, and that is in the overlay.
    assert all(source_of(answer) in POD_NETWORK for answer in answers)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_client_outside_to_cluster_ip_is_masqueraded(cluster, addresses, protocol):
    answers = call(cluster.host("client"), addresses["spread"], 80, protocol=protocol.lower(), count=60)
    assert set(spread(answers)) == set(ONE_ON_EACH_NODE)
    assert all(source_of(answer) in POD_NETWORK for answer in answers)


def test_a_pod_reaches_its_neighbor_on_the_same_node(cluster, addresses):
    """Both are on one bridge, so the way back would bypass the node's rules unless bridged packets see them."""
    (answer,) = call(cluster.host("pod-1-2"), addresses["alone"], 80)
    assert answer == f"pod-1-1 {cluster.pod_address('pod-1-2')}"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_service_without_endpoints_refuses(cluster, addresses, protocol):
    assert call(cluster.host("pod-1-2"), addresses["nobody"], 80, protocol=protocol.lower()) == ["refused"]


def test_direct_traffic_between_pods_is_left_alone(cluster):
    target = str(cluster.pod_address("pod-3-1"))
    (answer,) = call(cluster.host("pod-1-1"), target, 8080)
    assert answer == f"pod-3-1 {cluster.pod_address('pod-1-1')}"


def test_an_endpoint_that_goes_gets_no_new_connections(cluster):
    address, name = "10.96.7.60", "shrinking"
    apply(cluster, service(name, address, balance="round-robin"), endpoint_slice(name, cluster, ONE_ON_EACH_NODE))
    caller = cluster.host("pod-1-2")
    becomes(lambda: set(spread(call(caller, address, 80, count=3))), set(ONE_ON_EACH_NODE))
    apply(cluster, endpoint_slice(name, cluster, ONE_ON_EACH_NODE[:2]))
    becomes(lambda: set(spread(call(caller, address, 80, count=3))), set(ONE_ON_EACH_NODE[:2]))
    assert spread(call(caller, address, 80, count=40)) == dict.fromkeys(ONE_ON_EACH_NODE[:2], 20)


def test_a_deleted_service_is_no_longer_translated(cluster):
    address, name = "10.96.7.61", "going"
    objects = [service(name, address), endpoint_slice(name, cluster, ["pod-2-1"])]
    apply(cluster, *objects)
    caller = cluster.host("pod-1-2")
    eventually(lambda: call(caller, address, 80), that=lambda said: said[0].startswith("pod-2-1"))
    delete(cluster, *objects)
    eventually(lambda: call(caller, address, 80), that=lambda said: not said[0].startswith("pod-"))
