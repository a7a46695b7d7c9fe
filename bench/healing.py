"""How soon what somebody removes is back, in both families and with every backend: the 99th of a hundred.

    python -m bench.healing [--peers 5000] [--quick] [--write]

A time is that between two notifications of the kernel: it is gone, it is there again. WireGuard sends none, so there
it is from the end of the command to the peer's being listed again.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from bench.node import MEMORY, PREFIX, Agent, Peer, namespace, put_all
from bench.report import table, write
from controlloop.etcd import Etcd
from lab.etcd import EtcdServer

RTNLGRP_NEIGH, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE = 1 << 2, 1 << 6, 1 << 10
NEW, GONE = {24, 28}, {25, 29}  # RTM_NEWROUTE, RTM_NEWNEIGH; RTM_DELROUTE, RTM_DELNEIGH
NETWORKS = {"Network": "10.0.0.0/8", "SubnetLen": 24, "IPv6Network": "fd00:6::/48", "EnableIPv6": True}
WIREGUARD: dict[str, dict[str, Any]] = {
    "wireguard, a device for both families": {"Type": "wireguard", "Mode": "auto"},
    "wireguard, a device for each family": {"Type": "wireguard"},
}
TARGET_MS = 250
SAMPLES = 100
FEW_PEERS = 200
"""With WireGuard: its program in user space takes a second and more for thousands."""
WIREGUARD_DEVICES = ("flannel-wg", "flannel-wg-v6")
LISTED_EACH_S = 0.005
QUIET_S = (0.5, 1.0)
"""Before a peer is removed; by chance, since the agent looks at regular intervals."""


@dataclass(frozen=True)
class Drift:
    """How a peer's object is removed, and the bytes that its notifications have in them."""

    what: str
    command: Callable[[Peer], str]
    contains: Callable[[Peer], list[bytes]]


def packed(address: str) -> bytes:
    return ip_address(address).packed


def mac_of(peer: Peer) -> bytes:
    return bytes.fromhex(peer.mac().replace(":", ""))


ROUTES = [
    Drift("IPv4 route", lambda peer: f"ip route del {peer.gateway}/24", lambda peer: [packed(peer.gateway)]),
    Drift("IPv6 route", lambda peer: f"ip route del {peer.gateway6}/64", lambda peer: [packed(peer.gateway6)]),
]
NEIGHBORS = [
    Drift(
        "IPv4 neighbor",
        lambda peer: f"ip neigh del {peer.gateway} dev flannel.1",
        lambda peer: [packed(peer.gateway)],
    ),
    Drift(
        "IPv6 neighbor",
        lambda peer: f"ip neigh del {peer.gateway6} dev flannel-v6.1",
        lambda peer: [packed(peer.gateway6)],
    ),
    Drift(
        "IPv4 FDB entry",
        lambda peer: f"bridge fdb del {peer.mac()} dev flannel.1 dst {peer.address}",
        lambda peer: [mac_of(peer), packed(peer.address)],
    ),
    Drift(
        "IPv6 FDB entry",
        lambda peer: f"bridge fdb del {peer.mac()} dev flannel-v6.1 dst {peer.address6}",
        lambda peer: [mac_of(peer), packed(peer.address6)],
    ),
]
BACKENDS: dict[str, tuple[dict[str, Any], list[Drift]]] = {
    "vxlan": ({"Type": "vxlan"}, [*ROUTES, *NEIGHBORS]),
    "vxlan with DirectRouting": ({"Type": "vxlan", "DirectRouting": True}, ROUTES),
    "host-gw": ({"Type": "host-gw"}, ROUTES),
}


