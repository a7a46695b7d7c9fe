"""What the daemons say of themselves, as findings. Pure."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from netctl.findings.catalogue import CATALOGUE
from netctl.findings.finding import Finding

Document = Mapping[str, Any]

OWN_WAIT = {"the firewall": "NN112", "firewall rules": "NN112", "the registry": "NN111", "a lease": "NN103"}
"""Codes by how netagent's reason for not being ready begins; any other is NN102."""
LIMITED_AFFINITY = "spec.sessionAffinity: 100 clients of an endpoint"
"""What netproxy says of a Service that it serves all the same (proxy.iptables.kernel)."""


def silent(daemon: str, reason: str) -> Finding:
    code = "NN201" if daemon == "netproxy" else "NN101"
    evidence = f"{daemon} does not answer ({reason}); rules and routes stay as they are"
    return Finding(code, daemon, evidence, next=journal(daemon))


def judge_agent(daemon: str, document: Document) -> Iterator[Finding]:
    if not document["ready"]:
        yield unready_agent(daemon, document)
    for item in document["skipped"]:
        yield Finding("NN107", item["name"], item["reason"], item.get("since"))
    yield from (told(each, "NN100") for each in document.get("findings", ()))


def unready_agent(daemon: str, document: Document) -> Finding:
    gap = document["waiting_for"] or ""
    code = next((code for start, code in OWN_WAIT.items() if gap.startswith(start)), "NN102")
    error = (document.get("last_reconcile") or {}).get("error")
    evidence = f"waits for {gap}" if gap else "the kernel does not hold what is desired"
    evidence += f"; last error: {error}" if error else ""
    return Finding(code, daemon, evidence, document.get("waiting_since"), journal(daemon))


def judge_proxy(daemon: str, document: Document) -> Iterator[Finding]:
    gap, source = document.get("waiting_for") or "", document.get("source", {})
    away = source.get("away")
    if away:
        evidence = f"hears nothing new, what is programmed stays: {away}"
        yield Finding("NN204", daemon, evidence, source.get("since"))
    if not document["ready"] and gap != away:
        code = "NN203" if gap.endswith(" rules") else "NN202"
        evidence = f"waits for {gap}" if gap else "the kernel does not hold what is desired"
        yield Finding(code, daemon, evidence, document.get("waiting_since"))
    for item in document["skipped"]:
        code = "NN209" if item["reason"].startswith(LIMITED_AFFINITY) else "NN205"
        yield Finding(code, item["name"], item["reason"], item.get("since"))
    for item in document.get("quarantined", ()):
        yield Finding("NN206", f"Service {item['name']}", item["reason"], item.get("since"))
    yield from (told(each, "NN200") for each in document.get("findings", ()))


def told(finding: Document, unknown: str) -> Finding:
    """What a daemon has found by itself, under the code that it gave; `unknown` for one of another version."""
    remedy, code = finding.get("remedy"), finding.get("code", "")
    evidence = f"{finding['reason']}; {remedy}" if remedy else finding["reason"]
    return Finding(code if code in CATALOGUE else unknown, finding["name"], evidence, finding.get("since"))


def journal(daemon: str) -> str:
    """netagent2 is an instance of a template: netagent@2."""
    return f"journalctl -u {re.sub(r'(?=[0-9])', '@', daemon, count=1)} -n 50"
