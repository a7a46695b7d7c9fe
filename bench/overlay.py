"""How fast netagent is with many peers, each figure beside what the kernel's own tools need for the same work.

    python bench/overlay.py [--peers 5000] [--quick] [--write]

Everything runs in a network namespace made for it, with an etcd of its own, and is gone afterwards. Needs root.
"""

import argparse
import asyncio
import ctypes
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from controlloop.etcd import Etcd
from controlloop.family import Family
from lab.etcd import EtcdServer
from netagent.instance import FIRST
from netagent.links import index_of
from netagent.messages import dump_fdb, dump_routes
from netagent.netlink import Channel

ROOT = Path(__file__).resolve().parents[1]
CLONE_NEWNET = 0x40000000
# An etcd on a slow disk would be all there is to see.
MEMORY = "/dev/shm"  # noqa: S108 - a folder of our own in it
PREFIX = "/coreos.com/network"
CONFIG = {"Network": "10.0.0.0/8", "SubnetLen": 24, "Backend": {"Type": "vxlan"}}
SETUP = """\
link set lo up
link add eth0 type veth peer name eth1
link set eth1 up
link set eth0 up
address add 192.168.0.1/16 dev eth0
route add default via 192.168.0.254
"""
DEVICE = "link add flannel.1 type vxlan id 1 local 192.168.0.1 dev eth0 dstport 8472 nolearning"
RTNLGRP_NEIGH, RTNLGRP_IPV4_ROUTE = 1 << 2, 1 << 6


@dataclass(frozen=True)
class Figure:
    what: str
    value: float
    unit: str
    target: float
    floor: float | None = None
    floor_is: str = ""

    def row(self) -> str:
        floor = "" if self.floor is None else f"{self.floor:.2f} {self.unit}, {self.floor_is}"
        ratio = "" if not self.floor else f"{self.value / self.floor:.1f}"
        verdict = "" if self.value <= self.target else " (missed)"
        return (
            f"| {self.what} | {self.value:.2f} {self.unit} | {self.target:g} {self.unit}{verdict} | {floor} | {ratio} |"
        )


@dataclass(frozen=True)
class Peer:
    number: int

    @property
    def _middle(self) -> str:
        return f"{self.number // 250 + 1}.{self.number % 250}"

    @property
    def gateway(self) -> str:
        return f"10.{self._middle}.0"

    @property
    def address(self) -> str:
        return f"192.168.{self.number // 250 + 1}.{self.number % 250 + 1}"

    @property
    def key(self) -> str:
        return f"{PREFIX}/subnets/{self.gateway}-24"

    def mac(self, generation: int = 0) -> str:
        return f"82:00:00:{generation:02x}:{self.number >> 8:02x}:{self.number & 255:02x}"

    def lease(self, generation: int = 0) -> bytes:
        data = {"VNI": 1, "VtepMAC": self.mac(generation)}
        value = {"PublicIP": self.address, "PublicIPv6": None, "BackendType": "vxlan", "BackendData": data}
        return json.dumps(value, separators=(",", ":")).encode()

    def ip_lines(self, verb: str) -> list[str]:
        neighbor = f"lladdr {self.mac()} nud permanent" if verb == "add" else ""
        return [
            f"neigh {verb} {self.gateway} {neighbor} dev flannel.1",
            f"route {verb} {self.gateway}/24 via {self.gateway} dev flannel.1 onlink",
        ]

    def bridge_line(self, verb: str) -> str:
        return f"fdb {verb} {self.mac()} dev flannel.1 dst {self.address}"


@contextmanager
def namespace() -> Iterator[None]:
    """This thread, and whatever it starts, in a namespace of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare needs root")
    batch("ip", SETUP)
    yield


def batch(program: str, lines: str, *, force: bool = False) -> float:
    """Seconds that `ip` or `bridge` needs for a batch."""
    started = time.monotonic()
    argv = [program, *(["-force"] if force else []), "-batch", "-"]
    subprocess.run(argv, input=lines, text=True, check=not force, capture_output=True)
    return time.monotonic() - started


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


class Agent:
    """A netagent of this tree, started and asked."""

    def __init__(self, folder: Path, etcd_url: str) -> None:
        self._folder, self._url = folder, etcd_url
        self.pid = 0

    def start(self) -> float:
        """Seconds from exec until it says READY=1: all programmed, and read back."""
        runtime = self._folder / "nodenet"
        runtime.mkdir(exist_ok=True)
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = self._folder / "notify"
        path.unlink(missing_ok=True)
        notify.bind(str(path))
        notify.settimeout(60)
        environment = {**os.environ, "NOTIFY_SOCKET": str(path), "RUNTIME_DIRECTORY": str(runtime)}
        argv = [str(Path(sys.executable).with_name("netagent")), "--etcd-endpoints", self._url, "--node-name", "bench"]
        argv += ["--subnet-file", str(self._folder / "subnet.env"), "--healthz-port", "0"]
        started = time.monotonic()
        with (self._folder / "netagent.log").open("ab") as log:
            self._process = subprocess.Popen(argv, env=environment, stdout=log, stderr=log, cwd=ROOT)
        self.pid = self._process.pid
        while b"READY=1" not in notify.recv(4096):
            pass
        return time.monotonic() - started

    def stop(self) -> float:
        started = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)
        return time.monotonic() - started

    def rss_mb(self) -> float:
        line = next(line for line in Path(f"/proc/{self.pid}/status").read_text().splitlines() if "VmRSS" in line)
        return int(line.split()[1]) / 1024

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def programmed(channel: Channel) -> tuple[int, int]:
    """Routes and FDB entries in the kernel."""
    index = index_of("flannel.1")
    return len(channel.dump(dump_routes(Family.V4, FIRST.protocol))), len(channel.dump(dump_fdb(index)))


def until(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    """Asked seldom: counting thousands of entries takes the kernel's lock, which netagent waits for."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("bench: it did not happen in time")
        time.sleep(0.05)


