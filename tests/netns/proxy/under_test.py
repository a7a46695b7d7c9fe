"""The proxy's own model, planner, backend and keeper of flows, together, on the kernel of node-1."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

from namespace import inside
from network import ADDRESSES, BRIDGE, POD_NETWORKS, SERVICE_NETWORKS, pod_subnet

from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.iptables.kernel import Variant
from controlloop.reconcile import reconcile
from proxy.config import ProxyMode
from proxy.conntrack.keeper import FlowKeeper
from proxy.frontends import Balance
from proxy.iptables.desired import IptablesPlanner
from proxy.iptables.kernel import IptablesBackend
from proxy.nftables.desired import NftablesPlanner
from proxy.nftables.kernel import NftablesBackend
from proxy.node import Interfaces, Node, Surroundings
from proxy.objects import Kind, ObjectName
from proxy.rules import BALANCES
from proxy.services import Options
from proxy.sources import Batch, Update
from proxy.tracker import Tracker

NFTABLES, IPTABLES_NFT, IPTABLES_LEGACY = VARIANTS = ("nftables", "iptables-nft", "iptables-legacy")
IPTABLES = (IPTABLES_NFT, IPTABLES_LEGACY)

PODS_BY = {
    "cidr": POD_NETWORKS.get,
    "node-cidr": lambda family: pod_subnet("node-1", family),
    "bridge": lambda _: Interfaces(BRIDGE),
    "prefix": lambda _: Interfaces(BRIDGE[:3], is_prefix=True),
    None: lambda _: None,
}
"""How to tell pods, by kube-proxy's four modes; None: nobody can tell."""


class Proxy:
    """In one variant, in a namespace. It starts with nothing and leaves nothing."""

    def __init__(self, namespace, variant):
        self.namespace = namespace
        self.variant = variant
        self.mode = "nftables" if variant == NFTABLES else "iptables"
        self.node = Node("node-1", "zone-a", tuple(ADDRESSES["node-1"].values()))
        self.tracker = self._new_tracker()
        self.surroundings = {family: self._surroundings(family) for family in Family}
        self.planners = {family: self._planner(family) for family in Family}
        self.backends = {family: self._backend(family) for family in Family}
        self.clock_s = 0.0
        self.keeper = FlowKeeper(self._node_port_addresses, lambda: self.clock_s)
        self.written = dict.fromkeys(Family, 0)
        """How many objects the last change wrote or took away."""
        self._served = set()
        self._stale = True

    def _planner(self, family):
        return (NftablesPlanner if self.mode == "nftables" else IptablesPlanner)(self.surroundings[family])

    def _backend(self, family):
        if self.mode == "nftables":
            return NftablesBackend(family)
        return IptablesBackend(family, Variant(self.variant.removeprefix("iptables-")))

    def _node_port_addresses(self, family):
        listed = self.surroundings[family].node_port_addresses
        everywhere = (ADDRESSES[name][family] for name in ("node-1", "second", "gateway"))
        return {address.packed for address in (everywhere if listed is None else listed)}

    def _new_tracker(self, **options):
        supported = BALANCES[ProxyMode(self.mode)]
        return Tracker(self.node, Options(**{"balance": Balance.RANDOM, "balances": supported, **options}))

    def _surroundings(self, family, *, pods="cidr", **others):
        """kube-proxy's defaults of each mode (nodePortAddresses and localhostNodePorts unset)."""
        if self.mode == "nftables":
            default = {
                "node_port_addresses": frozenset({ADDRESSES["node-1"][family]}),
                "service_cidrs": self.service_cidrs(family),
            }
        else:
            default = {"localhost_node_ports": family is Family.V4}
        given = {name: value(family) if callable(value) else value for name, value in others.items()}
        return Surroundings(family, pods=PODS_BY[pods](family), **{**default, **given})

    @staticmethod
    def service_cidrs(family):
        return (SERVICE_NETWORKS[family],)

    @property
    def frontends(self):
        """Of every Service."""
        return [(service, self.tracker.frontends(service)) for service in sorted(self._served)]

    def given(self, *objects, options=None, zone="zone-a", **surroundings):
        """These objects and no others, on a node with such surroundings (`surround`)."""
        self.node = replace(self.node, zone=zone)
        self.tracker = self._new_tracker(**(options or {}))
        self.keeper = FlowKeeper(self._node_port_addresses, lambda: self.clock_s)
        delta = {family: Delta() for family in Family}
        self._settle(delta, surroundings)
        self._take(objects, delta, listed=True)

    def surround(self, **surroundings):
        """Everything of `Surroundings` that is not named is as by default; by family where callable."""
        delta = {family: Delta() for family in Family}
        self._settle(delta, surroundings)
        self._write(delta)

    def _settle(self, delta, surroundings):
        for family in Family:
            self.surroundings[family] = self._surroundings(family, **surroundings)
            self.planners[family].settle(self.surroundings[family], delta[family])

    def add(self, *objects):
        """Make or change objects."""
        self._take(objects, {family: Delta() for family in Family})

    def remove(self, *objects):
        self._take(objects, {family: Delta() for family in Family}, gone=True)

    def restart(self, *objects):
        """A new proxy that finds the rules of the one before, and these objects."""
        self.tracker, self._served = self._new_tracker(), set()
        self.planners = {family: self._planner(family) for family in Family}
        self._stale = True
        self._take(objects, {family: Delta() for family in Family}, listed=True)

    def later(self, seconds):
        """What the keeper of flows is to do by then, is done."""
        self.clock_s += seconds
        with inside(self.namespace):
            asyncio.run(self.keeper.clean())

    def move_to_zone(self, zone):
        self.node = replace(self.node, zone=zone)
        delta = {family: Delta() for family in Family}
        self._plan(self.tracker.settle(self.node), delta)
        self._write(delta)

    def _take(self, objects, delta, *, listed=False, gone=False):
        flat = [one for each in objects for one in (each if isinstance(each, list) else [each])]
        updates = tuple(_update(one, gone=gone) for one in flat)
        changed = self.tracker.apply(Batch(updates, listed))
        self._plan(changed | self._served if listed else changed, delta)
        self._write(delta)

    def _plan(self, services, delta):
        for service in services:
            frontends = self.tracker.frontends(service)
            self.keeper.note([(service, frontends)])
            (self._served.add if frontends else self._served.discard)(service)
            for family in Family:
                self.planners[family].replace(service, frontends, delta[family])

    def _write(self, delta):
        """One change for each family; after a failure the kernel is read back first."""
        stale, self._stale = self._stale, True
        with inside(self.namespace):
            self._allow_loopback()
            asyncio.run(self._apply(delta, stale=stale))
        self._stale = False

    async def _apply(self, delta, *, stale):
        await asyncio.gather(*(self._apply_to(family, delta[family], stale=stale) for family in Family))
        await self.keeper.clean()

    async def _apply_to(self, family, delta, *, stale):
        if stale:
            report = await reconcile(lambda: self.planners[family].objects, self.backends[family])
            delta = report.delta
        elif delta:
            await self.backends[family].apply(delta)
        self.written[family] = len(delta)

    def _allow_loopback(self):
        wanted = str(int(any(each.localhost_node_ports for each in self.surroundings.values())))
        Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text(wanted)

    def close(self):
        with inside(self.namespace):
            asyncio.run(self._cleanup())

    async def _cleanup(self):
        for backend in self.backends.values():
            await backend.cleanup()
            assert not await backend.dump()


def _update(one, *, gone):
    name = ObjectName(one["metadata"]["namespace"], one["metadata"]["name"])
    return Update(Kind(one["kind"]), name, None if gone else json.dumps(one).encode())
