"""How long commands of netctl take on a node with many Services, beside the start of Python and of kubectl.

    python -m bench.commands [--services 10000] [--write]

On a lab of two nodes with everything in it, in nftables mode; the Services come by `netctl apply`, five endpoints each.
Times are the least of 20 runs of the whole command (of 3 where it takes long).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

from bench.report import table, write
from controlloop.client import UnreachableError, get_json
from lab.cluster import Cluster, up
from lab.topology import ETCD_URL, Spec

RUNS, RUNS_OF_LONG = 20, 3
ENDPOINTS = 5
FIRST_SERVICE, FIRST_POD, PODS = int(ip_address("10.97.0.1")), int(ip_address("10.200.0.1")), 60_000
PATIENCE_S = 180.0
HEAD = "| | | least | target | times `python -c pass` |"
SERVICE = "default/service-7500"
Popen = Callable[..., subprocess.Popen[str]]
BUNDLE = "bundle.tar.gz"


class Row(NamedTuple):
    argv: tuple[str, ...]
    target_ms: float | None = None
    runs: int = RUNS
    where: str = ""

    @property
    def name(self) -> str:
        return " ".join((Path(self.argv[0]).name, *self.argv[1:]))


NETCTL = str(Path(sys.executable).with_name("netctl"))
FLOOR = Row((sys.executable, "-c", "pass"))
KUBECTL = Row(("kubectl", "version", "--client"))
HELP = Row((NETCTL, "--help"), 60)
ON_THE_NODE = (
    FLOOR._replace(where="on the node"),
    Row((NETCTL, "status"), 150),
    Row((NETCTL, "explain", SERVICE), 500),
    Row((NETCTL, "get", "services", SERVICE)),
    Row((NETCTL, "get", "services"), runs=RUNS_OF_LONG),
    Row((NETCTL, "get", "rules"), runs=RUNS_OF_LONG),
    Row((NETCTL, "diff"), runs=RUNS_OF_LONG),
    Row((NETCTL, "bundle", BUNDLE), 5000, RUNS_OF_LONG),
)


def manifest(services: int) -> dict[str, Any]:
    numbers = range(services)
    return {"apiVersion": "v1", "kind": "List", "items": [*map(service, numbers), *map(slice_of, numbers)]}


def service(number: int) -> dict[str, Any]:
    port = {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}
    metadata = {"name": f"service-{number}", "namespace": "default"}
    spec = {"clusterIP": str(ip_address(FIRST_SERVICE + number)), "ports": [port]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def slice_of(number: int) -> dict[str, Any]:
    name = f"service-{number}"
    labels = {"kubernetes.io/service-name": name}
    pods = (ip_address(FIRST_POD + (number * ENDPOINTS + place) % PODS) for place in range(ENDPOINTS))
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [str(pod)], "conditions": {"ready": True}} for pod in pods],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"bench: no {what} within {PATIENCE_S:g} s")
        time.sleep(0.2)


def fill(cluster: Cluster, folder: Path, services: int) -> None:
    """All are in the kernel of the first node when this returns."""
    path = folder / "services.json"
    path.write_text(json.dumps(manifest(services)))
    run(cluster.host("node-1").popen, [NETCTL, "apply", "--etcd-endpoints", ETCD_URL, "-f", str(path)], folder)
    socket = cluster.nodes[0].run_dir / "nodenet/netproxy.sock"

    def is_there() -> bool:
        try:
            found = get_json(socket, "/status")
        except UnreachableError:
            return False
        return bool(found["services"] >= services and found["ready"] and not found["pending"])

    eventually(is_there, f"{services} Services")


def run(popen: Popen, argv: Sequence[str], folder: Path) -> float:
    """Milliseconds."""
    (folder / BUNDLE).unlink(missing_ok=True)
    began = time.perf_counter()
    process = popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL, cwd=folder
    )
    errors = process.communicate(timeout=PATIENCE_S)[1]
    if process.returncode:
        raise SystemExit(f"bench: {' '.join(argv)}: exit {process.returncode}: {errors}")
    return (time.perf_counter() - began) * 1000


def rows(popen: Popen, folder: Path, wanted: Iterable[Row]) -> Iterator[str]:
    """The first one is the floor of the others."""
    floor = 0.0
    for row in wanted:
        took = min(run(popen, row.argv, folder) for _ in range(row.runs))
        floor = floor or took
        verdict = " (missed)" if row.target_ms and took > row.target_ms else ""
        target = f"{row.target_ms:g} ms{verdict}" if row.target_ms else ""
        yield f"| {row.where} | `{row.name}` | {took:.0f} ms | {target} | {took / floor:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.commands")
    parser.add_argument("--services", type=int, default=10_000)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    anywhere = (FLOOR._replace(where="anywhere"), *((KUBECTL,) if shutil.which("kubectl") else ()), HELP)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = list(rows(subprocess.Popen, folder, anywhere))
        cluster = up(Spec(f"bench{os.getpid()}", nodes=2, pods_per_node=1, mode="nftables"), owned=True)
        try:
            fill(cluster, folder, options.services)
            found += rows(cluster.host("node-1").popen, folder, ON_THE_NODE)
        finally:
            cluster.down()
    text = table(HEAD, found)
    print(text)
    if options.write:
        write("commands", text)


if __name__ == "__main__":
    main()
