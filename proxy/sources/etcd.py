"""Services, EndpointSlices and Endpoints as JSON in etcd, below `<prefix>/services/` and so on (KINDS)."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from controlloop.errors import Skipped
from controlloop.etcd import Etcd, Listing, Page, WatchBatch
from controlloop.following import Following
from controlloop.printable import printable
from proxy.objects import Kind, ObjectName
from proxy.sources import Batch, Update

KINDS = {"services": Kind.SERVICE, "endpointslices": Kind.ENDPOINT_SLICE, "endpoints": Kind.ENDPOINTS}
Step = Listing | Page | WatchBatch
FOLDERS = {kind: folder for folder, kind in KINDS.items()}


class EtcdSource:
    def __init__(self, etcd: Etcd, prefix: str = "/nodenet") -> None:
        self._etcd = etcd
        # One listing and one watch hold all kinds, so that a Service and its endpoints come from one revision.
        self._prefix = f"{prefix.rstrip('/')}/"
        self._unread: dict[str, Skipped] = {}
        self._gave_some = False
        self._following: Following[Step] = Following(
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
                    match step:
                        case Listing():
                            yield self._listed(step)
                        case Page():
                            yield self._page(step)
                        case WatchBatch() if step.put or step.removed:
                            yield self._changed(step)
        finally:
            await self._etcd.close()

    async def _listing(self) -> AsyncGenerator[Step, None]:
        """By pages, which are read while the next one comes; whole where something given out before may be gone."""
        if self._gave_some:
            yield await self._etcd.list(self._prefix)
            return
        async with aclosing(self._etcd.pages(self._prefix)) as pages:
            async for page in pages:
                yield page

    async def _watch(self, after: int) -> AsyncGenerator[Step, None]:
        async with aclosing(self._etcd.watch(self._prefix, after)) as changes:
            async for change in changes:
                yield change

    def _listed(self, listing: Listing) -> Batch:
        self._unread.clear()
        return Batch(self._updates(listing), listed=True, skipped=tuple(self._unread.values()))

    def _page(self, page: Page) -> Batch:
        self._gave_some = True
        return Batch(self._updates(page), listed=False, skipped=tuple(self._unread.values()), complete=page.is_last)

    def _updates(self, found: Listing | Page) -> tuple[Update, ...]:
        return tuple(filter(None, (self._update(item.key, item.value) for item in found.items)))

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
