"""Nodes and paths of each overlay, put together out of what one node or several say. Pure.

A node is known by the key of its lease, for that is what its peers know of it. Its name is known where it answered.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_network
from typing import Any

from netctl.graph.answers import Item, NodeAnswers
from netctl.graph.health import DEGRADED, LOST, OK, Health, path_health, peer_health

Document = dict[str, Any]


def overlays(answers: Sequence[NodeAnswers]) -> list[Document]:
    """One for each agent of a node: the second overlay of one node is the second of all."""
    agents = sorted({agent for each in answers for agent in each.agents})
    return [overlay(agent, [each for each in answers if agent in each.agents], answers) for agent in agents]


def overlay(agent: str, speaking: Sequence[NodeAnswers], everybody: Sequence[NodeAnswers]) -> Document:
    leases = {item["key"]: item for each in speaking for item in each.agents[agent]["leases"]["items"]}
    observers = {own_key(each.agents[agent]): each for each in speaking}
    dumb = {each.address: each for each in everybody if agent not in each.agents and each.address}
    paths = [path for key, each in observers.items() if key for path in paths_of(key, each, agent)]
    health = incoming(paths)
    nodes = [
        node_item(leases[key], observers.get(key) or by_address(leases[key], dumb), health.get(key, []))
        for key in leases
    ]
    networks = {each["network"]: each for said in speaking for each in said.agents[agent]["network"]["ranges"]}
    backend = next((said.agents[agent]["network"]["backend"] for said in speaking), None)
    return {
        "name": agent,
        "backend": backend,
        "networks": [networks[name] for name in sorted(networks, key=lambda text: ip_network(text).version)],
        "nodes": sorted(nodes, key=lambda node: natural(node["name"])),
        "paths": sorted((path for path in paths if path["to"] in leases), key=lambda each: (each["from"], each["to"])),
    }


def own_key(pages: Mapping[str, Item]) -> str:
    """Empty for an agent without a lease."""
    return next((str(item["key"]) for item in pages["leases"]["items"] if item["own"]), "")


def paths_of(own: str, said: NodeAnswers, agent: str) -> Iterator[Document]:
    for peer in said.agents[agent]["peers"]["items"]:
        health = path_health(peer, said.taken_at)
        yield {
            "from": own,
            "to": peer["key"],
            "health": health.state,
            "reason": health.reason,
            "rtt_ms": peer["rtt_ms"] if health.state != LOST else None,
        }


def incoming(paths: Iterable[Document]) -> Mapping[str, list[Health]]:
    found: dict[str, list[Health]] = defaultdict(list)
    for path in paths:
        found[path["to"]].append(Health(path["health"], path["reason"]))
    return found


def by_address(lease: Item, dumb: Mapping[str, NodeAnswers]) -> NodeAnswers | None:
    """The node without an agent's answer whose lease this is."""
    return next((dumb[address] for address in lease["public_ips"] if address in dumb), None)


def node_item(lease: Item, said: NodeAnswers | None, paths: list[Health]) -> Document:
    health = node_health(lease, said, paths)
    return {
        "id": lease["key"],
        "name": said.name if said else next(iter(lease["public_ips"]), lease["key"]),
        "asked": said is not None,
        "public_ips": list(lease["public_ips"]),
        "subnets": list(lease["subnets"]),
        "reserved": not lease["expires"],
        "skipped": lease["skipped"],
        "health": health.state,
        "reason": health.reason,
    }


def node_health(lease: Item, said: NodeAnswers | None, paths: list[Health]) -> Health:
    if lease["skipped"]:
        return Health(DEGRADED, f"skipped: {lease['skipped']}")
    if said is None:
        return peer_health(paths)
    if paths and all(each.state == LOST for each in paths):
        return Health(LOST, "nobody reaches it")
    codes = sorted({finding.code for finding in said.findings})
    return Health(DEGRADED, ", ".join(codes)) if codes else Health(OK)


def natural(name: str) -> list[tuple[int, int, str]]:
    """node-10 behind node-9, and 10.0.0.10 behind 10.0.0.9."""
    parts = re.findall(r"[0-9]{1,18}|[^0-9]+", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]
