"""What one node said for a picture, before it is put together with what others said. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netctl.findings.finding import Finding

Item = Mapping[str, Any]

AGENT_PAGES = ("network", "leases", "peers")


@dataclass(frozen=True, slots=True)
class NodeAnswers:
    """What one node said. Everything foreign in it is as it came."""

    name: str
    taken_at: float
    """Seconds since the epoch."""
    findings: Sequence[Finding]
    agents: Mapping[str, Mapping[str, Item]]
    """Pages of AGENT_PAGES by agent; an agent that does not answer has none."""
    frontends: Sequence[Item] | None
    """None: netproxy does not answer."""
    silent: Sequence[str]
    """Daemons that do not answer."""
    address: str = ""
    """On the underlay, where whoever asks knows it: an agent that is silent does not tell its own."""
