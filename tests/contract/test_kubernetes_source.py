"""What the Kubernetes API does to whoever follows it: gaps, faults, restarts, long lists, new credentials."""

import asyncio
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import pytest
from apiclient import client_of
from apiserver import Fault, running_apiserver
from builders import json, make_endpoint_slice, make_service
from source_worlds import OTHER, SERVED, WEB, EtcdWorld, FilesWorld, Followed, KubernetesWorld, eventually, following

from controlloop.goflags import Given
from proxy.config import KubernetesSettings, Settings
from proxy.sources.kubernetes import KubernetesSource
from proxy.sources.opening import open_source


@pytest.fixture
async def server():
    async with running_apiserver() as made:
        yield made


@asynccontextmanager
async def following_api(server, **options):
    followed = Followed()
    source = KubernetesSource(client_of(server, **options))
    task = asyncio.create_task(followed.follow(source))
    followed.source = source
    try:
        yield followed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("late", ["services", "endpointslices"])
async def test_nothing_is_complete_before_both_lists_are_in(server, late):
    """A proxy that wrote what it has so far would refuse connections that have an endpoint."""
    for number in range(10):
        server.put("services", make_service(name=f"s-{number}", cluster_ips=[f"10.96.1.{number}"]))
        server.put("endpointslices", make_endpoint_slice(name=f"s-{number}-x", service=f"s-{number}"))
    server.faults += [Fault("list", hang=True, plural=late)]
    async with following_api(server, timeout_s=0.3) as followed:
        await followed.until(lambda: True)
        assert len(followed.tracker.services()) == 10
        assert all(len(followed.served(each)) == 1 for each in followed.tracker.services())
    lists = [seen.plural for seen in server.requests("list")]
    assert lists.count(late) > 4, "the one that hung, and four pages"


async def test_the_selectors_of_kube_proxy_are_asked_for_and_followed(server):
    """A Service that stops matching is one that is gone."""
    server.put("services", make_service(name="foreign", labels={"service.kubernetes.io/service-proxy-name": "x"}))
    server.put("services", make_service(name="headless", cluster_ips=["None"]))
    server.put("services", make_service())
    async with following_api(server) as followed:
        await followed.serves({"10.96.0.10:80": ""})
        assert followed.tracker.services() == {WEB}
        server.put("services", make_service(labels={"service.kubernetes.io/service-proxy-name": "x"}))
        await followed.serves({})
        server.put("services", make_service())
        await followed.serves({"10.96.0.10:80": ""})
    asked = {(seen.plural, seen.query["labelSelector"], seen.query.get("fieldSelector")) for seen in server.seen}
    assert asked == {
        ("services", "!service.kubernetes.io/service-proxy-name", "spec.clusterIP!=None"),
        ("endpointslices", "!service.kubernetes.io/headless", None),
    }


FAULTS = [
    Fault("list", status=401),
    Fault("list", status=403),
    Fault("list", status=500),
    Fault("list", status=429, headers=(("Retry-After", "1"),)),
    Fault("list", drop_after=300),
    Fault("list", drop_after=0),
    Fault("list", insert=b"<html>"),
    Fault("list", insert=b'{"metadata":{},"items":[{"metadata":{"na'),
    Fault("list", insert=b'{"metadata":{"resourceVersion":"1"},"items":[{"spec":{}}]}'),
    Fault("list", hang=True),
    Fault("watch", status=401),
    Fault("watch", status=410),
    Fault("watch", status=500),
    Fault("watch", insert=b"garbage\n"),
    Fault("watch", insert=b'{"type":"ADDED","object":{"metad'),
    Fault("watch", insert=b'{"type":"ERROR","object":{"code":410,"message":"too old"}}\n'),
    Fault("watch", drop_after=10),
    Fault("watch", hang=True),
]


@pytest.mark.kube_proxy("6.2-9")
@pytest.mark.parametrize("plural", ["services", "endpointslices"])
@pytest.mark.parametrize(
    "fault", FAULTS, ids=lambda fault: f"{fault.verb}-{fault.status or fault.insert[:8] or fault.hang}"
)
async def test_an_api_server_that_fails_disturbs_nothing_and_is_followed_again(server, fault, plural):
    server.put("services", make_service())
    server.put("endpointslices", make_endpoint_slice())
    server.faults += [replace(fault, plural=plural), replace(fault, plural=plural)]
    async with following_api(server, timeout_s=0.3, watch_s=1) as followed:
        await followed.serves(SERVED)
        server.put("endpointslices", make_endpoint_slice(endpoints=["10.244.1.6"]))
        server.put("services", make_service(cluster_ips=["10.96.0.11"]))
        await followed.serves({"10.96.0.11:80": "10.244.1.6:8080"})
        await eventually(lambda: not followed.source.away)
    assert server.faults == []


async def test_what_was_deleted_behind_a_gap_is_gone_without_a_flap(server):
    for name, address in (("web", "10.96.0.10"), ("other", "10.96.0.20")):
        server.put("services", make_service(name=name, cluster_ips=[address]))
    async with following_api(server) as followed:
        await followed.serves({"10.96.0.20:80": ""}, OTHER)
        seen = []
        followed.changed = lambda: seen.append(followed.served())
        server.faults += [Fault("watch", status=500)] * 4
        server.drop_connections()
        server.delete("services", "other", "default")
        server.compact()
        await followed.serves({}, OTHER)
        assert followed.served() == {"10.96.0.10:80": ""}
        assert seen
        assert all(served == {"10.96.0.10:80": ""} for served in seen)


