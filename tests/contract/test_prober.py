"""Two probers on the kernel's own UDP, in one network namespace, in either family."""

import asyncio
import socket
import subprocess
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_network

import pytest
from deadline import PATIENCE_S
from namespace import fresh_namespace

from controlloop.family import Family
from netagent.backends.backend import Node
from netagent.backends.vxlan import Vxlan
from netagent.desired import lease_attrs
from netagent.overlay import Overlay
from netagent.probing.paths import Reach
from netagent.probing.prober import Prober
from netagent.probing.wire import PORT, Kind, Probe, render
from netagent.roster import Roster, leases_document, peers_document
from netagent.state import Underlay
from subnet_alloc.codec import render_attrs, render_key
from subnet_alloc.registry import Listing, Record
from subnet_alloc.snapshot import LeaseSnapshot

SUBNET = {Family.V4: "10.5.{}.0/24", Family.V6: "fd00:5:0:{}::/64"}
UNDERLAY = {Family.V4: "192.0.2.{}", Family.V6: "2001:db8::{}"}


def subnet(family, number):
    return ip_network(SUBNET[family].format(number))


def node(family, number):
    address = ip_address(UNDERLAY[family].format(number))
    return Node(f"node-{number}", Vxlan(), {family: Underlay("eth0", 1500, address)}, {family: address})


def record(family, number):
    value = render_attrs(lease_attrs(node(family, number)))
    return Record(render_key({family: subnet(family, number)}), value, number, lease_id=number)


def roster(family, number, peers):
    """What node `number` sees: itself and its peers."""
    records = [record(family, each) for each in {number, *peers}]
    snapshot = LeaseSnapshot.of(Listing(9, tuple(records)))
    own, overlay = record(family, number).key, Overlay(node(family, number))
    overlay.follow(own, snapshot.leases[own], snapshot, set(snapshot.leases))
    return Roster(own, node(family, number), snapshot, overlay)


@pytest.fixture(params=list(Family), ids=lambda family: family.name)
def family(request):
    with fresh_namespace():
        for number in (1, 2, 3):
            address = f"{subnet(request.param, number).network_address}/{request.param.bits}"
            nodad = ["nodad"] if request.param is Family.V6 else []
            subprocess.run(["ip", "addr", "add", address, "dev", "lo", *nodad], check=True)
        yield request.param


@asynccontextmanager
async def running(*rosters):
    probers = [Prober(lambda each=each: each) for each in rosters]
    tasks = [asyncio.create_task(prober.run()) for prober in probers]
    try:
        yield probers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def until(question):
    async with asyncio.timeout(PATIENCE_S):
        while not question():  # noqa: ASYNC110 - the kernel has no event to wait for
            await asyncio.sleep(0.02)


async def test_two_nodes_find_each_other_reachable(family):
    seen = roster(family, 1, [2])
    async with running(seen, roster(family, 2, [1])) as (first, second):
        key = record(family, 2).key
        await until(lambda: first.paths.all and first.paths.all[key].reach is Reach.REACHABLE)
        await until(lambda: second.paths.all[record(family, 1).key].reach is Reach.REACHABLE)
        (item,) = peers_document(seen, first.paths.all, now=0, wall=0)["items"]
        assert (item["key"], item["reach"], item["programmed"], item["mac"]) == (key, "reachable", True, mac(family, 2))
        assert first.findings() == []


def mac(family, number):
    return node(family, number).backend.mac(family, node(family, number))


async def test_who_is_no_peer_and_what_is_no_probe_gets_no_answer(family):
    async with running(roster(family, 1, [2])) as (prober,):
        await until(lambda: prober.paths.all)
        target = (str(subnet(family, 1).network_address), PORT)
        with bound(family, 3) as stranger, bound(family, 2) as peer:
            stranger.sendto(render(Probe(Kind.QUESTION, 1)), target)
            for wrong in (b"", b"nnp1", bytes(16), bytes(65_000), render(Probe(Kind.ANSWER, 1))):
                peer.sendto(wrong, target)
            peer.sendto(render(Probe(Kind.QUESTION, 7, 100)), target)
            await until(lambda: answers(peer) == [render(Probe(Kind.ANSWER, 7, 100))])
            assert answers(stranger) == []
        assert prober.paths.all[record(family, 2).key].reach is Reach.SILENT


def bound(family, number):
    made = socket.socket(family.af, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    made.bind((str(subnet(family, number).network_address), PORT))
    return made


def answers(by):
    """Without the questions that the prober asks by itself."""
    found = []
    while True:
        try:
            datagram = by.recv(65_535)
        except BlockingIOError:
            return found
        if datagram[4] == Kind.ANSWER:
            found.append(datagram)


def test_leases_are_listed_with_ours_and_those_that_nobody_can_read(family):
    seen = roster(family, 1, [2])
    seen.snapshot.replace(Listing(10, (record(family, 1), record(family, 2), Record("garbage", b"{", 3))))
    rows = {item["key"]: item for item in leases_document(seen)["items"]}
    assert rows[record(family, 1).key]["own"]
    assert rows[record(family, 2).key]["subnets"] == [str(subnet(family, 2))]
    assert rows["garbage"]["skipped"]
    assert leases_document(None)["items"] == peers_document(None, {}, 0, 0)["items"] == []
