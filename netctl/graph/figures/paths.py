"""Paths between nodes in words: both directions as one pair, a round-trip time, what is wrong. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netctl.graph.health import DEGRADED, LOST, OK, SILENT, WORST_FIRST

Document = Mapping[str, Any]

MARKS = {OK: "✓", SILENT: "?", DEGRADED: "!", LOST: "✗"}
"""Beside the colour, for whoever does not see it."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Both directions between two nodes."""

    ends: tuple[str, str]
    health: str
    """The worse of the two."""
    known: Sequence[Document]
    """One path or two: a node that was not asked tells nothing."""

    @property
    def label(self) -> str:
        """Empty where nobody measured."""
        if self.health == LOST:
            return f"{MARKS[LOST]} lost"
        times = [path["rtt_ms"] for path in self.known if path["rtt_ms"] is not None]
        return milliseconds(sum(times) / len(times)) if times else ""


def pairs_of(paths: Sequence[Document], nodes: Sequence[Document]) -> Iterator[Pair]:
    """Of paths between these nodes."""
    shown = {node["id"] for node in nodes}
    both: dict[tuple[str, str], list[Document]] = {}
    for path in paths:
        one, other = sorted((path["from"], path["to"]))
        if one in shown and other in shown:
            both.setdefault((one, other), []).append(path)
    for ends, known in both.items():
        yield Pair(ends, min((path["health"] for path in known), key=WORST_FIRST.index), known)


def milliseconds(rtt_ms: float) -> str:
    return f"{number(rtt_ms)} ms"


def number(rtt_ms: float) -> str:
    return f"{rtt_ms:.2f}" if rtt_ms < 10 else f"{rtt_ms:,.0f}"


def told(path: Document, one: str, other: str) -> str:
    """In one line, with the names of its ends."""
    rtt = "" if path["rtt_ms"] is None else f", {milliseconds(path['rtt_ms'])}"
    why = f" ({path['reason']})" if path["reason"] else ""
    return f"{one} → {other}: {path['health']}{why}{rtt}"
