"""What is wrong with the ways to our peers, by name, with since when and what helps. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from netagent.probing.growth import WINDOW_S, Growth
from netagent.probing.paths import Path

NAMED = 10
"""Peers that are named one by one; of the others only the number is told."""


@dataclass(frozen=True, slots=True)
class PathFinding:
    name: str
    reason: str
    since: float
    """Seconds since the epoch."""
    remedy: str
    code: str
    """What netctl knows it by."""


def findings(paths: Mapping[str, Path], growth: Growth, packet_bytes: int, offset: float) -> Iterator[PathFinding]:
    """`packet_bytes` is what a pod may send, `offset` what turns the paths' clock into seconds since the epoch."""
    yield from lost(paths, offset)
    yield from too_narrow(paths, packet_bytes, offset)
    if growth.since is not None:
        yield PathFinding(
            "UDP checksums",
            f"{growth.amount} datagrams with a wrong checksum came in within {WINDOW_S:.0f} s and were thrown away",
            growth.since + offset,
            "--tx-checksum-off on the nodes that send them, where a NIC or a driver miscounts (VXLAN behind NAT does)",
            "NN106",
        )


def lost(paths: Mapping[str, Path], offset: float) -> Iterator[PathFinding]:
    found = sorted((since, name) for name, path in paths.items() if (since := path.lost_since) is not None)
    remedy = "look at that node, and at what is between: UDP of the overlay must pass both ways"
    for since, name in found[:NAMED]:
        yield PathFinding(name, "does not answer over the overlay any more", since + offset, remedy, "NN104")
    if rest := found[NAMED:]:
        yield PathFinding(f"{len(rest)} more peers", "do not answer any more", rest[0][0] + offset, remedy, "NN104")


def too_narrow(paths: Mapping[str, Path], packet_bytes: int, offset: float) -> Iterator[PathFinding]:
    found = sorted((since, name) for name, path in paths.items() if (since := path.too_small_since) is not None)
    remedy = "give the underlay between a larger MTU, or the network configuration's Backend a smaller one (MTU)"
    for since, name in found[:NAMED]:
        reason = f"MTU: packets of {packet_bytes} bytes do not arrive, small ones do"
        yield PathFinding(name, reason, since + offset, remedy, "NN105")
    if rest := found[NAMED:]:
        reason = "MTU: only small packets arrive"
        yield PathFinding(f"{len(rest)} more peers", reason, rest[0][0] + offset, remedy, "NN105")
