"""What following a thousand leases costs etcd, as etcd itself counts it: nothing for a lease, nothing for an event."""

import asyncio
import re
from contextlib import aclosing
from ipaddress import ip_address
from urllib.request import urlopen

import pytest
from deadline import PATIENCE_S

from controlloop.etcd import Etcd
from controlloop.family import Family
from subnet_alloc.codec import render_attrs
from subnet_alloc.etcd import EtcdRegistry
from subnet_alloc.leasing import follow
from subnet_alloc.model import LeaseAttrs

LEASES, EVENTS = 1000, 50
STARTED = re.compile(r'^grpc_server_started_total\{grpc_method="(\w+)".*\} (\d+)$', re.MULTILINE)


@pytest.fixture
async def registries(etcd_server):
    """Of one who writes and of one who follows."""
    connections = [Etcd([etcd_server.client_url]) for _ in range(2)]
    yield [EtcdRegistry(each, "/calls") for each in connections]
    for each in connections:
        await each.close()


async def calls(server):
    """How many calls of each kind etcd has taken so far."""
    text = await asyncio.to_thread(lambda: urlopen(f"{server.client_url}/metrics").read().decode())  # noqa: S310
    return {method: int(count) for method, count in STARTED.findall(text)}


def attrs(number):
    return render_attrs(LeaseAttrs({Family.V4: ip_address("10.10.0.0") + number}, "vxlan"))


@pytest.mark.flannel("49")
async def test_calls_do_not_grow_with_leases_or_events(registries, etcd_server):
    writer, reader = registries
    records = [
        await writer.create(f"10.{number // 256}.{number % 256}.0-24", attrs(number), 3600) for number in range(LEASES)
    ]
    before = await calls(etcd_server)
    async with asyncio.timeout(PATIENCE_S), aclosing(follow(reader)) as steps:
        snapshot, _ = await anext(steps)
        assert len(snapshot.leases) == LEASES
        listed = await calls(etcd_server)
        assert listed["Range"] - before["Range"] <= 2  # pages
        waiting = asyncio.ensure_future(seen(steps, EVENTS))
        for record in records[:EVENTS]:
            await writer.update(record, attrs(5000), 3600)
        assert await waiting == {record.key for record in records[:EVENTS]}
    after = await calls(etcd_server)
    # The watch asked for one key: whether the store is still the one that was listed.
    assert after["Range"] == listed["Range"] + 1
    assert after["Watch"] - before["Watch"] <= 1
    assert after["LeaseTimeToLive"] == before["LeaseTimeToLive"]


async def seen(steps, count):
    """Keys that changed, until there are so many."""
    keys = set()
    async for _, changed in steps:
        keys |= changed
        if len(keys) >= count:
            return keys
    raise AssertionError("following has ended")
