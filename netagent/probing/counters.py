"""UDP datagrams that the kernel threw away for a wrong checksum.

A VXLAN packet is UDP: a sender whose offload gets the outer checksum wrong loses it here, on the receiving node
(flannel issue 1279). Which sender it was the kernel does not say. A wrong inner checksum counts with the pod, not here.
"""

from collections import deque
from collections.abc import Iterable
from pathlib import Path

WINDOW_S = 60.0
MANY = 10
"""Errors within WINDOW_S that are no accident."""


def checksum_errors(proc_net: Path = Path("/proc/net")) -> int:
    """Of both families since boot, in our network namespace; 0 where the kernel does not count."""
    return sum(count(proc_net / name) for name in ("snmp", "snmp6"))


def count(file: Path) -> int:
    try:
        return parse(file.read_text().splitlines())
    except OSError:
        return 0


def parse(lines: Iterable[str]) -> int:
    """`Udp:` names and numbers in two lines for IPv4, one line for each number for IPv6 (proc_net(5))."""
    names: list[str] = []
    for line in lines:
        words = line.split()
        if words[:1] == ["Udp6InCsumErrors"]:
            return int(words[1])
        if words[:1] == ["Udp:"] and not names:
            names = words
        elif words[:1] == ["Udp:"] and "InCsumErrors" in names:
            return int(words[names.index("InCsumErrors")])
    return 0


class Growth:
    """How much a counter grew within WINDOW_S, and since when it grows so fast."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self.since: float | None = None

    @property
    def amount(self) -> int:
        return max(0, self._seen[-1][1] - self._seen[0][1]) if self._seen else 0

    def note(self, now: float, value: int) -> None:
        while self._seen and self._seen[0][0] < now - WINDOW_S:
            self._seen.popleft()
        self._seen.append((now, value))
        if self.amount < MANY:
            self.since = None
        elif self.since is None:
            self.since = self._seen[0][0]
