"""What nf_tables says of each traced packet (NFT_MSG_TRACE, linux/netfilter/nf_tables.h). Pure."""

from collections.abc import Iterator
from typing import NamedTuple

from controlloop.nft.notifications import attributes, messages, text
from netctl.trace.headers import Headers, headers

TRACE = 17  # NFT_MSG_TRACE
GROUP = 9  # NFNLGRP_NFTRACE (linux/netfilter/nfnetlink.h)
TABLE, CHAIN, RULE_HANDLE, TYPE, VERDICT, ID = range(1, 7)
NETWORK_HEADER, TRANSPORT_HEADER, CAME_IN, GOES_OUT, POLICY = 8, 9, 10, 12, 16
VERDICT_CODE, VERDICT_CHAIN = 1, 2
TYPES = {1: "policy", 2: "return", 3: "rule"}
VERDICTS = {
    0: "drop", 1: "accept", 2: "stolen", 3: "queue", 4: "repeat", -1: "continue", -2: "break", -3: "jump", -4: "goto",
    -5: "return",
}  # fmt: skip
FAMILIES = {1: "inet", 2: "ip", 5: "netdev", 7: "bridge", 10: "ip6"}


class TraceEvent(NamedTuple):
    """One step of one packet."""

    packet: int
    """An id, good for as long as the packet lives."""
    family: str
    """Of the table."""
    table: str
    chain: str
    kind: str
    """`rule`, `policy`, `return`."""
    handle: int
    """Of the rule."""
    verdict: str
    target: str
    """The chain that it jumps to."""
    headers: Headers | None
    """At the first step in each base chain."""
    came_in: int
    goes_out: int
    """Interfaces by index; 0: none."""


def trace_events(datagram: bytes) -> Iterator[TraceEvent]:
    for message in messages(datagram):
        if message.kind == TRACE:
            yield _event(FAMILIES.get(message.family, str(message.family)), dict(attributes(message.payload)))


def _event(family: str, found: dict[int, bytes]) -> TraceEvent:
    verdict = dict(attributes(found.get(VERDICT, b"")))
    code = int.from_bytes(verdict.get(VERDICT_CODE, b""), "big", signed=True)
    return TraceEvent(
        _number(found, ID),
        family,
        text(found.get(TABLE, b"")),
        text(found.get(CHAIN, b"")),
        TYPES.get(_number(found, TYPE), ""),
        _number(found, RULE_HANDLE),
        VERDICTS.get(_number(found, POLICY) if POLICY in found else code, str(code)),
        text(verdict.get(VERDICT_CHAIN, b"")),
        headers(found.get(NETWORK_HEADER, b""), found.get(TRANSPORT_HEADER, b"")),
        _number(found, CAME_IN),
        _number(found, GOES_OUT),
    )


def _number(found: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(found.get(kind, b""), "big")
