"""Where new connections to each Service go: from its address to its endpoints, by share, and on to nodes. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from netctl.graph.figures.svg import MONO, WIDTH, Box, Figure, fitted, group, shortened, tag, title
from netctl.graph.selection import Palette, rest

Document = Mapping[str, Any]

LIMIT = 8
"""Ports of Services."""
ENDPOINTS = 6
"""Of each port; the others stand together."""
LINES = 28
"""Of all of them together."""
LINE, BETWEEN = 19.0, 16.0
BAR, TO, END = 144.0, 184.0, 344.0
"""Left edges of the Service's bar, of the endpoints and of the nodes."""


def flows(document: Document, palette: Palette) -> Figure:
    ports, body, top = document["services"], [], 4.0
    shown = list(with_room(ports))
    for port, places in shown:
        bar = Box(BAR, top, 6, max(1, len(places)) * LINE)
        body.append(draw_port(port, places, palette, bar))
        top += max(bar.height, 30.0) + BETWEEN
    if words := rest(len(shown), len(ports), "ports of Services") or ("" if ports else "no Services"):
        body.append(tag("text", x=0, y=top + 6, class_="note", text=words))
        top += 12
    return Figure("Services", "shares of new connections, by endpoint and node", top, "".join(body), "flows")


def with_room(ports: Sequence[Document]) -> Iterator[tuple[Document, list[Document]]]:
    """The first ports, with the lines of each."""
    lines = 0
    for port in ports[:LIMIT]:
        places = lines_of(port)
        lines += len(places)
        if lines > LINES:
            return
        yield port, places


def lines_of(port: Document) -> list[Document]:
    """Its endpoints, the last of many as one."""
    shown, others = port["endpoints"][:ENDPOINTS], port["endpoints"][ENDPOINTS:]
    if len(others) < 2:
        return list(port["endpoints"])
    share = sum(one["share"] for one in others)
    return [*shown, {"address": f"{len(others):,} more", "share": share, "node": None}]


def draw_port(port: Document, places: Sequence[Document], palette: Palette, bar: Box) -> str:
    state = "" if places else " lost"
    parts = [
        tag("text", x=0, y=bar.top + 12, class_=f"strong{state}", text=shortened(port["name"], BAR - 6, 7.2)),
        tag("text", x=0, y=bar.top + 27, class_="small", text=shortened(reached_at(port), BAR - 8)),
        bar.rect(f"service{state}", 2),
    ]
    if not places:
        parts.append(tag("text", x=TO, y=bar.top + 13, class_="problem-title", text="✗ no endpoints"))
    parts += draw_places(places, palette, bar)
    about = title(f"{port['name']} ({port['protocol']}, {port['balance']})", *port["addresses"], disagreement(port))
    find = [port["name"], *port["addresses"], *(f"{one['address']} {palette.name(one['node'])}" for one in places)]
    return group(about, *parts, find=find)


def reached_at(port: Document) -> str:
    first, others = port["addresses"][0], len(port["addresses"]) - 1
    return f"{first}/{port['protocol']}" + (f" +{others}" if others else "")


def disagreement(port: Document) -> str:
    return f"so only at {', '.join(port['only_at'])}" if port["only_at"] else ""


def draw_places(places: Sequence[Document], palette: Palette, bar: Box) -> Iterator[str]:
    whole = sum(one["share"] for one in places) or 1.0
    start = bar.top
    for index, one in enumerate(places):
        band = Box(TO, bar.top + index * LINE + 1, END - TO, LINE - 3)
        hue, thick = palette.hue(one["node"]), bar.height * one["share"] / whole
        yield tag("path", d=ribbon(start, start + thick, band), class_=f"ribbon {hue}")
        yield draw_place(one, palette.name(one["node"]), hue, band)
        start += thick


def draw_place(one: Document, node: str, hue: str, band: Box) -> str:
    share, base = f"{one['share']:.1%}".replace(".0%", "%"), band.top + 12
    size, name = fitted(node, WIDTH - END - 11)
    return tag(
        "g",
        title(f"{one['address']}: {share}", node),
        band.rect(f"band {hue}", 0),
        tag("text", x=TO + 5, y=base, class_="mono", text=shortened(one["address"], END - TO - 48, MONO)),
        tag("text", x=END - 5, y=base, class_="small end strong", text=share),
        Box(END, band.top, 6, band.height).rect(hue, 0),
        tag("text", x=END + 11, y=base, class_=size, text=name) if node else "",
    )


def ribbon(upper: float, lower: float, band: Box) -> str:
    """From the Service's bar, as thick as the share, to the endpoint."""
    left, middle, right = BAR + 6, (BAR + 6 + TO) / 2, TO
    edges = f"M{left} {upper:.1f}C{middle} {upper:.1f} {middle} {band.top:.1f} {right} {band.top:.1f}"
    bottom = band.top + band.height
    return f"{edges}V{bottom:.1f}C{middle} {bottom:.1f} {middle} {lower:.1f} {left} {lower:.1f}Z"