def back_after(drift: Drift, peers: list[Peer]) -> list[float]:
    """Milliseconds, for one peer after the other."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as listener:
        listener.settimeout(10)
        listener.bind((0, RTNLGRP_NEIGH | RTNLGRP_IPV4_ROUTE | RTNLGRP_IPV6_ROUTE))
        return [one_back(drift, peer, listener) for peer in peers]


def one_back(drift: Drift, peer: Peer, listener: socket.socket) -> float:
    subprocess.run(drift.command(peer).split(), check=True)
    contained = drift.contains(peer)
    time_of(GONE, contained, listener)
    gone_at = time.monotonic()
    time_of(NEW, contained, listener)
    return (time.monotonic() - gone_at) * 1000


def time_of(kinds: set[int], contained: list[bytes], listener: socket.socket) -> None:
    """Wait for such a notification. One datagram has one."""
    while True:
        datagram = listener.recv(65536)
        kind = int.from_bytes(datagram[4:6], sys.byteorder)
        if kind in kinds and all(part in datagram for part in contained):
            return


def wireguard_back_after(peers: list[Peer]) -> list[float]:
    """Milliseconds, for one peer after the other, each removed at any moment between two looks."""
    return [wireguard_one_back(peer.public_key, random.uniform(*QUIET_S)) for peer in peers]  # noqa: S311 - no secret


def wireguard_one_back(key: str, quiet_s: float) -> float:
    time.sleep(quiet_s)
    subprocess.run(["wg", "set", WIREGUARD_DEVICES[0], "peer", key, "remove"], check=True)
    gone_at = time.monotonic()
    while key not in wireguard_peers():
        time.sleep(LISTED_EACH_S)
    return (time.monotonic() - gone_at) * 1000


def wireguard_peers() -> list[str]:
    listing = ["wg", "show", WIREGUARD_DEVICES[0], "peers"]
    return subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split()


class Scenes:
    """Agents with their peers, one after the other, each with a backend and an etcd prefix of its own."""

    def __init__(self, folder: Path, url: str, etcd: Etcd) -> None:
        self._folder, self._url, self._etcd = folder, url, etcd

    async def run(self, options: dict[str, Any], peers: list[Peer], measure: Callable[[], list[str]]) -> list[str]:
        prefix = f"{PREFIX}-{'-'.join(map(str, options.values()))}"
        leases = {peer.dual_key.replace(PREFIX, prefix): peer.dual_lease(options["Type"]) for peer in peers}
        config = json.dumps(NETWORKS | {"Backend": options}).encode()
        await put_all(self._etcd, {f"{prefix}/config": config, **leases})
        agent = Agent(self._folder, self._url)
        agent.start("--etcd-prefix", prefix)
        try:
            return measure()
        finally:
            agent.stop()


async def run(count: int, samples: int, folder: Path) -> list[str]:
    peers = [Peer(number) for number in range(1, count + 1)]
    server = EtcdServer.on_this_machine(folder / "etcd")
    server.start()
    etcd = Etcd([server.client_url])
    scenes = Scenes(folder, server.client_url, etcd)
    rows = []
    try:
        for name, (options, drifts) in BACKENDS.items():
            rows += await scenes.run(options, peers, partial(measured, name, drifts, peers, samples))
        if shutil.which("wireguard-go") and shutil.which("wg"):
            few = peers[: max(FEW_PEERS, samples)]
            for name, options in WIREGUARD.items():
                rows += await scenes.run(options, few, partial(measured_wireguard, name, few, samples))
    finally:
        await etcd.close()
        server.stop()
        end_wireguard()
    return rows


def end_wireguard() -> None:
    """With its device goes wireguard-go, which otherwise outlives us."""
    for device in WIREGUARD_DEVICES:
        subprocess.run(["ip", "link", "del", device], check=False, capture_output=True)


def measured(name: str, drifts: list[Drift], peers: list[Peer], samples: int) -> list[str]:
    return [row(f"{name}: {drift.what}", len(peers), back_after(drift, peers[:samples]), TARGET_MS) for drift in drifts]


def measured_wireguard(name: str, peers: list[Peer], samples: int) -> list[str]:
    return [row(f"{name}: peer", len(peers), wireguard_back_after(peers[:samples]), TARGET_MS)]


def row(what: str, peers: int, times_ms: list[float], target_ms: float) -> str:
    ordered = sorted(times_ms)
    p99 = ordered[-(-len(ordered) * 99 // 100) - 1]
    missed = " (missed)" if p99 > target_ms else ""
    times = f"{statistics.median(ordered):.1f} ms | {p99:.1f} ms | {ordered[-1]:.1f} ms"
    return f"| {what} | {peers:,} | {times} | {target_ms:g} ms{missed} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=int, default=5000)
    parser.add_argument("--quick", action="store_true", help="300 peers, 10 samples")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    arguments = parser.parse_args()
    count, samples = (300, 10) if arguments.quick else (arguments.peers, SAMPLES)
    if os.geteuid():
        raise SystemExit("bench: needs root, for a network namespace")
    with namespace(), tempfile.TemporaryDirectory(prefix="nodenet-bench-", dir=MEMORY) as folder:
        rows = asyncio.run(run(count, samples, Path(folder)))
    text = table(f"| removed, {samples} times | peers | back, median | p99 | worst | target at p99 |", rows)
    print(text)
    if arguments.write:
        write("healing", text)


if __name__ == "__main__":
    main()
