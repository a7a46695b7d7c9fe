"""`netctl apply` and `netctl delete`: manifests into etcd or a directory, the way the proxy's sources read them."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import randbelow
from typing import NoReturn

import click
import msgspec

from controlloop.errors import OperatorError, UnavailableError
from controlloop.etcd import Etcd
from controlloop.etcd_settings import EtcdSettings
from netctl.apply.allocation import (
    Claim,
    Document,
    Pool,
    Pools,
    claims_of,
    free,
    given,
    kept,
    lacking,
    parse_pools,
    refuse_misshapen,
)
from netctl.apply.stores import EtcdStore, Store, Stored, locked
from proxy.endpoints import read_endpoints, read_slice
from proxy.objects import Decoded, EndpointSlice, Kind, ObjectName, RefusedError, Service, decode
from proxy.services import Options, read_service
from proxy.sources.manifests import ManifestError, ObjectKey, read_manifest

STANDARD_INPUT = Path("-")
SUFFIXES = {".yaml", ".yml", ".json"}
UNREACHABLE = 3
TRIES = 30
"""Races for one object that may be lost in a row."""

Objects = dict[ObjectKey, bytes]


def read_objects(paths: Sequence[Path]) -> Objects:
    """Everything in the manifests. OperatorError names the first place that cannot be read."""
    objects: Objects = {}
    for path, content in contents(paths):
        try:
            manifest = read_manifest(path, content)
        except ManifestError as error:
            raise OperatorError(f"-f {path}: {error}") from None
        for skipped in manifest.skipped:
            raise OperatorError(f"-f {skipped}")
        objects |= manifest.objects
    if not objects:
        raise OperatorError(f"-f {' '.join(map(str, paths))}: no Service, EndpointSlice or Endpoints in it")
    return objects


def contents(paths: Sequence[Path]) -> Iterator[tuple[Path, bytes]]:
    for path in paths:
        if path == STANDARD_INPUT:
            yield path, sys.stdin.buffer.read()
            continue
        files = sorted(each for each in path.iterdir() if each.suffix in SUFFIXES) if path.is_dir() else [path]
        for file in files:
            try:
                yield file, file.read_bytes()
            except OSError as error:
                raise OperatorError(f"-f {file}: {error.strerror}") from None


def check(objects: Objects) -> None:
    """OperatorError names the first object that the proxy would skip."""
    for (kind, name), body in objects.items():
        try:
            _check(decode(kind, body))
            if kind is Kind.SERVICE:
                refuse_misshapen(msgspec.json.decode(body))
        except ValueError as error:  # RefusedError is one
            raise OperatorError(f"{kind.value} {name}: {error}") from None


def _check(decoded: Decoded) -> None:
    """RefusedError names the first part that the proxy would leave out."""

    def refuse(reason: str) -> NoReturn:
        raise RefusedError(reason)

    if isinstance(decoded, Service):
        read_service(decoded, Options(), refuse)
    elif isinstance(decoded, EndpointSlice):
        read_slice(decoded, "", refuse)
    else:
        read_endpoints(decoded, "", refuse)


@dataclass(frozen=True, slots=True)
class Ranges:
    """What the flags say; empty: what the store has configured."""

    addresses: str = ""
    ports: str = ""

    async def pools(self, store: Store) -> Pools:
        configured = await store.configured()
        addresses = self.addresses or configured.service_cluster_ip_range
        ports = self.ports or configured.service_node_port_range
        try:
            return parse_pools(addresses, ports)
        except ValueError as error:
            raise OperatorError(f"--service-cluster-ip-range, --service-node-port-range: {error}") from None


@dataclass(frozen=True, slots=True)
class Target:
    """Where to write, as the flags say."""

    etcd: EtcdSettings
    manifests: Path | None = None


class Applier:
    """Writes objects, Services with all that they lack."""

    def __init__(self, store: Store, pools: Pools) -> None:
        self._store = store
        self._pools = pools
        self._taken: dict[Claim, str] | None = None
        """By whom; read once, when somebody lacks something. Who comes later is told by `Store.reserve`."""

    async def apply(self, key: ObjectKey, body: bytes) -> str:
        """Gives back what came of it."""
        spare: set[Claim] = set()
        for _ in range(TRIES):
            before = await self._store.get(key)
            full = await self._completed(key[1], body, before, spare) if key[0] is Kind.SERVICE else body
            same = before is not None and says_the_same(before.body, full)
            if same or await self._store.put(key, full, before):
                await self._release(key[1], spare | claims_in(before), claims_in(Stored(full, 0)))
                return "unchanged" if same else "created" if before is None else "configured"
        raise UnavailableError(f"{key[0].value} {key[1]}: others were faster {TRIES} times in a row")

    async def _completed(self, owner: ObjectName, body: bytes, before: Stored | None, spare: set[Claim]) -> bytes:
        """What is reserved on the way is noted in `spare`: the Service may turn out to have been written meanwhile."""
        document = kept(msgspec.json.decode(body), document_in(before))
        try:
            wanted = lacking(document, self._pools)
        except OperatorError as error:
            raise OperatorError(f"Service {owner}: spec.{error}") from None
        claims: list[Claim] = []
        for pool in wanted:
            claims.append(await self._reserve(owner, pool, claims_of(document) | set(claims)))
        spare |= set(claims)
        return msgspec.json.encode(given(document, claims))

    async def _reserve(self, owner: ObjectName, pool: Pool, used: set[Claim]) -> Claim:
        if self._taken is None:
            self._taken = await self._store.taken()
        taken = {claim for claim, who in self._taken.items() if who != str(owner)} | used
        # What an earlier attempt reserved and never used comes first.
        for claim in (*(self._taken.keys() - taken), *free(pool, taken, randbelow(pool.size))):
            if claim.startswith(pool.kind) and await self._store.reserve(claim, owner):
                self._taken[claim] = str(owner)
                return claim
        raise OperatorError(f"Service {owner}: none left of {pool}")

    async def _release(self, owner: ObjectName, had: set[Claim], has: set[Claim]) -> None:
        for claim in had - has:
            await self._store.release(claim, owner)


def claims_in(stored: Stored | None) -> set[Claim]:
    document = document_in(stored)
    return claims_of(document) if document else set()


def says_the_same(one: bytes, other: bytes) -> bool:
    """A directory's manifests may be laid out by hand."""
    try:
        return one == other or bool(msgspec.json.decode(one) == msgspec.json.decode(other))
    except msgspec.DecodeError:
        return False


