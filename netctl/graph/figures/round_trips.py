"""Round-trip times between nodes as a heat map: who asked, whom, how long it took. Pure.

The steps are the same on every picture, so that two can be compared; each has a count, so that nothing is left out
where there is no room for every node.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from typing import Any

from netctl.graph.figures.paths import number, told
from netctl.graph.figures.svg import TINY, WIDTH, Box, Figure, fitted, group, shortened, tag, title
from netctl.graph.health import LOST
from netctl.graph.selection import Palette, chosen_nodes, rest

Document = Mapping[str, Any]

LIMIT = 48
STEPS_MS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""About three times as long from one to the next."""
LEVELS = (*(f"h{step}" for step in range(len(STEPS_MS) + 1)), "lost", "unknown")
"""Classes of figures.css."""
WORDS = (f"<{STEPS_MS[0]:g}", *(f"≥{step:g}" for step in STEPS_MS), "lost", "silent")
LEFT = 88.0
"""For the names of who asked."""
GAP = 2.0
NAME = 11.0
"""Height of a name."""
IN_A_ROW = 6
"""Cells, where one node alone was asked and its row would be a thin line."""


def round_trips(overlay: Document, _palette: Palette) -> Figure:
    nodes = chosen_nodes(overlay["nodes"], LIMIT)
    shown = {node["id"] for node in nodes}
    paths = {(path["from"], path["to"]): path for path in overlay["paths"] if {path["from"], path["to"]} <= shown}
    askers = {one for one, _ in paths}
    rows = [node for node in nodes if node["id"] in askers]
    height, body = one_row(rows[0], nodes, paths) if len(rows) == 1 else matrix(rows, nodes, paths)
    body += legend(height + 8, overlay["paths"], rest(len(paths), len(overlay["paths"]), "times"))
    note = "milliseconds from the node on the left to the one above"
    if len(rows) == 1:
        note = f"milliseconds from {rows[0]['name']}, the slowest first"
    return Figure("Round-trip times", note, height + 58, "".join(body), "round-trips")


def matrix(
    rows: Sequence[Document], columns: Sequence[Document], paths: Mapping[Any, Document]
) -> tuple[float, list[str]]:
    """How high it is, and its parts."""
    wide = (WIDTH - LEFT) / max(1, len(columns))
    tall = min(46.0, max(7.0, wide * 0.72))
    head, gap = 24.0 if wide >= 56 else 70.0, GAP if tall > 12 else 1.0
    # Where cells are small, not every name has room.
    every, each = ceil(NAME / wide), ceil(NAME / tall)
    body = [
        column_name(node, LEFT + wide * (index + 0.5), head - 7, wide)
        for index, node in enumerate(columns)
        if index % every == 0
    ]
    for line, row in enumerate(rows):
        top = head + line * tall
        if line % each == 0:
            body.append(row_name(row, top + tall / 2 + 3, tall))
        for index, column in enumerate(columns):
            box = Box(LEFT + index * wide, top, wide - gap, tall - gap)
            body.append(cell(paths.get((row["id"], column["id"])), row["name"], column["name"], box))
    return head + len(rows) * tall, body


def one_row(row: Document, columns: Sequence[Document], paths: Mapping[Any, Document]) -> tuple[float, list[str]]:
    """Each peer with its name above it."""
    asked = [(paths[row["id"], column["id"]], column["name"]) for column in columns if column is not row]
    asked.sort(key=lambda each: -duration(each[0]))
    wide, tall = WIDTH / IN_A_ROW, 38.0
    body = []
    for index, (path, name) in enumerate(asked):
        box = Box(index % IN_A_ROW * wide, index // IN_A_ROW * tall + 15, wide - GAP, tall - 19)
        body.append(tag("text", x=box.middle, y=box.top - 4, class_="tiny middle", text=shortened(name, wide, TINY)))
        body.append(cell(path, row["name"], name, box))
    return ceil(len(asked) / IN_A_ROW) * tall, body


def duration(path: Document) -> float:
    """What is lost is slower than anything."""
    if path["health"] == LOST:
        return float("inf")
    return -1.0 if path["rtt_ms"] is None else float(path["rtt_ms"])


def column_name(node: Document, middle: float, base: float, wide: float) -> str:
    if wide >= 56:
        return tag("text", x=middle, y=base, class_="small middle", text=shortened(node["name"], wide))
    size, name = fitted(node["name"], 78)
    turn = f"rotate(-60 {middle:.1f} {base:.1f})"
    return tag("text", x=middle, y=base, class_="tiny" if wide < NAME else size, transform=turn, text=name)


def row_name(node: Document, base: float, tall: float) -> str:
    size, name = fitted(node["name"], LEFT - 8)
    return tag("text", x=LEFT - 8, y=base, class_=f"{'tiny' if tall < NAME else size} end", text=name)


def cell(path: Document | None, one: str, other: str, box: Box) -> str:
    radius = min(3.0, box.height / 4)
    if path is None:
        return box.rect("none", radius)
    level = level_of(path)
    parts = [title(told(path, one, other)), box.rect(f"cell {level}", radius)]
    if box.width >= 24 and box.height >= 13:
        parts.append(box.centred(word_of(path), f"in {level}"))
    return group(*parts, find=(one, other, path["health"]))


def level_of(path: Document) -> str:
    """One of LEVELS."""
    if path["health"] == LOST:
        return "lost"
    return "unknown" if path["rtt_ms"] is None else f"h{bisect_right(STEPS_MS, path['rtt_ms'])}"


def word_of(path: Document) -> str:
    if path["health"] == LOST:
        return "✗"
    return "?" if path["rtt_ms"] is None else number(path["rtt_ms"])


def legend(top: float, paths: Sequence[Document], more: str) -> Iterator[str]:
    counts = Counter(map(level_of, paths))
    wide = WIDTH / len(LEVELS)
    for index, (level, word) in enumerate(zip(LEVELS, WORDS, strict=True)):
        box = Box(index * wide, top, wide - GAP, 16)
        yield box.rect(f"cell {level}")
        if counts[level]:
            yield box.centred(f"{counts[level]:,}", f"in {level}")
        yield tag("text", x=box.middle, y=top + 28, class_="tiny middle", text=word)
    words = " · ".join(filter(None, ["above: how many paths take so many milliseconds", more]))
    yield tag("text", x=0, y=top + 44, class_="tiny", text=words)
