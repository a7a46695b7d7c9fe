"""The same nodes, links and Services for Graphviz and for Mermaid. Pure."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from controlloop.printable import escaped
from netctl.graph.figures.paths import Pair, pairs_of
from netctl.graph.health import WORST_FIRST
from netctl.graph.selection import chosen_nodes, rest

Document = Mapping[str, Any]

NODES, PORTS, PAIRS, SHARES = 100, 50, 300, 199
"""Pairs of nodes and shares of Services are edges, of which Mermaid draws 500 at most."""
HUES = {"ok": "#1f8a5f", "silent": "#8a929e", "degraded": "#b26a00", "lost": "#d1242f"}
STYLES = {"ok": "solid", "silent": "dotted", "degraded": "dashed", "lost": "dashed"}


class Shown:
    """What of a document the text forms have room for."""

    def __init__(self, document: Document) -> None:
        self.nodes: list[Document] = []
        self.pairs: list[Pair] = []
        for overlay in document["overlays"]:
            nodes = chosen_nodes(overlay["nodes"], NODES)
            self.nodes += nodes
            self.pairs += pairs_of(overlay["paths"], nodes)
        self.pairs.sort(key=lambda pair: WORST_FIRST.index(pair.health))
        self.ports = document["services"][:PORTS]
        self.shares = list(self._shares())
        self.left_out = [
            rest(len(self.nodes), document["counts"]["nodes"], "nodes"),
            rest(PAIRS, len(self.pairs), "pairs of nodes"),
            rest(len(self.ports), len(document["services"]), "ports of Services"),
            rest(SHARES, len(self.shares), "shares of Services"),
        ]
        del self.pairs[PAIRS:], self.shares[SHARES:]

    def _shares(self) -> Iterator[tuple[int, str, str]]:
        """Index of a port, id of a node, and what share of new connections goes from one to the other."""
        known = {node["id"] for node in self.nodes}
        for index, port in enumerate(self.ports):
            shares: dict[str, float] = {}
            for endpoint in port["endpoints"]:
                if endpoint["node"] in known:
                    shares[endpoint["node"]] = shares.get(endpoint["node"], 0.0) + endpoint["share"]
            yield from ((index, node, f"{share:.0%}") for node, share in shares.items())


def dot(document: Document) -> str:
    return "\n".join(["graph nodenet {", *(f"  {line}" for line in dot_lines(Shown(document))), "}"])


def dot_lines(shown: Shown) -> Iterator[str]:
    yield 'graph [overlap=false, splines=true]; node [fontname="sans-serif", shape=box, style=rounded];'
    yield from (f"// {each}" for each in shown.left_out if each)
    for node in shown.nodes:
        label = quoted(node["name"], *node["public_ips"][:1], *node["subnets"][:1], node["reason"])
        yield f'{quoted(node["id"])} [label={label}, color="{HUES[node["health"]]}"];'
    for pair in shown.pairs:
        one, other = map(quoted, pair.ends)
        style = f'color="{HUES[pair.health]}", style={STYLES[pair.health]}'
        yield f"{one} -- {other} [label={quoted(pair.label)}, {style}];"
    for index, port in enumerate(shown.ports):
        label = quoted(port["name"], port["addresses"][0], port["problem"] or "")
        yield f'"service {index}" [label={label}, shape=ellipse, color="{HUES["lost" if port["problem"] else "ok"]}"];'
    for index, node_id, share in shown.shares:
        yield f'"service {index}" -- {quoted(node_id)} [label={quoted(share)}, dir=forward];'


def quoted(*lines: str) -> str:
    """As DOT has it: only the quote and the backslash mean something inside."""
    texts = (escaped(line).replace("\\", "\\\\").replace('"', '\\"') for line in dict.fromkeys(lines) if line)
    return '"' + "\\n".join(texts) + '"'


def mermaid(document: Document) -> str:
    return "\n".join(["flowchart LR", *(f"  {line}" for line in mermaid_lines(Shown(document)))])


def mermaid_lines(shown: Shown) -> Iterator[str]:
    yield from (f"%% {each}" for each in shown.left_out if each)
    number = {node["id"]: index for index, node in enumerate(shown.nodes)}
    for node in shown.nodes:
        label = safe(node["name"], *node["public_ips"][:1], *node["subnets"][:1], node["reason"])
        yield f'n{number[node["id"]]}["{label}"]:::{node["health"]}'
    for pair in shown.pairs:
        one, other = (number[end] for end in pair.ends)
        line = "---" if pair.health == "ok" else "-.-"
        yield f'n{one} {line}|"{safe(pair.label)}"| n{other}' if pair.label else f"n{one} {line} n{other}"
    for index, port in enumerate(shown.ports):
        label = safe(port["name"], port["addresses"][0], port["problem"] or "")
        yield f's{index}(["{label}"]):::{"lost" if port["problem"] else "ok"}'
    for index, node_id, share in shown.shares:
        yield f's{index} -->|"{safe(share)}"| n{number[node_id]}'
    yield from (f"classDef {state} stroke:{hue}" for state, hue in HUES.items())


def safe(*lines: str) -> str:
    """As entity codes, which Mermaid has for whatever could mean something to it or to a browser."""
    texts = (
        re.sub(r"[^A-Za-z0-9 ./:,%()_\[\]-]", lambda char: f"#{ord(char[0])};", escaped(line))
        for line in dict.fromkeys(lines)
        if line
    )
    return "<br/>".join(texts)
