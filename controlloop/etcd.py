"""A small asyncio client for etcd v3: what leases and the proxy's etcd source need, and no more.

It speaks with the gRPC messages that aetcd ships. aetcd's own client knows a single host and does not tell at which
revision a watch stands, and both are what recovery is built on, so channels and streams are ours.

One endpoint is in use at a time; one that fails gives way to the next. A read then asks the next endpoint by itself.
A write is never sent twice: after an UnavailableError it may or may not have happened, and the caller reads to know.
Only one that was refused for a token that etcd forgot is sent again, with a new one: it has not happened.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from aetcd import rpc
from msgspec import Struct

from controlloop.errors import CompactedError, OperatorError, UnavailableError
from controlloop.etcd_access import Login, Metadata, Tls, TlsFiles
from controlloop.etcd_endpoint import Endpoint
from controlloop.etcd_past import Past, newest_of, write_of
from controlloop.etcd_settings import EtcdSettings

PAGE = 1000
"""Keys asked for at once: a page of large values stays well inside one deadline."""

# A member cut off from its peers then ends the watch, where it would stay silent for ever.
REQUIRE_LEADER = (("hasleader", "true"),)

OPERATOR_CODES = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)
OPERATOR_TEXTS = ("permission denied", "user name is empty", "authentication failed")
LEAVE_CODES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

Failure = OperatorError | UnavailableError
T = TypeVar("T")


class KeyValue(Struct, frozen=True, gc=False):
    """A Struct, as there are tens of thousands of them in a listing."""

    key: str
    value: bytes
    revision: int
    """Revision of the last write to this key."""
    lease_id: int
    """0: the key does not expire."""
    created: int
    """Revision of the first write since it last was not there."""


@dataclass(frozen=True, slots=True)
class Listing:
    """All keys of a prefix at one revision, in key order."""

    revision: int
    items: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a listing."""

    revision: int
    items: tuple[KeyValue, ...]
    is_last: bool


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """Everything that happened up to and with `revision`; empty when a quiet watch only moves on.

    A key is in `put` or in `removed`, by what happened to it last.
    """

    revision: int
    put: tuple[KeyValue, ...]
    removed: tuple[str, ...]


