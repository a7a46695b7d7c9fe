"""`netctl status`: the verdict first, then each daemon, then whatever is wrong."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controlloop.client import UnreachableError, get_json
from controlloop.printable import escaped
from netctl.findings.finding import Finding, age, footer, ordered, render, verdict
from netctl.findings.judge_daemons import judge_agent, judge_proxy, silent
from netctl.output import API_VERSION, render_document

OK, FINDING, UNREACHABLE = 0, 1, 3
"""Exit codes: all is well; something is wrong; a daemon did not answer, so the answer is incomplete."""


@dataclass(slots=True)
class NodeStatus:
    node: str = ""
    lines: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    exit_code: int = OK
    daemons: dict[str, Any] = field(default_factory=dict)
    """What each one said; None for one that does not answer."""
    details: list[str] = field(default_factory=list)
    """For who wants to know more."""

    @property
    def is_ready(self) -> bool:
        return all(document and document["ready"] for document in self.daemons.values())

    def shown(self, form: str) -> str:
        """In one of output.FORMATS."""
        if form == "name":
            return escaped(f"node/{self.node}" if self.node else "")
        if form in ("json", "yaml"):
            return render_document(self.document(), form)
        return "\n".join(self.rendered(wide=form == "wide"))

    def document(self) -> dict[str, Any]:
        return {
            "apiVersion": API_VERSION,
            "kind": "NodeStatus",
            "node": self.node or None,
            "ok": not self.findings,
            "findings": [each.document for each in ordered(self.findings)],
            **self.daemons,
        }

    def render(self) -> str:
        return "\n".join(self.rendered(wide=False))

    def rendered(self, *, wide: bool) -> Iterator[str]:
        found = ordered(self.findings)
        yield f"{escaped(self.node) or 'this node'}: {verdict(found)}"
        yield from map(escaped, self.lines)
        yield from render(found, time.time(), wide=wide)
        if found:
            yield footer(found)
        if wide:
            yield from map(escaped, self.details)


def read_status(run_dir: Path) -> NodeStatus:
    status = NodeStatus()
    for daemon in (*agents(run_dir), "netproxy"):
        try:
            add(status, daemon, get_json(run_dir / f"{daemon}.sock", "/status"))
        except UnreachableError as error:
            status.daemons[daemon] = None
            status.lines.append(f"  {daemon:9} no answer")
            status.findings.append(silent(daemon, str(error)))
            status.exit_code = UNREACHABLE
    if status.findings and status.exit_code == OK:
        status.exit_code = FINDING
    return status


def agents(run_dir: Path) -> list[str]:
    """Those that ran since the node started, by the locks that they left: one for each overlay."""
    return sorted(path.stem for path in run_dir.glob("netagent*.lock")) or ["netagent"]


def add(status: NodeStatus, daemon: str, document: Mapping[str, Any]) -> None:
    is_proxy = daemon == "netproxy"
    describe, judge = (describe_netproxy, judge_proxy) if is_proxy else (describe_netagent, judge_agent)
    status.node, status.daemons[daemon] = document["node"], document
    ready = "ready" if document["ready"] else "NOT READY"
    status.lines.append(f"  {daemon:9} {ready:9} {', '.join(describe(document))}")
    status.findings += judge(daemon, document)
    status.details += details(daemon, document)


def details(daemon: str, document: Mapping[str, Any]) -> Iterator[str]:
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
        yield f"  {daemon:9} reconciled {age(time.time() - last['at'])} ago in {last['took_ms']} ms"


def describe_netagent(document: Mapping[str, Any]) -> Iterator[str]:
    yield f"lease {document['lease'] or 'none'}"
    yield from document["devices"]
    yield f"{document['peers']} peers"
    if document["waiting_for"]:
        yield f"waits for {document['waiting_for']}"


def describe_netproxy(document: Mapping[str, Any]) -> Iterator[str]:
    yield f"{document['mode']} mode"
    yield f"{document['services']} services"
    yield f"{document['endpoints']} endpoints"
    last = max((rules["last_sync"] for rules in document["rules"].values()), default=0)
    if last:
        yield f"synced {age(time.time() - last)} ago"
