"""What a picture is drawn from: nodes, paths, Services and findings, put together out of what several nodes say."""

from dataclasses import replace

import pytest
from graph_answers import (
    NOW,
    SMALL_NETWORK,
    V6_NETWORK,
    agent,
    answers,
    frontend,
    lease,
    list_subnet,
    lost,
    mesh,
    peer,
    unanswered,
)
from schemas import validated

from netctl.graph.document import network_graph
from netctl.graph.overlays import natural


def graph(*said):
    return validated(network_graph(said))


def overlay(*said):
    (found,) = graph(*said)["overlays"]
    return found


def node(found, name):
    (one,) = [each for each in found["nodes"] if each["name"] == name]
    return one


def test_one_node_knows_its_peers_by_their_addresses_and_the_way_to_each():
    found = overlay(answers("node-1", nodes=3))
    assert [(each["name"], each["asked"]) for each in found["nodes"]] == [
        ("192.168.0.2", False),
        ("192.168.0.3", False),
        ("node-1", True),
    ]
    assert {(each["from"], each["to"], each["rtt_ms"]) for each in found["paths"]} == {
        ("10.244.1.0-24", "10.244.2.0-24", 0.25),
        ("10.244.1.0-24", "10.244.3.0-24", 0.25),
    }
    assert (found["backend"], found["networks"]) == ("vxlan", [SMALL_NETWORK])


def test_several_nodes_give_each_other_their_names_and_every_direction():
    found = overlay(*mesh(11, lambda one, other: {"rtt_ms": one + other / 100}))
    assert [each["name"] for each in found["nodes"]] == [f"node-{number}" for number in range(1, 12)]
    assert len(found["paths"]) == 110
    (path,) = [each for each in found["paths"] if (each["from"], each["to"]) == ("10.244.2.0-24", "10.244.10.0-24")]
    assert path["rtt_ms"] == 2.1


@pytest.mark.parametrize(
    ("told", "health", "reason"),
    [
        ({}, "ok", ""),
        (lost(), "lost", "no answer for 3m12s"),
        ({"large_lost_since": NOW - 60}, "degraded", "large packets lost for 1m00s"),
        ({"programmed": False}, "degraded", "not in the kernel"),
        ({"programmed": False, "skipped": "overlaps ours"}, "degraded", "skipped: overlaps ours"),
        ({"reach": "silent", "rtt_ms": None}, "silent", "never answered"),
        ({"reach": None, "rtt_ms": None}, "silent", "never answered"),
    ],
)
def test_a_path_is_as_the_agent_tells_it_and_so_is_a_peer_that_nobody_asked(told, health, reason):
    found = overlay(answers(nodes=2, change=lambda _: told))
    (path,) = found["paths"]
    assert (path["health"], path["reason"]) == (health, reason)
    assert (path["rtt_ms"] is None) == (health in ("lost", "silent"))
    assert node(found, "192.168.0.2")["health"] == health


def test_a_peer_that_some_reach_is_not_lost():
    said = mesh(3, lambda one, other: lost() if (one, other) == (1, 3) else {})
    assert node(overlay(*said[:2]), "192.168.0.3")["health"] == "degraded"
    assert node(overlay(said[0]), "192.168.0.3")["health"] == "lost"


def test_a_node_that_speaks_but_whom_nobody_reaches_is_lost():
    assert node(overlay(*mesh(3, lambda _, other: lost() if other == 3 else {})), "node-3")["health"] == "lost"


def test_a_node_with_findings_says_their_codes():
    one, two = mesh(2)
    found = graph(one, replace(two, findings=[unanswered("10.244.1.0-24")]))
    assert node(found["overlays"][0], "node-2")["reason"] == "NN104"
    (finding,) = found["findings"]
    assert (finding["node"], finding["code"], finding["object"]) == ("node-2", "NN104", "10.244.1.0-24")
    assert found["counts"]["findings"] == 1


