"""Client, node and endpoints in network namespaces of their own: client ── node ── pods.

Beside the node stand two routers by which the same client reaches the same host of pods under other addresses: `bare`
has no rules at all, `floor` those without which nobody can translate anything. So what a packet costs is compared turn
by turn, not before and after.
"""

import ctypes
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any

from lab.enter import CLONE_NEWNET, enter

HERE = Path(__file__).parent
PYTHON = (sys.executable, "-I")
PORT = 8080
CLUSTER_CIDR = "10.244.0.0/15"
BARE_CIDR = "10.250.0.0/16"
"""Pods by way of the router without rules."""
FLOOR_CIDR = "10.251.0.0/16"
"""Pods by way of the router that tracks connections."""
FLOOR_SERVICE = ("10.252.0.1", 80)
"""What it translates."""
FLOOR_RULES = f"""table ip floor {{
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        ip daddr {FLOOR_SERVICE[0]} tcp dport {FLOOR_SERVICE[1]} dnat to 10.251.0.1:{PORT}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        ct status dnat masquerade fully-random
    }}
}}
"""
"""Any rule of these makes the kernel track all connections, and the chains make it ask for the translation of each."""
NODE_ADDRESS = "192.168.77.1"
HOME_ADDRESS = "10.30.0.1"
"""Of the benchmark itself, seen from the node."""
HOSTS = ("client", "node", "bare", "floor", "pods")
ROUTERS = {"node": "eth0", "bare": "eth1", "floor": "eth2"}
"""And the device that client and pods have towards each."""
LINES = {
    "node": [
        "link set lo up",
        "link set client up", "link set pods up", "link set home up", "address add 10.30.0.2/30 dev home",
        f"address add {NODE_ADDRESS}/24 dev client", "address add 10.20.0.1/24 dev pods",
        f"route add {CLUSTER_CIDR} via 10.20.0.2",
        "neigh add 192.168.77.2 lladdr 02:00:00:00:00:02 dev client",
        "neigh add 10.20.0.2 lladdr 02:00:00:00:00:04 dev pods",
    ],
    "bare": [
        "link set lo up", "link set client up", "link set pods up",
        "address add 192.168.78.1/24 dev client", "address add 10.21.0.1/24 dev pods",
        f"route add {BARE_CIDR} via 10.21.0.2",
        "neigh add 192.168.78.2 lladdr 02:00:00:00:00:12 dev client",
        "neigh add 10.21.0.2 lladdr 02:00:00:00:00:14 dev pods",
    ],
    "floor": [
        "link set lo up", "link set client up", "link set pods up",
        "address add 192.168.79.1/24 dev client", "address add 10.22.0.1/24 dev pods",
        f"route add {FLOOR_CIDR} via 10.22.0.2",
        "neigh add 192.168.79.2 lladdr 02:00:00:00:00:22 dev client",
        "neigh add 10.22.0.2 lladdr 02:00:00:00:00:24 dev pods",
    ],
    "client": [
        "link set lo up", "link set eth0 address 02:00:00:00:00:02 up", "link set eth1 address 02:00:00:00:00:12 up",
        "link set eth2 address 02:00:00:00:00:22 up",
        "address add 192.168.77.2/24 dev eth0", f"route add default via {NODE_ADDRESS}",
        "address add 192.168.78.2/24 dev eth1", f"route add {BARE_CIDR} via 192.168.78.1",
        "address add 192.168.79.2/24 dev eth2", f"route add {FLOOR_CIDR} via 192.168.79.1",
        f"route add {FLOOR_SERVICE[0]} via 192.168.79.1",
    ],
    "pods": [
        "link set lo up", "link set eth0 address 02:00:00:00:00:04 up", "link set eth1 address 02:00:00:00:00:14 up",
        "link set eth2 address 02:00:00:00:00:24 up",
        "address add 10.20.0.2/24 dev eth0", "route add default via 10.20.0.1",
        "address add 10.21.0.2/24 dev eth1", "route add 192.168.78.0/24 via 10.21.0.1",
        "address add 10.22.0.2/24 dev eth2", "route add 192.168.79.0/24 via 10.22.0.1",
        *(f"route add local {cidr} dev lo" for cidr in (CLUSTER_CIDR, BARE_CIDR, FLOOR_CIDR)),
    ],
}  # fmt: skip
"""The pods' host has every address of the pod network."""

