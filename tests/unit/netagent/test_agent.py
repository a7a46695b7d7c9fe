"""The agent on a registry and a kernel in memory."""

import asyncio
import random
import time
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from functools import partial
from ipaddress import ip_address, ip_network

import pytest
from deadline import PATIENCE_S

from controlloop.errors import OperatorError
from controlloop.family import Family
from netagent import agent as agent_module
from netagent.agent import Agent, Surroundings
from netagent.backends.backend import Node
from netagent.backends.vxlan import Vxlan
from netagent.burst import Burst
from netagent.daemon import wait_for_config
from netagent.diff import Operation, Verb
from netagent.drift import Drift
from netagent.kernel import Failure, OverlayError
from netagent.state import Underlay
from netagent.status import Status
from netagent.subnet_file import read_subnets
from netagent.survey import backend_of
from subnet_alloc.codec import parse_config
from subnet_alloc.lessor import RegistryLessor
from subnet_alloc.memory import MemoryRegistry

CONFIG = b'{"Network":"10.5.0.0/16","SubnetMin":"10.5.64.0","Backend":{"Type":"vxlan"}}'
"""The agent's own choice never falls on the subnet of a peer here."""
PEER = (
    b'{"PublicIP":"192.0.2.%d","PublicIPv6":null,"BackendType":"vxlan",'
    b'"BackendData":{"VNI":1,"VtepMAC":"82:00:00:00:00:%02x"}}'
)


def lessor_of(registry, subnet_file):
    return RegistryLessor(registry, partial(read_subnets, subnet_file), random.choice)


class MemoryKernel:
    def __init__(self):
        self.objects = {}
        self.refused = ()
        self.dumps = 0

    async def dump(self):
        self.dumps += 1
        return dict(self.objects)

    async def apply(self, delta):
        refused = [value for value in delta.put.values() if type(value).__name__ in self.refused]
        for value in refused:
            del delta.put[value.key]
        delta.apply_to(self.objects)
        if refused:
            raise OverlayError([Failure(Operation(Verb.ADD, value), "in the way") for value in refused])


class Running:
    def __init__(self, subnet_file):
        self.registry, self.kernel, self.status = MemoryRegistry(CONFIG), MemoryKernel(), Status("node-a")
        underlay = {Family.V4: Underlay("eth0", 1500, ip_address("192.0.2.1"))}
        node = Node("node-a", Vxlan(), underlay, {Family.V4: ip_address("192.0.2.1")})
        self.subnet_file = subnet_file
        self.node, self.found = node, node
        """What a survey finds; None: no way to join."""
        lessor = lessor_of(self.registry, subnet_file)
        around = Surroundings(
            node, parse_config(CONFIG), self.registry, lessor, self.kernel, subnet_file, survey=self.survey
        )
        self.agent = Agent(around, self.status)

    async def survey(self):
        if self.found is None:
            raise OperatorError("--iface eth0: no interface has this name")
        return self.found

    def hear(self, drift):
        self.status.healing.heard(drift, 0)

    def lose(self, kind):
        """Somebody removes an object, and the kernel says so."""
        key = next(key for key in self.kernel.objects if key.kind == kind)
        value = self.kernel.objects.pop(key)
        self.hear(Drift(key))
        return value

    async def peer(self, number):
        return await self.registry.create(f"10.5.{number}.0-24", PEER % (number, number), 60)

    def routes(self):
        return {str(value.prefix) for key, value in self.kernel.objects.items() if key.kind == "route"}

    async def own_record(self):
        listing = await self.registry.list()
        return next((record for record in listing.records if b'"192.0.2.1"' in record.value), None)


async def until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


@pytest.fixture
def running(tmp_path):
    return Running(tmp_path / "subnet.env")


async def first_put(batches):
    async for batch in batches:
        if batch.put:
            yield batch
            return


@asynccontextmanager
async def started(running):
    task = asyncio.create_task(running.agent.run())
    yield task
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_fresh_node_gets_a_subnet_and_all_peers(running):
    await running.peer(7)
    async with started(running):
        await until(lambda: running.status.document()["ready"])
        assert running.routes() == {"10.5.7.0/24"}
        assert running.subnet_file.read_text().startswith("FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.")
        assert running.status.document()["programmed"] == {"link": 1, "address": 1, "fdb": 1, "neighbor": 1, "route": 1}


async def test_peers_come_change_and_go_without_another_dump(running):
    async with started(running):
        await until(lambda: running.status.document()["ready"])
        dumps = running.kernel.dumps
        record = await running.peer(7)
        await until(lambda: running.routes() == {"10.5.7.0/24"})
        await running.registry.remove(record)
        await until(lambda: not running.routes())
        assert running.kernel.dumps == dumps


