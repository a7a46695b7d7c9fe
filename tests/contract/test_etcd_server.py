"""controlloop.etcd against a real etcd, where the registry's contract does not reach."""

import asyncio
import os
import shutil
import signal
import socket
from contextlib import aclosing
from itertools import count

import pytest
from deadline import PATIENCE_S

from controlloop.errors import CompactedError, OperatorError, UnavailableError
from controlloop.etcd import PAGE, Etcd
from lab.etcd import EtcdServer, free_port

prefixes = (f"/etcd/{number}/" for number in count())


@pytest.fixture
def prefix():
    return next(prefixes)


@pytest.fixture
async def etcd(etcd_server):
    client = Etcd([etcd_server.client_url])
    yield client
    await client.close()


def nobody():
    return f"http://127.0.0.1:{free_port()}"


async def test_a_key_is_read_as_written(etcd, prefix):
    revision = await etcd.put(f"{prefix}a", b"one")
    found = await etcd.get(f"{prefix}a")
    assert (found.key, found.value, found.revision, found.lease_id) == (f"{prefix}a", b"one", revision, 0)
    assert await etcd.get(f"{prefix}b") is None


async def test_more_keys_than_a_page_are_listed_at_one_revision(etcd, prefix):
    total = 2 * PAGE + 1
    await asyncio.gather(*(etcd.put(f"{prefix}{number:05}", b"x") for number in range(total)))
    listing = await etcd.list(prefix)
    assert [kv.key for kv in listing.items] == [f"{prefix}{number:05}" for number in range(total)]
    assert listing.revision == max(kv.revision for kv in listing.items)


@pytest.mark.flannel("31")
async def test_a_listing_is_of_exactly_this_prefix(etcd, prefix):
    await etcd.put(f"{prefix}subnets/a", b"")
    await etcd.put(f"{prefix}subnets-old/b", b"")
    await etcd.put(f"{prefix}subnets0", b"")
    assert [kv.key for kv in (await etcd.list(f"{prefix}subnets/")).items] == [f"{prefix}subnets/a"]
    assert len((await etcd.list(f"{prefix}subnets")).items) == 3


async def test_a_key_is_deleted_as_known_or_as_it_is(etcd, prefix):
    key = f"{prefix}a"
    revision = await etcd.put(key, b"one")
    assert not await etcd.delete(key, revision - 1)
    assert await etcd.delete(key, revision)
    assert not await etcd.delete(key, revision)
    await etcd.put(key, b"two")
    assert await etcd.delete(key)
    assert not await etcd.delete(key)


async def test_the_end_of_a_lease_is_the_end_of_its_keys(etcd, prefix):
    lease_id = await etcd.grant(60)
    await etcd.create(f"{prefix}a", b"", lease_id)
    assert await etcd.keep_alive(lease_id) == 60
    await etcd.revoke(lease_id)
    assert await etcd.get(f"{prefix}a") is None
    assert await etcd.keep_alive(lease_id) == 0
    await etcd.revoke(lease_id)


async def test_a_write_with_a_lease_that_is_gone_is_an_error_of_ours(etcd, prefix):
    with pytest.raises(UnavailableError, match="requested lease not found"):
        await etcd.create(f"{prefix}a", b"", 12345)


async def test_a_read_asks_the_next_endpoint_by_itself(etcd_server, prefix):
    client = Etcd([nobody(), etcd_server.client_url])
    assert (await client.list(prefix)).items == ()
    # From now on the one that answered is in use, for writes too.
    await client.put(f"{prefix}a", b"")
    await client.close()


async def test_a_write_is_not_sent_twice_but_the_next_one_goes_elsewhere(etcd_server, prefix):
    client = Etcd([nobody(), etcd_server.client_url])
    with pytest.raises(UnavailableError):
        await client.put(f"{prefix}a", b"")
    await client.put(f"{prefix}a", b"")
    await client.close()


async def test_all_endpoints_away_is_unavailable_and_names_one(prefix):
    urls = [nobody(), nobody()]
    client = Etcd(urls)
    with pytest.raises(UnavailableError, match=r"etcd http://127\.0\.0\.1:[0-9]+: "):
        await client.get(prefix)
    await client.close()


async def test_a_server_that_says_nothing_costs_one_deadline(etcd_server, prefix):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Etcd([f"http://127.0.0.1:{silent.getsockname()[1]}", etcd_server.client_url], timeout_s=2)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(UnavailableError):
                await client.get(prefix)
            assert await client.get(prefix) is None
        await client.close()