def document_in(stored: Stored | None) -> Document | None:
    """None: nothing that claims anything."""
    if stored is None:
        return None
    try:
        document: Document = msgspec.json.decode(stored.body)
        refuse_misshapen(document)
    except ValueError:
        return None
    return document


async def apply_all(store: Store, objects: Objects, ranges: Ranges) -> None:
    applier = Applier(store, await ranges.pools(store))
    for key, body in objects.items():
        outcome = await applier.apply(key, body)
        click.echo(f"{key[0].value.lower()}/{key[1]} {outcome}")


async def delete_all(store: Store, objects: Objects) -> None:
    for key in objects:
        before = await store.get(key) if key[0] is Kind.SERVICE else None
        outcome = "deleted" if await store.delete(key) else "not found"
        click.echo(f"{key[0].value.lower()}/{key[1]} {outcome}")
        for claim in claims_in(before):
            await store.release(claim, key[1])


def run(target: Target, work: Callable[[Store], Awaitable[None]]) -> int:
    """The exit code: 3 when etcd does not answer."""
    try:
        asyncio.run(_run(target, work))
    except UnavailableError as error:
        click.echo(f"netctl: --etcd-endpoints {','.join(target.etcd.endpoints)}: {error}", err=True)
        return UNREACHABLE
    return 0


async def _run(target: Target, work: Callable[[Store], Awaitable[None]]) -> None:
    if target.manifests:
        with locked(target.manifests) as directory:
            await work(directory)
        return
    etcd = Etcd.at(target.etcd)
    try:
        await work(EtcdStore(etcd, target.etcd.prefix))
    finally:
        await etcd.close()


def apply_manifests(paths: Sequence[Path], target: Target, ranges: Ranges) -> int:
    objects = read_objects(paths)
    check(objects)
    return run(target, lambda store: apply_all(store, objects, ranges))


def delete_manifests(paths: Sequence[Path], target: Target) -> int:
    # Unchecked: what somebody else wrote wrongly must be deletable.
    objects = read_objects(paths)
    return run(target, lambda store: delete_all(store, objects))
