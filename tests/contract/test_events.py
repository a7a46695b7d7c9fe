"""Events as an API server gets them: what is told, once, and what happens when nobody takes them."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest
from apiclient import client_of
from apiserver import Fault, running_apiserver
from deadline import PATIENCE_S

from controlloop.errors import UnavailableError
from controlloop.kubernetes.resources import EVENTS
from proxy.events import AGAIN_S, QUEUED, Events
from proxy.frontends import ServiceName

WEB, OTHER = ServiceName("shop", "web"), ServiceName("shop", "other")


@pytest.fixture
async def server():
    async with running_apiserver() as made:
        yield made


@asynccontextmanager
async def sending(server, clock=time.monotonic):
    client = client_of(server)
    events = Events(client, "node-a", clock)
    task = asyncio.create_task(events.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield events
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()


def told(server):
    return [(each["reason"], each["regarding"]["name"], each["note"]) for each in server.objects["events"].values()]


async def arrived(server, times):
    while len(server.objects["events"]) < times:
        moved = server.moved
        await moved.wait()


async def test_a_start_is_told_as_kube_proxy_tells_it(server):
    async with sending(server) as events:
        events.starting()
        await arrived(server, 1)
    ((namespace, name), event) = next(iter(server.objects["events"].items()))
    assert namespace == "default"
    assert name.startswith("node-a.")
    wanted = {
        "reason": "Starting",
        "action": "StartKubeProxy",
        "type": "Normal",
        "reportingInstance": "netproxy-node-a",
    }
    assert event.items() >= wanted.items()
    assert event["regarding"] == {"kind": "Node", "name": "node-a", "uid": "node-a"}


async def test_trouble_is_told_when_it_begins_and_when_its_reason_changes(server):
    async with sending(server) as events:
        events.troubled({WEB: "port 30000: in use"}, {})
        events.troubled({WEB: "port 30000: in use"}, {OTHER: "refused by the kernel"})
        events.troubled({WEB: "port 30001: in use"}, {OTHER: "refused by the kernel"})
        await arrived(server, 3)
    assert told(server) == [
        ("FailedToStartServiceHealthcheck", "web", "port 30000: in use"),
        ("FailedToProgramService", "other", "refused by the kernel"),
        ("FailedToStartServiceHealthcheck", "web", "port 30001: in use"),
    ]
    assert {namespace for namespace, _ in server.objects["events"]} == {"shop"}


async def test_trouble_that_comes_and_goes_is_told_once_in_five_minutes(server):
    times = iter([0.0, AGAIN_S - 1, AGAIN_S, AGAIN_S])
    async with sending(server, lambda: next(times)) as events:
        for _ in range(3):
            events.troubled({WEB: "port 30000: in use"}, {})
            events.troubled({}, {})
        events.fought("chain services", "undone")
        await arrived(server, 3)
    assert [reason for reason, _, _ in told(server)] == ["FailedToStartServiceHealthcheck"] * 2 + ["RulesUndone"]


async def test_last_words_are_waited_for_and_not_for_long(server):
    async with sending(server) as events:
        events.starting()
        await events.sent(PATIENCE_S)
        assert len(server.objects["events"]) == 1
        server.faults.append(Fault("create", hang=True))
        events.fought("x", "y")
        await events.sent(0.1)
        assert len(server.objects["events"]) == 1


async def test_what_cannot_be_sent_is_dropped_and_the_next_one_goes(server):
    server.faults += [Fault("create", status=403), Fault("create", status=500)]
    async with sending(server) as events:
        for number in range(3):
            events.troubled({WEB: f"reason {number}"}, {})
        await arrived(server, 1)
    assert told(server) == [("FailedToStartServiceHealthcheck", "web", "reason 2")]


async def test_a_flood_is_cut_and_foreign_text_moves_no_terminal(server):
    async with sending(server) as events:
        for number in range(3 * QUEUED):
            events.troubled({WEB: f"\x1b[2J {number}"}, {})
        await arrived(server, QUEUED)
    notes = [note for _, _, note in told(server)]
    assert len(notes) == QUEUED
    assert notes[0] == r"\x1b[2J 0"


async def test_what_is_there_already_is_not_created_again(server):
    client = client_of(server)
    event = {"metadata": {"name": "x", "namespace": "shop"}}
    await client.create(EVENTS.within("shop"), event)
    with pytest.raises(UnavailableError, match=r'create events: 409 events "x" already exists'):
        await client.create(EVENTS.within("shop"), event)
    await client.close()
