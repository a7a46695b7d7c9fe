"""What the tables of iptables-legacy say of traced packets, over nfnetlink_log (linux/netfilter/nfnetlink_log.h). Pure.

ipt_do_table logs each rule that a traced packet matches, whoever had it traced: `TRACE: nat:PREROUTING:rule:1 `.
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from controlloop.nft.notifications import HEADER, attributes, text
from netagent.messages import attribute
from netctl.trace.headers import Headers, headers

SUBSYSTEM = 4  # NFNL_SUBSYS_ULOG
PACKET, CONFIG = 0, 1
COMMAND, MODE, BUFFER, TIMEOUT, THRESHOLD = 1, 2, 3, 4, 5
BIND = 1
COPY_PACKET = 2
FIRST_BYTES = 96
"""Of each packet: the headers, with options."""
PACKET_HEADER, PAYLOAD, PREFIX = 1, 9, 10
REQUEST_ACK = 0x5
HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
SAID = re.compile(r"TRACE: (?P<table>[^:]+):(?P<chain>.+):(?P<kind>rule|return|policy):(?P<number>\d+) ?")


class LogEvent(NamedTuple):
    """One rule of iptables-legacy that a packet matched."""

    hook: str
    table: str
    chain: str
    kind: str
    """`rule`, `policy`; `return`: the end of a chain."""
    number: int
    """Of the rule in its chain, from 1."""
    headers: Headers


def binding() -> list[bytes]:
    """Requests, each of which is acknowledged: hear of group 0, which tracing logs to, at once."""
    at_once = attribute(THRESHOLD, struct.pack(">I", 1))
    return [
        _config(attribute(COMMAND, bytes([BIND]))),
        _config(attribute(MODE, struct.pack(">IBx", FIRST_BYTES, COPY_PACKET)) + at_once),
    ]


def _config(body: bytes) -> bytes:
    payload = bytes(4) + body
    return HEADER.pack(HEADER.size + len(payload), SUBSYSTEM << 8 | CONFIG, REQUEST_ACK, 1, 0) + payload


def log_events(datagram: bytes) -> Iterator[LogEvent]:
    """What is no word of a trace is passed over."""
    at = 0
    while at + HEADER.size <= len(datagram):
        length, kind, *_ = HEADER.unpack_from(datagram, at)
        if length < HEADER.size:
            return
        if kind == SUBSYSTEM << 8 | PACKET and (found := _event(datagram[at + HEADER.size + 4 : at + length])):
            yield found
        at += length + 3 & ~3


def _event(payload: bytes) -> LogEvent | None:
    found = dict(attributes(payload))
    said = SAID.fullmatch(text(found.get(PREFIX, b"")))
    packet = headers(found.get(PAYLOAD, b""))
    hook = found.get(PACKET_HEADER, b"")[2:3]
    if not said or packet is None or not hook or hook[0] >= len(HOOKS):
        return None
    return LogEvent(HOOKS[hook[0]], said["table"], said["chain"], said["kind"], int(said["number"]), packet)
