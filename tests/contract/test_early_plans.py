"""What netproxy plans, and writes, while parts of the first listing are still to come."""

import asyncio
import json
import subprocess

import pytest
from deadline import PATIENCE_S

from controlloop.family import Family
from proxy import daemon
from proxy.config import FilesSettings, ProxyMode, Settings
from proxy.head_start import LEAST
from proxy.objects import Kind, ObjectName
from proxy.sources import Batch, Update

pytestmark = pytest.mark.usefixtures("netns")


def service(number, port=80):
    spec = {"clusterIP": f"10.96.{number >> 8}.{number & 255}", "ports": [{"name": "http", "port": port}]}
    return Update(Kind.SERVICE, ObjectName("default", f"s{number}"), body(f"s{number}", spec=spec))


def served(number):
    """A slice with one endpoint."""
    endpoints = [{"addresses": [f"10.244.{number >> 8}.{number & 255}"], "conditions": {"ready": True}}]
    label = {"kubernetes.io/service-name": f"s{number}"}
    ports = [{"name": "http", "port": 8080, "protocol": "TCP"}]
    content = body(f"s{number}-x", label, addressType="IPv4", endpoints=endpoints, ports=ports)
    return Update(Kind.ENDPOINT_SLICE, ObjectName("default", f"s{number}-x"), content)


def body(name, labels=None, **rest):
    return json.dumps({"metadata": {"namespace": "default", "name": name, "labels": labels or {}}, **rest}).encode()


class Parts:
    """A source whose first listing comes in parts, when the test says so."""

    away = ""

    def __init__(self):
        self.parts = asyncio.Queue()

    async def batches(self):
        while True:
            yield await self.parts.get()

    def give(self, updates, *, complete):
        self.parts.put_nowait(Batch(tuple(updates), listed=False, complete=complete))


@pytest.fixture
async def proxy(tmp_path, monkeypatch):
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    settings = Settings("node", FilesSettings(str(tmp_path)), mode=ProxyMode.NFTABLES)
    made = daemon.Netproxy(settings)
    made._source = made.parts = Parts()
    await made._rules.prepare()
    tasks = [asyncio.create_task(each) for each in (made._watch.run(), made._follow(), made._program())]
    yield made
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def listed():
    argv = ["nft", "list", "ruleset", "ip"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


async def becomes(question):
    async with asyncio.timeout(PATIENCE_S):
        while not question(listed()):  # noqa: ASYNC110 - others make it true
            await asyncio.sleep(0.02)


async def test_what_is_read_goes_ahead_and_what_came_later_counts(proxy):
    parts, rules = proxy.parts, proxy._rules.engines[Family.V4]
    parts.give([served(number) for number in range(LEAST + 10)], complete=False)
    parts.give([service(number) for number in range(LEAST)], complete=False)
    await becomes(lambda text: "10.96.0.7 . tcp . 80 : goto" in text)
    assert "hook" not in listed()
    assert not rules.stats.syncs
    parts.give([service(7, port=81), service(LEAST), service(LEAST + 20)], complete=True)
    await becomes(lambda text: "hook" in text)
    await rules.audit()
    assert rules.in_kernel
    text = listed()
    assert "10.96.0.7 . tcp . 81 : goto" in text
    assert "10.96.0.7 . tcp . 80 " not in text
    assert f"{service_address(LEAST)} . tcp . 80 : goto cluster" in text
    assert f"{service_address(LEAST + 20)} . tcp . 80 : goto refuse" in text


def service_address(number):
    return f"10.96.{number >> 8}.{number & 255}"
