"""How long a whole lab takes to come up and to go, beside the floor: its namespaces, cables and VXLAN devices alone.

    python -m bench.lab [--nodes 3 10 50] [--runs 3] [--write]

Each node has etcd's lease, netagent and netproxy that are ready, and two pods attached through CNI. Times are the best
of the runs, processor time that of everything the lab started. Needs root.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from dataclasses import astuple, dataclass
from pathlib import Path

from bench.report import table, write
from lab.cluster import attach, can_run
from lab.topology import Spec
from lab.wiring import cables, ip, switch_lines, unwire

NETCTL = str(Path(sys.executable).with_name("netctl"))
TARGETS_S = {50: 15.0}
DOWN_TARGET_S = 2.0
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
MODES = ("nftables", "iptables")


@dataclass(frozen=True)
class Run:
    up_s: float
    down_s: float
    processor_s: float
    memory_mb: float


def name_of(nodes: int) -> str:
    return f"bench-{os.getpid()}-{nodes}"


def floor_s(nodes: int) -> float:
    """What `ip -batch` needs for the same namespaces and devices."""
    spec = Spec(name_of(nodes), nodes=nodes)
    switch = spec.namespace("switch")
    started = time.monotonic()
    try:
        ip(batch=[f"netns add {spec.namespace(host)}" for host in spec.hosts])
        ip(batch=cables(spec))
        # Made from one place in one batch, where each needs a number of its own.
        overlay = [
            f"link add flannel.1 netns {spec.namespace(node)} type vxlan id {number} dstport 8472 nolearning"
            for number, node in enumerate(spec.node_names, start=1)
        ]
        ip("-n", switch, batch=[*switch_lines(spec), *overlay])
        return time.monotonic() - started
    finally:
        unwire(spec.name)


def once(nodes: int, mode: str) -> Run:
    name = name_of(nodes)
    before = children_s()
    up_s = timed("up", "--name", name, "--nodes", str(nodes), "--mode", mode)
    try:
        processes = [Path(f"/proc/{process.pid}") for process in attach(name).processes]
        processor_s = children_s() - before + sum(map(lived_s, processes))
        memory_mb = sum(map(own_mb, processes))
    finally:
        down_s = timed("down", "--name", name)
    return Run(up_s, down_s, processor_s, memory_mb)


def timed(*arguments: str) -> float:
    started = time.monotonic()
    subprocess.run([NETCTL, "lab", *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - started


def children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def lived_s(process: Path) -> float:
    """Processor time of it and of the programs that it ran (proc(5): utime, stime, cutime, cstime)."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) * TICK_S


def own_mb(process: Path) -> float:
    """Memory shared by several counts for each by its part."""
    lines = (process / "smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def best(runs: list[Run]) -> Run:
    return Run(*map(min, zip(*map(astuple, runs), strict=True)))


def row(nodes: int, mode: str, runs: int) -> str:
    found, floor = best([once(nodes, mode) for _ in range(runs)]), min(floor_s(nodes) for _ in range(runs))
    target, missed = TARGETS_S.get(nodes), ""
    if target is not None:
        missed = f" (target {target:g} s{'' if found.up_s <= target else ', missed'})"
    late = "" if found.down_s <= DOWN_TARGET_S else " (missed)"
    return (
        f"| {nodes}, {mode} | {found.up_s:.1f} s{missed} | {floor:.2f} s | {found.processor_s:.1f} s "
        f"| {found.memory_mb:.0f} MB | {found.down_s:.1f} s{late} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[3, 10, 50])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    options = parser.parse_args()
    if reason := can_run():
        print(f"bench.lab: {reason}", file=sys.stderr)
        return 2
    rows = [row(nodes, mode, options.runs) for nodes in options.nodes for mode in MODES]
    head = "| nodes | up | floor | processor time | memory | down, at most 2 s |"
    text = table(head, rows)
    print(text)
    if options.write:
        write("lab", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
