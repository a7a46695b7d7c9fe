"""Where `netctl apply` and `netctl delete` write: an etcd, or the directory that `netproxy --manifests` reads.

Both keep what was given to a Service: in etcd a key for each claim, which can be created once; in a directory the
manifests themselves, under a lock.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from controlloop.errors import OperatorError
from controlloop.etcd import Etcd
from netctl.apply.allocation import Claim, Configured, claims_of
from proxy.objects import Kind, ObjectName
from proxy.sources.etcd import FOLDERS
from proxy.sources.manifest_directory import SUFFIXES
from proxy.sources.manifests import ManifestError, ObjectKey, read_manifest


@dataclass(frozen=True, slots=True)
class Stored:
    body: bytes
    revision: int


class Store(Protocol):
    async def configured(self) -> Configured:
        """The ranges to give out from. OperatorError when what is configured makes no sense."""
        ...

    async def get(self, key: ObjectKey) -> Stored | None: ...

    async def put(self, key: ObjectKey, body: bytes, before: Stored | None) -> bool:
        """False: somebody wrote it meanwhile."""
        ...

    async def delete(self, key: ObjectKey) -> bool:
        """False: it was not there."""
        ...

    async def taken(self) -> dict[Claim, str]:
        """All claims, and by which Service."""
        ...

    async def reserve(self, claim: Claim, owner: ObjectName) -> bool:
        """False: another Service was faster."""
        ...

    async def release(self, claim: Claim, owner: ObjectName) -> None:
        """Give up what was reserved; nothing when it was not, or for somebody else."""
        ...


class EtcdStore:
    def __init__(self, etcd: Etcd, prefix: str) -> None:
        self._etcd = etcd
        self._prefix = prefix.rstrip("/")

    async def configured(self) -> Configured:
        key = f"{self._prefix}/config"
        found = await self._etcd.get(key)
        try:
            return Configured() if found is None else msgspec.json.decode(found.value, type=Configured)
        except msgspec.DecodeError as error:
            raise OperatorError(f"{key}: {error}") from None

    async def get(self, key: ObjectKey) -> Stored | None:
        found = await self._etcd.get(self._key(key))
        return None if found is None else Stored(found.value, found.revision)

    async def put(self, key: ObjectKey, body: bytes, before: Stored | None) -> bool:
        if before is None:
            return await self._etcd.create(self._key(key), body) is not None
        return await self._etcd.replace(self._key(key), body, before.revision) is not None

    async def delete(self, key: ObjectKey) -> bool:
        return await self._etcd.delete(self._key(key))

    async def taken(self) -> dict[Claim, str]:
        folder = f"{self._prefix}/{FOLDERS[Kind.SERVICE]}/"
        reserved = await self._etcd.list(self._claim(""))
        claims = {
            item.key.removeprefix(self._claim("")): item.value.decode(errors="replace") for item in reserved.items
        }
        for item in (await self._etcd.list(folder)).items:
            claims |= dict.fromkeys(_claims_in(item.value), item.key.removeprefix(folder))
        return claims

    async def reserve(self, claim: Claim, owner: ObjectName) -> bool:
        if await self._etcd.create(self._claim(claim), str(owner).encode()) is not None:
            return True
        there = await self._etcd.get(self._claim(claim))
        return there is not None and there.value == str(owner).encode()

    async def release(self, claim: Claim, owner: ObjectName) -> None:
        there = await self._etcd.get(self._claim(claim))
        if there is not None and there.value == str(owner).encode():
            await self._etcd.delete(there.key, there.revision)

    def _key(self, key: ObjectKey) -> str:
        kind, name = key
        return f"{self._prefix}/{FOLDERS[kind]}/{name}"

    def _claim(self, claim: Claim) -> str:
        return f"{self._prefix}/allocations/{claim}"


class DirectoryStore:
    """One file for each object that we write. What somebody wrote by hand is read, and not changed."""

    def __init__(self, directory: Path) -> None:
        """Use it inside `locked`."""
        self._directory = directory

    async def configured(self) -> Configured:
        return Configured()

    async def get(self, key: ObjectKey) -> Stored | None:
        path = self._path(key)
        for other, body in self._holders(key):
            if other != path:
                raise OperatorError(f"{key[0].value} {key[1]} stands in {other}: change it there")
            return Stored(body, 0)
        return None

    async def put(self, key: ObjectKey, body: bytes, before: Stored | None) -> bool:
        del before  # nobody else writes while we hold the lock
        path = self._path(key)
        new = path.with_name(f".{path.name}.new")
        try:
            new.write_bytes(body)
            new.rename(path)
        except OSError as error:
            raise OperatorError(f"{path}: {error.strerror}") from error
        return True

    async def delete(self, key: ObjectKey) -> bool:
        if await self.get(key) is None:
            return False
        self._path(key).unlink()
        return True

    async def taken(self) -> dict[Claim, str]:
        return {
            claim: str(name)
            for _, objects in self._manifests()
            for (_, name), body in objects.items()
            for claim in _claims_in(body)
        }

    async def reserve(self, claim: Claim, owner: ObjectName) -> bool:
        del claim, owner  # nobody else gives anything out while we hold the lock
        return True

    async def release(self, claim: Claim, owner: ObjectName) -> None:
        """A manifest that is gone has nothing."""

    def _path(self, key: ObjectKey) -> Path:
        kind, name = key
        return self._directory / f"{kind.value.lower()}.{name.namespace}.{name.name}.json"

    def _holders(self, key: ObjectKey) -> Iterator[tuple[Path, bytes]]:
        return ((path, objects[key]) for path, objects in self._manifests() if key in objects)

    def _manifests(self) -> Iterator[tuple[Path, dict[ObjectKey, bytes]]]:
        """A file that cannot be read has nothing; the proxy names it."""
        for path in sorted(self._directory.iterdir()):
            if path.suffix in SUFFIXES and not path.name.startswith("."):
                try:
                    yield path, read_manifest(path, path.read_bytes()).objects
                except (OSError, ManifestError):
                    continue


@contextmanager
def locked(directory: Path) -> Iterator[DirectoryStore]:
    """One at a time, as long as all use netctl. OperatorError names the directory that cannot be read."""
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise OperatorError(f"--manifests {directory}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield DirectoryStore(directory)
    finally:
        os.close(handle)


def _claims_in(body: bytes) -> set[Claim]:
    try:
        document = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return set()
    return claims_of(document) if isinstance(document, dict) else set()
