"""SVG as text. Pure. All foreign text goes through `tag`, which escapes it; colours stand in figures.css."""

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

from controlloop.printable import escaped

WIDTH = 440
"""Of every figure: two stand beside each other on a page, one fills a telephone."""

CHAR, MONO, TINY = 6.1, 6.1, 5.2
"""Widths of a character in the widest of the usual fonts: of most text, of addresses, of the smallest text."""

Value = str | float | None


@dataclass(frozen=True, slots=True)
class Figure:
    title: str
    note: str
    """One line that says how to read it."""
    height: float
    body: str
    """Drawn from 0,0 to WIDTH,height."""
    name: str
    """For a style or a test to find it."""


class Box(NamedTuple):
    left: float
    top: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.left + self.width / 2

    def rect(self, class_: str, radius: float = 3.0) -> str:
        return tag("rect", x=self.left, y=self.top, width=self.width, height=self.height, rx=radius, class_=class_)

    def centred(self, text: str, class_: str) -> str:
        return tag("text", x=self.middle, y=self.top + self.height / 2 + 3.7, class_=class_, text=text)


def tag(element: str, *children: str, text: Value = "", **attributes: Value) -> str:
    """`class_` stands for class, `data_find` for data-find; what is None or empty is left out."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{plain(value)}"'
        for name, value in attributes.items()
        if value is not None and value != ""
    )
    inside = "".join(children) + plain(text or "")
    return f"<{element}{written}>{inside}</{element}>" if inside else f"<{element}{written}/>"


def plain(value: str | float) -> str:
    """XML knows no control characters, not even escaped ones."""
    if isinstance(value, str):
        return escape(escaped(value))
    return f"{value:.1f}".removesuffix(".0")


def title(*lines: str) -> str:
    """What a pointer that rests on it sees."""
    return tag("title", text=" · ".join(line for line in lines if line))


def group(*children: str, find: Iterable[str] = (), **attributes: Value) -> str:
    """`find`: the words under which the page's filter finds it."""
    return tag("g", *children, data_find=" ".join(find).lower(), **attributes)


def fitted(text: str, width: float) -> tuple[str, str]:
    """Its class and what is shown of it: it gets smaller before it gets shorter."""
    return ("small", text) if len(text) * CHAR <= width else ("tiny", shortened(text, width, TINY))


def shortened(text: str, width: float, char: float = CHAR) -> str:
    """With an ellipsis in its middle where it is too long: both ends of a name or an address tell more than it."""
    room = max(3, int(width / char))
    if len(text) <= room:
        return text
    head = (room - 1) // 2
    return f"{text[:head]}…{text[len(text) - (room - 1 - head) :]}"
