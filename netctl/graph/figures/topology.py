"""Nodes on a ring, or around the one that was asked, with the paths that somebody knows of. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import atan2, cos, degrees, pi, sin
from typing import Any

from netctl.graph.figures.paths import MARKS, Pair, pairs_of, told
from netctl.graph.figures.svg import MONO, WIDTH, Box, Figure, fitted, group, shortened, tag, title
from netctl.graph.health import OK, WORST_FIRST
from netctl.graph.selection import Palette, chosen_nodes, rest

Document = Mapping[str, Any]
Point = tuple[float, float]

LIMIT = 60
"""Nodes, so that names on the ring do not touch."""
BOXES = 8
"""Up to so many nodes, each has a box of its own; those of more would touch."""
LABELLED = 14
"""Up to so many pairs, each has its round-trip time beside it; the heat map has all."""
BOX_WIDTH, BOX_HEIGHT = 122.0, 42.0
BADGE = 6.0
"""How far the mark of its health stands out of a box."""
CROWD = 100
"""Pairs, from which on lines are thin: one that is wrong must stand out."""
HEIGHT = 396.0
CENTRE = (WIDTH / 2, 188.0)
RADIUS = 98.0
"""Of the ring without boxes: outside stand the names."""


def topology(overlay: Document, palette: Palette) -> Figure:
    nodes = chosen_nodes(overlay["nodes"], LIMIT)
    places = positions(nodes)
    pairs = sorted(pairs_of(overlay["paths"], nodes), key=lambda pair: -WORST_FIRST.index(pair.health))
    labelled = len(nodes) <= BOXES and len(pairs) <= LABELLED
    crowd = " crowd" if len(pairs) >= CROWD else ""
    body = [draw_pair(pair, places, palette, crowd) for pair in pairs]
    body += [draw_label(pair, places, palette) for pair in pairs if labelled and pair.label]
    draw = draw_box if len(nodes) <= BOXES else draw_dot
    body += [draw(node, places[node["id"]], palette.hue(node["id"])) for node in nodes]
    words = " · ".join(filter(None, [tally(overlay["paths"]), rest(len(nodes), len(overlay["nodes"]), "nodes")]))
    body.append(tag("text", x=WIDTH / 2, y=HEIGHT - 6, class_="note middle", text=words))
    note = "lines are paths over the overlay" + (", with their round-trip times" if labelled else "")
    name = f"Nodes of the {overlay['backend']} overlay" if overlay["backend"] else "Nodes"
    return Figure(name, note, HEIGHT, "".join(body), "topology")


def tally(paths: Sequence[Document]) -> str:
    counts = Counter(path["health"] for path in paths)
    words = [f"{MARKS[state]} {counts[state]:,} {state}" for state in reversed(WORST_FIRST) if counts[state]]
    return f"paths: {', '.join(words)}" if words else "no paths"


def positions(nodes: Sequence[Document]) -> Mapping[str, Point]:
    """Clockwise from above; who alone was asked stands in the middle."""
    asked = [node for node in nodes if node["asked"]]
    hub = asked[0] if len(asked) == 1 else nodes[0] if len(nodes) == 1 else None
    ring = [node for node in nodes if node is not hub]
    across = down = RADIUS
    if len(nodes) <= BOXES:
        across, down = (WIDTH - BOX_WIDTH) / 2 - BADGE, CENTRE[1] - BOX_HEIGHT / 2 - BADGE
    found = {node["id"]: CENTRE for node in nodes}
    # Beside a box in the middle there is no room for a label.
    turn = 0.5 if hub and len(ring) % 4 == 0 else 0
    for index, node in enumerate(ring):
        angle = 2 * pi * (index + turn) / len(ring)
        found[node["id"]] = (CENTRE[0] + across * sin(angle), CENTRE[1] - down * cos(angle))
    return found


def draw_pair(pair: Pair, places: Mapping[str, Point], palette: Palette, crowd: str) -> str:
    (x1, y1), (x2, y2) = (places[end] for end in pair.ends)
    lines = (told(path, palette.name(path["from"]), palette.name(path["to"])) for path in pair.known)
    ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    # The second line cannot be seen: it is what a pointer meets, who seldom meets a thin one.
    drawn = (tag("line", class_=f"path {pair.health}{crowd}", **ends), tag("line", class_="reach", **ends))
    return group(title(*lines), *drawn, find=found_by(pair, palette))


def found_by(pair: Pair, palette: Palette) -> tuple[str, ...]:
    return (*map(palette.name, pair.ends), pair.health)


def draw_label(pair: Pair, places: Mapping[str, Point], palette: Palette) -> str:
    """In the middle, but not where the lines through the centre all cross."""
    (x1, y1), (x2, y2) = (places[end] for end in pair.ends)
    through_centre = abs((x1 + x2) / 2 - CENTRE[0]) + abs((y1 + y2) / 2 - CENTRE[1]) < 12
    share = 0.36 if through_centre else 0.5
    width = 5.6 * len(pair.label) + 4
    box = Box(x1 + share * (x2 - x1) - width / 2, y1 + share * (y2 - y1) - 7, width, 14)
    return group(box.rect("paper"), box.centred(pair.label, f"label {pair.health}"), find=found_by(pair, palette))


def draw_box(node: Document, place: Point, hue: str) -> str:
    box = Box(place[0] - BOX_WIDTH / 2, place[1] - BOX_HEIGHT / 2, BOX_WIDTH, BOX_HEIGHT)
    name = shortened(node["name"], BOX_WIDTH - 22, 6.6)
    subnet = shortened(next(iter(node["subnets"]), "no subnet"), BOX_WIDTH - 20, MONO)
    corner = Box(box.left + BOX_WIDTH - 16 + BADGE, box.top - BADGE, 16, 16)
    return node_group(
        node,
        box.rect(f"box {node['health']}", 6),
        Box(box.left + 5, box.top + 6, 5, BOX_HEIGHT - 12).rect(hue, 2),
        tag("text", x=box.left + 16, y=box.top + 18, class_="small strong", text=name),
        tag("text", x=box.left + 16, y=box.top + 33, class_="mono", text=subnet),
        corner.rect(f"badge {node['health']}", 8),
        corner.centred(MARKS[node["health"]], "mark"),
    )


def draw_dot(node: Document, place: Point, hue: str) -> str:
    mark = "" if node["health"] == OK else f"{MARKS[node['health']]} "
    dot = tag("circle", cx=place[0], cy=place[1], r=5.5, class_=f"dot {node['health']} {hue}")
    return node_group(node, dot, outward(f"{mark}{node['name']}", place))


def outward(name: str, place: Point) -> str:
    """Along the radius; on the left half it is turned, so that nobody has to read upside down."""
    across, down = place[0] - CENTRE[0], place[1] - CENTRE[1]
    if (across, down) == (0, 0):
        return tag("text", x=place[0], y=place[1] - 10, class_="strong middle halo", text=name)
    turned = across < -0.01
    angle = degrees(atan2(down, across)) + 180 * turned
    turn = f"rotate({angle:.1f} {place[0]:.1f} {place[1]:.1f})"
    start, end = (place[0] - 10, " end") if turned else (place[0] + 10, "")
    size, shown = fitted(name, CENTRE[1] - RADIUS - 10)
    return tag("text", x=start, y=place[1] + 3.5, class_=f"{size}{end}", transform=turn, text=shown)


def node_group(node: Document, *parts: str) -> str:
    what = f"{node['name']}: {node['health']}" + (f" ({node['reason']})" if node["reason"] else "")
    kept = "reserved: its lease does not expire" if node["reserved"] else ""
    about = title(what, ", ".join(node["public_ips"]), ", ".join(node["subnets"]), kept)
    find = (node["name"], *node["public_ips"], *node["subnets"], node["health"])
    return group(about, *parts, find=find, class_="node", tabindex="0", data_name=node["name"])
