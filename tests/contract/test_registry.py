"""What every registry promises: one suite, on the one in memory and on a real etcd."""

import asyncio
import random
import time
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import ip_address
from itertools import count

import pytest
from deadline import PATIENCE_S

from controlloop.errors import CompactedError, UnavailableError
from controlloop.etcd import Etcd
from controlloop.family import Family
from subnet_alloc.allocate import NoFreeSubnetError
from subnet_alloc.codec import parse_config
from subnet_alloc.etcd import EtcdRegistry
from subnet_alloc.leasing import acquire, follow
from subnet_alloc.memory import MemoryRegistry
from subnet_alloc.model import LeaseAttrs
from subnet_alloc.registry import AlreadyExistsError, ConflictError

DAY_S = 86_400
CONFIG = b'{"Network":"10.5.0.0/16"}'
prefixes = (f"/test/{number}" for number in count())


class MemoryWorld:
    def __init__(self):
        self.registry = MemoryRegistry()

    def another(self):
        return self.registry

    async def configure(self, config):
        self.registry.config = config

    async def compact(self):
        self.registry.compact()

    def stop(self):
        self.registry.stop()

    def start(self):
        self.registry.start()

    async def close(self):
        pass


class EtcdWorld:
    def __init__(self, server):
        self.server = server
        self.prefix = next(prefixes)
        self.connections = []
        self.registry = self.another()
        self.etcd = self.connections[0]

    def another(self):
        """A registry of another node: over a connection of its own."""
        etcd = Etcd([self.server.client_url])
        self.connections.append(etcd)
        return EtcdRegistry(etcd, self.prefix)

    async def configure(self, config):
        await self.etcd.put(f"{self.prefix}/config", config)

    async def compact(self):
        self.server.etcdctl("compaction", str((await self.registry.list()).revision))

    def stop(self):
        self.server.stop()

    def start(self):
        self.server.start()

    async def close(self):
        for etcd in self.connections:
            await etcd.close()


@pytest.fixture(params=["memory", "etcd"])
async def world(request):
    made = MemoryWorld() if request.param == "memory" else EtcdWorld(request.getfixturevalue("etcd_server"))
    yield made
    await made.close()


@pytest.fixture
def registry(world):
    return world.registry


@asynccontextmanager
async def watching(registry, after=None):
    """`await happened()` gives the next batch in which something happened."""
    after = (await registry.list()).revision if after is None else after
    async with aclosing(registry.watch(after)) as batches:

        async def happened():
            async with asyncio.timeout(PATIENCE_S):
                async for batch in batches:
                    if batch.put or batch.removed:
                        return batch
            raise AssertionError("the watch has ended")

        yield happened


