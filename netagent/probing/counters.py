"""UDP datagrams that the kernel threw away for a wrong checksum.

A VXLAN packet is UDP: a sender whose offload gets the outer checksum wrong loses it here, on the receiving node
(flannel issue 1279). Which sender it was the kernel does not say. A wrong inner checksum counts with the pod, not here.
"""

from collections.abc import Iterable
from pathlib import Path


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
