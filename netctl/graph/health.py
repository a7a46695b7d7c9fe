"""How well a node or a path is, in four words that every form of the picture uses. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from netctl.findings.finding import age

OK = "ok"
SILENT = "silent"
"""Never answered, so nobody knows: flanneld does not answer, and a firewall may keep probes out."""
DEGRADED = "degraded"
"""Works in part: large packets are lost, something is not in the kernel, a node has findings."""
LOST = "lost"
WORST_FIRST = (LOST, DEGRADED, SILENT, OK)


@dataclass(frozen=True, slots=True)
class Health:
    state: str
    reason: str = ""
    """Empty for OK."""


def worst(several: Iterable[Health]) -> Health:
    return min(several, key=lambda each: WORST_FIRST.index(each.state), default=Health(SILENT, "nobody asked"))


def path_health(peer: dict[str, Any], now: float) -> Health:
    """Of the way to one peer, as its page of the agent tells it."""
    if peer["skipped"]:
        return Health(DEGRADED, f"skipped: {peer['skipped']}")
    if peer["lost_since"]:
        return Health(LOST, f"no answer for {age(max(0.0, now - peer['lost_since']))}")
    if not peer["programmed"]:
        return Health(DEGRADED, "not in the kernel")
    if peer["large_lost_since"]:
        return Health(DEGRADED, f"large packets lost for {age(max(0.0, now - peer['large_lost_since']))}")
    return Health(OK) if peer["reach"] == "reachable" else Health(SILENT, "never answered")


def peer_health(paths: list[Health]) -> Health:
    """Of a node that does not speak for itself, by the paths that lead to it: one that answers proves that it lives."""
    found = worst(paths)
    if found.state == LOST and any(each.state != LOST for each in paths):
        return Health(DEGRADED, "some nodes do not reach it")
    return found
