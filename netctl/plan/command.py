"""`netctl plan`: reads manifests and what netproxy has, and shows what would become of the two."""

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
from netctl.output import render_document
from netctl.plan.changes import place_text
from netctl.plan.planned import Plan, plan
from netctl.proxy_objects import PAGE, read_taken
from netctl.terminal import painter
from proxy.config import ProxyMode

MARKS = {"added": "+", "removed": "-", "changed": "~"}
COLOURS = {"added": State.OK, "removed": State.FAILED, "changed": State.DEGRADED}
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
    else:
        for line in (names if form == "name" else lines)(made, painter()):
            click.echo(line)
    return FINDING if made.refusals else OK


def names(made: Plan, _paint: Paint) -> Iterator[str]:
    return (escaped(f"service/{each.service}") for each in made.services if each.verb != "unchanged")


def lines(made: Plan, paint: Paint) -> Iterator[str]:
    for service in made.document["items"]:
        yield escaped(f"{service['service']}: {service['change']}")
        for frontend in service["frontends"]:
            yield paint(
                escaped(f"  {MARKS[frontend['change']]} {frontend_text(frontend)}"), COLOURS[frontend["change"]]
            )
    for name, reason in made.refusals.items():
        yield escaped(f"! {name}: {reason}")
    for name, note in made.notes.items():
        yield escaped(f"? {name}: {note}")
    for each in made.writes:
        yield write_text(made.mode, each)
    yield "nothing was applied"


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