async def test_only_peers_that_nobody_knew_may_be_kept_waiting(tmp_path, monkeypatch):
    waited = []

    class Told(Burst):
        async def gather(self):
            waited.append(self)

    monkeypatch.setattr(agent_module, "Burst", Told)
    running = Running(tmp_path / "subnet.env")

    async def waits_at(change, routes):
        waited.clear()
        done = await change
        await until(lambda: running.routes() == routes)
        return done, waited[0]

    async with started(running):
        await until(lambda: running.status.document()["ready"])
        _, newcomers = await waits_at(running.peer(7), {"10.5.7.0/24"})
        record, again = await waits_at(running.peer(8), {"10.5.7.0/24", "10.5.8.0/24"})
        assert again is newcomers
        _, others = await waits_at(running.registry.remove(record), {"10.5.7.0/24"})
        assert others is not newcomers
        waited.clear()
        running.lose("route")
        await until(lambda: running.routes() == {"10.5.7.0/24"})
        assert newcomers not in waited


async def test_the_previous_subnet_is_asked_for_again(running):
    running.subnet_file.write_text("FLANNEL_SUBNET=10.5.99.1/24\n")
    async with started(running):
        await until(lambda: running.status.lease)
        assert running.status.lease == "10.5.99.0-24"


@pytest.mark.flannel("7", "35", "A12")
async def test_a_lost_lease_is_acquired_again_in_place(running):
    async with started(running):
        await until(lambda: running.status.document()["ready"])
        record = await running.own_record()
        await running.registry.remove(record)
        async with asyncio.timeout(PATIENCE_S), aclosing(running.registry.watch(record.revision)) as batches:
            again = [batch.put[0].key async for batch in first_put(batches)]
        assert again == [record.key]


@pytest.mark.flannel("35", "A11")
async def test_a_subnet_taken_by_another_node_is_given_up_for_another(running):
    async with started(running):
        await until(lambda: running.status.document()["ready"])
        record = await running.own_record()
        await running.registry.update(record, PEER % (9, 9), 60)
        await until(lambda: running.status.lease != record.key)
        await until(lambda: len(running.routes()) == 1)
        network = str(ip_network(record.key.replace("-", "/")))
        assert running.routes() == {network}
        await until(lambda: network.replace(".0/", ".1/") not in running.subnet_file.read_text())


@pytest.mark.flannel("35")
async def test_garbage_over_the_own_lease_is_written_over_and_the_subnet_stays(running):
    """With another subnet every pod of the node would lose its address."""
    async with started(running):
        await until(lambda: running.status.document()["ready"])
        record = await running.own_record()
        await running.registry.update(record, b"garbage", 0)
        await until(lambda: running.registry._records[record.key].value == record.value)
        await until(lambda: running.status.document()["ready"])
        assert running.status.lease == record.key


async def test_a_subnet_file_that_is_gone_comes_back_with_the_next_look_at_everything(running):
    async with started(running):
        await until(lambda: running.status.document()["ready"])
        text = running.subnet_file.read_text()
        running.subnet_file.unlink()
        running.agent._tidy_up_due = True
        running.agent._runner.wake()
        await until(running.subnet_file.exists)
        assert running.subnet_file.read_text() == text


async def test_a_registry_away_changes_nothing_and_its_return_needs_no_restart(running):
    await running.peer(7)
    async with started(running):
        await until(lambda: running.status.document()["ready"])
        running.registry.stop()
        await until(lambda: running.routes() == {"10.5.7.0/24"})
        running.registry.start()
        await running.peer(8)
        await until(lambda: running.routes() == {"10.5.7.0/24", "10.5.8.0/24"})


async def test_skipped_leases_are_named_in_the_status(running):
    await running.registry.create("garbage", b"{", 60)
    await running.registry.create("10.5.8.0-24", b'{"PublicIP":"192.0.2.8","BackendType":"host-gw"}', 60)
    await running.peer(7)
    async with started(running):
        await until(lambda: running.status.document()["ready"])
        skipped = {each["name"]: each["reason"] for each in running.status.document()["skipped"]}
        assert skipped.keys() == {"garbage", "10.5.8.0-24"}
        assert running.routes() == {"10.5.7.0/24"}


@pytest.mark.flannel("47", "B5")
async def test_a_peer_the_kernel_refuses_keeps_no_pod_from_starting(running):
    running.kernel.refused = ("Route",)
    await running.peer(7)
    async with started(running):
        await until(running.subnet_file.exists)
        assert running.status.readyz().status == 503
        assert running.status.document()["skipped"][0]["reason"] == "in the way"
        running.kernel.refused = ()
        await until(lambda: running.status.document()["ready"])
        assert running.routes() == {"10.5.7.0/24"}


async def test_without_a_device_no_subnet_is_promised(running):
    running.kernel.refused = ("VxlanLink",)
    async with started(running):
        await until(lambda: running.status.last_reconcile)
        assert not running.subnet_file.exists()


