"""Tables of where calls land.

A table has a line for each flow, judged in both families:

    client  -> vip:80         = pod-1-1                        lands there, and the caller's address is kept
    node-1  -> cluster-ip:80  = pod-1-1 pod-2-1 masqueraded    lands on each of them and on no other
    pod-1-3 -> udp/vip:81     = dropped
    pod-1-3 -> sctp/vip:82    = refused
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from calls import Call
from network import ADDRESSES

from controlloop.family import Family
from proxy.frontends import Protocol

ANSWER_WITHIN_S = 30.0
DROPPED_AFTER_S = 0.05
"""Packets of one machine take microseconds; what has not come back by then does not come."""

ROW = re.compile(
    r"(?P<caller>\S+) +-> +(?:(?P<protocol>udp|sctp)/)?(?P<target>[\w-]+):(?P<port>\d+) += +(?P<wanted>\S.*)"
)
NOBODY = {"refused", "dropped"}


@dataclass(frozen=True, slots=True)
class Row:
    text: str
    caller: str
    protocol: Protocol
    target: str
    port: int
    wanted: frozenset[str]
    """Of servers; or one of NOBODY."""
    masqueraded: bool

    @property
    def tries(self) -> int:
        """So many that one of two, three or four servers is missed less than once in ten million rows, and one too
        many is found all but once in a thousand.
        """
        if self.wanted & NOBODY:
            return 3
        return 10 if len(self.wanted) == 1 else 15 * len(self.wanted)

    @property
    def wait_s(self) -> float:
        return DROPPED_AFTER_S if "dropped" in self.wanted else ANSWER_WITHIN_S

    def calls(self, family: Family) -> list[Call]:
        address = ADDRESSES[self.target][family]
        return [Call(self.caller, address, self.port, self.protocol) for _ in range(self.tries)]

    def fits(self, calls: Sequence[Call]) -> bool:
        landed = {call.outcome or "dropped" for call in calls}
        return landed == self.wanted and all(self._fits_source(call) for call in calls if call.seen_as)

    def _fits_source(self, call: Call) -> bool:
        """A pod that reaches itself never sees its own address: the answer would not pass the node."""
        to_itself = call.caller.startswith("pod") and call.outcome.partition(":")[0] == call.caller
        return call.masqueraded == (self.masqueraded or to_itself)


def read(table: str) -> list[Row]:
    return [_row(line.strip()) for line in table.splitlines() if line.strip()]


def _row(line: str) -> Row:
    match = ROW.fullmatch(line)
    assert match, f"not a flow: {line!r}"
    words = set(match["wanted"].split())
    return Row(
        text=line,
        caller=match["caller"],
        protocol=Protocol(match["protocol"] or "tcp"),
        target=match["target"],
        port=int(match["port"]),
        wanted=frozenset(words - {"masqueraded"}),
        masqueraded="masqueraded" in words,
    )


def told(calls):
    """What happened, in the words of a table, with how often."""
    counts = Counter(
        (call.outcome or "dropped", " masqueraded" if call.masqueraded and call.seen_as else "") for call in calls
    )
    return ", ".join(f"{count} x {outcome}{how}" for (outcome, how), count in sorted(counts.items()))
