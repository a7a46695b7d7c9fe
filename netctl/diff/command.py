"""`netctl diff`: asks what is wanted, looks at what is there, and shows the difference by object."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import click

from controlloop.client import UnreachableError
from controlloop.command import CommandError
from controlloop.printable import escaped
from netctl.actual.iptables import read_chains
from netctl.actual.nft import read_table
from netctl.actual.refusal import is_refusal
from netctl.colour import Paint, State
from netctl.diff import chain_drift, nft_drift, overlay_drift
from netctl.diff.drift import Difference, Owners
from netctl.exit_codes import FINDING, OK, REFUSED, UNREACHABLE
from netctl.node import PROXY, Node
from netctl.output import API_VERSION, one_word, render_document
from netctl.terminal import painter

SHOWN = 40
"""Differences in the form for people; the documents have all."""


@dataclass(slots=True)
class Drift:
    differences: list[Difference] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    """Daemons that cannot be compared, and why."""
    refused: bool = False
    """Because this user may not look."""
    compared: int = 0
    """Objects that are wanted."""

    @property
    def exit_code(self) -> int:
        if self.unread:
            return REFUSED if self.refused else UNREACHABLE
        return FINDING if self.differences else OK

    @property
    def document(self) -> dict[str, Any]:
        return {
            "apiVersion": API_VERSION,
            "kind": "Drift",
            "compared": self.compared,
            "items": [each.item for each in self.differences],
            "unread": [{"daemon": daemon, "reason": reason} for daemon, reason in self.unread.items()],
        }


def show(node: Node, form: str) -> int:
    drift = lasting_drift(node)
    for daemon, reason in drift.unread.items():
        click.echo(f"netctl: {daemon} is not compared: {escaped(reason)}", err=True)
    if form in ("json", "yaml"):
        click.echo(render_document(drift.document, form))
    elif form == "name":
        for each in drift.differences:
            click.echo(one_word(f"{each.place}/{each.object}"))
    else:
        for line in unified(drift, painter(), everything=form == "wide"):
            click.echo(line)
    return drift.exit_code


def lasting_drift(node: Node) -> Drift:
    """What two looks agree on, where the node is live: daemons repair single objects within milliseconds, and what
    they change themselves may be between plan and kernel.
    """
    drift = drift_of(node)
    if node.is_live and drift.differences:
        before = {each.identity for each in drift.differences}
        drift = drift_of(node)
        drift.differences = [each for each in drift.differences if each.identity in before]
    return drift


def drift_of(node: Node) -> Drift:
    drift = Drift()
    for daemon in node.daemons:
        try:
            page = written_page(node, daemon)
            drift.compared += len(page["overlay"]) + sum(len(rules["objects"]) for rules in page["rules"])
            drift.differences += differences(node, daemon, page)
        except (UnreachableError, CommandError) as error:
            drift.refused |= is_refusal(error)
            drift.unread[daemon] = str(error) + ("; this needs root" if is_refusal(error) else "")
    return drift


def written_page(node: Node, daemon: str) -> Mapping[str, Any]:
    page: Mapping[str, Any] = node.page(daemon, "/desired")
    if not page["begun"]:
        raise UnreachableError("it has not written anything yet")
    return page


def differences(node: Node, daemon: str, page: Mapping[str, Any]) -> Iterator[Difference]:
    if page["overlay"] or daemon != PROXY:
        yield from overlay_drift.differences(node, daemon, page)
    kind = "Service" if daemon == PROXY else "peer"
    for rules in page["rules"]:
        owners = Owners(daemon, kind, rules["owners"], [key for key, _ in rules["objects"]])
        yield from (rules_of_table if rules["program"] == "nft" else rules_of_chains)(node, rules, owners)


def rules_of_table(node: Node, rules: Mapping[str, Any], owners: Owners) -> list[Difference]:
    family, table = rules["family"], rules["table"]
    wanted = nft_drift.wanted_table(rules["objects"])
    actual = read_table(node, family, table)
    return nft_drift.differences(f"table {family} {table}", wanted, actual, owners)


def rules_of_chains(node: Node, rules: Mapping[str, Any], owners: Owners) -> list[Difference]:
    wanted = chain_drift.wanted_chains(rules["objects"])
    actual = read_chains(node, rules["program"], rules["prefixes"])
    return chain_drift.differences(rules["program"].removesuffix("-save"), wanted, actual, owners)


def unified(drift: Drift, paint: Paint, *, everything: bool) -> Iterator[str]:
    shown = drift.differences if everything else drift.differences[:SHOWN]
    if shown:
        yield "--- wanted"
        yield "+++ in the kernel"
    for place, several in groupby(shown, lambda each: each.place):
        yield from ("", place)
        for each in several:
            yield from worded(each, paint)
    if hidden := len(drift.differences) - len(shown):
        yield f"... and {hidden} more: `netctl diff -o wide` shows all"
    if not drift.differences and not drift.unread:
        yield f"no drift: {drift.compared} objects are in the kernel as wanted"


def worded(each: Difference, paint: Paint) -> Sequence[str]:
    return [
        escaped(f"@@ {each.cause.value}: {each.object} ({each.owner})"),
        *(paint(escaped(f"-{line}"), State.FAILED) for line in each.wanted),
        *(paint(escaped(f"+{line}"), State.DEGRADED) for line in each.actual),
    ]
