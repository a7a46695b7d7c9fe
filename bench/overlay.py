"""How fast netagent is with many peers, each figure beside what the kernel's own tools need for the same work.

A changed lease is timed until the kernel tells of the new FDB entry, from the start of the put and from its return; its
floor is another watcher in Python, timed the same two ways, that does nothing about what it hears.

python -m bench.overlay [--peers 5000] [--quick] [--write]
"""

import argparse
import asyncio
import json
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from ipaddress import ip_address, ip_network
from itertools import count, islice
from pathlib import Path
from statistics import median

from bench.node import MEMORY, PREFIX, ROOT, Agent, Peer, batch, namespace, until
from bench.report import Figure, table, write
from controlloop.etcd import Etcd
from controlloop.family import Family
from lab.etcd import EtcdServer
from netagent.instance import FIRST
from netagent.messages import dump_fdb, dump_routes
from netagent.netlink import Channel
from netagent.state import FdbEntry, Neighbor, Object, Route

CONFIG = {"Network": "10.0.0.0/8", "SubnetLen": 24, "Backend": {"Type": "vxlan"}}
DEVICE = "link add flannel.1 type vxlan id 1 local 192.168.0.1 dev eth0 dstport 8472 nolearning"
RTNLGRP_NEIGH = 1 << 2
CHANGES, ROUNDS = 200, 10
QUIET_S = 0.02
"""Between two changes: one among 5,000 comes after a quiet time."""


def floor_of_writing(peers: list[Peer], verb: str) -> float:
    took_s = batch("ip", "\n".join(line for peer in peers for line in peer.ip_lines(verb)) + "\n", force=verb == "del")
    return took_s + batch("bridge", "\n".join(peer.bridge_line(verb) for peer in peers) + "\n", force=verb == "del")


def measure_floors(peers: list[Peer]) -> tuple[float, float]:
    """Seconds to write all entries, and to remove a thousand that are already gone."""
    batch("ip", f"{DEVICE}\nlink set flannel.1 up\n")
    writing = floor_of_writing(peers, "add")
    thousand = peers[:1000]
    floor_of_writing(thousand, "del")
    removing = floor_of_writing(thousand, "del")
    batch("ip", "link del flannel.1\n")
    return writing, removing


def programmed(channel: Channel) -> tuple[int, int]:
    """Routes and FDB entries in the kernel."""
    entries = channel.dump(dump_fdb(channel.index_of("flannel.1")))
    return len(channel.dump(dump_routes(Family.V4, FIRST.protocol))), len(entries)


async def put_one_by_one(etcd: Etcd, peers: list[Peer]) -> None:
    for peer in peers:
        await etcd.put(peer.key, peer.lease())


class Times:
    """Milliseconds, from the start of puts and from their return."""

    def __init__(self) -> None:
        self.from_start: list[float] = []
        self.from_return: list[float] = []

    def add(self, started: float, returned: float, arrived: float) -> None:
        self.from_start.append((arrived - started) * 1000)
        self.from_return.append((arrived - returned) * 1000)