async def test_a_watch_on_a_server_that_says_nothing_ends(prefix):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Etcd([f"http://127.0.0.1:{silent.getsockname()[1]}"], timeout_s=0.3)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(UnavailableError, match="no answer to a watch"):
                await anext(client.watch(prefix, 1))
        await client.close()


async def test_a_watch_catches_up_over_more_revisions_than_one_answer_holds(etcd, prefix):
    """etcd answers a late watch in parts; each stands at its own last event, so that no restart can skip one."""
    after = (await etcd.list(prefix)).revision
    total = 2500
    await asyncio.gather(*(etcd.put(f"{prefix}{number}", b"x") for number in range(total)))
    found, answers = set(), 0
    while len(found) < total:
        async with aclosing(etcd.watch(prefix, after)) as batches, asyncio.timeout(PATIENCE_S):
            batch = await anext(batches)
        found |= {kv.key for kv in batch.put}
        after, answers = batch.revision, answers + 1
    assert answers >= 3


@pytest.mark.flannel("31")
async def test_a_watch_sees_only_its_prefix(etcd, prefix):
    after = (await etcd.list(prefix)).revision
    await etcd.put(f"{prefix[:-1]}-other", b"")
    await etcd.put(f"{prefix}a", b"")
    async with aclosing(etcd.watch(prefix, after)) as batches, asyncio.timeout(PATIENCE_S):
        assert [kv.key for kv in (await anext(batches)).put] == [f"{prefix}a"]


@pytest.mark.flannel("11")
async def test_an_idle_consumer_can_stop_its_watch(etcd, prefix):
    async def consume():
        async for _ in etcd.watch(prefix, (await etcd.list(prefix)).revision):
            pass

    task = asyncio.ensure_future(consume())
    await etcd.put(f"{prefix}a", b"")
    task.cancel()
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.fixture
def own_server(tmp_path):
    server = EtcdServer.on_this_machine(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def guarded_server(own_server):
    for command in ("user add root:secret", "user grant-role root root", "auth enable"):
        own_server.etcdctl(*command.split())
    return own_server


async def test_a_server_that_falls_silent_ends_a_watch_within_seconds(own_server, prefix):
    client = Etcd([own_server.client_url])
    pid = own_server._process.pid
    async with aclosing(client.watch(prefix, await client.put(f"{prefix}a", b"") - 1)) as batches:
        await anext(batches)
        os.kill(pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(PATIENCE_S):
                with pytest.raises(UnavailableError):
                    await anext(batches)
        finally:
            os.kill(pid, signal.SIGCONT)
    await client.close()


@pytest.mark.flannel("34")
async def test_a_store_that_went_another_way_since_its_copy_was_taken_is_listed_again(own_server, prefix, tmp_path):
    """It is at the same revision, of the same cluster, in the same term; a watch from there would miss the first."""
    client = Etcd([own_server.client_url])
    await client.put(f"{prefix}a", b"copied")
    await client.close()
    own_server.stop()
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    own_server.start()
    await client.put(f"{prefix}b", b"lost")
    before = await client.list(prefix)
    own_server.stop()
    shutil.rmtree(tmp_path / "data")
    shutil.copytree(tmp_path / "copy", tmp_path / "data")
    own_server.start()
    own_server.etcdctl("put", f"{prefix}c", "never heard of")
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(CompactedError, match="another past"):
            await anext(client.watch(prefix, before.revision))
    after = await client.list(prefix)
    assert after.revision == before.revision
    await client.put(f"{prefix}d", b"")
    async with aclosing(client.watch(prefix, after.revision)) as batches, asyncio.timeout(PATIENCE_S):
        assert [kv.key for kv in (await anext(batches)).put] == [f"{prefix}d"]
    await client.close()


async def test_a_watch_goes_on_after_a_removal_was_the_last_it_heard_of(etcd, prefix):
    after = await etcd.put(f"{prefix}a", b"")
    await etcd.delete(f"{prefix}a")
    for _ in range(2):
        async with aclosing(etcd.watch(prefix, after)) as batches, asyncio.timeout(PATIENCE_S):
            assert (await anext(batches)).removed == (f"{prefix}a",)


async def test_a_server_that_wants_a_user_is_the_operators_move(guarded_server, prefix):
    client = Etcd([guarded_server.client_url])
    with pytest.raises(OperatorError, match="user name is empty"):
        await client.get(prefix)
    with pytest.raises(OperatorError, match="user name is empty"):
        await anext(client.watch(prefix, 1))
    await client.close()
