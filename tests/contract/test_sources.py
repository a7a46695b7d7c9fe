"""What every source promises: one suite, on a directory of manifests and on a real etcd."""

import asyncio
from contextlib import asynccontextmanager
from itertools import count

import pytest
from builders import json, make_endpoint_slice, make_service

from controlloop.etcd import Etcd
from proxy.frontends import ServiceName
from proxy.node import Node
from proxy.services import Options
from proxy.sources.etcd import EtcdSource
from proxy.sources.files import FilesSource
from proxy.tracker import Tracker

DEADLINE_S = 20.0
FOLDERS = {"Service": "services", "EndpointSlice": "endpointslices"}

prefixes = (f"/test/sources/{number}" for number in count())

WEB, OTHER = ServiceName("default", "web"), ServiceName("default", "other")
SERVED = {"10.96.0.10:80": "10.244.1.5:8080"}


class FilesWorld:
    def __init__(self, directory):
        self._directory = directory
        self._new = directory.parent / "new"
        directory.mkdir()

    def source(self):
        return FilesSource(self._directory)

    async def put(self, made, raw=None):
        """Store an object, or any bytes in its place."""
        self._new.write_bytes(json(made) if raw is None else raw)
        self._new.rename(self._path(made))

    async def delete(self, made):
        self._path(made).unlink()

    def _path(self, made):
        return self._directory / f"{made['kind']}.{made['metadata']['namespace']}.{made['metadata']['name']}.json"

    async def close(self):
        pass


class EtcdWorld:
    def __init__(self, server):
        self.server = server
        self.prefix = next(prefixes)
        self.etcd = Etcd([server.client_url])

    def source(self):
        return EtcdSource(self.etcd, self.prefix)

    async def put(self, made, raw=None):
        await self.etcd.put(self._key(made), json(made) if raw is None else raw)

    async def delete(self, made):
        await self.etcd.delete(self._key(made))

    def _key(self, made):
        return f"{self.prefix}/{FOLDERS[made['kind']]}/{made['metadata']['namespace']}/{made['metadata']['name']}"

    async def close(self):
        await self.etcd.close()


@pytest.fixture(params=["files", "etcd"])
async def world(request, tmp_path):
    if request.param == "files":
        made = FilesWorld(tmp_path / "manifests")
    else:
        made = EtcdWorld(request.getfixturevalue("etcd_server"))
    yield made
    await made.close()


@pytest.fixture
async def etcd_world(etcd_server):
    made = EtcdWorld(etcd_server)
    yield made
    await made.close()


class Followed:
    """A tracker that takes in all that a source says."""

    def __init__(self):
        self.tracker = Tracker(Node("node-a"), Options())
        self.batches = 0
        self._moved = asyncio.Event()

    async def follow(self, source):
        async for batch in source.batches():
            assert batch.listed or self.batches, "the first batch lists everything"
            self.tracker.apply(batch)
            self.batches += 1
            self._moved.set()

    def served(self, service=WEB):
        return {
            f"{each.address}:{each.port}": " ".join(map(str, each.endpoints))
            for each in self.tracker.frontends(service)
        }

    async def until(self, condition):
        async with asyncio.timeout(DEADLINE_S):
            while not self.batches or not condition():
                self._moved.clear()
                await self._moved.wait()

    async def serves(self, frontends, service=WEB):
        await self.until(lambda: self.served(service) == frontends)


@asynccontextmanager
async def following(world):
    followed = Followed()
    task = asyncio.create_task(followed.follow(world.source()))
    try:
        yield followed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_source_with_nothing_in_it_says_so(world):
    async with following(world) as followed:
        await followed.serves({})


async def test_what_is_there_at_the_start_is_served(world):
    await world.put(make_service())
    await world.put(make_endpoint_slice())
    async with following(world) as followed:
        await followed.serves(SERVED)
        assert followed.batches == 1
        assert followed.tracker.skipped == {}


async def test_what_comes_changes_and_goes_is_followed(world):
    async with following(world) as followed:
        await followed.serves({})
        await world.put(make_service())
        await followed.serves({"10.96.0.10:80": ""})
        await world.put(make_endpoint_slice())
        await followed.serves(SERVED)
        await world.put(make_endpoint_slice(endpoints=["10.244.1.6", "10.244.1.7"]))
        await followed.serves({"10.96.0.10:80": "10.244.1.6:8080 10.244.1.7:8080"})
        await world.put(make_service(cluster_ips=["10.96.0.11"]))
        await followed.serves({"10.96.0.11:80": "10.244.1.6:8080 10.244.1.7:8080"})
        await world.delete(make_service())
        await followed.serves({})
        assert followed.tracker.services() == set()


