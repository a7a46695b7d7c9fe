"""`netctl apply` and `netctl delete`: manifests into etcd, the way the proxy's etcd source reads them."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import click

from controlloop.errors import OperatorError, UnavailableError
from controlloop.etcd import Etcd
from proxy.endpoints import read_endpoints, read_slice
from proxy.objects import Decoded, EndpointSlice, RefusedError, Service, decode
from proxy.services import Options, read_service
from proxy.sources.etcd import KINDS
from proxy.sources.manifests import ManifestError, ObjectKey, read_manifest

STANDARD_INPUT = Path("-")
SUFFIXES = {".yaml", ".yml", ".json"}
UNREACHABLE = 3
FOLDERS = {kind: folder for folder, kind in KINDS.items()}

Objects = dict[ObjectKey, bytes]
Action = Callable[[Etcd, str, bytes], Awaitable[str]]


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
        raise OperatorError(f"-f {' '.join(map(str, paths))}: no Service and no EndpointSlice in it")
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
        except RefusedError as error:
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


async def put(etcd: Etcd, key: str, body: bytes) -> str:
    before = await etcd.get(key)
    if before is not None and before.value == body:
        return "unchanged"
    await etcd.put(key, body)
    return "created" if before is None else "configured"


async def remove(etcd: Etcd, key: str, _body: bytes) -> str:
    return "deleted" if await etcd.delete(key) else "not found"


async def for_each(objects: Objects, endpoints: Sequence[str], prefix: str, action: Action) -> None:
    etcd = Etcd(endpoints)
    try:
        for (kind, name), body in objects.items():
            outcome = await action(etcd, f"{prefix.rstrip('/')}/{FOLDERS[kind]}/{name}", body)
            click.echo(f"{kind.value.lower()}/{name} {outcome}")
    finally:
        await etcd.close()


def run(objects: Objects, endpoints: str, prefix: str, action: Action) -> int:
    try:
        asyncio.run(for_each(objects, endpoints.split(","), prefix, action))
    except UnavailableError as error:
        click.echo(f"netctl: --etcd-endpoints {endpoints}: {error}", err=True)
        return UNREACHABLE
    return 0


def apply_manifests(paths: Sequence[Path], endpoints: str, prefix: str) -> int:
    objects = read_objects(paths)
    check(objects)
    return run(objects, endpoints, prefix, put)


def delete_manifests(paths: Sequence[Path], endpoints: str, prefix: str) -> int:
    # Unchecked: what somebody else wrote wrongly must be deletable.
    return run(read_objects(paths), endpoints, prefix, remove)
