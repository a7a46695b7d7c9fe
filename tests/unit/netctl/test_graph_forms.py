"""The text forms: Graphviz and Mermaid can read them whatever names say, and they hold what the document holds."""

import json
import re
from dataclasses import replace

import pytest
from graph_answers import answers, frontend, large, lost, mesh, unanswered

from netctl.exit_codes import FINDING, OK, UNREACHABLE
from netctl.graph.command import RENDER, draw
from netctl.graph.document import network_graph

HOSTILE = 'a"]; b --> c; <script>alert(1)</script> \\ end\nsubgraph x #35; %% `'

# The parts of the grammars that we write: https://graphviz.org/doc/info/lang.html and Mermaid's flowchart.
ID = r'"(?:[^"\\]|\\.)*"'
ATTRIBUTES = rf"\[\w+=(?:{ID}|\w+)(?:, \w+=(?:{ID}|\w+))*\]"
DOT_LINES = (
    rf"graph {ATTRIBUTES}; node {ATTRIBUTES};",
    r"//.*",
    rf"{ID} {ATTRIBUTES};",
    rf"{ID} -- {ID} {ATTRIBUTES};",
)
LABEL = r'"(?:[A-Za-z0-9 ./:,%()_\[\]-]|#[0-9]+;|<br/>)*"'
MERMAID_LINES = (
    r"%%.*",
    rf"n\d+\[{LABEL}\]:::\w+",
    rf"s\d+\(\[{LABEL}\]\):::\w+",
    rf"n\d+ (?:---|-\.-)(?:\|{LABEL}\|)? n\d+",
    rf"s\d+ -->\|{LABEL}\| n\d+",
    r"classDef \w+ stroke:#[0-9a-f]{6}",
)


def lines_of(text, start, end, grammar):
    lines = text.splitlines()
    assert (lines[0], lines[-1] if end else None) == (start, end)
    inner = [line.strip() for line in (lines[1:-1] if end else lines[1:])]
    for line in inner:
        assert any(re.fullmatch(each, line) for each in grammar), line
    return inner


def dot_lines(document):
    return lines_of(RENDER["dot"](document), "graph nodenet {", "}", DOT_LINES)


def mermaid_lines(document):
    return lines_of(RENDER["mermaid"](document), "flowchart LR", None, MERMAID_LINES)


@pytest.fixture
def small():
    spread = [frontend(endpoints=["10.244.1.5:80", "10.244.1.6:80", "10.244.2.5:80"]), frontend("a/nobody", ())]
    return network_graph(mesh(3, lambda one, other: lost() if {one, other} == {1, 3} else {}, frontends=spread))


def test_dot_has_nodes_pairs_services_and_shares(small):
    lines = dot_lines(small)
    assert '"10.244.1.0-24" [label="node-1\\n192.168.0.1\\n10.244.1.0/24", color="#1f8a5f"];' in lines
    assert '"10.244.1.0-24" -- "10.244.3.0-24" [label="✗ lost", color="#d1242f", style=dashed];' in lines
    assert '"10.244.1.0-24" -- "10.244.2.0-24" [label="0.25 ms", color="#1f8a5f", style=solid];' in lines
    assert '"service 1" -- "10.244.1.0-24" [label="67%", dir=forward];' in lines
    assert sum(" -- " in line for line in lines) == 5


def test_mermaid_has_the_same(small):
    lines = mermaid_lines(small)
    assert 'n0["node-1<br/>192.168.0.1<br/>10.244.1.0/24"]:::ok' in lines
    assert 'n0 -.-|"#10007; lost"| n2' in lines
    assert 's1 -->|"67%"| n0' in lines
    assert 's0(["a/nobody<br/>10.96.0.10:80<br/>no endpoints"]):::lost' in lines


def test_hostile_names_stay_inside_their_quotes():
    said = answers(HOSTILE, nodes=2, frontends=[frontend(HOSTILE), frontend(HOSTILE[::-1], ())])
    document = network_graph([said])
    assert sum("alert" in line for line in dot_lines(document)) == 2
    assert sum("script" in line for line in mermaid_lines(document)) == 2


def test_of_a_large_cluster_they_say_what_is_left_out():
    document = large(peers=1000, services=1000)
    for lines in dot_lines(document), mermaid_lines(document):
        assert next(line for line in lines if "more" in line).endswith("and 901 more nodes")
        # Mermaid draws nothing with more edges than that.
        assert sum(bool(re.search(r" (--|---|-\.-|-->)", line)) for line in lines) < 500


def test_of_a_dense_one_the_worst_pairs_are_kept():
    """Of 50 nodes that know each other, with Services that have an endpoint on each."""
    pods = [f"10.244.{number}.9:80" for number in range(1, 51)]
    spread = [frontend(f"default/s{number}", pods, address=f"10.96.0.{number}") for number in range(50)]
    said = mesh(50, lambda one, other: lost() if {one, other} == {49, 50} else {}, frontends=spread)
    lines = mermaid_lines(network_graph(said))
    assert {"%% and 925 more pairs of nodes", "%% and 2,301 more shares of Services"} <= set(lines)
    assert sum(bool(re.search(r" (---|-\.-|-->)", line)) for line in lines) == 499
    assert sum("lost" in line and "-.-" in line for line in lines) == 1


def test_json_is_the_document(small):
    assert json.loads(RENDER["json"](small)) == small


@pytest.mark.parametrize("form", ["html", "svg", "dot", "mermaid", "json"])
def test_every_form_goes_to_a_file_and_the_exit_code_says_what_was_found(form, tmp_path):
    file = tmp_path / "out"
    said = answers()
    assert draw([said], form, file) == OK
    assert file.read_text().endswith("\n")
    assert draw([replace(said, findings=[unanswered("x")])], form, file) == FINDING
    assert draw([replace(said, silent=["netagent", "netproxy"], agents={}, frontends=None)], form, file) == UNREACHABLE


def test_a_node_that_is_known_by_its_address_has_it_once():
    assert "192.168.0.2\\n10.244.2.0/24" in RENDER["dot"](network_graph([answers(nodes=2)]))
    assert '"192.168.0.2<br/>10.244.2.0/24"' in RENDER["mermaid"](network_graph([answers(nodes=2)]))