async def test_a_reader_who_starts_later_sees_the_same(world):
    async with following(world) as early:
        await early.serves({})
        for number in range(20):
            await world.put(make_service(name=f"s-{number}", cluster_ips=[f"10.96.1.{number}"]))
        await world.delete(make_service(name="s-7"))
        await early.until(lambda: len(early.tracker.services()) == 19)
        async with following(world) as late:
            await late.until(lambda: late.tracker.services() == early.tracker.services())
            assert [late.tracker.frontends(each) for each in late.tracker.services()] == [
                early.tracker.frontends(each) for each in late.tracker.services()
            ]


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[" * 10_000, json(make_service(ports=[("http", "TCP", 0)]))])
async def test_a_malformed_object_is_named_and_harms_no_other(world, raw):
    """It keeps its last good version, and the next good one repairs it."""
    await world.put(make_service())
    async with following(world) as followed:
        await followed.serves({"10.96.0.10:80": ""})
        await world.put(make_service(), raw=raw)
        await world.put(make_service(name="other", cluster_ips=["10.96.0.20"]))
        await followed.serves({"10.96.0.20:80": ""}, OTHER)
        await followed.until(lambda: len(followed.tracker.skipped) == 1)
        assert "web" in next(iter(followed.tracker.skipped))
        assert followed.served() == {"10.96.0.10:80": ""}
        await world.put(make_service(cluster_ips=["10.96.0.11"]))
        await followed.serves({"10.96.0.11:80": ""})
        assert followed.tracker.skipped == {}


async def test_a_malformed_object_that_was_never_good_is_forgotten_when_deleted(world):
    await world.put(make_service(), raw=b"{")
    async with following(world) as followed:
        await followed.until(lambda: followed.tracker.skipped)
        await world.delete(make_service())
        await followed.until(lambda: not followed.tracker.skipped)


async def test_many_objects_in_one_burst_arrive_whole(world):
    async with following(world) as followed:
        await followed.serves({})
        for number in range(300):
            await world.put(make_service(name=f"s-{number}", cluster_ips=[f"10.97.{number >> 8}.{number & 255}"]))
        await followed.until(lambda: len(followed.tracker.services()) == 300)


async def test_an_etcd_that_was_away_disturbs_nothing_and_is_followed_again(etcd_world):
    await etcd_world.put(make_service())
    async with following(etcd_world) as followed:
        await followed.serves({"10.96.0.10:80": ""})
        etcd_world.server.stop()
        try:
            assert followed.served() == {"10.96.0.10:80": ""}
        finally:
            etcd_world.server.start()
        writer = EtcdWorld(etcd_world.server)
        writer.prefix = etcd_world.prefix
        await writer.put(make_endpoint_slice())
        await writer.close()
        await followed.serves(SERVED)
        assert followed.batches == 2


async def test_an_etcd_that_forgot_the_past_is_listed_again_without_a_flap(etcd_world):
    """A watch that begins before a compaction cannot go on; what was deleted meanwhile is gone all the same."""
    await etcd_world.put(make_service())
    await etcd_world.put(make_service(name="other", cluster_ips=["10.96.0.20"]))
    async with following(etcd_world) as followed:
        await followed.serves({"10.96.0.20:80": ""}, OTHER)
        etcd_world.server.stop()
        etcd_world.server.start()
        writer = Etcd([etcd_world.server.client_url])
        await writer.delete(etcd_world._key(make_service(name="other")))
        await writer.put(f"{etcd_world.prefix}/sibling/key", b"x")
        etcd_world.server.etcdctl("compaction", str((await writer.list(etcd_world.prefix)).revision))
        await writer.close()
        await followed.serves({}, OTHER)
        assert followed.served() == {"10.96.0.10:80": ""}


async def test_a_malformed_key_beside_good_ones_is_named(etcd_world):
    await etcd_world.put(make_service())
    key = f"{etcd_world.prefix}/services/web"
    await etcd_world.etcd.put(key, json(make_service()))
    async with following(etcd_world) as followed:
        await followed.serves({"10.96.0.10:80": ""})
        assert set(followed.tracker.skipped) == {key}
        await etcd_world.etcd.delete(key)
        await followed.until(lambda: not followed.tracker.skipped)
