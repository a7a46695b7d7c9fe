"""Manifests as the store would hold them: with what a Service was given before and they need not repeat. Pure."""

from collections.abc import Mapping
from typing import Any

import msgspec

from netctl.apply.allocation import Document, kept, lacking, parse_pools, refuse_misshapen
from proxy.frontends import ServiceName
from proxy.objects import Kind
from proxy.services import ProxiedService
from proxy.sources import Update
from proxy.sources.manifests import ObjectKey


def update(key: ObjectKey, body: bytes, known: Mapping[ServiceName, ProxiedService]) -> tuple[Update, str]:
    """The object as it would be read, and what of it cannot be foreseen; the reason why it is misshapen is left to
    whoever reads it.
    """
    kind, name = key
    if kind is not Kind.SERVICE:
        return Update(kind, name, body), ""
    document: Document = msgspec.json.decode(body)
    try:
        refuse_misshapen(document)
        document = completed(document, known.get(ServiceName(name.namespace, name.name)))
        open_claims = len(lacking(document, parse_pools("", "")))
    except ValueError:
        return Update(kind, name, body), ""
    note = (
        f"{open_claims} addresses or ports are given to it when it is applied, and not planned" if open_claims else ""
    )
    return Update(kind, name, msgspec.json.encode(document)), note


def completed(document: Document, before: ProxiedService | None) -> Document:
    """Who is older has a contested address, so an object also keeps its age."""
    if before is None:
        return document
    document = kept(document, as_document(before))
    metadata = document["metadata"]
    if before.created and not metadata.get("creationTimestamp"):
        metadata["creationTimestamp"] = before.created.isoformat()
    return document


def as_document(service: ProxiedService) -> dict[str, Any]:
    """What a Service was given, as an object says it."""
    addresses = list(map(str, service.cluster_ips))
    ports = [
        {
            "name": port.name.port,
            "protocol": port.protocol.name,
            "port": port.port,
            **({"nodePort": port.node_port} if port.node_port else {}),
        }
        for port in service.ports
    ]
    health_check = {"healthCheckNodePort": service.health_check_port} if service.health_check_port else {}
    return {"spec": {"clusterIP": addresses[0], "clusterIPs": addresses, "ports": ports, **health_check}}