def test_a_silent_agent_has_its_name_by_its_address():
    one, two = mesh(2)
    found = graph(one, replace(two, agents={}, silent=["netagent"], address="192.168.0.2"))
    assert [each["name"] for each in found["overlays"][0]["nodes"]] == ["node-1", "node-2"]
    assert found["asked"][1] == {"name": "node-2", "silent": ["netagent"]}


def test_reserved_and_skipped_leases_are_told_apart():
    leases = [lease(1), lease(2, expires=False), lease(3, skipped="not JSON", public_ips=[])]
    said = replace(answers(), agents={"netagent": agent(leases, leases[0]["key"], [peer(leases[1])])})
    found = overlay(said)
    assert node(found, "192.168.0.2")["reserved"]
    assert node(found, "10.244.3.0-24")["health"] == "degraded"


def test_endpoints_have_shares_and_the_node_whose_subnet_holds_them():
    six = f"[{list_subnet(V6_NETWORK, 2)[9]}]:8080"
    leases = [lease(1), lease(2, subnets=["10.244.2.0/24", str(list_subnet(V6_NETWORK, 2))])]
    spread = ["10.244.1.5:80", "10.244.2.5:80", six, "203.0.113.9:80"]
    said = replace(
        answers(frontends=[frontend(endpoints=spread, balance="weighted", weights=[5, 3, 2, 0])]),
        agents={"netagent": agent(leases, leases[0]["key"], [])},
    )
    (port,) = graph(said)["services"]
    assert [(each["share"], each["node"]) for each in port["endpoints"]] == [
        (0.5, "10.244.1.0-24"),
        (0.3, "10.244.2.0-24"),
        (0.2, "10.244.2.0-24"),
        (0.0, None),
    ]


def test_weights_that_are_all_zero_make_all_equal():
    (port,) = graph(answers(frontends=[frontend(endpoints=["10.244.1.5:80", "10.244.2.5:80"], weights=[0, 0])]))[
        "services"
    ]
    assert [each["share"] for each in port["endpoints"]] == [0.5, 0.5]


def test_all_addresses_of_a_port_are_one_item():
    several = [
        frontend(),
        frontend(address="2001:db8::1"),
        frontend(address="0.0.0.0", scope="NodePort", port=30080),
    ]
    (port,) = graph(answers(frontends=several))["services"]
    assert port["addresses"] == ["10.96.0.10:80", "[2001:db8::1]:80", "any node:30080"]
    assert port["only_at"] == []


def test_nodes_that_disagree_about_a_port_are_named():
    one, two, three = mesh(3, frontends=[frontend()])
    found = graph(one, two, replace(three, frontends=[frontend(endpoints=())]))
    assert [(each["problem"], each["only_at"]) for each in found["services"]] == [
        ("no endpoints", ["node-3"]),
        (None, ["node-1", "node-2"]),
    ]
    assert found["counts"]["services"] == 1


def test_a_node_whose_proxy_is_silent_disagrees_with_nobody():
    one, two = mesh(2, frontends=[frontend()])
    (port,) = graph(one, replace(two, frontends=None, silent=["netproxy"]))["services"]
    assert port["only_at"] == []


def test_a_node_without_an_overlay_still_has_its_services():
    found = graph(replace(answers(frontends=[frontend()]), agents={}))
    assert (found["overlays"], found["counts"]["nodes"]) == ([], 0)
    assert found["services"][0]["endpoints"][0]["node"] is None


def test_two_overlays_of_a_node_are_two():
    said = answers(nodes=2)
    found = graph(replace(said, agents={**said.agents, "netagent2": said.agents["netagent"]}))
    assert [each["name"] for each in found["overlays"]] == ["netagent", "netagent2"]


def test_names_are_in_the_order_of_their_numbers():
    names = ["node-10", "node-9", "10.0.0.10", "10.0.0.9", "", "²", "node"]
    assert sorted(names, key=natural) == ["", "10.0.0.9", "10.0.0.10", "node", "node-9", "node-10", "²"]
