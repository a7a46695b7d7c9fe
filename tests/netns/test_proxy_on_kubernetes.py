"""netproxy as a process on an API server: what the server and its configuration file tell it is in the rules."""

import asyncio
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest
import yaml
from apiserver import Fault, node, running_apiserver
from builders import make_endpoint, make_endpoint_slice, make_service

from controlloop.client import UnreachableError, get_json

ROOT = Path(__file__).parents[2]
NETPROXY = Path(sys.executable).parent / "netproxy"
DEADLINE_S = 60.0
HEAD = {"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration"}
CALM = {"conntrack": {"maxPerCore": 0}, "oomScoreAdj": 0, "mode": "nftables", "hostnameOverride": "node-a"}
"""Nothing is set that is the whole machine's."""


@pytest.fixture
async def server(netns):
    async with running_apiserver() as made:
        own = node("node-a", labels={"topology.kubernetes.io/zone": "a"})
        own["status"]["addresses"] = [{"type": "InternalIP", "address": "192.0.2.7"}]
        made.put("nodes", own)
        made.put("servicecidrs", {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12"]}})
        made.put("services", make_service())
        made.put("endpointslices", make_endpoint_slice())
        yield made


class Proxy:
    def __init__(self, directory, process):
        self.directory, self.process = directory, process

    @property
    def status(self):
        try:
            return get_json(self.directory / "nodenet/netproxy.sock", "/status")
        except UnreachableError:
            return {}

    @property
    def log(self):
        return (self.directory / "log").read_text()

    async def until(self, condition):
        """Asked again and again: a kernel tells us nothing. With the log, when it does not come true."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not await asyncio.to_thread(condition):
                    assert self.process.returncode is None, self.log
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(self.log) from None


def write(path, server, **fields):
    """A configuration whose kubeconfig leads to the server."""
    kubeconfig = path.with_name("kubeconfig")
    cluster = {"clusters": [{"name": "c", "cluster": {"server": server.url}}]}
    context = {"contexts": [{"name": "c", "context": {"cluster": "c"}}], "current-context": "c"}
    kubeconfig.write_text(yaml.safe_dump({**cluster, **context}))
    new = path.with_name("new")
    new.write_text(yaml.safe_dump({**HEAD, **CALM, "clientConnection": {"kubeconfig": str(kubeconfig)}, **fields}))
    new.rename(path)


@asynccontextmanager
async def running(directory, *argv):
    (directory / "nodenet").mkdir(exist_ok=True)
    with (directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(NETPROXY), *argv, stderr=log, env={**os.environ, "RUNTIME_DIRECTORY": str(directory / "nodenet")}
        )
    try:
        yield Proxy(directory, process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def rules():
    return subprocess.run(
        ["nft", "list", "table", "ip", "netproxy"], capture_output=True, text=True, check=False
    ).stdout


@pytest.mark.kube_proxy("6.2-9", "6.1-46", "gap 3.9-2", "extra-9", "gap 5.5-3", "gap 5.5-4")
async def test_objects_node_and_configuration_are_followed_through_outages(server, tmp_path):
    config = tmp_path / "config.yaml"
    write(config, server, clusterCIDR="10.244.0.0/16")
    async with running(tmp_path, "--config", str(config)) as proxy:
        await proxy.until(lambda: proxy.status.get("ready"))
        assert proxy.status["source"] == {"kind": "kubernetes", "away": None, "since": None}
        told = rules()
        for part in ("10.96.0.10", "10.244.1.5", "192.0.2.7", "10.244.0.0/16", "10.96.0.0/12"):
            assert part in told, part

        server.put("servicecidrs", {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.200.0.0/16"]}})
        await proxy.until(lambda: "10.200.0.0/16" in rules())

        write(config, server, clusterCIDR="10.245.0.0/16", mode="iptables", clientConnection={"qps": 9})
        await proxy.until(lambda: "10.245.0.0/16" in rules())
        assert "10.244.0.0/16" not in rules()
        assert 'waits_for_restart="source mode"' in proxy.log

        server.faults += [Fault("watch", status=500)] * 1000
        server.drop_connections()
        await proxy.until(lambda: proxy.status["source"]["away"])
        server.faults.clear()
        assert "10.244.1.5" in rules()
        server.put("endpointslices", make_endpoint_slice(endpoints=["10.244.1.6"]))
        await proxy.until(lambda: "10.244.1.6" in rules() and not proxy.status["source"]["away"])

    used = {(seen.verb, seen.plural) for seen in server.seen}
    documents = yaml.safe_load_all((ROOT / "docs/kubernetes/netproxy-rbac.yaml").read_text())
    (role,) = [document for document in documents if document["kind"] == "ClusterRole"]
    assert used == {(verb, plural) for rule in role["rules"] for plural in rule["resources"] for verb in rule["verbs"]}
    assert "10.244.1.6" in rules(), "rules outlive the daemon"


@pytest.mark.kube_proxy("gap 5.6-3")
@pytest.mark.parametrize("missing", ["services", "endpointslices"])
async def test_nothing_is_written_before_both_lists_are_in(server, tmp_path, missing):
    server.forbidden |= {("list", missing)}
    config = tmp_path / "config.yaml"
    write(config, server)
    async with running(tmp_path, "--config", str(config)) as proxy:
        await proxy.until(lambda: "not permitted" in str(proxy.status.get("source", {}).get("away")))
        assert rules() == ""
        assert not proxy.status["ready"]
        server.forbidden.clear()
        await proxy.until(lambda: proxy.status["ready"])
        assert "10.244.1.5" in rules()


def answers_at(address):
    """The status of a Service's health check; 0 when nobody listens."""
    connection = HTTPConnection(address, 31000, timeout=1)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


@pytest.fixture
def two_addresses(netns):
    for address in ("192.0.2.7", "192.0.2.8"):
        subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)


@pytest.mark.kube_proxy("gap 3.9-5", "gap 5.5-3")
async def test_health_checks_and_node_ports_move_with_the_nodes_address(server, two_addresses, tmp_path):
    made = make_service()
    made["spec"] |= {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000}
    made["spec"]["ports"][0]["nodePort"] = 30000
    made["status"] = {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}}
    server.put("services", made)
    server.put("endpointslices", make_endpoint_slice(endpoints=[make_endpoint("10.244.1.5", node="node-a")]))
    config = tmp_path / "config.yaml"
    write(config, server, clusterCIDR="10.244.0.0/16")
    async with running(tmp_path, "--config", str(config)) as proxy:
        await proxy.until(lambda: answers_at("192.0.2.7") == 200)
        assert answers_at("192.0.2.8") == 0
        server.merge("nodes", "node-a", {"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.8"}]}})
        await proxy.until(lambda: (answers_at("192.0.2.7"), answers_at("192.0.2.8")) == (0, 200))
        await proxy.until(lambda: "192.0.2.8" in rules() and "192.0.2.7" not in rules())


async def test_a_kubeconfig_that_is_wrong_is_one_line(netns, tmp_path):
    (tmp_path / "k").write_text("clusters: 7\n")
    async with running(tmp_path, "--kubeconfig", str(tmp_path / "k")) as proxy, asyncio.timeout(DEADLINE_S):
        assert await proxy.process.wait() == 2
    assert proxy.log == f"netproxy: --kubeconfig {tmp_path}/k: Expected `array | null`, got `int` - at `$.clusters`\n"
