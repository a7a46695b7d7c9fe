"""Services and EndpointSlices as JSON under `<prefix>/services/` and `<prefix>/endpointslices/` in etcd."""

from asyncio import sleep
from collections.abc import AsyncGenerator
from contextlib import aclosing

from controlloop.errors import CompactedError, Skipped, UnavailableError
from controlloop.etcd import Etcd, Listing, WatchBatch
from controlloop.logs import Log
from controlloop.printable import printable
from controlloop.runner import Backoff
from proxy.objects import Kind, ObjectName
from proxy.sources import Batch, Update

log = Log("source")

KINDS = {"services": Kind.SERVICE, "endpointslices": Kind.ENDPOINT_SLICE}


class EtcdSource:
    def __init__(self, etcd: Etcd, prefix: str = "/nodenet") -> None:
        self._etcd = etcd
        # One listing and one watch hold both kinds, so that a Service and its endpoints come from one revision.
        self._prefix = f"{prefix.rstrip('/')}/"
        self.away = ""
        self._unread: dict[str, Skipped] = {}
        self._backoff = Backoff()

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """All objects, then every change. While etcd is away nothing is given out, and nothing is taken back."""
        revision: int | None = None
        try:
            while True:
                try:
                    if revision is None:
                        listing = await self._etcd.list(self._prefix)
                        revision = listing.revision
                        self._is_back()
                        yield self._listed(listing)
                    elif self.away:
                        # A watch that is quiet says nothing of a server that answers.
                        await self._etcd.get(self._prefix)
                        self._is_back()
                    async with aclosing(self._etcd.watch(self._prefix, revision)) as changes:
                        async for change in changes:
                            revision = change.revision
                            if change.put or change.removed:
                                yield self._changed(change)
                except CompactedError as error:
                    revision = None
                    await self._pause("list again", error)
                except UnavailableError as error:
                    self.away = str(error)
                    await self._pause("etcd is away", error)
        finally:
            await self._etcd.close()

    def _is_back(self) -> None:
        self.away = ""
        self._backoff.reset()

    async def _pause(self, event: str, error: Exception) -> None:
        wait_s = self._backoff.next()
        log.warning(event, prefix=self._prefix, error=error, retry_in_s=round(wait_s, 1))
        await sleep(wait_s)

    def _listed(self, listing: Listing) -> Batch:
        self._unread.clear()
        updates = (self._update(item.key, item.value) for item in listing.items)
        return Batch(tuple(filter(None, updates)), listed=True, skipped=tuple(self._unread.values()))

    def _changed(self, change: WatchBatch) -> Batch:
        updates = [self._update(item.key, item.value) for item in change.put]
        updates += [self._update(key, None) for key in change.removed]
        return Batch(tuple(filter(None, updates)), listed=False, skipped=tuple(self._unread.values()))

    def _update(self, key: str, body: bytes | None) -> Update | None:
        """None for a key that is none of our objects; one that should be is named."""
        folder, _, rest = key.removeprefix(self._prefix).partition("/")
        kind = KINDS.get(folder)
        if kind is None:
            return None
        namespace, _, name = rest.partition("/")
        if namespace and name and "/" not in name:
            return Update(kind, ObjectName(namespace, name), body)
        self._unread.pop(key, None)
        if body is not None:
            self._unread[key] = Skipped(printable(key), f"the key is not {self._prefix}{folder}/NAMESPACE/NAME")
        return None
