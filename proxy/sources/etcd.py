"""Services, EndpointSlices and Endpoints as JSON in etcd, below `<prefix>/services/` and so on (KINDS)."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from controlloop.errors import Skipped
from controlloop.etcd import Etcd, Listing, WatchBatch
from controlloop.following import Following
from controlloop.printable import printable
from proxy.objects import Kind, ObjectName
from proxy.sources import Batch, Update

KINDS = {"services": Kind.SERVICE, "endpointslices": Kind.ENDPOINT_SLICE, "endpoints": Kind.ENDPOINTS}
FOLDERS = {kind: folder for folder, kind in KINDS.items()}


class EtcdSource:
    def __init__(self, etcd: Etcd, prefix: str = "/nodenet") -> None:
        self._etcd = etcd
        # One listing and one watch hold all kinds, so that a Service and its endpoints come from one revision.
        self._prefix = f"{prefix.rstrip('/')}/"
        self._unread: dict[str, Skipped] = {}
        self._following: Following[Listing | WatchBatch] = Following(
            f"objects below {self._prefix}", self._listing, self._watch, etcd.unheard_s
        )

    @property
    def away(self) -> str:
        return self._following.away

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """All objects, then every change. While etcd is away nothing is given out, and nothing is taken back."""
        try:
            async with aclosing(self._following.news()) as news:
                async for step in news:
                    if isinstance(step, Listing):
                        yield self._listed(step)
                    elif step.put or step.removed:
                        yield self._changed(step)
        finally:
            await self._etcd.close()

    async def _listing(self) -> AsyncGenerator[Listing | WatchBatch, None]:
        yield await self._etcd.list(self._prefix)

    async def _watch(self, after: int) -> AsyncGenerator[Listing | WatchBatch, None]:
        async with aclosing(self._etcd.watch(self._prefix, after)) as changes:
            async for change in changes:
                yield change

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
