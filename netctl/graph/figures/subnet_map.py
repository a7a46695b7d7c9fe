"""The pod network as a grid of its subnets: whose each one is, what is free, and what nobody may lease. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from netctl.graph.figures.svg import TINY, WIDTH, Box, Figure, group, shortened, tag, title
from netctl.graph.selection import Palette, rest

Document = Mapping[str, Any]
Network = IPv4Network | IPv6Network

COLUMNS = 16
CELLS = 256
"""At most in one grid. A network of more subnets shows blocks of them."""
LEFT, GAP = 96.0, 2.0
NAMED = 12
"""Nodes that are named below the grid."""
OWNERS = 8
"""Named in one cell's tooltip."""


@dataclass(frozen=True, slots=True)
class Grid:
    network: Network
    block: int
    """Prefix length of what one cell stands for: that of a subnet, or a shorter one."""
    subnet_len: int
    first: int
    last: int
    """Addresses, as numbers, of the first and last subnet that may be leased."""

    @property
    def cells(self) -> int:
        return 1 << (self.block - self.network.prefixlen)

    def start(self, index: int) -> int:
        """The address, as a number, at which a cell begins."""
        return int(self.network.network_address) + (index << (self.network.max_prefixlen - self.block))

    def may_lease(self, index: int) -> bool:
        """At least a part of the cell."""
        return self.start(index + 1) > self.first and self.start(index) <= self.last

    def name(self, index: int) -> str:
        """As a network. A number alone would say IPv4 for small ones of IPv6."""
        return str(type(self.network)((self.start(index), self.block)))

    def index_of(self, subnet: Network) -> int | None:
        """None for a subnet of another network."""
        if subnet.version != self.network.version or not subnet.overlaps(self.network):
            return None
        ahead = int(subnet.network_address) - int(self.network.network_address)
        return max(0, ahead >> (self.network.max_prefixlen - self.block))


def grid_of(network: Document) -> Grid:
    whole = ip_network(network["network"])
    block = min(network["subnet_len"], whole.prefixlen + (CELLS - 1).bit_length())
    edges = int(ip_address(network["subnet_min"])), int(ip_address(network["subnet_max"]))
    return Grid(whole, block, network["subnet_len"], *edges)


def subnet_map(overlay: Document, palette: Palette) -> Figure:
    nodes, top = overlay["nodes"], 2.0
    tall = 17.0 if len(overlay["networks"]) == 1 else 12.0
    body = []
    for network in overlay["networks"]:
        grid = grid_of(network)
        owned = owners_by_cell(grid, nodes)
        body.append(tag("text", x=WIDTH - GAP, y=top + 8, class_="note end", text=usage(grid, owned)))
        top += 16
        for index in range(grid.cells):
            box = box_of(index, top, tall)
            body.append(draw_cell(grid, index, owned.get(index, []), palette, box))
            if index % COLUMNS == 0:
                body.append(row_name(grid, index, box))
        top += -(-grid.cells // COLUMNS) * tall + 10
    entries = [*legend(nodes, palette)]
    body += draw_legend(entries, top)
    height = top + 16 * -(-len(entries) // 3)
    note = "whose each subnet is, and which are free" if overlay["networks"] else "nobody told which it is"
    return Figure("Pod network", note, height, "".join(body), "subnets")


def owners_by_cell(grid: Grid, nodes: Sequence[Document]) -> Mapping[int, list[Document]]:
    owned: dict[int, list[Document]] = {}
    for node in nodes:
        for subnet in node["subnets"]:
            index = grid.index_of(ip_network(subnet))
            if index is not None:
                owned.setdefault(index, []).append(node)
    return owned


def usage(grid: Grid, owned: Mapping[int, Sequence[Document]]) -> str:
    leased = sum(map(len, owned.values()))
    leasable = ((grid.last - grid.first) >> (grid.network.max_prefixlen - grid.subnet_len)) + 1
    cell = 1 << (grid.subnet_len - grid.block)
    blocks = f" · a cell is {cell:,} of them" if cell > 1 else ""
    return f"{grid.network}: {leased:,} of {leasable:,} subnets leased, each a /{grid.subnet_len}{blocks}"


def box_of(index: int, top: float, tall: float) -> Box:
    row, column = divmod(index, COLUMNS)
    wide = (WIDTH - LEFT) / COLUMNS
    return Box(LEFT + column * wide, top + row * tall, wide - GAP, tall - GAP)


def row_name(grid: Grid, index: int, box: Box) -> str:
    name = shortened(grid.name(index).partition("/")[0], LEFT - 8, TINY)
    return tag("text", x=LEFT - 8, y=box.top + box.height / 2 + 3, class_="tiny mono end", text=name)


def draw_cell(grid: Grid, index: int, owners: Sequence[Document], palette: Palette, box: Box) -> str:
    name = grid.name(index)
    if not owners:
        word, look = ("free", "free") if grid.may_lease(index) else ("nobody may lease it", "kept")
        return group(title(f"{name}: {word}"), box.rect(look, 2))
    look, inside = look_of(grid, index, owners, palette)
    lines = [*(told(node) for node in owners[:OWNERS]), rest(OWNERS, len(owners), "nodes")]
    find = [word for node in owners for word in (node["name"], *node["subnets"])]
    return group(title(name, *lines), box.rect(f"owned {look}", 2), box.centred(inside, "tiny on"), find=find)


def look_of(grid: Grid, index: int, owners: Sequence[Document], palette: Palette) -> tuple[str, str]:
    """The class of the cell, and what stands in it."""
    first = owners[0]
    if any(node["skipped"] for node in owners):
        return "lost", "!"
    if grid.block < grid.subnet_len:
        return palette.hue(first["id"]) if len(owners) == 1 else "many", str(len(owners))
    if len(owners) > 1:
        return "lost", f"{len(owners)}!"
    reserved = " reserved" if first["reserved"] else ""
    return f"{palette.hue(first['id'])}{reserved}", f"{index:x}" if grid.network.version == 6 else str(index)


def told(node: Document) -> str:
    kind = f"skipped: {node['skipped']}" if node["skipped"] else "reserved" if node["reserved"] else "leased"
    return f"{node['name']} ({kind})"


def legend(nodes: Sequence[Document], palette: Palette) -> Iterator[tuple[str, str]]:
    """Classes of figures.css and what they stand for."""
    yield from ((palette.hue(node["id"]), node["name"]) for node in nodes[:NAMED])
    if more := rest(NAMED, len(nodes), "nodes"):
        yield "many", more
    if any(node["reserved"] for node in nodes):
        yield "free reserved", "reserved"
    yield from (("free", "free"), ("kept", "not for leases"))


def draw_legend(entries: Sequence[tuple[str, str]], top: float) -> Iterator[str]:
    wide = WIDTH / 3
    for index, (look, name) in enumerate(entries):
        box = Box(index % 3 * wide + 1, top + index // 3 * 16, 10, 10)
        text = tag("text", x=box.left + 15, y=box.top + 9, class_="small", text=shortened(name, wide - 20))
        yield group(box.rect(look, 2), text, find=[name])
