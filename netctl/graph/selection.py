"""Which nodes a drawing has room for, and how each is called and coloured in all of them. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from netctl.graph.health import WORST_FIRST
from netctl.graph.overlays import natural

Document = Mapping[str, Any]

HUES = 10
"""In figures.css; neighbors in a list differ."""
ELSEWHERE = "elsewhere"


class Palette:
    """The same name and hue of a node in every figure, by the id of the node."""

    def __init__(self, document: Document) -> None:
        nodes = [node for overlay in document["overlays"] for node in overlay["nodes"]]
        self._names = {node["id"]: str(node["name"]) for node in nodes}
        self._hues = {one: number % HUES for number, one in enumerate(self._names)}

    def name(self, node: str | None) -> str:
        """Empty for None: a place that is in no node's subnet."""
        return "" if node is None else self._names.get(node, node)

    def hue(self, node: str | None) -> str:
        """A class of figures.css."""
        return f"n{self._hues[node]}" if node in self._hues else ELSEWHERE


def chosen_nodes(nodes: Sequence[Document], limit: int) -> list[Document]:
    """In order of their names: one that was asked, then the worst, then others that were asked."""
    if len(nodes) > limit:
        ranked = sorted(nodes, key=lambda node: (WORST_FIRST.index(node["health"]), not node["asked"]))
        first = next((node for node in ranked if node["asked"]), ranked[0])
        nodes = [first, *(node for node in ranked if node is not first)][:limit]
    return sorted(nodes, key=lambda node: natural(node["name"]))


def rest(shown: int, of: int, what: str) -> str:
    """`and 4,940 more nodes`; empty when all are shown."""
    return f"and {of - shown:,} more {what}" if of > shown else ""
