"""What a probe looks like on the wire: UDP from overlay address to overlay address, both ends on PORT.

Pure. An answer is the question with another kind, of the same length: nobody gets more out of us than he put in. The
nonce is chance, so that only who saw the question can answer it.
"""

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

PORT = 8478
"""Unassigned at IANA; beside VXLAN's on Linux."""

MAGIC = b"nnp1"
LAYOUT = Struct("!4sBxxxQ")


class Kind(IntEnum):
    QUESTION = 1
    ANSWER = 2


@dataclass(frozen=True, slots=True)
class Probe:
    kind: Kind
    nonce: int
    size: int = LAYOUT.size
    """Bytes of UDP payload."""

    def answer(self) -> "Probe":
        return Probe(Kind.ANSWER, self.nonce, self.size)


def render(probe: Probe) -> bytes:
    return LAYOUT.pack(MAGIC, probe.kind, probe.nonce).ljust(probe.size, b"\0")


def parse(datagram: bytes) -> Probe | None:
    """None for what is no probe of ours."""
    if len(datagram) < LAYOUT.size:
        return None
    magic, kind, nonce = LAYOUT.unpack_from(datagram)
    if magic != MAGIC or kind not in (Kind.QUESTION, Kind.ANSWER):
        return None
    return Probe(Kind(kind), nonce, len(datagram))