async def eventually(attempt):
    """The first answer that is no UnavailableError."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await attempt()
        except UnavailableError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


# -- records --------------------------------------------------------------------------------------------------------


@pytest.mark.flannel("5")
async def test_without_configuration_there_is_none(registry):
    assert await registry.network_config() is None


@pytest.mark.parametrize("padding", [0, 1_000_000], ids=["short", "a megabyte"])
async def test_the_configuration_is_what_was_written(world, registry, padding):
    config = CONFIG.replace(b"}", b',"Comment":"%s"}' % (b"x" * padding))
    await world.configure(config)
    assert await registry.network_config() == config
    assert parse_config(config) == parse_config(CONFIG)


async def test_what_is_created_is_listed_in_key_order(registry):
    two = await registry.create("10.5.2.0-24", b"two", DAY_S)
    one = await registry.create("10.5.1.0-24", b"one", DAY_S)
    listing = await registry.list()
    assert listing.records == (one, two)
    assert two.revision < one.revision <= listing.revision
    assert one.lease_id
    assert one.lease_id != two.lease_id


async def test_a_key_is_created_once(registry):
    record = await registry.create("10.5.1.0-24", b"one", DAY_S)
    with pytest.raises(AlreadyExistsError):
        await registry.create("10.5.1.0-24", b"other", DAY_S)
    assert (await registry.list()).records == (record,)


@pytest.mark.flannel("36", "A7")
async def test_a_record_created_without_time_never_expires(registry):
    assert (await registry.create("10.5.1.0-24", b"one", 0)).lease_id == 0


@pytest.mark.flannel("8")
async def test_an_update_of_the_record_we_know_keeps_its_lease(registry):
    record = await registry.create("10.5.1.0-24", b"one", DAY_S)
    updated = await registry.update(record, b"new", DAY_S)
    assert updated == replace(record, value=b"new", revision=updated.revision)
    assert updated.revision > record.revision
    assert (await registry.list()).records == (updated,)


async def test_an_update_may_end_or_begin_the_expiry(registry):
    record = await registry.create("10.5.1.0-24", b"one", DAY_S)
    reservation = await registry.update(record, b"one", 0)
    assert reservation.lease_id == 0
    assert (await registry.update(reservation, b"one", DAY_S)).lease_id


async def test_an_update_with_another_time_gets_another_lease(registry):
    record = await registry.create("10.5.1.0-24", b"one", 3600)
    updated = await registry.update(record, b"one", DAY_S)
    assert updated.lease_id != record.lease_id
    assert await registry.keep_alive(updated) == DAY_S


async def test_a_record_that_somebody_wrote_is_left_alone(registry):
    record = await registry.create("10.5.1.0-24", b"one", DAY_S)
    newer = await registry.update(record, b"newer", DAY_S)
    with pytest.raises(ConflictError, match=r"10.5.1.0-24 is not at revision"):
        await registry.update(record, b"mine", DAY_S)
    with pytest.raises(ConflictError, match=r"10.5.1.0-24 is not at revision"):
        await registry.remove(record)
    assert (await registry.list()).records == (newer,)


async def test_a_record_that_was_removed_is_not_written_again(registry):
    record = await registry.create("10.5.1.0-24", b"one", DAY_S)
    await registry.remove(record)
    with pytest.raises(ConflictError):
        await registry.update(record, b"one", DAY_S)
    with pytest.raises(ConflictError):
        await registry.remove(record)
    assert (await registry.list()).records == ()


@pytest.mark.flannel("8")
async def test_keeping_alive_gives_the_whole_time_again(registry):
    record = await registry.create("10.5.1.0-24", b"one", DAY_S)
    assert await registry.keep_alive(record) == DAY_S
    assert (await registry.list()).records == (record,)


# -- watch ----------------------------------------------------------------------------------------------------------


@pytest.mark.flannel("5", "6", "7")
async def test_a_watch_tells_what_is_put_and_removed(registry):
    async with watching(registry) as happened:
        record = await registry.create("10.5.1.0-24", b"one", DAY_S)
        batch = await happened()
        assert (batch.put, batch.removed, batch.revision) == ((record,), (), record.revision)
        updated = await registry.update(record, b"new", DAY_S)
        assert (await happened()).put == (updated,)
        await registry.remove(updated)
        batch = await happened()
        assert (batch.put, batch.removed) == ((), ("10.5.1.0-24",))
        assert batch.revision == updated.revision + 1


async def test_a_watch_catches_up_with_the_past(registry):
    after = (await registry.list()).revision
    records = {f"10.5.{number}.0-24": b"%d" % number for number in range(1, 50)}
    for key, value in records.items():
        await registry.create(key, value, 0)
    found, revision = {}, 0
    async with watching(registry, after) as happened:
        while len(found) < len(records):
            batch = await happened()
            assert batch.revision > revision
            revision = batch.revision
            found.update({record.key: record.value for record in batch.put})
    assert found == records
    assert revision == (await registry.list()).revision


async def test_a_key_is_told_once_by_what_happened_last(registry):
    after = (await registry.list()).revision
    first = await registry.create("10.5.1.0-24", b"one", 0)
    await registry.remove(first)
    second = await registry.create("10.5.1.0-24", b"two", 0)
    async with watching(registry, after) as happened:
        batch = await happened()
    assert (batch.put, batch.removed) == ((second,), ())


@pytest.mark.flannel("6")
async def test_a_peer_that_vanishes_is_removed_when_its_time_is_over(registry):
    async with watching(registry) as happened:
        await registry.create("10.5.1.0-24", b"one", 3)
        assert len((await happened()).put) == 1
        assert (await happened()).removed == ("10.5.1.0-24",)
    assert (await registry.list()).records == ()


async def test_a_lease_that_is_over_cannot_be_kept_alive(registry):
    async with watching(registry) as happened:
        record = await registry.create("10.5.1.0-24", b"one", 1)
        while not (await happened()).removed:
            pass
    with pytest.raises(ConflictError):
        await registry.keep_alive(record)


@pytest.mark.flannel("8")
async def test_a_lease_that_is_kept_alive_does_not_expire(registry):
    record = await registry.create("10.5.1.0-24", b"one", 3)
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        assert await registry.keep_alive(record)
        await asyncio.sleep(0.2)
    assert (await registry.list()).records == (record,)


@pytest.mark.flannel("9")
async def test_a_watch_from_before_a_compaction_says_so_and_listing_mends_it(world, registry):
    after = (await registry.list()).revision
    for number in range(1, 4):
        await registry.create(f"10.5.{number}.0-24", b"", 0)
    await world.compact()
    with pytest.raises(CompactedError):
        async with watching(registry, after) as happened:
            await happened()
    listing = await registry.list()
    assert len(listing.records) == 3
    async with watching(registry, listing.revision) as happened:
        await registry.remove(listing.records[0])
        assert (await happened()).removed == ("10.5.1.0-24",)


@pytest.mark.flannel("34")
async def test_a_store_behind_what_we_know_says_so(registry):
    with pytest.raises(CompactedError):
        async with watching(registry, (await registry.list()).revision + 1_000_000) as happened:
            await happened()


# -- outage ---------------------------------------------------------------------------------------------------------


async def test_a_stopped_registry_is_unavailable_and_recovers(world, registry):
    record = await registry.create("10.5.1.0-24", b"one", DAY_S)
    async with aclosing(registry.watch(record.revision - 1)) as batches:
        assert (await anext(batches)).put == (record,)
        world.stop()
        try:
            with pytest.raises(UnavailableError):
                await anext(batches)
            for attempt in (registry.list, registry.network_config, lambda: registry.create("k", b"", 0)):
                with pytest.raises(UnavailableError):
                    await attempt()
            with pytest.raises(UnavailableError):
                await registry.keep_alive(record)
        finally:
            world.start()
    assert (await eventually(registry.list)).records == (record,)
    assert await registry.keep_alive(record)


@pytest.mark.flannel("10")
async def test_following_outlives_a_restart_behind_a_compaction(world, registry):
    """A healthy watch, then changes, a compaction and a restart: the snapshot arrives at what the registry holds."""
    gone = await registry.create("10.5.1.0-24", b'{"PublicIP":"1.2.3.1"}', 0)
    async with aclosing(follow(registry)) as following, asyncio.timeout(PATIENCE_S):
        snapshot, _ = await anext(following)
        assert set(snapshot.leases) == {gone.key}
        await registry.remove(gone)
        await registry.create("10.5.2.0-24", b'{"PublicIP":"1.2.3.2"}', 0)
        await world.compact()
        world.stop()
        world.start()
        while set(snapshot.leases) != {"10.5.2.0-24"}:
            await anext(following)
        await eventually(lambda: registry.create("10.5.3.0-24", b'{"PublicIP":"1.2.3.3"}', 0))
        while set(snapshot.leases) != {"10.5.2.0-24", "10.5.3.0-24"}:
            await anext(following)


# -- many -----------------------------------------------------------------------------------------------------------


FIFTY = b'"Network":"10.5.0.0/16","SubnetMin":"10.5.1.0","SubnetMax":"10.5.50.0"'
FIFTY_V6 = b'"EnableIPv6":true,"IPv6Network":"fd00::/48","IPv6SubnetMin":"fd00:0:0:1::","IPv6SubnetMax":"fd00:0:0:32::"'


@pytest.mark.flannel("29", "A2")
@pytest.mark.parametrize("ranges", [FIFTY, FIFTY + b"," + FIFTY_V6], ids=["IPv4", "dual"])
async def test_fifty_nodes_that_start_at_once_share_fifty_subnets(world, ranges):
    config = parse_config(b"{" + ranges + b"}")
    nodes = [LeaseAttrs(addresses(number, config.ranges), "vxlan") for number in range(1, 51)]
    registries = [world.another() for _ in nodes]

    async def start(registry, attrs):
        while True:
            # Of two that have the last pair between them, each takes one for taken that the other gives back.
            with suppress(NoFreeSubnetError):
                return await acquire(registry, attrs, previous=None, config=config, choose=random.choice)

    async with asyncio.timeout(2 * PATIENCE_S):
        owned = await asyncio.gather(*map(start, registries, nodes))
        again = await asyncio.gather(*map(start, registries, nodes))
    for family in config.ranges:
        assert len({own.lease.subnets[family] for own in owned}) == 50
    assert again == owned


def addresses(number, families):
    every = {Family.V4: ip_address(f"192.168.0.{number}"), Family.V6: ip_address(f"2001:db8::{number}")}
    return {family: every[family] for family in families}
