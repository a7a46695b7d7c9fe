"""The picture: complete and true where there is room, bounded where not, and well-formed whatever names say."""

import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from graph_answers import (
    NETWORK,
    SMALL_NETWORK,
    V6_NETWORK,
    agent,
    answers,
    frontend,
    large,
    lease,
    list_subnet,
    lost,
    mesh,
    unanswered,
)
from hypothesis import given
from hypothesis import strategies as st

from netctl.graph.command import RENDER
from netctl.graph.document import network_graph
from netctl.graph.figures.svg import WIDTH, shortened
from netctl.graph.picture import figures

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</style><script>alert(1)</script>\"'&<!--]]>\x00\x1b\ud7ff\u202e"


def parsed(text):
    return ET.fromstring(text)  # noqa: S314 - it is our own


def drawn(document, name):
    """One figure as a tree."""
    (figure,) = [each for each in figures(document) if each.name == name]
    return parsed(f"<svg>{figure.body}</svg>")


def texts(tree):
    return [each.text for each in tree.iter() if each.tag.endswith("text")]


def titles(tree):
    return [each.text for each in tree.iter() if each.tag.endswith("title")]


def classes(tree):
    return [each.get("class", "") for each in tree.iter()]


def test_each_pair_has_one_line_with_the_mean_of_both_directions():
    tree = drawn(network_graph(mesh(3, lambda one, other: {"rtt_ms": 1.0 if one < other else 2.0})), "topology")
    assert texts(tree).count("1.50 ms") == 3
    assert "paths: ✓ 6 ok" in texts(tree)
    assert "node-1 → node-2: ok, 1.00 ms · node-2 → node-1: ok, 2.00 ms" in titles(tree)


def test_a_lost_path_is_a_word_and_a_mark_and_not_only_a_colour():
    tree = drawn(network_graph(mesh(3, lambda one, other: lost() if {one, other} == {1, 2} else {})), "topology")
    assert "✗ lost" in texts(tree)
    assert "path lost" in classes(tree)
    assert "paths: ✓ 4 ok, ✗ 2 lost" in texts(tree)


@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 5, 8, 9, 50, 200])
@pytest.mark.parametrize("asked", [1, 2, 50])
def test_everything_is_inside_its_figure(nodes, asked):
    said = mesh(nodes)[:asked] if nodes <= 50 else [answers(nodes=nodes)]
    for figure in figures(network_graph(said)):
        for each in parsed(f"<svg>{figure.body}</svg>").iter("rect"):
            left, top, width, height = (float(each.get(name)) for name in ("x", "y", "width", "height"))
            assert 0 <= left < left + width <= WIDTH + 0.1, figure.name
            assert 0 <= top < top + height <= figure.height + 0.1, figure.name


@pytest.mark.parametrize("nodes", [2, 5, 8, 9])
def test_boxes_of_nodes_do_not_touch(nodes):
    for said in mesh(nodes), [answers(nodes=nodes)]:
        tree = drawn(network_graph(said), "topology")
        boxes = [each for each in tree.iter("rect") if (each.get("class") or "").startswith("box ")]
        assert len(boxes) == (nodes if nodes <= 8 else 0)
        places = [(float(each.get("x")), float(each.get("y"))) for each in boxes]
        for number, (left, top) in enumerate(places):
            assert all(abs(left - x) >= 122 or abs(top - y) >= 42 for x, y in places[:number])


def test_the_heat_map_has_each_direction_and_the_steps_count_all():
    times = {(1, 2): 0.05, (2, 1): 0.2, (1, 3): 5.0, (3, 1): 250.0}
    said = mesh(3, lambda one, other: {"rtt_ms": times[one, other]} if (one, other) in times else lost())
    tree = drawn(network_graph(said), "round-trips")
    assert {"0.05", "0.20", "5.00", "250"} <= set(texts(tree))
    looks = [each for each in classes(tree) if each.startswith("in ")]
    assert sorted(looks) == sorted(2 * ["in h0", "in h1", "in h4", "in h7"] + 3 * ["in lost"])


def test_who_alone_was_asked_has_the_slowest_first():
    said = answers("node-1", nodes=4, change=lambda number: lost() if number == 3 else {"rtt_ms": float(number)})
    tree = drawn(network_graph([said]), "round-trips")
    assert texts(tree)[:6] == ["192.168.0.3", "✗", "192.168.0.4", "4.00", "192.168.0.2", "2.00"]


def test_the_map_shows_whose_a_subnet_is_what_is_free_and_what_is_kept():
    leases = [lease(1), lease(9, expires=False), lease(17, skipped="not JSON")]
    tree = drawn(
        network_graph([replace(answers(), agents={"netagent": agent(leases, leases[0]["key"], [])})]), "subnets"
    )
    assert "10.244.0.0/16: 3 of 255 subnets leased, each a /24" in texts(tree)
    told = titles(tree)
    assert len(told) == 256
    assert {
        "10.244.0.0/24: nobody may lease it",
        "10.244.1.0/24 · node-1 (leased)",
        "10.244.2.0/24: free",
        "10.244.9.0/24 · 192.168.0.9 (reserved)",
        "10.244.17.0/24 · 192.168.0.17 (skipped: not JSON)",
    } <= set(told)


