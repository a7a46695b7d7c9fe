"""The places that Services come from, made for a test, and who follows them."""

import asyncio
from contextlib import asynccontextmanager
from itertools import count
from json import loads

from apiclient import client_of
from apiserver import running_apiserver
from builders import json
from deadline import PATIENCE_S

from controlloop.etcd import Etcd
from proxy.frontends import ServiceName
from proxy.node import Node
from proxy.services import Options
from proxy.sources.etcd import EtcdSource
from proxy.sources.files import FilesSource
from proxy.sources.kubernetes import KubernetesSource
from proxy.tracker import Tracker

PLURALS = {"Service": "services", "EndpointSlice": "endpointslices"}
FOLDERS = {**PLURALS, "Endpoints": "endpoints"}

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


class KubernetesWorld:
    def __init__(self, server):
        self.server = server

    def source(self):
        return KubernetesSource(client_of(self.server))

    async def put(self, made, raw=None):
        self.server.put(PLURALS[made["kind"]], made if raw is None else {**made, **loads(raw)})

    async def delete(self, made):
        self.server.delete(PLURALS[made["kind"]], made["metadata"]["name"], made["metadata"]["namespace"])

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


@asynccontextmanager
async def world_of(kind, request, tmp_path):
    if kind == "kubernetes":
        async with running_apiserver() as server:
            yield KubernetesWorld(server)
        return
    made = FilesWorld(tmp_path / "manifests") if kind == "files" else EtcdWorld(request.getfixturevalue("etcd_server"))
    yield made
    await made.close()


class Followed:
    """A tracker that takes in all that a source says."""

    changed = staticmethod(lambda: None)

    def __init__(self):
        self.tracker = Tracker(Node("node-a"), Options())
        self.batches = 0
        self._moved = asyncio.Event()

    async def follow(self, source):
        async for batch in source.batches():
            self.tracker.apply(batch)
            assert batch.complete or not self.batches, "what was complete once stays so"
            self.batches += batch.complete
            self.changed()
            self._moved.set()

    def served(self, service=WEB):
        return {
            f"{each.address}:{each.port}": " ".join(map(str, each.endpoints))
            for each in self.tracker.frontends(service)
        }

    async def until(self, condition):
        async with asyncio.timeout(PATIENCE_S):
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


async def eventually(condition):
    """For what nobody tells of."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