async def test_drift_that_was_heard_is_repaired_without_a_look_at_everything(running):
    await running.peer(7)
    async with started(running):
        await until(lambda: running.status.document()["ready"])
        dumps, lost = running.kernel.dumps, running.lose("route")
        await until(lambda: running.kernel.objects.get(lost.key) == lost)
        assert running.kernel.dumps == dumps
        assert running.status.document()["repairs"] == {"route": 1}


async def test_what_comes_by_leases_is_no_repair(running):
    async with started(running):
        await until(lambda: running.status.document()["ready"])
        await running.peer(7)
        await until(running.routes)
        assert running.status.document()["repairs"] == {}


async def test_where_more_may_be_missing_everything_is_looked_at(running):
    await running.peer(7)
    async with started(running):
        await until(lambda: running.status.document()["ready"])
        before = dict(running.kernel.objects)
        running.kernel.objects.clear()
        running.hear(Drift(everything=True))
        await until(lambda: running.kernel.objects == before)
        assert running.status.document()["repairs"] == {"link": 1, "address": 1, "fdb": 1, "neighbor": 1, "route": 1}


async def test_somebody_who_keeps_undoing_us_is_named_and_makes_us_unready(running):
    await running.peer(7)
    async with started(running):
        await until(lambda: running.status.document()["ready"])
        for count in range(1, 11):
            running.lose("route")
            await until(lambda count=count: running.status.healing.repairs["route"] == count)
        running.lose("route")
        await until(lambda: running.status.document()["findings"])
        assert "10.5.7.0/24" in running.status.document()["findings"][0].name
        assert running.routes() == set()
        assert running.status.readyz().status == 503
        assert running.status.healing.repairs["route"] == 10


@pytest.mark.flannel("B6")
async def test_an_underlay_with_another_address_is_published_under_the_same_key(running):
    await running.peer(7)
    async with started(running):
        await until(lambda: running.status.document()["ready"])
        key, moved = running.status.lease, ip_address("192.0.2.99")
        underlay = {Family.V4: Underlay("eth0", 1500, moved)}
        running.found = replace(running.node, underlay=underlay, public_ip={Family.V4: moved})
        running.hear(Drift(underlay=True))
        await until(lambda: b'"192.0.2.99"' in running.registry._records[key].value)
        await until(
            lambda: [each.local for each in running.kernel.objects.values() if each.key.kind == "link"] == [moved]
        )
        await until(lambda: running.status.document()["ready"])
        assert running.routes() == {"10.5.7.0/24"}
        assert len(running.registry._records) == 2


async def test_without_an_underlay_nothing_is_taken_and_its_return_brings_everything_back(running):
    await running.peer(7)
    async with started(running):
        await until(lambda: running.status.document()["ready"])
        before, running.found = dict(running.kernel.objects), None
        running.kernel.objects.clear()
        running.hear(Drift(everything=True, underlay=True))
        await until(lambda: "--iface eth0" in (running.status.document()["waiting_for"] or ""))
        assert running.kernel.objects == {}
        running.found = running.node
        running.hear(Drift(everything=True, underlay=True))
        await until(lambda: running.kernel.objects == before)
        await until(lambda: running.status.document()["ready"])


@pytest.mark.flannel("47")
async def test_a_lost_lease_and_a_silent_registry_are_told(running):
    async with started(running):
        await until(lambda: running.status.document()["ready"])
        running.status.unheard_s = lambda: 60.0
        assert running.status.readyz().body == b"waits for the registry, silent for 60 s\n"
        running.status.unheard_s = lambda: 1.0
        assert running.status.readyz().status == 200
        record = await running.own_record()
        running.registry.stop()
        running.agent._tenancy._lose("a test says so")
        await until(lambda: running.status.readyz().status == 503)
        running.registry.start()
        await until(lambda: running.status.readyz().status == 200)
        assert running.status.lease == record.key


async def test_the_configuration_is_waited_for(caplog):
    registry, status = MemoryRegistry(), Status("node-a")
    waiting = asyncio.create_task(wait_for_config(registry, "/net/config", status))
    await until(lambda: "the key does not exist" in str([record.fields for record in caplog.records]))
    registry.config = CONFIG
    assert (await waiting).backend_type == "vxlan"


@pytest.mark.parametrize("raw", [b"{", b'{"Network":"10.5.0.0/30"}', b'{"Network":"x"}'])
async def test_a_configuration_nobody_can_use_is_refused_by_key(raw):
    with pytest.raises(OperatorError, match=r"^/net/config: "):
        await wait_for_config(MemoryRegistry(raw), "/net/config", Status("node-a"))


def test_an_unknown_backend_is_refused_by_key_and_value():
    config = parse_config(CONFIG.replace(b"vxlan", b"foo"))
    with pytest.raises(OperatorError, match=r'^/net/config: Backend\.Type "foo": '):
        backend_of("/net/config", config)
