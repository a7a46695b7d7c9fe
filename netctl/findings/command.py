"""`netctl check`: looks at the host, the network or the store, and tells what is wrong with it."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import click

from controlloop.etcd_settings import EtcdSettings
from controlloop.printable import escaped
from netctl.colour import Paint, State, plain
from netctl.exit_codes import FINDING, OK, UNREACHABLE
from netctl.findings.catalogue import CATALOGUE
from netctl.findings.finding import Finding, explained, footer, ordered, render, verdict
from netctl.node import Node
from netctl.output import API_VERSION, Column, Listing, render_document, render_listing
from netctl.terminal import painter

ALL_CODES = "CODES"


@dataclass(frozen=True, slots=True)
class Report:
    subject: str
    """What was looked at: `host`."""
    findings: Sequence[Finding]
    looked_at: str
    """What a verdict without findings stands on."""
    unread: Sequence[str] = ()
    """What could not be looked at, one line each."""

    @property
    def exit_code(self) -> int:
        return UNREACHABLE if self.unread else FINDING if self.findings else OK

    def shown(self, form: str, paint: Paint = plain) -> str:
        """In one of options.FORMATS."""
        if form in ("json", "yaml"):
            return render_document(self.document(), form)
        if form == "name":
            return "\n".join(escaped(f"finding/{each.code}") for each in self.findings)
        return "\n".join(self.lines(paint, wide=form == "wide"))

    def verdict(self, paint: Paint) -> str:
        """Nothing found where not everything was looked at is not `ok`."""
        if not self.unread:
            return verdict(self.findings, paint)
        incomplete = paint("incomplete", State.DEGRADED)
        return f"{verdict(self.findings, paint)}, {incomplete}" if self.findings else incomplete

    def document(self) -> dict[str, Any]:
        return {
            "apiVersion": API_VERSION,
            "kind": "CheckReport",
            "subject": self.subject,
            "ok": not self.findings and not self.unread,
            "items": [each.document for each in self.findings],
            "unread": list(self.unread),
        }

    def lines(self, paint: Paint, *, wide: bool) -> Iterator[str]:
        yield f"{self.subject}: {self.verdict(paint)} ({self.looked_at})"
        yield from render(self.findings, time.time(), wide=wide, paint=paint)
        yield from (f"  ? {escaped(line)}" for line in self.unread)
        if self.findings:
            yield footer(self.findings)


def report(subject: str, findings: Iterable[Finding], looked_at: str, unread: Sequence[str] = ()) -> Report:
    return Report(subject, ordered(findings), looked_at, unread)


def check_host(node: Node) -> Report:
    from netctl.findings.facts import read_host  # noqa: PLC0415
    from netctl.findings.judge_host import judge_host  # noqa: PLC0415

    facts, unread = read_host(node)
    rules = sum(line.startswith("-A ") for lines in facts.iptables.values() for line in lines)
    looked_at = f"{len(facts.links)} links, {rules} iptables rules, {len(facts.sockets)} sockets"
    return report("host", judge_host(facts), looked_at, unread)


def check_net(node: Node) -> Report:
    from netctl.findings.judge_net import judge_net  # noqa: PLC0415
    from netctl.findings.net_facts import read_net  # noqa: PLC0415

    facts, unread = read_net(node)
    looked_at = f"{len(facts.peers)} peers, {len(facts.pings)} pinged; {len(facts.calls)} Services called"
    return report("net", judge_net(facts), looked_at, unread)


def check_etcd(settings: EtcdSettings) -> Report:
    from netctl.findings.etcd_facts import read_etcd  # noqa: PLC0415
    from netctl.findings.judge_etcd import judge_etcd  # noqa: PLC0415

    facts = read_etcd(settings)
    answered = [url for url, member in facts.members.items() if member.version]
    looked_at = f"{len(answered)} of {len(facts.members)} endpoints, {len(facts.records)} leases"
    refused = any(member.is_refusal for member in facts.members.values())
    unread = () if answered or refused else ("leases and configuration: no endpoint answers",)
    return report("etcd", judge_etcd(facts), looked_at, unread)


def show(found: Report, form: str) -> int:
    if text := found.shown(form, painter()):
        click.echo(text)
    return found.exit_code


def is_code(text: str) -> bool:
    return text == ALL_CODES or text in CATALOGUE


def show_code(code: str, form: str) -> None:
    """One entry of the catalogue, or with ALL_CODES all of them by title."""
    columns = (
        Column("CODE", lambda item: item["code"]),
        Column("TITLE", lambda item: item["title"]),
        Column("LOOK", lambda item: item["look"], wide=True),
    )
    chosen = CATALOGUE if code == ALL_CODES else {code: CATALOGUE[code]}
    if form == "table" and code in CATALOGUE:
        click.echo(explained(code))
        return
    items = [
        {"code": each, "title": entry.title, "meaning": entry.meaning, "action": entry.action, "look": entry.look}
        for each, entry in chosen.items()
    ]
    click.echo(render_listing(Listing("FindingCodeList", items, columns, lambda item: f"code/{item['code']}"), form))
