"""`netctl events -f`: asks each daemon again and again for what is new, also behind a restart of it."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import click

from controlloop.client import UnreachableError
from netctl.events.reading import WIDTHS, Filter, columns, name, read_page
from netctl.exit_codes import OK
from netctl.node import Node
from netctl.output import API_VERSION, GAP, Item, cell, padded, render_document

PERIOD_S = 0.5


class Cursor:
    """How far one daemon was read."""

    def __init__(self, node: Node, daemon: str) -> None:
        self._node, self._daemon = node, daemon
        self._after = 0
        self._started: float | None = None
        self._is_away = False

    def news(self) -> list[dict[str, Any]]:
        """What is new; nothing while the daemon is away, which is told once."""
        try:
            page = read_page(self._node, self._daemon, self._after)
            if self._started not in (None, page.started):
                page = read_page(self._node, self._daemon, 0)
        except UnreachableError as error:
            self._tell(away=True, why=f"does not answer, waiting for it: {error}")
            return []
        self._tell(away=False, why="answers again")
        if page.lost and self._started is not None:
            click.echo(f"netctl: {page.lost} events of {self._daemon} came faster than they were read", err=True)
        self._after, self._started = page.last, page.started
        return list(page.of(self._daemon))

    def _tell(self, *, away: bool, why: str) -> None:
        if away != self._is_away:
            self._is_away = away
            click.echo(f"netctl: {self._daemon} {why}", err=True)


def follow_events(node: Node, wanted: Filter, form: str) -> int:
    """Until it is interrupted, or nobody reads any more."""
    cursors = {daemon: Cursor(node, daemon) for daemon in node.daemons}
    try:
        for line in lines(node, cursors, wanted, form):
            click.echo(line)
    except BrokenPipeError:
        # What is still in the buffer must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OK


def lines(node: Node, cursors: dict[str, Cursor], wanted: Filter, form: str) -> Iterator[str]:
    if form in ("table", "wide"):
        yield row(form, node.now, None)
    while True:
        news = sorted((item for cursor in cursors.values() for item in cursor.news()), key=lambda item: item["at"])
        now = node.now
        yield from (shown(item, form, now) for item in news if wanted.takes(item, now))
        time.sleep(PERIOD_S)


def shown(item: Item, form: str, now: float) -> str:
    if form == "name":
        return name(item)
    if form in ("table", "wide"):
        return row(form, now, item)
    return document_line({"apiVersion": API_VERSION, "kind": "Event", **item}, form)


def document_line(document: Mapping[str, Any], form: str) -> str:
    """One line of JSON, or one document of YAML."""
    if form == "yaml":
        return f"---\n{render_document(document, form)}"
    import json  # noqa: PLC0415

    return json.dumps(document)


def row(form: str, now: float, item: Item | None) -> str:
    """None: the titles."""
    chosen = [column for column in columns(form, now) if form == "wide" or not column.wide]
    cells = (
        padded(column, column.title if item is None else cell(column, item), WIDTHS.get(column.title, 0))
        for column in chosen
    )
    return GAP.join(cells).rstrip()
