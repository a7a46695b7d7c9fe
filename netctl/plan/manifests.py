"""Manifests as the store would hold them: with what a Service was given before and they need not repeat. Pure."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from controlloop.errors import OperatorError
from netctl.apply.allocation import Configured, Document, kept, lacking, parse_pools, refuse_misshapen
from proxy.frontends import ServiceName
from proxy.objects import Kind
from proxy.services import ProxiedService
from proxy.sources import Update
from proxy.sources.manifests import ObjectKey

DEFAULTS = Configured()
POOLS = parse_pools(DEFAULTS.service_cluster_ip_range, DEFAULTS.service_node_port_range)
"""Which families are given where a store configures nothing; from what range does not matter here."""


class Foreseen(NamedTuple):
    update: Update
    """The object as it would be read."""
    note: str = ""
    """What of it cannot be foreseen."""
    is_given_more: bool = False
    """Addresses or ports, when it is applied."""


def foreseen(key: ObjectKey, body: bytes, known: Mapping[ServiceName, ProxiedService]) -> Foreseen:
    """The reason why an object is misshapen is left to whoever reads it."""
    kind, name = key
    if kind is not Kind.SERVICE:
        return Foreseen(Update(kind, name, body))
    document: Document = msgspec.json.decode(body)
    try:
        refuse_misshapen(document)
        document = completed(document, known.get(ServiceName(name.namespace, name.name)))
        given_later = len(lacking(document, POOLS))
    except msgspec.ValidationError:
        return Foreseen(Update(kind, name, body))
    except OperatorError as error:
        return Foreseen(Update(kind, name, msgspec.json.encode(document)), f"spec.{error}")
    return Foreseen(Update(kind, name, msgspec.json.encode(document)), note_on(given_later), given_later > 0)


def note_on(given_later: int) -> str:
    if not given_later:
        return ""
    what = "1 address or port" if given_later == 1 else f"{given_later} addresses or ports"
    return f"is given {what} when it is applied; what follows from that is not planned"


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