def test_a_subnet_of_two_nodes_is_wrong():
    leases = [lease(1), lease(2), lease(2, key="other", public_ips=["192.168.0.99"])]
    tree = drawn(
        network_graph([replace(answers(), agents={"netagent": agent(leases, leases[0]["key"], [])})]), "subnets"
    )
    assert "2!" in texts(tree)
    assert "owned lost" in classes(tree)


def test_a_network_of_many_subnets_is_shown_in_blocks():
    leases = [lease(number, V6_NETWORK) for number in (1, 2, 300)]
    pages = agent(leases, leases[0]["key"], [], networks=(SMALL_NETWORK, V6_NETWORK))
    tree = drawn(network_graph([replace(answers(), agents={"netagent": pages})]), "subnets")
    assert "fd00:10::/48: 3 of 65,535 subnets leased, each a /64 · a cell is 256 of them" in texts(tree)
    assert "fd00:10::/56 · 192.168.0.2 (leased) · node-1 (leased)" in titles(tree)
    assert "fd00:10:0:100::/56 · 192.168.1.44 (leased)" in titles(tree)


def test_flows_have_the_share_of_each_endpoint_and_its_node():
    spread = [frontend(endpoints=["10.244.1.5:80", "10.244.2.5:80"], balance="weighted", weights=[3, 1])]
    tree = drawn(network_graph(mesh(2, frontends=spread)), "flows")
    assert texts(tree) == [
        *("default/web:http", "10.96.0.10:80/tcp"),
        *("10.244.1.5:80", "75%", "node-1"),
        *("10.244.2.5:80", "25%", "node-2"),
    ]


def test_of_many_endpoints_the_last_stand_together():
    spread = frontend(endpoints=[f"10.244.1.{number}:80" for number in range(1, 41)])
    assert texts(drawn(network_graph([answers(frontends=[spread])]), "flows"))[-2:] == ["34 more", "85%"]


def test_a_service_that_nobody_serves_comes_first_and_says_so():
    several = [frontend(), frontend("zoo/lost:http", (), address="10.96.0.11")]
    assert texts(drawn(network_graph([answers(frontends=several)]), "flows"))[:3] == [
        *("zoo/lost:http", "10.96.0.11:80/tcp"),
        "✗ no endpoints",
    ]


def test_a_large_cluster_is_bounded_says_what_is_left_out_and_shows_what_is_wrong():
    document = large()
    everything = " ".join(text for figure in figures(document) for text in re.findall(r">([^<>]+)<", figure.body))
    for words in (
        *("and 4,941 more nodes", "paths: ✓ 4,999 ok, ✗ 1 lost", "and 4,953 more times", "and 4,989 more nodes"),
        *("✗ 192.168.0.77", "team-1/se", "no endpoints", "more ports of Services"),
    ):
        assert words in everything
    assert sum(len(figure.body) for figure in figures(document)) < 300_000
    assert len(RENDER["svg"](document)) < 300_000


def test_a_finding_stands_on_the_sheet_with_its_code_and_the_next_command():
    (one,) = mesh(1)
    sheet = RENDER["svg"](network_graph([replace(one, findings=[unanswered("10.244.9.0-24")])]))
    shown = " ".join(filter(None, texts(parsed(sheet))))
    assert "NN104 peer does not answer: 10.244.9.0-24" in shown
    assert "next: netctl check net" in shown
    assert "✗ 1 finding" in shown


def hostile(text):
    """Whatever others choose, chosen by somebody who means harm."""
    leases = [lease(1), lease(2, key=f"key{text}", skipped=text or None)]
    pages = agent(leases, leases[0]["key"], [])
    said = answers(f"node{text}", frontends=[frontend(f"default/{text}:x", balance=text), frontend(f"a/{text}", ())])
    return network_graph([replace(said, agents={"netagent": pages}, findings=[unanswered(text, text)])])


@pytest.mark.parametrize("text", [HOSTILE, "@document@", "\\", '"', "", "x" * 10_000])
def test_hostile_text_stays_text(text):
    document = hostile(text)
    sheet = parsed(RENDER["svg"](document))
    assert {each.tag.removeprefix(SVG) for each in sheet.iter()} <= {
        *("svg", "style", "g", "rect", "line", "circle", "path", "text", "title"),
    }
    assert not any(name.startswith("on") for each in sheet.iter() for name in each.attrib)
    page = RENDER["html"](document)
    assert page.count("<script") == page.count("</script") == 2
    assert page.count("<style") == page.count("</style") == 1


@given(st.text(max_size=30))
def test_any_text_gives_a_well_formed_sheet(text):
    parsed(RENDER["svg"](hostile(text)))


@given(st.text(max_size=60), st.integers(1, 400))
def test_shortened_text_fits_and_keeps_its_ends(text, width):
    short = shortened(text, width)
    assert len(short) <= max(3, int(width / 6.1))
    assert short == text or (short[0] == text[0] and short[-1] == text[-1] and "…" in short)


def test_a_large_network_has_a_cell_for_each_block():
    tree = drawn(network_graph([answers(nodes=3, networks=(NETWORK,))]), "subnets")
    assert len(titles(tree)) == 256
    assert str(list_subnet(NETWORK, 1)) == "10.0.1.0/24"


def test_two_overlays_have_figures_of_their_own():
    said = answers(nodes=2)
    document = network_graph([replace(said, agents={**said.agents, "netagent2": said.agents["netagent"]})])
    names = [figure.name for figure in figures(document)]
    assert len(set(names)) == len(names) == 7
    assert "Pod network (netagent2)" in RENDER["svg"](document)