@pytest.mark.kube_proxy("6.2-9")
async def test_away_says_why_and_traffic_keeps_its_frontends(server):
    server.put("services", make_service())
    async with following_api(server) as followed:
        await followed.serves({"10.96.0.10:80": ""})
        server.forbidden |= {("watch", "services"), ("list", "services")}
        server.drop_connections()
        await eventually(lambda: "not permitted" in followed.source.away)
        assert followed.served() == {"10.96.0.10:80": ""}
        server.forbidden.clear()
        server.put("services", make_service(cluster_ips=["10.96.0.11"]))
        await followed.serves({"10.96.0.11:80": ""})
        await eventually(lambda: not followed.source.away)


@pytest.mark.kube_proxy("6.2-9")
async def test_a_server_that_restarts_is_followed_again_and_its_lost_past_is_no_loss(server):
    server.put("services", make_service())
    async with following_api(server) as followed:
        await followed.serves({"10.96.0.10:80": ""})
        await server.down()
        await eventually(lambda: "Connect" in followed.source.away or "refused" in followed.source.away)
        assert followed.served() == {"10.96.0.10:80": ""}
        server.put("services", make_service(cluster_ips=["10.96.0.11"]))
        server.put("services", make_service(name="other", cluster_ips=["10.96.0.20"]))
        server.compact()
        await server.up()
        await followed.serves({"10.96.0.11:80": ""})
        await followed.serves({"10.96.0.20:80": ""}, OTHER)
        await eventually(lambda: not followed.source.away)


@pytest.mark.kube_proxy("6.2-9")
async def test_a_server_that_was_restored_to_an_older_state_is_listed_again(server):
    server.put("services", make_service())
    async with following_api(server) as followed:
        for last in range(1, 6):
            server.put("services", make_service(cluster_ips=[f"10.96.0.1{last}"]))
        await followed.serves({"10.96.0.15:80": ""})
        await server.down()
        server.history.clear()
        server.revision = 2
        server.put("services", make_service(cluster_ips=["10.96.0.12"]))
        await server.up()
        # A server sends bookmarks now and then; here until the watch stands again and hears one.
        await eventually(lambda: server.bookmark() or followed.served() == {"10.96.0.12:80": ""})


async def test_a_list_of_30_mb_is_taken_in_page_by_page_without_what_nobody_reads(server):
    noise = [{"manager": "controller", "fieldsV1": {f"f:field-{number}": {} for number in range(800)}}]
    for number in range(2000):
        made = make_service(name=f"s-{number}", cluster_ips=[f"10.97.{number >> 8}.{number & 255}"])
        made["metadata"]["managedFields"] = noise
        server.put("services", made)
    size = sum(len(json(each)) for each in server.objects["services"].values())
    assert size > 30_000_000
    batches, source = [], KubernetesSource(client_of(server, page=100, timeout_s=60.0))
    async with aclosing(source.batches()) as stream:
        async for batch in stream:
            batches.append(batch)
            if batch.complete:
                break
    assert max(len(batch.updates) for batch in batches) == 100
    bodies = [update.body for batch in batches for update in batch.updates]
    assert len(bodies) == 2000
    assert max(map(len, bodies)) < 1000
    assert not any(b"managedFields" in body for body in bodies)


async def test_the_same_objects_give_the_same_frontends_from_every_source(server, etcd_server, tmp_path):
    worlds = [FilesWorld(tmp_path / "manifests"), EtcdWorld(etcd_server), KubernetesWorld(server)]
    objects = [make_service(), make_endpoint_slice()]
    objects += [make_service(name="other", cluster_ips=["10.96.0.20", "fd00::20"], ports=[("dns", "UDP", 53)])]
    objects += [make_endpoint_slice(name="o-1", service="other", ports=[("dns", "UDP", 5353)])]
    objects += [make_endpoint_slice(name="o-2", service="other", address_type="IPv6", endpoints=["fd01::5"])]
    found = []
    for world in worlds:
        for made in objects:
            await world.put(made)
        async with following(world) as followed:
            await followed.until(lambda followed=followed: len(followed.tracker.services()) == 2)
            await followed.serves(SERVED)
            found.append({name: followed.tracker.frontends(name) for name in (WEB, OTHER)})
        await world.close()
    assert found[0] == found[1] == found[2]


PLUGIN = """#!/bin/sh
printf '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"%s"}}' "$(cat "$1")"
"""


@pytest.mark.parametrize("way", ["file", "plugin"])
async def test_credentials_that_are_renewed_while_we_run_are_taken_up(server, tmp_path, way):
    token, plugin, kubeconfig = tmp_path / "token", tmp_path / "plugin", tmp_path / "kubeconfig"
    plugin.write_text(PLUGIN)
    plugin.chmod(0o700)
    token.write_text("one")
    server.accept_only("one")
    server.put("services", make_service())
    exec_plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin", "args": [str(token)]}
    user = {"tokenFile": "token"} if way == "file" else {"exec": exec_plugin}
    named = {"contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}], "current-context": "x"}
    clusters, users = [{"name": "x", "cluster": {"server": server.url}}], [{"name": "x", "user": user}]
    kubeconfig.write_bytes(json({**named, "clusters": clusters, "users": users}))
    settings = Settings("node-a", KubernetesSettings(Given("--kubeconfig", str(kubeconfig)), Given("--master", "")))
    followed = Followed()
    task = asyncio.create_task(followed.follow(open_source(settings).source))
    try:
        await followed.serves({"10.96.0.10:80": ""})
        token.write_text("two")
        server.accept_only("two")
        server.drop_connections()
        server.put("services", make_service(cluster_ips=["10.96.0.11"]))
        await followed.serves({"10.96.0.11:80": ""})
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