async def change_one(etcd: Etcd, peers: list[Peer]) -> tuple[Times, Times]:
    """Until a changed lease is in the kernel, and until another watcher in Python has it. By turns: whoever measured
    both at once would keep itself waiting, and a busy minute of the machine would count for one of them.
    """
    to_kernel, to_watcher = Times(), Times()
    changes = ((peers[turn * 7 % len(peers)], 1 + turn * 7 // len(peers)) for turn in count())
    for _ in range(ROUNDS):
        await until_programmed(etcd, islice(changes, CHANGES // ROUNDS), to_kernel)
        await until_heard(etcd, islice(changes, CHANGES // ROUNDS), to_watcher)
    return to_kernel, to_watcher


async def until_programmed(etcd: Etcd, changes: Iterable[tuple[Peer, int]], times: Times) -> None:
    """Until the FDB entry of a peer with a new MAC is there."""
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    kernel.bind((0, RTNLGRP_NEIGH))
    kernel.setblocking(False)
    loop = asyncio.get_running_loop()
    for peer, generation in changes:
        wanted = bytes.fromhex(peer.mac(generation).replace(":", ""))
        await asyncio.sleep(QUIET_S)
        started = time.monotonic()
        put = asyncio.ensure_future(timed_put(etcd, peer, generation))
        while wanted not in await loop.sock_recv(kernel, 65536):
            pass
        programmed_at = time.monotonic()
        times.add(started, await put, programmed_at)
    kernel.close()


async def until_heard(etcd: Etcd, changes: Iterable[tuple[Peer, int]], times: Times) -> None:
    revision = await etcd.put(f"{PREFIX}/bench", b"")
    async with aclosing(etcd.watch(f"{PREFIX}/subnets/", revision)) as batches:
        for peer, generation in changes:
            heard = asyncio.ensure_future(time_of_next(batches))
            await asyncio.sleep(QUIET_S)
            started = time.monotonic()
            returned, heard_at = await asyncio.gather(timed_put(etcd, peer, generation), heard)
            times.add(started, returned, heard_at)


async def timed_put(etcd: Etcd, peer: Peer, generation: int) -> float:
    await etcd.put(peer.key, peer.lease(generation))
    return time.monotonic()


async def time_of_next(batches: AsyncIterator[object]) -> float:
    await anext(batches)
    return time.monotonic()


def requests_of(url: str) -> float:
    """Unary requests that etcd ever began to serve."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:  # noqa: S310 - our own etcd
        lines = answer.read().decode().splitlines()
    wanted = [line for line in lines if line.startswith("grpc_server_started_total") and 'grpc_type="unary"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in wanted)


def device_deleted(channel: Channel, peers: int) -> float:
    """Seconds until the device is back with all its peers."""
    started = time.monotonic()
    batch("ip", "link del flannel.1\n")
    until(lambda: channel.index_of("flannel.1") > 0)
    until(lambda: programmed(channel) == (peers, peers))
    return time.monotonic() - started


REMOVE_GONE = """
import asyncio, pickle, sys, time
from controlloop.delta import Delta
from netagent.kernel import OverlayKernel
drop = pickle.load(sys.stdin.buffer)
kernel = OverlayKernel()
started = time.monotonic()
asyncio.run(kernel.apply(Delta({}, drop)))
print(time.monotonic() - started)
"""


def removal_of_what_is_gone(peers: list[Peer]) -> float:
    """Seconds to remove entries that are not there, by the code that netagent does it with."""
    batch("ip", f"{DEVICE}\nlink set flannel.1 up\n")
    objects: list[Object] = []
    for peer in peers[:1000]:
        gateway = ip_address(peer.gateway)
        objects += [
            FdbEntry(peer.mac(), ip_address(peer.address), "flannel.1"),
            Neighbor(gateway, peer.mac(), "flannel.1"),
            Route(ip_network(f"{gateway}/24"), gateway, "flannel.1", onlink=True, metric=0),
        ]
    drop = pickle.dumps({each.key: each for each in objects})
    done = subprocess.run([sys.executable, "-c", REMOVE_GONE], input=drop, cwd=ROOT, check=True, capture_output=True)
    batch("ip", "link del flannel.1\n")
    return float(done.stdout)


async def run(peers: list[Peer], folder: Path, idle_s: float) -> list[Figure]:
    writing, removing = measure_floors(peers)
    gone = removal_of_what_is_gone(peers)
    server = EtcdServer.on_this_machine(folder / "etcd")
    server.start()
    etcd = Etcd([server.client_url])
    agent, channel = Agent(folder, server.client_url), Channel()
    try:
        await etcd.put(f"{PREFIX}/config", json.dumps(CONFIG).encode())
        agent.start()
        await put_one_by_one(etcd, peers)
        last_put = time.monotonic()
        until(lambda: programmed(channel) == (len(peers), len(peers)))
        stream_s = time.monotonic() - last_put
        stop_s = agent.stop()
        batch("ip", "link del flannel.1\n")
        cold_s = agent.start()
        if programmed(channel) != (len(peers), len(peers)):
            raise SystemExit(f"bench: ready, but the kernel holds {programmed(channel)}")
        requests = requests_of(server.client_url)
        to_kernel, to_watcher = await change_one(etcd, peers)
        # Ours are two puts for each, one more to open a watch, and from the second on whether the store is the same.
        ours = 2 * CHANGES + 2 * ROUNDS - 1
        requests = (requests_of(server.client_url) - requests - ours) / (2 * CHANGES)
        whole_s = device_deleted(channel, len(peers))
        await asyncio.sleep(3)
        before = agent.cpu_s()
        await asyncio.sleep(idle_s)
        idle = (agent.cpu_s() - before) / idle_s * 100
        rss = agent.rss_mb()
        agent.stop()
    finally:
        await etcd.close()
        channel.close()
        server.stop()
    tools = "ip -batch and bridge -batch"
    return [
        Figure("cold start: exec to programmed and read back", cold_s, "s", 2, writing, tools),
        Figure("leases put one by one: last put to all programmed", stream_s, "s", 0.5),
        Figure("one lease changed: start of the put to programmed, median", median(to_kernel.from_start), "ms", 2,
               median(to_watcher.from_start), "to another watcher"),
        Figure("one lease changed: return of the put to programmed, median", median(to_kernel.from_return), "ms", 2,
               median(to_watcher.from_return), "to another watcher"),
        Figure("requests to etcd for one changed lease, besides the put", requests, "", 0.01),
        Figure("device deleted: all back", whole_s, "s", 1, writing, tools),
        Figure("1,000 peers removed whose entries are gone", gone, "s", 1, removing, f"{tools}"),
        Figure("SIGTERM to exit", stop_s, "s", 2),
        Figure("idle, of one core", idle, "%", 0.3),
        Figure("resident memory", rss, "MB", 90),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=int, default=5000)
    parser.add_argument("--quick", action="store_true", help="300 peers, idle for 2 s")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    arguments = parser.parse_args()
    number, idle_s = (300, 2.0) if arguments.quick else (arguments.peers, 60.0)
    if os.geteuid():
        raise SystemExit("bench: needs root, for a network namespace")
    with namespace(), tempfile.TemporaryDirectory(prefix="nodenet-bench-", dir=MEMORY) as folder:
        figures = asyncio.run(run([Peer(each) for each in range(number)], Path(folder), idle_s))
    head = f"| with {number:,} peers | measured | target | floor, from the same run | ratio |"
    text = table(head, [figure.row() for figure in figures])
    print(text)
    if arguments.write:
        write("overlay", text)


if __name__ == "__main__":
    main()
