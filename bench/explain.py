"""How long `netctl explain` takes on a node with many Services, beside the start of Python.

    python -m bench.explain [--services 10000] [--write]

The rules are those of netproxy, in a namespace of their own, one for each variant; each Service has five endpoints and
every fifth one a node port. Times are the least of 20 runs of the whole command.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

from bench.report import table, write
from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.iptables.kernel import Variant
from lab.enter import CLONE_NEWNET, check, libc
from proxy.frontends import ANY_NODE_ADDRESS, Balance, Endpoint, Frontend, Protocol, Scope, ServiceName, ServicePortName
from proxy.iptables.desired import IptablesPlanner
from proxy.iptables.kernel import IptablesBackend
from proxy.nftables.desired import NftablesPlanner
from proxy.nftables.kernel import NftablesBackend
from proxy.node import Surroundings

RUNS = 20
ENDPOINTS = 5
TARGET_MS = 500
HEAD = "| | least of 20 runs | target | floor: `python -c pass` | times |"
NODE = ip_address("10.10.0.1")
FIRST_SERVICE, FIRST_POD, PODS = int(ip_address("10.96.0.1")), int(ip_address("10.244.0.1")), 60000
SURROUNDINGS = Surroundings(
    Family.V4,
    pods=ip_network("10.244.0.0/16"),
    node_port_addresses=frozenset({NODE}),
    service_cidrs=(ip_network("10.96.0.0/12"),),
)


def frontends(number):
    name = ServicePortName(ServiceName("default", f"service-{number}"), "http")
    places = (ip_address(FIRST_POD + (number * ENDPOINTS + place) % PODS) for place in range(ENDPOINTS))
    endpoints = tuple(Endpoint(place, 8080, is_local=False) for place in sorted(places))
    shared = {"protocol": Protocol.TCP, "balance": Balance.RANDOM, "endpoints": endpoints}
    found = [Frontend(name, ip_address(FIRST_SERVICE + number), port=80, **shared)]
    if number % 5 == 0 and number < 10_000:
        anywhere = ANY_NODE_ADDRESS[Family.V4]
        found.append(Frontend(name, anywhere, port=30000 + number // 5, scope=Scope.NODE_PORT, **shared))
    return found


async def fill(variant, services):
    if variant == "nftables":
        planner, backend = NftablesPlanner(SURROUNDINGS), NftablesBackend(Family.V4)
    else:
        planner = IptablesPlanner(SURROUNDINGS)
        backend = IptablesBackend(Family.V4, Variant(variant.removeprefix("iptables-")))
    for number in range(services):
        listed = frontends(number)
        planner.replace(listed[0].name.service, listed, Delta())
    await backend.dump()
    await backend.apply(Delta(put=dict(planner.objects)))


@contextmanager
def inside_namespace():
    name = f"bench-explain-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    with Path("/proc/self/ns/net").open() as home, Path(f"/run/netns/{name}").open() as there:
        check(libc.setns(there.fileno(), CLONE_NEWNET), "setns")
        try:
            for line in ("link set lo up", f"addr add {NODE}/32 dev lo", "route add default dev lo"):
                subprocess.run(["ip", *line.split()], check=True)
            yield
        finally:
            check(libc.setns(home.fileno(), CLONE_NEWNET), "setns")
            subprocess.run(["ip", "netns", "delete", name], check=True)


def least_ms(argv):
    best = float("inf")
    for _ in range(RUNS):
        began = time.perf_counter()
        subprocess.run(argv, check=True, capture_output=True)
        best = min(best, (time.perf_counter() - began) * 1000)
    return best


def row(variant, services):
    with inside_namespace():
        asyncio.run(fill(variant, services))
        address = ip_address(FIRST_SERVICE + services * 3 // 4)
        netctl = str(Path(sys.executable).parent / "netctl")
        took, floor = least_ms([netctl, "explain", "-", f"{address}:80"]), least_ms([sys.executable, "-c", "pass"])
    verdict = "" if took <= TARGET_MS else " (missed)"
    what = f"{variant}, {services} x {ENDPOINTS}"
    return f"| {what} | {took:.0f} ms | {TARGET_MS} ms{verdict} | {floor:.0f} ms | {took / floor:.1f} |"


def main():
    parser = argparse.ArgumentParser(prog="bench.explain")
    parser.add_argument("--services", type=int, default=10_000)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows = [row(variant, options.services) for variant in ("nftables", "iptables-nft", "iptables-legacy")]
    text = table(HEAD, rows)
    print(text)
    if options.write:
        write("explain", text)


if __name__ == "__main__":
    main()