SYSCTLS = (
    "net.ipv4.ip_forward=1",
    "net.ipv4.conf.all.rp_filter=0",
    # A refusal that the kernel withholds would be measured as the client's patience.
    "net.ipv4.icmp_ratelimit=0",
    "net.ipv4.icmp_msgs_per_sec=100000",
    "net.ipv4.icmp_msgs_burst=100000",
)
Target = tuple[str, int]
numbers = itertools.count()


class Network:
    """Names, and the two helpers that live in them."""

    def __init__(self, prefix: str, scratch: Path) -> None:
        self._prefix = prefix
        self._scratch = scratch
        self._endpoint: subprocess.Popen[str] | None = None
        self._caller: subprocess.Popen[str] | None = None

    def name(self, host: str) -> str:
        return f"{self._prefix}-{host}"

    def popen(
        self, host: str, argv: Sequence[str], also: Callable[[], None] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        enter_host = enter(self.name(host), None, self._scratch)

        def step_in() -> None:
            enter_host()
            if also:
                also()

        return subprocess.Popen(argv, text=True, preexec_fn=step_in, **options)  # noqa: PLW1509 - only system calls

    def run(self, host: str, *argv: str, stdin: str = "", check: bool = True) -> str:
        process = self.popen(host, argv, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        out, error = process.communicate(stdin)
        if check and process.returncode:
            raise SystemExit(f"bench: {' '.join(argv)}: {error.strip()}")
        return out

    def timed(self, host: str, *argv: str, stdin: str) -> float:
        """Seconds that a program needs."""
        started = time.monotonic()
        self.run(host, *argv, stdin=stdin)
        return time.monotonic() - started

    def up(self) -> None:
        for host in HOSTS:
            subprocess.run(["ip", "netns", "add", self.name(host)], check=True)
        for router, device in ROUTERS.items():
            for host in ("client", "pods"):
                peer = ("peer", "name", device, "netns", self.name(host))
                self.run(router, "ip", "link", "add", host, "type", "veth", *peer)
        subprocess.run(["ip", "-batch", "-"], input=self._home_lines(), text=True, check=True)
        for host, lines in LINES.items():
            self.run(host, "ip", "-batch", "-", stdin="\n".join(lines) + "\n")
        for router in ROUTERS:
            self.run(router, "sysctl", "-qw", *SYSCTLS)
        self.run("floor", "nft", "-f", "-", stdin=FLOOR_RULES)
        self._endpoint = self.popen("pods", [*PYTHON, str(HERE / "endpoint.py"), str(PORT)], stdout=PIPE)
        assert self._endpoint.stdout is not None
        self._endpoint.stdout.readline()
        self._caller = self.popen("client", [*PYTHON, str(HERE / "caller.py")], stdin=PIPE, stdout=PIPE)

    def _home_lines(self) -> str:
        """A cable to where etcd is: the namespace of this process."""
        return (
            f"link add to-node type veth peer name home netns {self.name('node')}\n"
            f"link set to-node up\naddress add {HOME_ADDRESS}/30 dev to-node\n"
        )

    def ask(self, command: str, targets: Sequence[Target], *arguments: Any) -> Any:
        """Let the client connect: see caller.py."""
        assert self._caller is not None
        assert self._caller.stdin is not None
        assert self._caller.stdout is not None
        print(json.dumps([command, targets, *arguments]), file=self._caller.stdin, flush=True)
        line = self._caller.stdout.readline()
        if not line:
            raise SystemExit("bench: the client gave up")
        return json.loads(line)

    def down(self) -> None:
        for process in (self._caller, self._endpoint):
            if process:
                process.kill()
                process.wait()
        subprocess.run(["ip", "link", "delete", "to-node"], check=False, capture_output=True)
        for host in HOSTS:
            subprocess.run(["ip", "netns", "delete", self.name(host)], check=False, capture_output=True)


def leave_machine() -> None:
    """Move this process to a network namespace of its own, where etcd will be."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare needs root")
    lines = f"link set lo up\naddress add {HOME_ADDRESS}/32 dev lo\n"
    subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True)


@contextmanager
def network(scratch: Path) -> Iterator[Network]:
    made = Network(f"nodenet-bench-{os.getpid()}-{next(numbers)}", scratch)
    try:
        made.up()
        yield made
    finally:
        made.down()
