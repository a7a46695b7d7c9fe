"""Settings of the kernel that the proxy needs, as kube-proxy makes them at its start.

`wanted` is pure. What cannot be written is told and lived with: in a network namespace of its own, or without
CAP_NET_ADMIN, a process may find them read-only, and then `--init-only` run as root is the way.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from controlloop.logs import Log
from proxy.config import ConntrackSettings, Settings

MOST_FLOWS = 1_048_576
"""What the limit that follows from the number of CPUs is capped at (Kubernetes 1.36)."""
FLOWS_PER_BUCKET = 4

log = Log("sysctls")


@dataclass(frozen=True, slots=True)
class Sysctl:
    path: str
    """Below /proc/sys, or absolute."""
    value: int
    at_least: bool = False
    """A larger value is left alone."""

    @property
    def file(self) -> Path:
        return Path("/proc/sys") / self.path


def wanted(settings: Settings, cpus: int) -> Iterator[Sysctl]:
    """In the order in which they are to be written."""
    yield from conntrack_size(settings.conntrack, cpus)
    yield from conntrack_behaviour(settings.conntrack)


def conntrack_size(conntrack: ConntrackSettings, cpus: int) -> Iterator[Sysctl]:
    """As many flows as CPUs times `max_per_core`, at least `min`; 0: the kernel's own limit stays."""
    if conntrack.max_per_core <= 0:
        return
    flows = min(MOST_FLOWS, max(conntrack.max_per_core * cpus, conntrack.min))
    yield Sysctl("net/netfilter/nf_conntrack_max", flows)
    buckets = flows // FLOWS_PER_BUCKET
    yield Sysctl("/sys/module/nf_conntrack/parameters/hashsize", buckets, at_least=True)


def conntrack_behaviour(conntrack: ConntrackSettings) -> Iterator[Sysctl]:
    seconds = {
        "tcp_timeout_established": conntrack.tcp_established_s,
        "tcp_timeout_close_wait": conntrack.tcp_close_wait_s,
        "udp_timeout": conntrack.udp_s,
        "udp_timeout_stream": conntrack.udp_stream_s,
    }
    for name, value in seconds.items():
        if value > 0:
            yield Sysctl(f"net/netfilter/nf_conntrack_{name}", int(value))
    if conntrack.tcp_be_liberal:
        yield Sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", 1)


def apply(settings: Settings) -> list[str]:
    """Write what differs; gives back one line for each that could not be written."""
    problems = (_write(sysctl) for sysctl in wanted(settings, os.cpu_count() or 1))
    return [problem for problem in problems if problem]


def _write(sysctl: Sysctl) -> str:
    try:
        now = int(sysctl.file.read_text())
    except FileNotFoundError:
        return ""  # the kernel was built without it, or its module is not there
    except (OSError, ValueError) as error:
        return f"{sysctl.file}: {error}"
    if now == sysctl.value or (sysctl.at_least and now > sysctl.value):
        return ""
    try:
        sysctl.file.write_text(f"{sysctl.value}\n")
    except OSError as error:
        return f"{sysctl.file}: {sysctl.value} is wanted, {now} stays: {error.strerror}"
    log.info("sysctl", path=sysctl.file, was=now, now=sysctl.value)
    return ""
