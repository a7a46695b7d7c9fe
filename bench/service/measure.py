"""One way to write rules with one number of Services: everything that is measured of it."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import NamedTuple

from bench.service import floors
from bench.service.daemon import NFTABLES, Netproxy, Variant
from bench.service.floors import Floors
from bench.service.network import BARE_CIDR, FLOOR_CIDR, FLOOR_SERVICE, PORT, Network, Target, network
from bench.service.workload import Workload, put_all
from controlloop.client import UnreachableError, get_json
from controlloop.etcd import Etcd

CHANGES = 20
TOGETHER = 100
PACKETS = 3000
READY_S = 20.0


class Compared(NamedTuple):
    """Microseconds."""

    us: float
    bare_us: float
    """Over the router without rules, turn by turn with the others."""
    floor_us: float
    """Over the router that tracks connections, and translates this one when the node does."""

    @property
    def ratio(self) -> float:
        return self.us / self.bare_us

    @property
    def floor(self) -> float:
        return self.floor_us / self.bare_us


NONE = Compared(0.0, 1.0, 0.0)


@dataclass(slots=True)
class Result:
    """Seconds, unless the name says otherwise."""

    variant: Variant
    workload: Workload
    floors: Floors
    start: float = 0.0
    changes: list[float] = field(default_factory=list)
    together: float = 0.0
    added: float = 0.0
    removed: float = 0.0
    repaired: list[float] = field(default_factory=list)
    flushed: float = 0.0
    own_mb: float = 0.0
    all_mb: float = 0.0
    idle_percent: float = 0.0
    passing: Compared = NONE
    """The first packet to a pod, with all rules: traffic that is for no Service."""
    cluster_ip: Compared = NONE
    node_port: Compared = NONE
    connections: float = 0.0
    """In a second, one after the other."""
    bare_connections: float = 0.0

    @property
    def cluster_ip_ratio(self) -> float:
        return self.cluster_ip.ratio

    @property
    def change(self) -> float:
        return statistics.median(self.changes)


class Bench:
    def __init__(self, net: Network, variant: Variant, workload: Workload, etcd: Etcd, proxy: Netproxy) -> None:
        self._net, self._variant, self._workload, self._etcd, self._proxy = net, variant, workload, etcd, proxy
        last = workload.services - 1
        self._sample = [workload.target(number) for number in {0, 1, last // 2, last - 1, last}]
        numbers = range(min(workload.services, 500))
        self._pods = [(workload.endpoint(number, 0), PORT) for number in numbers]
        self._bare, self._tracked = (
            [(str(ip_network(cidr)[number + 1]), PORT) for number in numbers] for cidr in (BARE_CIDR, FLOOR_CIDR)
        )

    def until(self, targets: Sequence[Target], wanted: str, since: float) -> float:
        return float(self._net.ask("until", targets, wanted, since, READY_S))

    def packets(self, targets: Sequence[Target], floor: Sequence[Target]) -> Compared:
        """Medians of the first packet's way and back."""
        beside = [self._bare, floor]
        return Compared(*map(statistics.median, self._net.ask("first_packets", targets, PACKETS, beside)))

    async def run(self, result: Result, folder: Path, idle_s: float) -> None:
        self.start(result)
        await wait_ready(folder)
        await self.change(result)
        self.traffic(result)
        await self.idle(result, idle_s)
        self.repair(result)

    def start(self, result: Result) -> None:
        since = self._proxy.start()
        with self._proxy.peak() as most:
            result.start = self.until(self._sample, "any", since)
        result.own_mb, result.all_mb = most()

    async def change(self, result: Result) -> None:
        load, etcd = self._workload, self._etcd
        for turn in range(CHANGES):
            new = f"10.244.249.{turn + 1}"
            await asyncio.sleep(0.05)  # a change that comes after a quiet time
            await etcd.put(*load.slice(3, [new]))
            result.changes.append(self.until([load.target(3)], new, time.monotonic()))
        together = [number for number in range(10, 10 + TOGETHER) if number < load.services]
        await put_all(etcd, [load.slice(number, ["10.244.249.200"]) for number in together])
        since = time.monotonic()
        result.together = self.until([load.target(number) for number in together], "10.244.249.200", since)
        extra = load.services
        await put_all(etcd, list(load.objects([extra])))
        result.added = self.until([load.target(extra)], "any", time.monotonic())
        for key, _ in load.objects([extra]):
            await etcd.delete(key)
        result.removed = self.until([load.target(extra)], "", time.monotonic())

    def traffic(self, result: Result) -> None:
        load = self._workload
        step = max(1, load.services // 500)
        targets = [load.target(number) for number in range(0, load.services, step)]
        self.packets(self._pods, self._tracked)  # warm
        result.passing = self.packets(self._pods, self._tracked)
        result.cluster_ip = self.packets(targets, [FLOOR_SERVICE])
        node_ports = [load.node_port(number) for number in range(min(load.services, 500))]
        result.node_port = self.packets(node_ports, [FLOOR_SERVICE])
        result.connections = self._net.ask("rate", targets, 1.0)
        result.bare_connections = self._net.ask("rate", self._bare, 1.0)

    async def idle(self, result: Result, idle_s: float) -> None:
        await asyncio.sleep(1)
        before = self._proxy.cpu_s()
        await asyncio.sleep(idle_s)
        result.idle_percent = (self._proxy.cpu_s() - before) / idle_s * 100

    def repair(self, result: Result) -> None:
        for number in range(5):
            target = self._workload.target(number)
            self._spoil(target)
            result.repaired.append(self.until([target], "any", time.monotonic()))
        self._flush()
        result.flushed = self.until(self._sample, "any", time.monotonic())

    def _spoil(self, target: Target) -> None:
        if self._variant is NFTABLES:
            key = f"{{ {target[0]} . tcp . {target[1]} }}"
            self._net.run("node", "nft", "delete", "element", "ip", "netproxy", "services", key)
            return
        program = self._iptables
        rules = self._net.run("node", f"{program}-save", "-t", "nat").splitlines()
        (rule,) = (line for line in rules if f"-d {target[0]}/32" in line and f"--dport {target[1]} " in line)
        self._net.run("node", program, "-t", "nat", "-F", rule.rpartition(" ")[2])

    def _flush(self) -> None:
        if self._variant is NFTABLES:
            self._net.run("node", "nft", "flush", "ruleset")
        else:
            self._net.run("node", self._iptables, "-t", "nat", "-F")

    @property
    def _iptables(self) -> str:
        return "iptables-legacy" if self._variant.iptables else "iptables-nft"


async def wait_ready(folder: Path) -> None:
    """Until the rules were read back: what is measured next would share the processor with that."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        try:
            if (get_json(folder / "nodenet" / "netproxy.sock", "/status"))["ready"]:
                return
        except UnreachableError:
            pass
        await asyncio.sleep(0.1)
    raise SystemExit("bench: netproxy is not ready")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a benchmark runs."""

    folder: Path
    etcd: Etcd
    etcd_url: str


async def measure(place: Place, variant: Variant, workload: Workload, idle_s: float) -> Result:
    with network(place.folder) as net:
        result = Result(variant, workload, floors.measure(net, variant, workload))
    with network(place.folder) as net:
        proxy = Netproxy(net, variant, place.etcd_url, workload.prefix, place.folder)
        try:
            await Bench(net, variant, workload, place.etcd, proxy).run(result, place.folder, idle_s)
        finally:
            proxy.stop()
    return result
