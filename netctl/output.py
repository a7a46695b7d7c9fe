"""How every command shows what it found: a table for people, a document for programs, names for a shell's loop.

Pure but for the imports that JSON and YAML need. Foreign text reaches a terminal escaped.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlloop.printable import escaped
from netctl.colour import Paint, State, plain

API_VERSION = "nodenet.io/v1alpha1"
GAP = "  "
NOTHING = "-"
ELLIPSIS = "..."

Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    text: Callable[[Item], object]
    """None and the empty text show as a dash."""
    right: bool = False
    """Numbers."""
    wide: bool = False
    """Only with `-o wide`."""
    state: Callable[[Item], State | None] | None = None
    """Which colour the cell has, if it speaks of a state."""


@dataclass(frozen=True, slots=True)
class Listing:
    kind: str
    """As in the document: `PeerList`."""
    items: Sequence[Item]
    columns: Sequence[Column]
    name: Callable[[Item], str]

    @property
    def document(self) -> dict[str, Any]:
        return {"apiVersion": API_VERSION, "kind": self.kind, "items": list(self.items)}


def render_listing(listing: Listing, form: str, paint: Paint = plain) -> str:
    """Empty for a list without items where only names are asked for."""
    if form in ("json", "yaml"):
        return render_document(listing.document, form)
    if form == "name":
        return "\n".join(one_word(listing.name(item)) for item in listing.items)
    return table([column for column in listing.columns if form == "wide" or not column.wide], listing.items, paint)


def render_document(document: Mapping[str, Any], form: str) -> str:
    if form == "yaml":
        import yaml  # noqa: PLC0415 - 20 ms that a table need not wait for

        return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=False)).rstrip()
    import json  # noqa: PLC0415

    # ASCII: what a lease says cannot reach the terminal as control characters.
    return json.dumps(document, indent=2)


def table(columns: Sequence[Column], items: Sequence[Item], paint: Paint = plain) -> str:
    texts = [[cell(column, item) for column in columns] for item in items]
    widths = [max(map(len, column)) for column in zip([column.title for column in columns], *texts, strict=True)]
    rows = [[padded(column, column.title, width) for column, width in zip(columns, widths, strict=True)]]
    for item, row in zip(items, texts, strict=True):
        cells = zip(columns, row, widths, strict=True)
        rows.append([painted(column, item, padded(column, text, width), paint) for column, text, width in cells])
    return "\n".join(GAP.join(row).rstrip() for row in rows)


def cell(column: Column, item: Item) -> str:
    value = column.text(item)
    return NOTHING if value is None or value == "" else escaped(str(value))


def cut(text: str, room: int) -> str:
    """Escaped first: what stands for a control character takes room, too. The ellipsis is ASCII, as it is for pipes."""
    text = escaped(text)
    return text if len(text) <= room else f"{text[: room - len(ELLIPSIS)]}{ELLIPSIS}"


def one_word(name: str) -> str:
    """For a shell, which would split it."""
    return escaped("_".join(name.split()))


def padded(column: Column, text: str, width: int) -> str:
    return text.rjust(width) if column.right else text.ljust(width)


def painted(column: Column, item: Item, text: str, paint: Paint) -> str:
    state = column.state(item) if column.state else None
    return paint(text, state) if state else text
