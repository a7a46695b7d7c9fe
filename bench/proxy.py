"""How fast netproxy is with many Services, each figure beside what the kernel's own programs need for the same rules.

    python -m bench.proxy [--quick] [--services 100,1000] [--variants nftables,...] [--write]

Everything runs in network namespaces made for it, with an etcd of its own, and is gone afterwards. Needs root.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

# gRPC would stop its threads at every fork; what is forked here only enters a namespace and becomes another program.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

from bench.report import PAGE, table, write
from bench.service.daemon import VARIANTS, Variant
from bench.service.measure import Place, Result, measure
from bench.service.network import HOME_ADDRESS, leave_machine
from bench.service.plot import plot
from bench.service.workload import Workload, put_all
from controlloop.etcd import Etcd
from lab.etcd import EtcdServer

# An etcd on a slow disk would be all there is to see.
MEMORY = "/dev/shm"  # noqa: S108 - a folder of our own in it
HEAD = ("services x endpoints", "start", "floor of writing", "ratio", "one changed", "floor", "100 changed", "added",
        "removed", "own MB", "with children", "idle %")  # fmt: skip
TRAFFIC_HEAD = ("services x endpoints", "no rules", "no service", "ratio", "floor", "ClusterIP", "ratio", "floor",
                "NodePort", "ratio", "floor", "connections/s", "no rules", "one repaired",
                "flush repaired")  # fmt: skip
PLOTS = {
    "start": ("Start to all services answering", "s"),
    "change": ("One endpoint changed, to the first connection there", "s"),
    "cluster_ip_ratio": ("First packet to a ClusterIP", "times no rules"),
    "all_mb": ("Memory of netproxy and its children", "MB"),
}


async def run(variants: Sequence[Variant], workloads: Sequence[Workload], idle_s: float, folder: Path) -> list[Result]:
    leave_machine()
    urls = (f"http://{HOME_ADDRESS}:{port}" for port in (2379, 2380))
    server = EtcdServer(folder / "etcd", client_url=next(urls), peer_url=next(urls))
    server.start()
    etcd = Etcd([server.client_url])
    results = []
    try:
        for workload in workloads:
            for variant in variants:
                tell(f"{variant.name}, {workload.services:,} services x {workload.endpoints}")
                await put_all(etcd, list(workload.objects(range(workload.services))))
                results.append(await measure(Place(folder, etcd, server.client_url), variant, workload, idle_s))
    finally:
        await etcd.close()
        server.stop()
    return results


def tell(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{what} ...", end="", file=sys.stderr, flush=True)


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def tables(results: Sequence[Result], variants: Sequence[Variant]) -> Iterator[str]:
    for variant in variants:
        mine = [result for result in results if result.variant is variant]
        yield f"\n### {variant.name}\n"
        yield table(row(HEAD), [sync_row(result) for result in mine])
        yield ""
        yield table(row(TRAFFIC_HEAD), [traffic_row(result) for result in mine])


def size(result: Result) -> str:
    return f"{result.workload.services:,} x {result.workload.endpoints}"


def sync_row(result: Result) -> str:
    return row([
        size(result), f"{result.start:.2f} s", f"{result.floors.write_s:.2f} s",
        f"{result.start / result.floors.write_s:.1f}", f"{result.change * 1000:.1f} ms",
        f"{result.floors.change_s * 1000:.1f} ms", f"{result.together * 1000:.0f} ms", f"{result.added * 1000:.0f} ms",
        f"{result.removed * 1000:.0f} ms", f"{result.own_mb:.0f}", f"{result.all_mb:.0f}", f"{result.idle_percent:.2f}",
    ])  # fmt: skip


def traffic_row(result: Result) -> str:
    compared = (result.passing, result.cluster_ip, result.node_port)
    return row([
        size(result), f"{result.passing.bare_us:.0f} us",
        *(text for each in compared for text in (f"{each.us:.0f} us", f"{each.ratio:.2f}", f"{each.floor:.2f}")),
        f"{result.connections:,.0f}", f"{result.bare_connections:,.0f}",
        f"{max(result.repaired) * 1000:.0f} ms", f"{result.flushed:.2f} s",
    ])  # fmt: skip


def pictures(results: Sequence[Result], endpoints: int) -> Iterator[tuple[str, str]]:
    """File name and SVG of each plot; only Services of one size are comparable."""
    mine = [result for result in results if result.workload.endpoints == endpoints]
    for name, (title, unit) in PLOTS.items():
        lines: dict[str, list[tuple[float, float]]] = {}
        for result in mine:
            lines.setdefault(result.variant.name, []).append((result.workload.services, getattr(result, name)))
        if name == "start":
            for result in (each for each in mine if each.variant is VARIANTS[0]):
                lines.setdefault("nft -f", []).append((result.workload.services, result.floors.write_s))
        yield f"{name.replace('_', '-')}.svg", plot(title, unit, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--services", default="100,1000,10000", help="numbers of Services, each with 5 endpoints")
    parser.add_argument("--variants", default=",".join(variant.name for variant in VARIANTS))
    parser.add_argument("--quick", action="store_true", help="100 services, idle for 2 s")
    parser.add_argument("--write", action="store_true", help="put tables and plots into docs/")
    arguments = parser.parse_args()
    if os.geteuid():
        raise SystemExit("bench: needs root, for network namespaces")
    variants = [variant for variant in VARIANTS if variant.name in arguments.variants.split(",")]
    sizes = [100] if arguments.quick else [int(count) for count in arguments.services.split(",")]
    workloads = [Workload(f"/bench-{count}", count, 5) for count in sizes]
    if not arguments.quick and 1000 in sizes:
        workloads.append(Workload("/bench-wide", 1000, 100))
    with tempfile.TemporaryDirectory(prefix="nodenet-bench-", dir=MEMORY) as folder:
        try:
            results = asyncio.run(run(variants, workloads, 2.0 if arguments.quick else 10.0, Path(folder)))
        except BaseException:
            log = Path(folder, "netproxy.log")
            print(log.read_text()[-3000:] if log.exists() else "", file=sys.stderr)
            raise
    text = "\n".join(tables(results, variants))
    print(text)
    if arguments.write:
        write("proxy", text)
        for name, picture in pictures(results, 5):
            (PAGE.parent / "performance" / name).write_text(picture)


if __name__ == "__main__":
    main()
