"""What the kernel's own programs need for the rules that netproxy writes: the floor under its figures."""

import time
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from bench.service.daemon import NFTABLES, Variant
from bench.service.network import CLUSTER_CIDR, Network
from bench.service.workload import Workload
from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.iptables.transaction import render
from controlloop.nft.transaction import transaction
from proxy.iptables.chains import OURS
from proxy.iptables.desired import IptablesPlanner
from proxy.nftables.desired import NftablesPlanner
from proxy.nftables.kernel import TABLE
from proxy.node import Node, Surroundings
from proxy.objects import Kind, ObjectName
from proxy.services import Options
from proxy.sources import Batch, Update
from proxy.tracker import Tracker

KINDS = {"services": Kind.SERVICE, "endpointslices": Kind.ENDPOINT_SLICE}


@dataclass(frozen=True, slots=True)
class Floors:
    plan_s: float
    """Our own part of a start: decoding and planning, without the kernel."""
    write_s: float
    """The kernel's program, given the same text."""
    change_s: float
    """The same for one endpoint."""


def update(workload: Workload, key: str, body: bytes) -> Update:
    folder, namespace, name = key.removeprefix(f"{workload.prefix}/").split("/")
    return Update(KINDS[folder], ObjectName(namespace, name), body)


def measure(network: Network, variant: Variant, workload: Workload) -> Floors:
    """In a network of its own: the rules stay there."""
    planner: Any
    surroundings = Surroundings(Family.V4, pods=ip_network(CLUSTER_CIDR))
    planner = NftablesPlanner(surroundings) if variant is NFTABLES else IptablesPlanner(surroundings)
    updates = tuple(update(workload, *pair) for pair in workload.objects(range(workload.services)))
    started = time.monotonic()
    tracker = Tracker(Node("bench"), Options())
    for service in tracker.apply(Batch(updates, listed=True)):
        planner.replace(service, tracker.frontends(service), Delta())
    plan_s = time.monotonic() - started
    write_s = write(network, variant, Delta(put=dict(planner.objects)))
    changes = []
    for turn in range(5):
        key, body = workload.slice(7, [*workload.addresses(7)[1:], f"10.244.249.{turn + 1}"])
        delta: Delta[Any, Any] = Delta()
        for service in tracker.apply(Batch((update(workload, key, body),), listed=False)):
            planner.replace(service, tracker.frontends(service), delta)
        changes.append(write(network, variant, delta))
    return Floors(plan_s, write_s, sorted(changes)[len(changes) // 2])


def write(network: Network, variant: Variant, delta: Delta[Any, Any]) -> float:
    if variant is NFTABLES:
        return network.timed("node", "nft", "-f", "-", stdin=transaction(Family.V4, TABLE, delta))
    program = "iptables-legacy-restore" if variant.iptables else "iptables-nft-restore"
    return network.timed("node", program, "--noflush", stdin=render(delta, OURS))
