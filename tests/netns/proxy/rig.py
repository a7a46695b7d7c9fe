"""The proxy's own model, planner and backend on a node's kernel, judged by tables of flows."""

import asyncio
import itertools
import json
import subprocess
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from calls import Call, Switchboard
from crafted import stray, throw
from namespace import inside
from network import ADDRESSES, BRIDGE, HOST_OF, POD_NETWORKS, SERVICE_NETWORKS, pod_subnet
from tables import ANSWER_WITHIN_S, DROPPED_AFTER_S, read, told

from controlloop.delta import Delta
from controlloop.family import Family
from controlloop.iptables.kernel import Variant
from controlloop.reconcile import reconcile
from lab.wiring import ip
from proxy.config import ProxyMode
from proxy.conntrack.keeper import FlowKeeper
from proxy.frontends import Balance, Protocol
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

only_nftables = pytest.mark.parametrize("rig", [NFTABLES], indirect=True, scope="module")
only_iptables = pytest.mark.parametrize("rig", IPTABLES, indirect=True, scope="module")

AT_ONCE = 2000
"""Calls that are open together: each takes two files."""

PODS_BY = {
    "cidr": POD_NETWORKS.get,
    "node-cidr": lambda family: pod_subnet("node-1", family),
    "bridge": lambda _: Interfaces(BRIDGE),
    "prefix": lambda _: Interfaces(BRIDGE[:3], is_prefix=True),
    None: lambda _: None,
}
"""How to tell pods, by kube-proxy's four modes; None: nobody can tell."""


