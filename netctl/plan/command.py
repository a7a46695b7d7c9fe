"""`netctl plan`: reads manifests and what netproxy has, and shows what would become of the two."""

import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from controlloop.client import UnreachableError
from controlloop.printable import escaped
from netctl.apply.objects import read_objects
from netctl.colour import Paint, State
from netctl.exit_codes import FINDING, OK, UNREACHABLE
from netctl.node import PROXY, Node
from netctl.output import one_word, render_document
from netctl.plan.changes import place_text
from netctl.plan.planned import Plan, plan
from netctl.proxy_objects import PAGE, read_taken
from netctl.terminal import painter
from proxy.config import ProxyMode

MARKS = {"added": "+", "removed": "-", "changed": "~"}
COLOURS = {"added": State.OK, "removed": State.FAILED, "changed": State.DEGRADED}
WIDTH = 80
SHOWN = 5
"""Endpoints named in a line."""


def show(node: Node, files: Sequence[Path], mode: str, form: str, *, deletes: bool) -> int:
    """OperatorError, and with it exit code 2, for a manifest that cannot be read."""
    objects = read_objects(files)
    try:
        taken = read_taken(node.page(PROXY, PAGE))
    except UnreachableError as error:
        click.echo(f"netctl: netproxy does not answer, so nobody knows what is there ({error})", err=True)
        return UNREACHABLE
    made = plan(taken, objects, ProxyMode(mode) if mode else None, deletes=deletes)
    if form in ("json", "yaml"):
        click.echo(render_document(made.document, form))
    elif form == "name":
        for each in made.services:
            if each.verb != "unchanged":
                click.echo(one_word(f"service/{each.service}"))
    else:
        for line in lines(made, painter(), sys.maxsize if form == "wide" else WIDTH):
            click.echo(line)
    return FINDING if made.refusals else OK


def lines(made: Plan, paint: Paint, width: int) -> Iterator[str]:
    for service in made.document["items"]:
        yield from wrapped(f"{service['service']}: {service['change']}", width)
        for frontend in service["frontends"]:
            text, colour = frontend_text(frontend), COLOURS[frontend["change"]]
            yield from (paint(line, colour) for line in wrapped(text, width, f"  {MARKS[frontend['change']]} "))
    for name, reason in made.refusals.items():
        yield from wrapped(f"{name}: {reason}", width, "! ")
    for name, note in made.notes.items():
        yield from wrapped(f"{name}: {note}", width, "? ")
    for each in made.writes:
        yield from wrapped(write_text(made.mode, each), width)
    yield "nothing was applied"


def wrapped(text: str, width: int, mark: str = "") -> list[str]:
    """What does not fit stands below, so that marks stay in sight."""
    hanging = " " * (len(mark) + 2)
    return textwrap.wrap(escaped(text), width, initial_indent=mark, subsequent_indent=hanging, break_on_hyphens=False)


def frontend_text(item: Mapping[str, Any]) -> str:
    parts = []
    if item["change"] != "removed":
        parts += [f"+{each}" for each in some(item["endpoints_added"])]
        if item["change"] == "changed":
            parts += [f"-{each}" for each in some(item["endpoints_removed"])]
        elif not item["endpoints"]:
            parts.append("no endpoints")
    parts += [f"{each['name']} {each['before']} -> {each['after']}" for each in item["settings"]]
    return f"{place_text(item)} {item['scope']}" + (f": {', '.join(parts)}" if parts else "")


def some(endpoints: Sequence[str]) -> list[str]:
    hidden = len(endpoints) - SHOWN
    return [*endpoints[:SHOWN], *([f"{hidden} more"] if hidden > 0 else [])]


def write_text(mode: ProxyMode, each: Mapping[str, Any]) -> str:
    elements = f", {each['elements']} elements" if mode is ProxyMode.NFTABLES else ""
    written = f"{each['rules']} rules in {each['chains']} chains{elements}"
    return f"{mode.value} {each['family']}: writes {written}; removes {each['removed']} objects"
