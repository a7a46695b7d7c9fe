"""Services and EndpointSlices from the API server of a Kubernetes cluster."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from functools import partial
from sys import intern

from controlloop.following import Following
from controlloop.kubernetes.client import ApiClient
from controlloop.kubernetes.decode import Change, Name, Page, Put, Removed
from controlloop.kubernetes.resources import ENDPOINT_SLICES, SERVICES, Collection
from proxy.objects import Kind, ObjectName
from proxy.sources import Batch, Update

# As kube-proxy: Services that another proxy claims, and what is headless, never reach us. A Service that is changed so
# comes as one that was deleted.
SELECTED = {
    Kind.SERVICE: SERVICES.where(labels="!service.kubernetes.io/service-proxy-name", fields="spec.clusterIP!=None"),
    Kind.ENDPOINT_SLICE: ENDPOINT_SLICES.where(labels="!service.kubernetes.io/headless"),
}

QUEUED = 2
"""Batches read ahead: a listing is not to lie in memory whole."""

Step = Page[bytes] | Change[bytes]


class KubernetesSource:
    """Two collections, each listed and watched by itself. What is given out first comes page by page."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._turn = asyncio.Lock()
        self._collections = [_Objects(client, kind, collection) for kind, collection in SELECTED.items()]

    @property
    def away(self) -> str:
        return next(filter(None, (each.following.away for each in self._collections)), "")

    async def batches(self) -> AsyncGenerator[Batch, None]:
        queue: asyncio.Queue[Batch | Exception] = asyncio.Queue(QUEUED)
        tasks = [asyncio.create_task(self._forward(each, queue)) for each in self._collections]
        try:
            while True:
                found = await queue.get()
                if isinstance(found, Exception):
                    raise found
                yield found
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._client.close()

    async def _forward(self, collection: "_Objects", queue: asyncio.Queue[Batch | Exception]) -> None:
        try:
            async with aclosing(collection.following.news()) as news:
                async for step in news:
                    # One at a time: what says that all is complete must not overtake what it speaks of.
                    async with self._turn:
                        updates = tuple(collection.updates(step))
                        complete = all(each.listed for each in self._collections)
                        if updates or isinstance(step, Page):
                            await queue.put(Batch(updates, listed=False, complete=complete))
        except Exception as error:  # noqa: BLE001 - it goes to who reads the batches
            await queue.put(error)


class _Objects:
    """The objects of one kind."""

    def __init__(self, client: ApiClient, kind: Kind, collection: Collection) -> None:
        self.listed = False
        self.following: Following[Step] = Following(
            f"{collection}", self._listing, self._watch, partial(client.unheard_s, collection)
        )
        self._client = client
        self._kind = kind
        self._collection = collection
        self._known: set[ObjectName] = set()
        self._found: set[ObjectName] = set()
        """What the listing that goes on has brought so far."""

    def updates(self, step: Step) -> Iterator[Update]:
        match step:
            case Page():
                yield from self._page(step)
            case Put(_, name, body):
                self._known.add(object_name(name))
                yield Update(self._kind, object_name(name), body)
            case Removed(_, name):
                self._known.discard(object_name(name))
                yield Update(self._kind, object_name(name), None)

    def _page(self, page: Page[bytes]) -> Iterator[Update]:
        for put in page.listing.objects:
            name = object_name(put.name)
            self._found.add(name)
            yield Update(self._kind, name, put.content)
        self._known |= self._found
        if not page.proceed:
            for name in self._known - self._found:
                yield Update(self._kind, name, None)
            self._known, self._found = self._found, set()
            self.listed = True

    async def _listing(self) -> AsyncGenerator[Step, None]:
        self._found = set()
        async with aclosing(self._client.pages(self._collection, bytes)) as pages:
            async for page in pages:
                yield page

    async def _watch(self, after: str) -> AsyncGenerator[Step, None]:
        async with aclosing(self._client.watch(self._collection, bytes, after)) as changes:
            async for change in changes:
                yield change


def object_name(name: Name) -> ObjectName:
    # Tens of thousands of objects are in a handful of namespaces.
    return ObjectName(intern(name.namespace), name.name)
