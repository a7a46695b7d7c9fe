"""`make picture`: the picture of a lab that README.md shows, drawn by `netctl lab graph` from real daemons."""

import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from controlloop.client import UnreachableError, get_json
from lab.cluster import Cluster, LabError, can_run, sweep, up
from lab.host import ProgramError
from lab.ready import NotStartedError
from lab.topology import Spec
from lab.workload import apply, endpoint_slice, service, start_responders

FILE = Path("docs/img/lab.svg")
NODES = 5
MEASURED = 3
"""Round trips of each path, so that what starting daemons took from the processors counts little."""
TIMEOUT_S = 90.0
SERVICES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "web": ("10.96.0.10", "random", ("pod-1-1", "pod-2-1", "pod-3-1")),
    "api": ("10.96.0.20", "round-robin", ("pod-4-1", "pod-5-1")),
    "cart": ("10.96.0.30", "random", ("pod-1-2", "pod-2-2", "pod-3-2", "pod-4-2", "pod-5-2")),
}
"""Address, balance and pods by name."""


def fill(cluster: Cluster) -> None:
    start_responders(cluster)
    for name, (address, balance, pods) in SERVICES.items():
        apply(cluster, service(name, address, balance=balance), endpoint_slice(name, cluster, pods))


def wait_until_measured(cluster: Cluster) -> None:
    """Until every node has heard from every other one a few times."""
    heard: dict[tuple[str, str], set[float]] = defaultdict(set)
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        for node in cluster.nodes:
            for peer in peers(cluster, node.name):
                if peer["last_answer"]:
                    heard[node.name, peer["key"]].add(peer["last_answer"])
        if len(heard) == NODES * (NODES - 1) and all(len(each) >= MEASURED for each in heard.values()):
            return
        if time.monotonic() > deadline:
            raise LabError(f"not every path was measured within {TIMEOUT_S:g} s")
        time.sleep(0.5)


def peers(cluster: Cluster, node: str) -> list[Any]:
    try:
        return list(get_json(cluster.host(node).run_dir / "nodenet/netagent.sock", "/peers")["items"])
    except UnreachableError:
        return []


def draw(cluster: Cluster) -> int:
    FILE.parent.mkdir(parents=True, exist_ok=True)
    netctl = str(Path(sys.executable).with_name("netctl"))
    argv = [netctl, "lab", "graph", "--name", cluster.spec.name, "-o", "svg", "--output-file", str(FILE)]
    return subprocess.run(argv, check=False).returncode


def main() -> int:
    if reason := can_run():
        print(f"picture: {reason}", file=sys.stderr)
        return 2
    sweep()
    try:
        cluster = up(Spec(f"picture-{os.getpid()}", nodes=NODES, mode="nftables"), owned=True)
        try:
            fill(cluster)
            wait_until_measured(cluster)
            status = draw(cluster)
        finally:
            cluster.down()
    except (LabError, NotStartedError, ProgramError) as error:
        print(f"picture: {error}", file=sys.stderr)
        return 1
    print(f"picture: {FILE}" if status == 0 else "picture: the lab is not well; nothing to show")
    return status


if __name__ == "__main__":
    sys.exit(main())