async def put_all(etcd: Etcd, peers: list[Peer]) -> None:
    for start in range(0, len(peers), 50):
        await asyncio.gather(*(etcd.put(peer.key, peer.lease()) for peer in peers[start : start + 50]))


async def put_one_by_one(etcd: Etcd, peers: list[Peer]) -> None:
    for peer in peers:
        await etcd.put(peer.key, peer.lease())


async def change_one(etcd: Etcd, peers: list[Peer], times: int) -> tuple[list[float], list[float]]:
    """Milliseconds from a put to the peer's FDB entry in the kernel, and to another watcher of the same etcd."""
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    kernel.bind((0, RTNLGRP_NEIGH))
    kernel.setblocking(False)
    loop = asyncio.get_running_loop()
    revision = await etcd.put(f"{PREFIX}/bench", b"")
    watch = etcd.watch(f"{PREFIX}/subnets/", revision)
    heard = asyncio.ensure_future(anext(watch))
    to_kernel, to_watcher = [], []
    for turn in range(times):
        peer = peers[turn * 7 % len(peers)]
        generation = turn // len(peers) + 1
        wanted = bytes.fromhex(peer.mac(generation).replace(":", ""))
        await asyncio.sleep(0.02)  # a change among 5,000 comes after a quiet time
        started = time.monotonic()
        put = asyncio.ensure_future(etcd.put(peer.key, peer.lease(generation)))
        heard.add_done_callback(lambda _, at=started: to_watcher.append((time.monotonic() - at) * 1000))
        while wanted not in await loop.sock_recv(kernel, 65536):
            pass
        to_kernel.append((time.monotonic() - started) * 1000)
        await put
        await heard
        heard = asyncio.ensure_future(anext(watch))
    heard.cancel()
    kernel.close()
    return to_kernel, to_watcher


def repair_times(peers: list[Peer], times: int) -> list[float]:
    """Milliseconds until a route that was deleted is back."""
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    listener.settimeout(10)
    listener.bind((0, RTNLGRP_IPV4_ROUTE))
    found = []
    for peer in peers[:times]:
        subprocess.run(["ip", "route", "del", f"{peer.gateway}/24"], check=True)
        at, wanted = None, socket.inet_aton(peer.gateway)
        while True:
            datagram = listener.recv(65536)
            kind = int.from_bytes(datagram[4:6], sys.byteorder)
            if wanted in datagram and kind == 25:
                at = time.monotonic()
            if wanted in datagram and kind == 24 and at is not None:
                found.append((time.monotonic() - at) * 1000)
                break
    listener.close()
    return found


def device_deleted(channel: Channel, peers: int) -> float:
    """Seconds until the device is back with all its peers."""
    batch("ip", "link del flannel.1\n")
    started = time.monotonic()
    until(lambda: index_of("flannel.1") > 0)
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
    import pickle  # noqa: PLC0415
    from ipaddress import ip_address, ip_network  # noqa: PLC0415

    from netagent.state import FdbEntry, Neighbor, Route  # noqa: PLC0415

    batch("ip", f"{DEVICE}\nlink set flannel.1 up\n")
    objects = []
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
        to_kernel, to_watcher = await change_one(etcd, peers, 60)
        repairs = repair_times(peers, 50)
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
        Figure("one lease changed: put to programmed, median", statistics.median(to_kernel), "ms", 2,
               statistics.median(to_watcher), "put to another watcher"),
        Figure("one route deleted: back, median", statistics.median(repairs), "ms", 250),
        Figure("one route deleted: back, worst of 50", max(repairs), "ms", 250),
        Figure("device deleted: all back", whole_s, "s", 1, writing, tools),
        Figure("1,000 peers removed whose entries are gone", gone, "s", 1, removing, f"{tools}"),
        Figure("SIGTERM to exit", stop_s, "s", 2),
        Figure("idle, of one core", idle, "%", 0.3),
        Figure("resident memory", rss, "MB", 90),
    ]  # fmt: skip


def table(figures: list[Figure], peers: int) -> str:
    lines = [
        f"| with {peers:,} peers | measured | target | floor, from the same run | ratio |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(figure.row() for figure in figures)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=int, default=5000)
    parser.add_argument("--quick", action="store_true", help="300 peers, idle for 2 s")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    arguments = parser.parse_args()
    count, idle_s = (300, 2.0) if arguments.quick else (arguments.peers, 20.0)
    if os.geteuid():
        raise SystemExit("bench: needs root, for a network namespace")
    with namespace(), tempfile.TemporaryDirectory(prefix="nodenet-bench-", dir=MEMORY) as folder:
        try:
            figures = asyncio.run(run([Peer(number) for number in range(count)], Path(folder), idle_s))
        except BaseException:
            log = Path(folder, "netagent.log")
            print(log.read_text()[-3000:] if log.exists() else "", file=sys.stderr)
            raise
    print(table(figures, count))
    if arguments.write:
        write(table(figures, count))


def write(text: str) -> None:
    page = ROOT / "docs" / "performance.md"
    begin, end = "<!-- overlay -->", "<!-- /overlay -->"
    head, _, rest = page.read_text().partition(begin)
    page.write_text(f"{head}{begin}\n{text}\n{end}{rest.partition(end)[2]}")


if __name__ == "__main__":
    main()
