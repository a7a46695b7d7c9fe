"""`netctl status`: the verdict first, then each daemon, then whatever is wrong."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from controlloop.client import UnreachableError
from controlloop.printable import escaped
from netctl.colour import Paint, State, plain
from netctl.exit_codes import FINDING, OK, UNREACHABLE
from netctl.findings.finding import Finding, age, counted, footer, ordered, render, verdict, wrapped
from netctl.findings.judge_daemons import judge_agent, judge_proxy, silent
from netctl.node import PROXY, Node
from netctl.output import API_VERSION, render_document

READY, NOT_READY, SILENT = "ready", "NOT READY", "no answer"


class Line(NamedTuple):
    """Of one daemon."""

    daemon: str
    state: str
    """READY, NOT_READY or SILENT."""
    text: str = ""

    def shown(self, paint: Paint) -> str:
        lead = f"  {self.daemon:9} {self.state:9} "
        first, *rest = wrapped(lead, escaped(self.text)) or [lead.rstrip()]
        state = paint(self.state, State.OK if self.state == READY else State.FAILED)
        return "\n".join([first.replace(self.state, state, 1), *rest])


@dataclass(slots=True)
class NodeStatus:
    node: str = ""
    lines: list[Line] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    exit_code: int = OK
    daemons: dict[str, Any] = field(default_factory=dict)
    """What each one said; None for one that does not answer."""
    details: list[str] = field(default_factory=list)
    """For who wants to know more."""
    now: float = 0.0
    """When it was read."""

    @property
    def is_ready(self) -> bool:
        return all(document and document["ready"] for document in self.daemons.values())

    def shown(self, form: str, paint: Paint = plain) -> str:
        """In one of options.FORMATS."""
        if form == "name":
            return escaped(f"node/{self.node}" if self.node else "")
        if form in ("json", "yaml"):
            return render_document(self.document(), form)
        return "\n".join(self.rendered(wide=form == "wide", paint=paint))

    def document(self) -> dict[str, Any]:
        return {
            "apiVersion": API_VERSION,
            "kind": "NodeStatus",
            "node": self.node or None,
            "ok": not self.findings,
            "findings": [each.document for each in ordered(self.findings)],
            **self.daemons,
        }

    def render(self, paint: Paint = plain) -> str:
        return "\n".join(self.rendered(wide=False, paint=paint))

    def rendered(self, *, wide: bool, paint: Paint = plain) -> Iterator[str]:
        found = ordered(self.findings)
        yield f"{escaped(self.node) or 'this node'}: {verdict(found, paint)}"
        yield from (line.shown(paint) for line in self.lines)
        yield from render(found, self.now, wide=wide, paint=paint)
        if found:
            yield footer(found)
        if wide:
            yield from map(escaped, self.details)


def read_status(node: Node) -> NodeStatus:
    status = NodeStatus(now=node.now)
    for daemon in node.daemons:
        try:
            add(status, daemon, node.page(daemon, "/status"))
        except UnreachableError as error:
            status.daemons[daemon] = None
            status.lines.append(Line(daemon, SILENT))
            status.findings.append(silent(daemon, str(error)))
            status.exit_code = UNREACHABLE
    if status.findings and status.exit_code == OK:
        status.exit_code = FINDING
    return status


def add(status: NodeStatus, daemon: str, document: Mapping[str, Any]) -> None:
    describe, judge = (describe_netproxy, judge_proxy) if daemon == PROXY else (describe_netagent, judge_agent)
    status.node, status.daemons[daemon] = document["node"], document
    state = READY if document["ready"] else NOT_READY
    status.lines.append(Line(daemon, state, ", ".join(describe(document, status.now))))
    status.findings += judge(daemon, document)
    status.details += details(daemon, document, status.now)


def details(daemon: str, document: Mapping[str, Any], now: float) -> Iterator[str]:
    yield f"  {daemon:9} version {document.get('version', 'unknown')}"
    repaired = document.get("repairs") or {
        name: each.get("repaired", 0) for name, each in document.get("rules", {}).items()
    }
    for title, counts in ("programmed", document.get("programmed")), ("repaired", repaired):
        if counts:
            yield f"  {daemon:9} {title} " + ", ".join(f"{counts[kind]} {kind}" for kind in sorted(counts))
    if flows := document.get("flows_forgotten"):
        yield f"  {daemon:9} forgot {flows} flows that led nowhere"
    if last := document.get("last_reconcile"):
        yield f"  {daemon:9} reconciled {age(now - last['at'])} ago in {last['took_ms']} ms"


def describe_netagent(document: Mapping[str, Any], now: float) -> Iterator[str]:
    del now  # nothing of an agent has an age here
    yield f"lease {document['lease'] or 'none'}"
    yield from document["devices"]
    yield counted(document["peers"], "peer")
    if document["waiting_for"]:
        yield f"waits for {document['waiting_for']}"


def describe_netproxy(document: Mapping[str, Any], now: float) -> Iterator[str]:
    yield f"{document['mode']} mode"
    yield counted(document["services"], "service")
    yield counted(document["endpoints"], "endpoint")
    last = max((rules["last_sync"] for rules in document["rules"].values()), default=0)
    if last:
        yield f"synced {age(now - last)} ago"
