"""What happened on a node, of all its daemons together, by time."""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click
from msgspec import Struct, ValidationError, convert, to_builtins

from controlloop.client import UnreachableError
from controlloop.history import Event
from netctl.exit_codes import OK, UNREACHABLE
from netctl.node import Node
from netctl.output import GAP, Column, Item, Listing, cut, one_word, render_listing

PAGE = "/events"
DAY_S = 86_400
NARROWEST = 20
"""Characters that the last column has on any terminal."""
PIPED_WIDTH = 80
WIDTHS = {"TIME": 8, "TRIGGER": 7, "DAEMON": 10}
"""While events are followed: what has not happened yet cannot widen a column."""


@dataclass(frozen=True, slots=True)
class Filter:
    text: str = ""
    """A part of the object's name."""
    since_s: float | None = None

    def takes(self, item: Item, now: float) -> bool:
        is_recent = self.since_s is None or item["at"] >= now - self.since_s
        return is_recent and self.text.casefold() in item["object"].casefold()


class Page(Struct):
    """What a daemon answers."""

    started: float
    last: int
    lost: int
    items: list[Event]

    def of(self, daemon: str) -> Iterator[dict[str, Any]]:
        return ({"daemon": daemon, **to_builtins(each)} for each in self.items)


def read_page(node: Node, daemon: str, after: int | None = None) -> Page:
    """All that the daemon keeps, or what came behind an event. UnreachableError when it gives no such page."""
    try:
        return convert(node.page(daemon, PAGE if after is None else f"{PAGE}/{after}"), Page)
    except ValidationError as error:
        raise UnreachableError(f"{PAGE} is not as this netctl knows it: {error}") from None


def list_events(node: Node, wanted: Filter, form: str) -> int:
    found: list[Item] = []
    exit_code = OK
    for daemon in node.daemons:
        try:
            page = read_page(node, daemon)
        except UnreachableError as error:
            click.echo(f"netctl: {daemon} does not answer, its events are missing: {error}", err=True)
            exit_code = UNREACHABLE
            continue
        found += page.of(daemon)
    found = sorted((item for item in found if wanted.takes(item, node.now)), key=lambda item: item["at"])
    if text := render_listing(Listing("EventList", found, columns(form, node.now), name), form):
        click.echo(text)
    return exit_code


def name(item: Item) -> str:
    """`service/default/web`."""
    return one_word("/".join(item["object"].split(" ", 1)))


def columns(form: str, now: float) -> tuple[Column, ...]:
    """With `wide` nothing is cut."""
    room = sys.maxsize if form == "wide" else width() - sum(WIDTHS[title] + len(GAP) for title in ("TIME", "TRIGGER"))
    return (
        Column("TIME", lambda item: clock(item["at"], now)),
        Column("TRIGGER", lambda item: item["trigger"]),
        Column("DAEMON", lambda item: item["daemon"], wide=True),
        Column("WHAT HAPPENED (UTC)", lambda item: cut(sentence(item), max(room, NARROWEST))),
    )


def width() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPED_WIDTH


def clock(at: float, now: float) -> str:
    """The time of day, or the day when that is longer ago. UTC, as in the daemons' logs."""
    shape = "%H:%M:%S" if now - at < DAY_S else "%d %b"
    return datetime.fromtimestamp(at, UTC).strftime(shape)


def sentence(item: Item) -> str:
    """`service default/web changed: -10.244.1.5:8080 +10.244.2.9:8080`. Signs where something goes or stays."""
    old, new = item["old"], item["new"]
    if item["action"] == "changed" or (old and new):
        facts = " ".join([*(f"-{fact}" for fact in old), *(f"+{fact}" for fact in new)])
    else:
        facts = ", ".join([*old, *new])
    words = item["object"], item["action"]
    # What a finding is about may be long, and its code must not be what is cut.
    head = " ".join(words[::-1] if item["action"].startswith("finding ") else words)
    head += f" ({item['times']} times)" if item["times"] > 1 else ""
    head += f", undone by {item['by']}" if item["by"] else ""
    return f"{head}: {facts}" if facts else head