class Etcd:
    """A connection to a cluster. Use it inside one event loop and `close` it there.

    Each call ends within `timeout_s`. Errors: UnavailableError when no answer or a refusal that time may mend,
    OperatorError when the server wants a user or a permission that we do not have.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        tls: TlsFiles = TlsFiles(),  # noqa: B008 - a constant value
        login: Login | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        """OperatorError for an endpoint or a certificate file that cannot be understood."""
        if not endpoints:
            raise OperatorError("etcd: no endpoint given")
        credentials = Tls(tls)
        self._endpoints = [Endpoint(url, credentials) for url in endpoints]
        self._login = login
        self._timeout_s = timeout_s
        self._unheard_since: float | None = None
        self._past = Past()

    @classmethod
    def at(cls, settings: EtcdSettings) -> "Etcd":
        """The one that the flags name; OperatorError as above."""
        tls = TlsFiles(settings.ca_file, settings.cert_file, settings.key_file)
        login = Login(settings.username, settings.password) if settings.username else None
        return cls(settings.endpoints, tls=tls, login=login)

    async def close(self) -> None:
        """End all calls and streams with an UnavailableError. Whoever asks again gets a new connection: that is the
        way on when our own address changed, and those that are open lead nowhere.
        """
        for endpoint in self._endpoints:
            await endpoint.close()

    def unheard_s(self) -> float:
        """For how long a watch that was begun has been without a server; 0 while one stands, or none was begun."""
        return 0.0 if self._unheard_since is None else time.monotonic() - self._unheard_since

    async def get(self, key: str) -> KeyValue | None:
        answer = await self._read(rpc.RangeRequest(key=key.encode()))
        return key_value(answer.kvs[0]) if answer.kvs else None

    async def list(self, prefix: str) -> Listing:
        """All keys that begin with exactly these bytes, at one revision, however many they are."""
        items: list[KeyValue] = []
        async with aclosing(self.pages(prefix)) as pages:
            async for page in pages:
                items += page.items
        return Listing(page.revision, tuple(items))

    async def pages(self, prefix: str) -> AsyncGenerator[Page, None]:
        """The same in parts. While one is looked at, the next is on its way."""
        start, end = prefix_range(prefix)
        revision, newest = 0, None
        asked = self._ask_for_page(start, end, revision)
        try:
            while True:
                answer = await asked
                revision = revision or answer.header.revision
                newest = newest_of(filter(None, (newest, newest_of(answer.kvs))))
                self._past.listed(prefix, revision, newest)
                if answer.more:
                    asked = self._ask_for_page(answer.kvs[-1].key + b"\0", end, revision)
                    await _sent()
                yield Page(revision, tuple(map(key_value, answer.kvs)), is_last=not answer.more)
                if not answer.more:
                    return
        finally:
            asked.cancel()

    def _ask_for_page(self, start: bytes, end: bytes, revision: int) -> asyncio.Task[Any]:
        request = rpc.RangeRequest(key=start, range_end=end, limit=PAGE, revision=revision)
        return asyncio.create_task(self._read(request))

    async def create(self, key: str, value: bytes, lease_id: int = 0) -> int | None:
        """Write a key that must not exist; its revision, or None when it exists."""
        absent = rpc.Compare(key=key.encode(), target=rpc.Compare.VERSION, result=rpc.Compare.EQUAL, version=0)
        return await self._transact(absent, put_operation(key, value, lease_id))

    async def replace(self, key: str, value: bytes, revision: int, lease_id: int = 0) -> int | None:
        """Overwrite a key whose last write is `revision`; its new revision, or None when somebody was faster."""
        return await self._transact(unchanged(key, revision), put_operation(key, value, lease_id))

    async def put(self, key: str, value: bytes) -> int:
        """Write whatever is there; gives back the revision."""
        answer = await self._write(lambda at: at.kv.Put, rpc.PutRequest(key=key.encode(), value=value))
        return int(answer.header.revision)

    async def delete(self, key: str, revision: int | None = None) -> bool:
        """Remove a key, with `revision` only if that was its last write. False when it was not there, or changed."""
        request = rpc.DeleteRangeRequest(key=key.encode())
        if revision is not None:
            operation = rpc.RequestOp(request_delete_range=request)
            return await self._transact(unchanged(key, revision), operation) is not None
        answer = await self._write(lambda at: at.kv.DeleteRange, request)
        return bool(answer.deleted)

    async def grant(self, ttl_s: int) -> int:
        """A new lease; keys written with its id vanish when it is not kept alive."""
        return int((await self._write(lambda at: at.lease.LeaseGrant, rpc.LeaseGrantRequest(TTL=ttl_s))).ID)

    async def revoke(self, lease_id: int) -> None:
        """End a lease and with it its keys. One that is gone already is no error."""

        async def attempt(endpoint: Endpoint, metadata: Metadata) -> None:
            request = rpc.LeaseRevokeRequest(ID=lease_id)
            try:
                await endpoint.lease.LeaseRevoke(request, timeout=self._timeout_s, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise

        with self._translated() as endpoint:
            await self._authorized(endpoint, attempt)

    async def keep_alive(self, lease_id: int) -> int:
        """Renew a lease; the seconds it now has, 0 when it is gone."""

        async def attempt(endpoint: Endpoint, metadata: Metadata) -> int:
            call = endpoint.lease.LeaseKeepAlive(timeout=self._timeout_s, metadata=metadata)
            try:
                await call.write(rpc.LeaseKeepAliveRequest(ID=lease_id))
                return int((await self._next(call, endpoint)).TTL)
            finally:
                call.cancel()

        with self._translated() as endpoint:
            return await self._authorized(endpoint, attempt)

    async def watch(self, prefix: str, after: int) -> AsyncGenerator[WatchBatch, None]:
        """Changes after a revision, for ever, on a stream of its own that ends with the iteration.

        CompactedError: the store no longer knows what happened since, list again. That is also said of a store that
        was restored or emptied: behind `after` it would let a watch wait in silence for the future, and one that came
        to `after` another way would never tell what happened on it.
        """
        if self._login:
            # A watch with a stale token is refused as if the user had no permission; a read tells the two apart.
            await self._read(first_key(prefix))
        with self._translated() as endpoint:
            await self._refuse_another_past(endpoint, prefix)
            call = endpoint.watch.Watch(metadata=(*REQUIRE_LEADER, *await self._metadata(endpoint)))
            try:
                created = await self._create_watch(call, endpoint, prefix, after)
                if created.header.revision < after:
                    raise CompactedError(f"etcd {endpoint.url} is at revision {created.header.revision} < {after}")
                self._unheard_since = None
                while True:
                    response = await self._next(call, endpoint)
                    refuse_cancelled(response, endpoint.url)
                    batch = batch_from(response)
                    self._past.told(prefix, batch.revision, response.events)
                    yield batch
            finally:
                self._unheard_since = self._unheard_since or time.monotonic()
                call.cancel()

    async def _refuse_another_past(self, endpoint: Endpoint, prefix: str) -> None:
        heard = self._past.last(prefix)
        if heard is None:
            return
        request = rpc.RangeRequest(key=heard.key, revision=heard.revision)

        async def attempt(endpoint: Endpoint, metadata: Metadata) -> Any:
            try:
                return await endpoint.kv.Range(request, timeout=self._timeout_s, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.OUT_OF_RANGE:
                    raise CompactedError(f"etcd {endpoint.url}: {error.details()}") from error
                raise

        found = (await self._authorized(endpoint, attempt)).kvs
        if (write_of(found[0]) if found else None) != heard.write:
            raise CompactedError(f"etcd {endpoint.url} has another past: {text_key(heard.key)} at {heard.revision}")

    async def _create_watch(self, call: Any, endpoint: Endpoint, prefix: str, after: int) -> Any:
        start, end = prefix_range(prefix)
        request = rpc.WatchCreateRequest(key=start, range_end=end, start_revision=after + 1, progress_notify=True)
        try:
            async with asyncio.timeout(self._timeout_s):
                await call.write(rpc.WatchRequest(create_request=request))
                created = await self._next(call, endpoint)
        except TimeoutError as error:
            self._leave(endpoint)
            raise UnavailableError(f"etcd {endpoint.url}: no answer to a watch in {self._timeout_s} s") from error
        refuse_cancelled(created, endpoint.url)
        return created

    async def _next(self, call: Any, endpoint: Endpoint) -> Any:
        response = await call.read()
        if response is grpc.aio.EOF:
            raise UnavailableError(f"etcd {endpoint.url}: the stream has ended")
        return response

    async def _transact(self, guard: Any, operation: Any) -> int | None:
        answer = await self._write(lambda at: at.kv.Txn, rpc.TxnRequest(compare=[guard], success=[operation]))
        return int(answer.header.revision) if answer.succeeded else None

    async def _write(self, method: Callable[[Endpoint], Any], request: Any) -> Any:
        async def attempt(endpoint: Endpoint, metadata: Metadata) -> Any:
            return await method(endpoint)(request, timeout=self._timeout_s, metadata=metadata)

        with self._translated() as endpoint:
            return await self._authorized(endpoint, attempt)

    async def _read(self, request: Any) -> Any:
        for endpoint in tuple(self._endpoints):
            try:
                return await self._read_at(endpoint, request)
            except grpc.aio.AioRpcError as error:
                failure = self._failure(endpoint, error)
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise failure from error
        raise failure

    async def _read_at(self, endpoint: Endpoint, request: Any) -> Any:
        async def attempt(endpoint: Endpoint, metadata: Metadata) -> Any:
            return await endpoint.kv.Range(request, timeout=self._timeout_s, metadata=metadata)

        try:
            return await self._authorized(endpoint, attempt)
        except asyncio.CancelledError as error:
            raise closed_or_cancelled(endpoint, error) from error

    async def _authorized(self, endpoint: Endpoint, attempt: Callable[[Endpoint, Metadata], Awaitable[T]]) -> T:
        """One call, and once more with a fresh token when etcd forgot the one we had."""
        metadata = await self._metadata(endpoint)
        try:
            return await attempt(endpoint, metadata)
        except grpc.aio.AioRpcError as error:
            if self._login is None or not self._login.is_renewed_after(error, metadata):
                raise
        return await attempt(endpoint, await self._metadata(endpoint))

    async def _metadata(self, endpoint: Endpoint) -> Metadata:
        return await self._login.metadata(endpoint.auth, self._timeout_s) if self._login else ()

    @contextmanager
    def _translated(self) -> Iterator[Endpoint]:
        """The endpoint in use; what gRPC raises about it comes out as an error of ours."""
        endpoint = self._endpoints[0]
        try:
            yield endpoint
        except grpc.aio.AioRpcError as error:
            raise self._failure(endpoint, error) from error
        except asyncio.InvalidStateError as error:
            # How gRPC says that a stream broke before we wrote to it.
            self._leave(endpoint)
            raise UnavailableError(f"etcd {endpoint.url}: the stream broke") from error
        except asyncio.CancelledError as error:
            raise closed_or_cancelled(endpoint, error) from error

    def _failure(self, endpoint: Endpoint, error: Any) -> Failure:
        if error.code() in LEAVE_CODES:
            self._leave(endpoint)
        user = f"--etcd-username {self._login.username}: " if self._login else ""
        text = f"etcd {endpoint.url}: {error.details()} ({error.code().name})"
        failure = OperatorError(text) if error.code() in OPERATOR_CODES else refusal(text)
        return OperatorError(user + text) if isinstance(failure, OperatorError) else failure

    def _leave(self, endpoint: Endpoint) -> None:
        endpoint.take_renewed_certificates()
        # Several calls may fail at once on one endpoint; only the first may turn to the next.
        if self._endpoints[0] is endpoint:
            self._endpoints.append(self._endpoints.pop(0))


async def _sent() -> None:
    """Gives a call that was just made the turns of the loop that it takes to send it: our task's, then gRPC's."""
    for _ in range(3):
        await asyncio.sleep(0)


def closed_or_cancelled(endpoint: Endpoint, error: asyncio.CancelledError) -> BaseException:
    """What gRPC says of a connection that we closed is what asyncio says to a task that must end; told apart here."""
    task = asyncio.current_task()
    if task is None or task.cancelling():
        return error
    return UnavailableError(f"etcd {endpoint.url}: the connection was closed")


def refusal(text: str) -> Failure:
    return OperatorError(text) if any(known in text for known in OPERATOR_TEXTS) else UnavailableError(text)


def refuse_cancelled(response: Any, url: str) -> None:
    if response.compact_revision:
        raise CompactedError(f"etcd {url} is compacted up to revision {response.compact_revision}")
    if response.canceled:
        raise refusal(f"etcd {url}: watch refused: {response.cancel_reason}")


def first_key(prefix: str) -> Any:
    start, end = prefix_range(prefix)
    return rpc.RangeRequest(key=start, range_end=end, limit=1, keys_only=True)


def prefix_range(prefix: str) -> tuple[bytes, bytes]:
    """First key with a prefix, and the first key after all of them. UTF-8 has no byte 255, so adding 1 is safe."""
    start = prefix.encode()
    # A lone zero byte stands for the first of all keys, and as an end for no end.
    return (start, start[:-1] + bytes([start[-1] + 1])) if start else (b"\0", b"\0")


def unchanged(key: str, revision: int) -> Any:
    return rpc.Compare(key=key.encode(), target=rpc.Compare.MOD, result=rpc.Compare.EQUAL, mod_revision=revision)


def put_operation(key: str, value: bytes, lease_id: int) -> Any:
    return rpc.RequestOp(request_put=rpc.PutRequest(key=key.encode(), value=value, lease=lease_id))


def text_key(key: bytes) -> str:
    # Anyone may write bytes that are no text; they must stay printable, and never match a key of ours.
    return key.decode(errors="backslashreplace")


def key_value(kv: Any) -> KeyValue:
    return KeyValue(text_key(kv.key), kv.value, kv.mod_revision, kv.lease, kv.create_revision)


def batch_from(response: Any) -> WatchBatch:
    """One watch answer. Its revision is that of its last event: a watch that catches up gets the store's own revision
    in each header, with events below it still to come.
    """
    last: dict[bytes, Any] = {}
    for event in response.events:
        last.pop(event.kv.key, None)
        last[event.kv.key] = event
    revision = response.events[-1].kv.mod_revision if response.events else response.header.revision
    put = tuple(key_value(event.kv) for event in last.values() if event.type == rpc.Event.PUT)
    removed = tuple(text_key(key) for key, event in last.items() if event.type == rpc.Event.DELETE)
    return WatchBatch(revision, put, removed)
