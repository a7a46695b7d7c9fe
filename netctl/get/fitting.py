"""A table that fits 80 columns, whatever names are in it; only `-o wide` shows long texts to their end. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from netctl.output import GAP, Column, Item, Listing, cell, cut

WIDTH = 80


def fitted(listing: Listing, form: str) -> Listing:
    """In the table for people the longest texts give way; numbers never do."""
    if form != "table":
        return listing
    columns = [column for column in listing.columns if not column.wide]
    widths = narrowed(columns, [natural(column, listing.items) for column in columns])
    return replace(listing, columns=[within(*each) for each in zip(columns, widths, strict=True)])


def natural(column: Column, items: Sequence[Item]) -> int:
    return max(map(len, (column.title, *(cell(column, item) for item in items))))


def narrowed(columns: Sequence[Column], widths: Sequence[int]) -> list[int]:
    """The widest gives way, as long as its title still fits."""
    found = list(widths)
    least = [width if column.right else len(column.title) for column, width in zip(columns, widths, strict=True)]
    while sum(found) + len(GAP) * (len(found) - 1) > WIDTH:
        yielding = [index for index, width in enumerate(found) if width > least[index]]
        if not yielding:
            break
        found[max(yielding, key=found.__getitem__)] -= 1
    return found


def within(column: Column, width: int) -> Column:
    return column if column.right else replace(column, text=lambda item: cut(cell(column, item), width))
