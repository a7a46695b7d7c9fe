"""The node as an API server and a kernel tell it, at the start and while it changes."""

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from apiclient import client_of
from apiserver import node, running_apiserver
from deadline import PATIENCE_S

from controlloop.etcd_settings import EtcdSettings
from controlloop.family import Family
from controlloop.goflags import Given
from proxy import node_watch
from proxy.config import Detection, DetectLocal, KubernetesSettings, ProxyMode, Settings
from proxy.node_api import NodeApi
from proxy.node_watch import NodeWatch

SETTINGS = Settings(
    "me", KubernetesSettings(Given("--kubeconfig", "/k"), Given("--master", "")), mode=ProxyMode.NFTABLES
)


def own_node(*pod_cidrs, addresses=("192.168.0.1",), zone="a", **more):
    made = node("me", *pod_cidrs, labels={"topology.kubernetes.io/zone": zone}, **more)
    made["status"]["addresses"] = [{"type": "InternalIP", "address": address} for address in addresses]
    return made


def service_cidr(name, *cidrs):
    return {"metadata": {"name": name}, "spec": {"cidrs": list(cidrs)}}


@pytest.fixture
async def server():
    async with running_apiserver() as made:
        yield made


class Watched:
    def __init__(self, settings, api):
        self.watch = NodeWatch(settings, api, self._note)
        self._moved = asyncio.Event()

    def _note(self):
        self._moved.set()

    async def until(self, condition):
        async with asyncio.timeout(PATIENCE_S):
            while not condition(self.watch):
                await self._moved.wait()
                self._moved.clear()


@asynccontextmanager
async def watching(server, settings=SETTINGS):
    client = client_of(server) if server else None
    watched = Watched(settings, NodeApi(client, settings.node_name) if client else None)
    task = asyncio.create_task(watched.watch.run())
    try:
        yield watched
        assert not task.done()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        if client:
            await client.close()


@pytest.mark.kube_proxy("6.1-44")
async def test_a_node_that_comes_late_is_waited_for_and_followed(server):
    async with watching(server) as watched:
        known = asyncio.ensure_future(watched.watch.known())
        server.put("nodes", own_node(addresses=()))
        await watched.until(lambda watch: watch.node.zone == "a")
        assert watched.watch.is_eligible
        assert not known.done()
        server.put("nodes", own_node())
        async with asyncio.timeout(PATIENCE_S):
            await known
        assert watched.watch.node.addresses == (ip_address("192.168.0.1"),)
        assert watched.watch.surroundings(Family.V4).node_port_addresses == {ip_address("192.168.0.1")}
        server.put("nodes", own_node(addresses=("192.168.0.2",), zone="b"))
        await watched.until(lambda watch: watch.node.zone == "b")
        assert watched.watch.surroundings(Family.V4).node_port_addresses == {ip_address("192.168.0.2")}


@pytest.mark.kube_proxy("6.1-44")
async def test_pod_cidrs_that_come_late_or_change_are_followed(server):
    settings = replace(SETTINGS, detection=Detection(DetectLocal.NODE_CIDR))
    server.put("nodes", own_node())
    async with watching(server, settings) as watched:
        known = asyncio.ensure_future(watched.watch.known())
        await watched.until(lambda watch: watch.node.addresses)
        assert not known.done()
        for cidr in ("10.244.7.0/24", "10.244.8.0/24"):
            server.put("nodes", own_node(cidr))
            await watched.until(lambda watch, cidr=cidr: watch.surroundings(Family.V4).pods == ip_network(cidr))
        async with asyncio.timeout(PATIENCE_S):
            await known


@pytest.mark.kube_proxy("6.1-44", "gap 3.9-7")
async def test_a_node_that_is_gone_keeps_its_rules_and_loses_its_load_balancer(server):
    server.put("nodes", own_node())
    async with watching(server) as watched:
        await watched.until(lambda watch: watch.is_eligible)
        before = watched.watch.node
        server.delete("nodes", "me")
        await watched.until(lambda watch: not watch.is_eligible)
        assert watched.watch.node == before
        server.put("nodes", own_node())
        await watched.until(lambda watch: watch.is_eligible)


@pytest.mark.kube_proxy("6.1-28", "6.2-49", "extra-9", "gap 5.5-3")
async def test_service_cidrs_are_followed(server):
    server.put("servicecidrs", service_cidr("kubernetes", "10.96.0.0/12", "fd00:96::/108"))
    server.put("nodes", own_node())
    async with watching(server) as watched:
        await watched.until(lambda watch: watch.surroundings(Family.V6).service_cidrs == (ip_network("fd00:96::/108"),))
        server.put("servicecidrs", service_cidr("more", "10.200.0.0/16"))
        await watched.until(lambda watch: len(watch.surroundings(Family.V4).service_cidrs) == 2)
        server.delete("servicecidrs", "more")
        await watched.until(lambda watch: len(watch.surroundings(Family.V4).service_cidrs) == 1)


async def test_service_cidrs_that_are_not_for_us_are_done_without_and_said_once(server, caplog):
    caplog.set_level("INFO")
    server.forbidden |= {("list", "servicecidrs")}
    server.put("nodes", own_node())
    async with watching(server) as watched:
        async with asyncio.timeout(PATIENCE_S):
            await watched.watch.known()
            await server.asked("list", 2)
        await watched.until(lambda _: "packets to unused service addresses are not dropped" in caplog.text)
        assert watched.watch.surroundings(Family.V4).service_cidrs == ()
    assert caplog.text.count("packets to unused") == 1


async def test_a_start_goes_on_without_an_api_that_says_nothing(server, monkeypatch, caplog):
    monkeypatch.setattr(node_watch, "WAIT_S", 0.05)
    async with watching(server) as watched, asyncio.timeout(PATIENCE_S):
        await watched.watch.known()
    assert "going on without" in caplog.text


async def test_changed_settings_count_at_once(server):
    server.put("nodes", own_node())
    async with watching(server) as watched:
        await watched.until(lambda watch: watch.is_eligible)
        watched.watch.apply(replace(SETTINGS, masquerade_all=True))
        await watched.until(lambda watch: watch.surroundings(Family.V4).masquerade_all)


async def test_without_an_api_the_kernel_tells():
    async with watching(None, Settings("me", EtcdSettings(("http://e",), "/nodenet"))) as watched:
        async with asyncio.timeout(PATIENCE_S):
            await watched.watch.known()
        assert ip_address("127.0.0.1") in watched.watch.local_addresses(Family.V4)
        assert watched.watch.is_eligible
