"""The picture as a document: what all other forms of it are drawn from. Pure."""

from collections.abc import Sequence
from typing import Any

from netctl.graph.answers import NodeAnswers
from netctl.graph.endpoints import Owners
from netctl.graph.overlays import overlays
from netctl.graph.services import services
from netctl.output import API_VERSION

Document = dict[str, Any]


def network_graph(answers: Sequence[NodeAnswers]) -> Document:
    """At least one node's answers. Complete: it is the drawings that leave things out, and say so."""
    drawn = overlays(answers)
    # The first overlay counts: two that both hold an address are a finding already.
    nodes = [node for each in reversed(drawn) for node in each["nodes"] if not node["skipped"]]
    owners = Owners((subnet, node["id"]) for node in nodes for subnet in node["subnets"])
    ports = services(answers, owners)
    findings = [{"node": each.name, **finding.document} for each in answers for finding in each.findings]
    return {
        "apiVersion": API_VERSION,
        "kind": "NetworkGraph",
        "taken_at": max(each.taken_at for each in answers),
        "asked": [{"name": each.name, "silent": list(each.silent)} for each in answers],
        "overlays": drawn,
        "services": ports,
        "findings": sorted(findings, key=lambda each: (each["code"], each["node"])),
        "counts": {
            "nodes": sum(len(each["nodes"]) for each in drawn),
            "paths": sum(len(each["paths"]) for each in drawn),
            "services": len({port["name"].rpartition(":")[0] or port["name"] for port in ports}),
            "endpoints": len({place["address"] for port in ports for place in port["endpoints"]}),
            "findings": len(findings),
        },
    }
