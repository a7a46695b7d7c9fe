"""`netctl status`: the verdict first, then each daemon, then whatever is wrong."""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controlloop.client import UnreachableError, get_json
from controlloop.printable import escaped
from netctl.output import API_VERSION, render_document

OK, FINDING, UNREACHABLE = 0, 1, 3
"""Exit codes: all is well; something is wrong; a daemon did not answer, so the answer is incomplete."""


@dataclass(slots=True)
class NodeStatus:
    node: str = ""
    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    exit_code: int = OK
    daemons: dict[str, Any] = field(default_factory=dict)
    """What each one said; None for one that does not answer."""
    details: list[str] = field(default_factory=list)
    """For who wants to know more."""

    def shown(self, form: str) -> str:
        """In one of output.FORMATS."""
        if form == "name":
            return escaped(f"node/{self.node}" if self.node else "")
        if form in ("json", "yaml"):
            return render_document(self.document(), form)
        return self.render() if form == "table" else "\n".join([self.render(), *map(escaped, self.details)])

    def document(self) -> dict[str, Any]:
        return {
            "apiVersion": API_VERSION,
            "kind": "NodeStatus",
            "node": self.node or None,
            "ok": not self.problems,
            "problems": self.problems,
            **self.daemons,
        }

    def render(self) -> str:
        verdict = "ok" if not self.problems else f"{len(self.problems)} finding{'s' * (len(self.problems) > 1)}"
        body = [*self.lines, *(f"  ! {escaped(problem)}" for problem in self.problems)]
        return "\n".join([f"{self.node or 'this node'}: {verdict}", *body])


def read_status(run_dir: Path) -> NodeStatus:
    status = NodeStatus()
    for daemon in (*agents(run_dir), "netproxy"):
        describe = describe_netproxy if daemon == "netproxy" else describe_netagent
        try:
            document = get_json(run_dir / f"{daemon}.sock", "/status")
        except UnreachableError as error:
            status.daemons[daemon] = None
            status.lines.append(f"  {daemon:9} no answer")
            status.problems.append(f"{daemon} does not answer ({error}); rules and routes stay as they are")
            status.exit_code = UNREACHABLE
            continue
        add(status, daemon, document, describe(document))
    return status


def agents(run_dir: Path) -> list[str]:
    """Those that ran since the node started, by the locks that they left: one for each overlay."""
    return sorted(path.stem for path in run_dir.glob("netagent*.lock")) or ["netagent"]


def unit_of(daemon: str) -> str:
    """netagent2 is an instance of a template: netagent@2."""
    return re.sub(r"(?=\d)", "@", daemon)


def add(status: NodeStatus, daemon: str, document: Mapping[str, Any], description: Iterator[str]) -> None:
    status.node, status.daemons[daemon] = document["node"], document
    ready = "ready" if document["ready"] else "NOT READY"
    status.lines.append(f"  {daemon:9} {ready:9} {', '.join(description)}")
    if away := document.get("source", {}).get("away"):
        status.problems.append(f"{daemon} hears nothing new, what is programmed stays: {away}")
    if not document["ready"]:
        status.problems.append(f"{daemon}: the kernel does not hold what is desired (journalctl -u {unit_of(daemon)})")
    status.problems += [f"skipped {item['name']}: {item['reason']}" for item in document["skipped"]]
    status.problems += map(finding_text, document.get("findings", ()))
    status.details += details(daemon, document)
    if status.problems and status.exit_code == OK:
        status.exit_code = FINDING


def finding_text(finding: Mapping[str, Any]) -> str:
    since, remedy = finding.get("since"), finding.get("remedy")
    duration = f" (for {age(time.time() - since)})" if since else ""
    return f"{finding['name']}: {finding['reason']}{duration}{f'; {remedy}' if remedy else ''}"


def details(daemon: str, document: Mapping[str, Any]) -> Iterator[str]:
    yield f"  {daemon:9} version {document.get('version', 'unknown')}"
    for title, counts in ("programmed", document.get("programmed")), ("repaired", document.get("repairs")):
        if counts:
            yield f"  {daemon:9} {title} " + ", ".join(f"{counts[kind]} {kind}" for kind in sorted(counts))
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


def age(seconds: float) -> str:
    """3m12s, 2h05m, 4d03h."""
    whole = int(seconds)
    for unit, size, below, smaller in ("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // smaller:02d}{below}"
    return f"{whole}s"
