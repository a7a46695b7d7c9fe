"""Where a connection to a Service lands, and whom the endpoint sees: from, to, lands where, masqueraded or not."""

from ipaddress import ip_address

import pytest
from deadline import eventually

from lab.topology import POD_NETWORK
from lab.workload import apply, call, delete, endpoint_slice, service, spread

ONE_ON_EACH_NODE = ["pod-1-1", "pod-2-1", "pod-3-1"]
PROTOCOLS = ["TCP", "UDP"]

# 0.999 quantile of the chi-square distribution with two degrees of freedom: one test run in 1,000 may fail by chance.
CHI_SQUARE_LIMIT = 13.82


@pytest.fixture(scope="module")
def addresses(cluster):
    """A ClusterIP by name, each for TCP and UDP on port 80."""
    wanted = {
        "spread": (ONE_ON_EACH_NODE, "random"),
        "in-turn": (ONE_ON_EACH_NODE, "round-robin"),
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
        for address in result.values():
            eventually(lambda n=node, a=address: call(n, a, 80)[0] != "timeout")
    return result


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
    answers = call(node, addresses["spread"], 80, protocol=protocol.lower(), count=30)
    assert set(spread(answers)) == set(ONE_ON_EACH_NODE)
    # From 10.10.0.2 by itself; masqueraded it has the address of the interface it left by, and that is in the overlay.
    assert all(source_of(answer) in POD_NETWORK for answer in answers)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_client_outside_to_cluster_ip_is_masqueraded(cluster, addresses, protocol):
    answers = call(cluster.host("client"), addresses["spread"], 80, protocol=protocol.lower(), count=30)
    assert set(spread(answers)) == set(ONE_ON_EACH_NODE)
    assert all(source_of(answer) in POD_NETWORK for answer in answers)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pod_reaches_itself_through_its_service(cluster, addresses, protocol):
    """It must see another address than its own, or the answer would never leave the pod."""
    (answer,) = call(cluster.host("pod-1-1"), addresses["alone"], 80, protocol=protocol.lower())
    assert answer.split()[0] == "pod-1-1"
    assert source_of(answer) != cluster.pod_address("pod-1-1")


def test_a_pod_reaches_its_neighbor_on_the_same_node(cluster, addresses):
    """Both are on one bridge, so the way back would bypass the node's rules unless bridged packets see them."""
    (answer,) = call(cluster.host("pod-1-2"), addresses["alone"], 80)
    assert answer == f"pod-1-1 {cluster.pod_address('pod-1-2')}"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("host", ["pod-1-2", "node-1", "client"])
def test_a_service_without_endpoints_refuses(cluster, addresses, host, protocol):
    assert call(cluster.host(host), addresses["nobody"], 80, protocol=protocol.lower()) == ["refused"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_round_robin_is_exact(cluster, addresses, protocol):
    answers = call(cluster.host("pod-2-2"), addresses["in-turn"], 80, protocol=protocol.lower(), count=300)
    assert spread(answers) == dict.fromkeys(ONE_ON_EACH_NODE, 100)


def test_two_round_robin_services_called_in_turns_do_not_disturb_each_other(cluster, addresses):
    """A counter shared by both would show each of them every other endpoint only."""
    other = "10.96.7.50"
    objects = [
        service("in-turn-too", other, balance="round-robin"),
        endpoint_slice("in-turn-too", cluster, ONE_ON_EACH_NODE),
    ]
    apply(cluster, *objects)
    caller = cluster.host("pod-3-2")
    eventually(lambda: "refused" not in call(caller, other, 80) and "timeout" not in call(caller, other, 80))
    ours, theirs = [], []
    for _ in range(6):
        ours += call(caller, addresses["in-turn"], 80)
        theirs += call(caller, other, 80, count=2)
    assert set(spread(ours).values()) == {2}
    assert set(spread(theirs).values()) == {4}
    delete(cluster, *objects)


def test_random_is_even(cluster, addresses):
    counts = spread(call(cluster.host("pod-2-2"), addresses["spread"], 80, count=600))
    chi_square = sum((counts[pod] - 200) ** 2 / 200 for pod in ONE_ON_EACH_NODE)
    assert chi_square < CHI_SQUARE_LIMIT, counts


def test_direct_traffic_between_pods_is_left_alone(cluster):
    target = str(cluster.pod_address("pod-3-1"))
    (answer,) = call(cluster.host("pod-1-1"), target, 8080)
    assert answer == f"pod-3-1 {cluster.pod_address('pod-1-1')}"


def test_an_endpoint_that_goes_gets_no_new_connections(cluster):
    address, name = "10.96.7.60", "shrinking"
    apply(cluster, service(name, address, balance="round-robin"), endpoint_slice(name, cluster, ONE_ON_EACH_NODE))
    caller = cluster.host("pod-1-2")
    eventually(lambda: set(spread(call(caller, address, 80, count=3))) == set(ONE_ON_EACH_NODE))
    apply(cluster, endpoint_slice(name, cluster, ONE_ON_EACH_NODE[:2]))
    eventually(lambda: set(spread(call(caller, address, 80, count=3))) == set(ONE_ON_EACH_NODE[:2]))
    assert spread(call(caller, address, 80, count=40)) == dict.fromkeys(ONE_ON_EACH_NODE[:2], 20)


def test_a_deleted_service_is_no_longer_translated(cluster):
    address, name = "10.96.7.61", "going"
    objects = [service(name, address), endpoint_slice(name, cluster, ["pod-2-1"])]
    apply(cluster, *objects)
    caller = cluster.host("pod-1-2")
    eventually(lambda: call(caller, address, 80)[0].startswith("pod-2-1"))
    delete(cluster, *objects)
    eventually(lambda: not call(caller, address, 80)[0].startswith("pod-"))
