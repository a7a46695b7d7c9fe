"""The registry in etcd, where flannel keeps it: `<prefix>/config` and `<prefix>/subnets/<key>`.

A lease is renewed by keep-alive, which no watcher sees. flannel writes the record again under a new lease instead;
a record that changes hands between the two therefore may carry a lease of either.
"""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, suppress
from dataclasses import replace

from controlloop.errors import UnavailableError
from controlloop.etcd import Etcd, KeyValue
from subnet_alloc.registry import AlreadyExistsError, Batch, ConflictError, Listing, Record


class EtcdRegistry:
    def __init__(self, etcd: Etcd, prefix: str) -> None:
        """Use the keys below `prefix`, joined as flannel does: repeated and trailing slashes do not count."""
        root = "/" if prefix.startswith("/") else ""
        joined = root + "/".join(part for part in prefix.split("/") if part)
        self._etcd = etcd
        self._config_key = f"{joined}/config"
        # With the slash at its end: `<prefix>/subnets-old/...` is somebody else's.
        self._subnets = f"{joined}/subnets/"

    async def network_config(self) -> bytes | None:
        found = await self._etcd.get(self._config_key)
        return None if found is None else found.value

    async def list(self) -> Listing:
        listing = await self._etcd.list(self._subnets)
        return Listing(listing.revision, self._records(listing.items))

    async def create(self, key: str, value: bytes, ttl_s: int) -> Record:
        lease_id = await self._etcd.grant(ttl_s) if ttl_s else 0
        revision = await self._etcd.create(self._subnets + key, value, lease_id)
        if revision is None:
            await self._release(lease_id)
            raise AlreadyExistsError(key)
        return Record(key, value, revision, lease_id, revision)

    async def update(self, record: Record, value: bytes, ttl_s: int) -> Record:
        lease_id = await self._lease_for(record, ttl_s)
        revision = await self._etcd.replace(self._subnets + record.key, value, record.revision, lease_id)
        if revision is None:
            if lease_id != record.lease_id:
                await self._release(lease_id)
            raise ConflictError(f"{record.key} is not at revision {record.revision} any more")
        return replace(record, value=value, revision=revision, lease_id=lease_id)

    async def remove(self, record: Record) -> None:
        if not await self._etcd.delete(self._subnets + record.key, record.revision):
            raise ConflictError(f"{record.key} is not at revision {record.revision} any more")

    async def keep_alive(self, record: Record) -> int:
        ttl_s = await self._etcd.keep_alive(record.lease_id)
        if not ttl_s:
            raise ConflictError(f"etcd lease {record.lease_id:x} is gone")
        return ttl_s

    async def watch(self, after: int) -> AsyncGenerator[Batch, None]:
        async with aclosing(self._etcd.watch(self._subnets, after)) as batches:
            async for batch in batches:
                yield Batch(batch.revision, self._records(batch.put), tuple(map(self._name, batch.removed)))

    def _records(self, found: Iterable[KeyValue]) -> tuple[Record, ...]:
        return tuple(Record(self._name(kv.key), kv.value, kv.revision, kv.lease_id, kv.created) for kv in found)

    def _name(self, key: str) -> str:
        return key.removeprefix(self._subnets)

    async def _lease_for(self, record: Record, ttl_s: int) -> int:
        """The lease the record has, renewed, if it lives and is as long as asked for; else a new one."""
        if not ttl_s:
            return 0
        if record.lease_id and await self._etcd.keep_alive(record.lease_id) == ttl_s:
            return record.lease_id
        return await self._etcd.grant(ttl_s)

    async def _release(self, lease_id: int) -> None:
        # A lease without keys harms nobody and ends by itself.
        with suppress(UnavailableError):
            if lease_id:
                await self._etcd.revoke(lease_id)
