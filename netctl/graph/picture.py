"""All figures on one sheet: the standalone SVG. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from typing import Any

from netctl.findings.finding import verdict
from netctl.graph.figures.flows import flows
from netctl.graph.figures.round_trips import round_trips
from netctl.graph.figures.subnet_map import subnet_map
from netctl.graph.figures.svg import WIDTH, Box, Figure, shortened, tag
from netctl.graph.figures.topology import topology
from netctl.graph.selection import Palette, rest

Document = Mapping[str, Any]

OF_AN_OVERLAY: tuple[Callable[[Document, Palette], Figure], ...] = (topology, round_trips, subnet_map)

SHEET, MARGIN, GUTTER, PAD = 940.0, 14.0, 12.0, 14.0
CARD = (SHEET - 2 * MARGIN - GUTTER) / 2
SCALE = (CARD - 2 * PAD) / WIDTH
HEAD, HEADING, LINE = 70.0, 56.0, 34.0
"""Heights: of the sheet's head, of a card's, of one finding."""
MATCHED = 7
"""Figures whose every arrangement is tried: those of two overlays and the Services."""
FINDINGS = 6
"""Shown; the others are counted."""


def figures(document: Document) -> list[Figure]:
    """Those of each overlay, then the Services'."""
    palette = Palette(document)
    overlays = document["overlays"]
    found = [named(draw(each, palette), each["name"], overlays) for each in overlays for draw in OF_AN_OVERLAY]
    return [*found, flows(document, palette)]


def named(figure: Figure, overlay: str, overlays: Sequence[Document]) -> Figure:
    """With the overlay's name where there are several."""
    if len(overlays) == 1:
        return figure
    return replace(figure, title=f"{figure.title} ({overlay})", name=f"{figure.name}-{overlay}")


def headline(document: Document) -> str:
    asked, nodes = document["asked"], document["counts"]["nodes"]
    whence = asked[0]["name"] if len(asked) == 1 else "all of them" if len(asked) == nodes else f"{len(asked)} of them"
    return f"{nodes:,} node{'s' * (nodes != 1)}, seen from {whence}"


def summary(document: Document) -> str:
    counts = document["counts"]
    said = ", ".join(f"{counts[what]:,} {what}" for what in ("paths", "services", "endpoints"))
    return f"{said} · {datetime.fromtimestamp(document['taken_at'], UTC):%Y-%m-%d %H:%M:%S} UTC"


def outcome(document: Document) -> tuple[str, str]:
    """In words, and as a class: good or bad."""
    found = document["findings"]
    silent = sum(bool(each["silent"]) for each in document["asked"])
    if found or silent:
        return f"✗ {verdict(found)}", "bad"
    return "✓ no findings", "good"


def picture(document: Document, style: str) -> str:
    """`style`: figures.css. It follows the reader's light or dark scheme."""
    findings = [*finding_lines(document["findings"], HEAD)] if document["findings"] else []
    shown = min(len(document["findings"]), FINDINGS)
    top = HEAD + (LINE * (shown + 1) + GUTTER if findings else 0)
    cards, height = arranged(figures(document), top)
    return tag(
        "svg",
        f"<style>{style}</style>",
        Box(0, 0, SHEET, height).rect("page", 0),
        *heading(document),
        *findings,
        *cards,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {SHEET:g} {height:.0f}",
        width=SHEET,
        height=round(height),
        role="img",
        aria_label=f"{headline(document)}; {summary(document)}; {outcome(document)[0]}",
    )


def heading(document: Document) -> Iterator[str]:
    word, look = outcome(document)
    yield tag("text", x=MARGIN, y=32, class_="title", text=shortened(headline(document), SHEET - 200, 10.5))
    yield tag("text", x=MARGIN, y=54, class_="note", text=summary(document))
    yield tag("text", x=SHEET - MARGIN, y=32, class_=f"end heading {look}", text=word)


def finding_lines(findings: Sequence[Document], top: float) -> Iterator[str]:
    shown = findings[:FINDINGS]
    yield Box(MARGIN, top, SHEET - 2 * MARGIN, LINE * (len(shown) + 1)).rect("problem", 8)
    for index, one in enumerate(shown):
        base = top + 22 + LINE * index
        head = f"{one['code']} {one['title']}: {one['object']}"
        where = f"{one['node']}: {one['evidence']}"
        yield tag("text", x=MARGIN + PAD, y=base, class_="problem-title", text=shortened(head, SHEET - 70, 6.8))
        yield tag("text", x=MARGIN + PAD, y=base + 15, class_="small", text=shortened(where, SHEET - 70))
    words = " · ".join(filter(None, [rest(len(shown), len(findings), "findings"), f"next: {findings[0]['next']}"]))
    yield tag("text", x=MARGIN + PAD, y=top + 22 + LINE * len(shown), class_="note", text=words)


def arranged(every: Sequence[Figure], top: float) -> tuple[list[str], float]:
    """In two columns that end together; and the height of the sheet."""
    columns = in_columns(every)
    bottom = top + max(map(depth, columns))
    cards = []
    for left, column in zip((MARGIN, MARGIN + CARD + GUTTER), columns, strict=True):
        edge = top
        for number, figure in enumerate(column, start=1):
            height = bottom - GUTTER - edge if number == len(column) else card_height(figure)
            cards.append(card(figure, Box(left, edge, CARD, height)))
            edge += height + GUTTER
    return cards, bottom - GUTTER + MARGIN


def in_columns(every: Sequence[Figure]) -> tuple[list[Figure], list[Figure]]:
    """As even as they get with the order kept in each; of many, the later ones go where there is room."""
    first, *few = every[:MATCHED]
    sides = product((0, 1), repeat=len(few))
    splits = [([first, *picked(few, side, 0)], picked(few, side, 1)) for side in sides]
    columns = min(splits, key=lambda pair: max(map(depth, pair)))
    for figure in every[MATCHED:]:
        min(columns, key=depth).append(figure)
    return columns


def picked(few: Sequence[Figure], sides: Sequence[int], side: int) -> list[Figure]:
    return [figure for figure, where in zip(few, sides, strict=True) if where == side]


def depth(column: Sequence[Figure]) -> float:
    return sum(card_height(figure) + GUTTER for figure in column)


def card_height(figure: Figure) -> float:
    return HEADING + figure.height * SCALE + PAD


def card(figure: Figure, box: Box) -> str:
    return tag(
        "g",
        Box(0, 0, box.width, box.height).rect("frame", 8),
        tag("text", x=PAD, y=25, class_="heading", text=figure.title),
        tag("text", x=PAD, y=42, class_="note", text=shortened(figure.note, CARD - 2 * PAD, 5.6)),
        tag("g", figure.body, transform=f"translate({PAD} {HEADING}) scale({SCALE:.4f})"),
        transform=f"translate({box.left:.1f} {box.top:.1f})",
    )