class Rig:
    """One proxy on node-1, in one variant. It starts with nothing and leaves nothing."""

    def __init__(self, board: Switchboard, variant: str) -> None:
        self.board = board
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

    # -- what is served -------------------------------------------------------------------------------------------

    def given(self, *objects, options=None, zone="zone-a", **surroundings):
        """These objects and no others, on a node with such surroundings (`surround`).

        Nothing is remembered of connections before.
        """
        self.node = replace(self.node, zone=zone)
        self.tracker = self._new_tracker(**(options or {}))
        self.keeper = FlowKeeper(self._node_port_addresses, lambda: self.clock_s)
        self.board.hang_up()
        delta = {family: Delta() for family in Family}
        self._settle(delta, surroundings)
        self._take(objects, delta, listed=True)
        self.forget_connections()

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
        with inside(self.board.network.namespace("node-1")):
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
        with inside(self.board.network.namespace("node-1")):
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

    def forget_connections(self):
        with inside(self.board.network.namespace("node-1")):
            subprocess.run(["conntrack", "-F"], check=True, capture_output=True)

    def close(self):
        with inside(self.board.network.namespace("node-1")):
            asyncio.run(self._cleanup())

    async def _cleanup(self):
        for backend in self.backends.values():
            await backend.cleanup()
            assert not await backend.dump()

    @contextmanager
    def own_address(self, name):
        """The node itself has this address meanwhile, as some load balancers want it."""
        namespace = self.board.network.namespace("node-1")
        lines = [f"{ADDRESSES[name][family]}/{family.bits} dev lo" for family in Family]
        # With nodad it can be a source in this moment.
        ip("-n", namespace, batch=[f"addr add {line} nodad" for line in lines])
        try:
            yield
        finally:
            ip("-n", namespace, batch=[f"addr del {line}" for line in lines])

    @contextmanager
    def sysctl(self, path, value):
        file = Path("/proc/sys") / path
        with inside(self.board.network.namespace("node-1")):
            before = file.read_text()
            file.write_text(value)
            try:
                yield
            finally:
                file.write_text(before)

    @contextmanager
    def policy(self, chain, policy):
        """The node's own policy in the filter table, of the variant under test, in both families."""
        kind = self.variant.removeprefix("iptables-")
        programs = [f"iptables-{kind}", f"ip6tables-{kind}"]
        with inside(self.board.network.namespace("node-1")):
            for program in programs:
                subprocess.run([program, "-P", chain, policy], check=True)
            try:
                yield
            finally:
                for program in programs:
                    subprocess.run([program, "-P", chain, "ACCEPT"], check=True)

    @contextmanager
    def narrow_overlay(self, mtu):
        """The largest packet that the nodes may send each other."""

        def limit(number):
            for node in ("node-1", "node-2"):
                ip("-n", self.board.network.namespace(node), "link", "set", "overlay", "mtu", str(number))

        limit(mtu)
        try:
            yield
        finally:
            limit(1500)

    @contextmanager
    def marking(self, mark):
        """Everything that enters the node bears a mark of somebody else; tells the marks of what leaves it."""
        with inside(self.board.network.namespace("node-1")):
            subprocess.run(["nft", "-f", "-"], input=MARKING.format(mark=mark), text=True, check=True)
            listing = ["nft", "-j", "list", "set", "inet", "somebody-else", "seen"]
            try:
                yield lambda: set(marks_of(subprocess.run(listing, check=True, capture_output=True).stdout))
            finally:
                subprocess.run(["nft", "delete", "table", "inet", "somebody-else"], check=True)

    # -- where it lands -------------------------------------------------------------------------------------------

    def expect(self, table, families=tuple(Family)):
        """Judge every line of a table; all that are wrong are told at once, each with what happened instead."""
        judged = [(row, family, row.calls(family)) for row in read(table) for family in families]
        together = [each for each in judged if each[0].protocol is not Protocol.SCTP]
        wait_of = {id(call): row.wait_s for row, _, calls in judged for call in calls}
        # An ICMP error reaches every raw socket that speaks with the address, so SCTP takes one flow at a time.
        for batch in [together, *([each] for each in judged if each not in together)]:
            calls = [call for _, _, several in batch for call in several]
            self.board.place(calls, wait=lambda call: wait_of[id(call)])
            self.board.hang_up(calls)
        wrong = [
            f"{row.text}  but over IPv{family.value}: {told(calls)}"
            for row, family, calls in judged
            if not row.fits(calls)
        ]
        assert not wrong, "\n".join(["", *wrong])

    def call(self, caller, target, port, *, protocol="tcp", count=1, family=Family.V4, sources=(None,)):
        """Calls that stay open until other objects are given, answered or not."""
        each_from = itertools.islice(itertools.cycle(sources), count)
        calls = [Call(caller, ADDRESSES[target][family], port, Protocol(protocol), source) for source in each_from]
        return self.board.place(calls, wait=lambda _: ANSWER_WITHIN_S)

    def spread(self, *arguments, **options):
        """How often each server answered."""
        calls = self.call(*arguments, **options)
        self.board.hang_up(calls)
        return Counter(call.outcome for call in calls)

    def landed(self, clients, target="cluster-ip", port=80, **options):
        """Where each of many addresses behind the client lands, in order."""
        outcomes = []
        for start in range(0, len(clients), AT_ONCE):
            some = clients[start : start + AT_ONCE]
            family = Family.of(some[0])
            calls = self.call("client", target, port, family=family, sources=some, count=len(some), **options)
            self.board.hang_up(calls)
            outcomes += [call.outcome for call in calls]
        return outcomes

    def echo(self, data, *arguments, **options):
        """How much of `data` comes back, of a stream; of a datagram, how much has arrived."""
        (call,) = self.call(*arguments, **options)
        assert call.outcome, "no answer at all"
        return self.board.echo(call, data, within_s=ANSWER_WITHIN_S)

    def ping(self, caller, address):
        """(somebody refused it, it was answered)"""
        with inside(self.board.network.namespace(HOST_OF.get(caller, caller))):
            done = subprocess.run(
                ["ping", "-n", "-c1", "-W", str(DROPPED_AFTER_S), str(address)],
                check=False,
                capture_output=True,
                text=True,
            )
        return "nreachable" in done.stdout or "not permitted" in done.stderr, done.returncode == 0

    def tracked(self, call):
        """Whether the node's conntrack has a flow of this call, by its port, which no other call has."""
        argv = ["conntrack", "-L", "-f", f"ipv{Family.of(call.address).value}", "-p", call.protocol.value]
        with inside(self.board.network.namespace("node-1")):
            listing = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        return f"sport={call.own_port} " in listing

    def throw(self, caller, target, port, *, count):
        """Datagrams to the node in frames made by hand, whatever the caller's routes say; who heard how many."""
        return throw(self.board, caller, [(target, port)] * count)

    def stray(self, server, call):
        """A packet of this server into a connection to it, from far outside of the window."""
        stray(self.board, server, call)


MARKING = """
table inet somebody-else {{
    set seen {{ type mark; flags dynamic; size 1024; }}
    chain first {{ type filter hook prerouting priority -300; meta mark set {mark}; }}
    chain last {{ type filter hook postrouting priority 300; iifname "eth0" add @seen {{ meta mark }}; }}
}}
"""


def marks_of(listing):
    (found,) = (each["set"] for each in json.loads(listing)["nftables"] if "set" in each)
    return found.get("elem", [])


def _update(one, *, gone):
    name = ObjectName(one["metadata"]["namespace"], one["metadata"]["name"])
    return Update(Kind(one["kind"]), name, None if gone else json.dumps(one).encode())
