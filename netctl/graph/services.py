"""Ports of Services with their endpoints and shares, put together out of what one netproxy or several say. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from netctl.graph.answers import Item, NodeAnswers
from netctl.graph.endpoints import Owners
from netctl.graph.overlays import natural

Document = dict[str, Any]

NOBODY = "no endpoints"


class Opinion(NamedTuple):
    """Of a node about a port: nodes that are of one mind share it."""

    name: str
    """NAMESPACE/NAME:PORT."""
    protocol: str
    balance: str
    endpoints: tuple[tuple[str, float], ...]
    """Each with its share of new connections."""


@dataclass(slots=True)
class Holding:
    addresses: dict[str, None] = field(default_factory=dict)
    """In order."""
    nodes: dict[str, None] = field(default_factory=dict)


def services(answers: Sequence[NodeAnswers], owners: Owners) -> list[Document]:
    """One item for each port, and several for one that nodes disagree about. Those that nobody serves come first."""
    held: dict[Opinion, Holding] = {}
    speaking = [each for each in answers if each.frontends is not None]
    for said in speaking:
        for frontend in said.frontends or ():
            holding = held.setdefault(opinion(frontend), Holding())
            holding.addresses[place(frontend)] = None
            holding.nodes[said.name] = None
    everybody = {each.name for each in speaking}
    items = [service_item(each, holding, everybody, owners) for each, holding in held.items()]
    return sorted(items, key=lambda item: (item["problem"] is None, natural(item["name"]), item["only_at"]))


def service_item(said: Opinion, holding: Holding, everybody: set[str], owners: Owners) -> Document:
    return {
        "name": said.name,
        "protocol": said.protocol,
        "balance": said.balance,
        "addresses": list(holding.addresses),
        "endpoints": [
            {"address": address, "share": share, "node": owners.of(host(address))} for address, share in said.endpoints
        ],
        "problem": None if said.endpoints else NOBODY,
        "only_at": [] if holding.nodes.keys() == everybody else sorted(holding.nodes, key=natural),
    }


def opinion(frontend: Item) -> Opinion:
    return Opinion(frontend["service"], frontend["protocol"], frontend["balance"], tuple(shares(frontend)))


def shares(frontend: Item) -> Iterator[tuple[str, float]]:
    endpoints = frontend["endpoints"]
    weights = frontend["weights"] or ()
    if not any(weights):  # weights that are all zero make all equal, too
        weights = [1] * len(endpoints)
    return ((one, round(weight / sum(weights), 6)) for one, weight in zip(endpoints, weights, strict=True))


def host(endpoint: str) -> str:
    """Of ADDRESS:PORT or [ADDRESS]:PORT."""
    return endpoint.rpartition(":")[0].strip("[]")


def place(frontend: Item) -> str:
    """Where clients connect: `10.96.0.10:80`, or `any node:30080` for a node port."""
    if frontend["scope"] == "NodePort":
        return f"any node:{frontend['port']}"
    address = frontend["address"]
    return f"[{address}]:{frontend['port']}" if ":" in address else f"{address}:{frontend['port']}"
