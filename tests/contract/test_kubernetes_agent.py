"""The agent on Nodes of an API server, with a kernel in memory."""

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address

import pytest
from apiclient import V4, P, annotations, client_of
from apiserver import node, running_apiserver
from deadline import PATIENCE_S

from controlloop.family import Family
from netagent.agent import Agent, Surroundings
from netagent.backends.backend import Node
from netagent.backends.vxlan import Vxlan
from netagent.own_pod import node_of
from netagent.state import Underlay
from netagent.status import Status
from subnet_alloc.annotations import Annotations
from subnet_alloc.kubernetes import KubernetesLessor, KubernetesRegistry


class MemoryKernel:
    def __init__(self):
        self.objects = {}

    async def dump(self):
        return dict(self.objects)

    async def apply(self, delta):
        delta.apply_to(self.objects)


@pytest.fixture
async def server():
    async with running_apiserver() as made:
        made.put("nodes", node("me", "10.5.1.0/24"))
        made.put("nodes", node("peer", "10.5.2.0/24", annotations=annotations(2)))
        yield made


class Running:
    def __init__(self, server, directory):
        client, prefix, address = client_of(server), Annotations(P), {Family.V4: ip_address("192.168.0.1")}
        self.kernel, self.status, self.subnet_file = MemoryKernel(), Status("me"), directory / "subnet.env"
        around = Surroundings(
            Node("me", Vxlan(), {Family.V4: Underlay("eth0", 1500, ip_address("192.168.0.1"))}, address),
            V4,
            KubernetesRegistry(client, prefix, "me", directory / "net-conf.json"),
            KubernetesLessor(client, prefix, "me"),
            self.kernel,
            self.subnet_file,
        )
        self.agent = Agent(around, self.status)

    def routes(self):
        return {str(value.prefix) for key, value in self.kernel.objects.items() if key.kind == "route"}


@asynccontextmanager
async def running(server, directory):
    made = Running(server, directory)
    task = asyncio.ensure_future(made.agent.run())
    try:
        yield made
        assert not task.done()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


def mine(server):
    return server.get("nodes", "me")


def conditions(server):
    return {one["type"]: one["status"] for one in mine(server)["status"]["conditions"]}


async def test_a_node_joins_and_says_so(server, tmp_path):
    async with running(server, tmp_path) as agent:
        await until(lambda: agent.routes() == {"10.5.2.0/24"} and not agent.status.gap())
        await until(lambda: conditions(server).get("NetworkUnavailable") == "False")
        assert mine(server)["metadata"]["annotations"][f"{P}public-ip"] == "192.168.0.1"
        assert "FLANNEL_SUBNET=10.5.1.1/24" in agent.subnet_file.read_text()


def pod(node_name=""):
    spec = {"nodeName": node_name} if node_name else {}
    return {"metadata": {"name": "flannel-x1", "namespace": "kube-flannel"}, "spec": {"containers": [], **spec}}


@pytest.mark.flannel("21")
async def test_the_own_pod_tells_on_which_node_we_are(server):
    """It is waited for: the API server may be away, refuse, or not have placed the Pod yet."""
    server.forbidden.add(("get", "pods"))
    client = client_of(server)
    asked = asyncio.ensure_future(node_of("kube-flannel/flannel-x1", client))
    await server.asked("get")
    server.forbidden.clear()
    server.put("pods", pod())
    await server.asked("get", times=3)
    assert not asked.done()
    server.put("pods", pod("me"))
    assert await asyncio.wait_for(asked, PATIENCE_S) == "me"
    await client.close()


async def test_what_somebody_changes_on_the_own_node_comes_back(server, tmp_path):
    async with running(server, tmp_path) as agent:
        await until(lambda: agent.routes() and not agent.status.gap())
        for _ in range(3):
            server.annotate("me", **{f"{P}public-ip": "192.168.0.99"})
            await until(lambda: mine(server)["metadata"]["annotations"][f"{P}public-ip"] == "192.168.0.1")


async def test_another_subnet_for_the_node_reaches_the_subnet_file(server, tmp_path):
    async with running(server, tmp_path) as agent:
        await until(lambda: agent.routes() and not agent.status.gap())
        server.merge("nodes", "me", {"spec": {"podCIDR": "10.5.7.0/24", "podCIDRs": ["10.5.7.0/24"]}})
        await until(lambda: "FLANNEL_SUBNET=10.5.7.1/24" in agent.subnet_file.read_text())


@pytest.mark.flannel("21")
async def test_an_overwritten_public_ip_is_published_and_left_in_peace(server, tmp_path):
    server.annotate("me", **{f"{P}public-ip-overwrite": "203.0.113.9"})
    async with running(server, tmp_path) as agent:
        await until(lambda: agent.routes() and not agent.status.gap())
        await until(lambda: conditions(server).get("NetworkUnavailable") == "False")
        assert mine(server)["metadata"]["annotations"][f"{P}public-ip"] == "203.0.113.9"
        server.put("nodes", node("late", "10.5.3.0/24", annotations=annotations(3, "82:00:00:00:00:03")))
        await until(lambda: agent.routes() == {"10.5.2.0/24", "10.5.3.0/24"})
        assert len(server.requests("patch")) == 2


async def test_peers_come_and_go_through_outages_of_the_api_server(server, tmp_path):
    async with running(server, tmp_path) as agent:
        await until(lambda: agent.routes() == {"10.5.2.0/24"})
        server.drop_connections()
        server.put("nodes", node("late", "10.5.3.0/24", annotations=annotations(3, "82:00:00:00:00:03")))
        server.delete("nodes", "peer")
        server.compact()
        await until(lambda: agent.routes() == {"10.5.3.0/24"})
