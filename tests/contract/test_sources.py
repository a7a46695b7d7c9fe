"""What every source promises: one suite, on a directory of manifests, a real etcd and a Kubernetes API."""

import pytest
from builders import json, make_endpoint_slice, make_service
from source_worlds import OTHER, SERVED, EtcdWorld, following, world_of

from controlloop.etcd import Etcd


@pytest.fixture(params=["files", "etcd", "kubernetes"])
async def world(request, tmp_path):
    async with world_of(request.param, request, tmp_path) as made:
        yield made


@pytest.fixture(params=["files", "etcd"])
async def world_of_bytes(request, tmp_path):
    """Anybody may put anything there; an API server holds objects."""
    async with world_of(request.param, request, tmp_path) as made:
        yield made


@pytest.fixture
async def etcd_world(etcd_server):
    made = EtcdWorld(etcd_server)
    yield made
    await made.close()


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


async def test_endpoints_of_old_serve_where_no_slice_does(world_of_bytes):
    world = world_of_bytes
    subset = {"addresses": [{"ip": "10.244.1.9"}], "ports": [{"name": "http", "port": 8080}]}
    endpoints = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"namespace": "default", "name": "web"}}
    await world.put(make_service())
    await world.put({**endpoints, "subsets": [subset]})
    async with following(world) as followed:
        await followed.serves({"10.96.0.10:80": "10.244.1.9:8080"})
        await world.put(make_endpoint_slice())
        await followed.serves(SERVED)
        await world.delete(make_endpoint_slice())
        await followed.serves({"10.96.0.10:80": "10.244.1.9:8080"})
        await world.delete(endpoints)
        await followed.serves({"10.96.0.10:80": ""})


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


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[" * 10_000])
async def test_what_is_no_object_is_named_and_harms_no_other(world_of_bytes, raw):
    await malformed(world_of_bytes, raw)


WRONG = [make_service(ports=[("http", "TCP", 0)]), make_service(cluster_ips=[7]), {**make_service(), "spec": None}]


@pytest.mark.parametrize("wrong", WRONG, ids=["port", "address", "spec"])
async def test_a_malformed_object_is_named_and_harms_no_other(world, wrong):
    await malformed(world, json(wrong))


async def malformed(world, raw):
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
    await world.put(make_service(), raw=json(WRONG[0]))
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
