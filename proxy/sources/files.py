"""Services and EndpointSlices from the manifest files of a directory."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from controlloop.errors import OperatorError
from controlloop.logs import Log
from proxy.sources import Batch
from proxy.sources.directory_watch import DirectoryWatch
from proxy.sources.manifest_directory import ManifestDirectory

log = Log("source")

RESCAN_S = 10.0
"""A file behind a symbolic link, or on a network file system, changes without a word from inotify."""
LOST_FILE_S = 0.2
"""A file that is gone is looked for again: some tools remove before they write, and `rm -r` takes files first."""


class FilesSource:
    """All `*.yaml`, `*.yml` and `*.json` directly in a directory.

    A file counts as a whole: renaming a new one into place changes everything in it at once. A file that cannot be read
    keeps its last good objects, a directory that is away keeps all of them.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._manifests = ManifestDirectory(directory)
        self.away = ""

    def check(self) -> None:
        """OperatorError when the directory cannot be read now."""
        try:
            next(self._directory.iterdir(), None)
        except OSError as error:
            raise self._operator_error(error) from error

    async def batches(self) -> AsyncGenerator[Batch, None]:
        watch = self._open()
        try:
            yield await self._first()
            while True:
                await watch.changed(RESCAN_S)
                batch = await self._next()
                if batch is not None:
                    yield batch
        finally:
            await watch.close()

    def _open(self) -> DirectoryWatch:
        try:
            return DirectoryWatch(self._directory)
        except OSError as error:
            raise self._operator_error(error) from error

    async def _first(self) -> Batch:
        try:
            batch = await asyncio.to_thread(self._manifests.scan, listed=True)
        except OSError as error:
            raise self._operator_error(error) from error
        assert batch is not None
        return batch

    async def _next(self) -> Batch | None:
        try:
            if await asyncio.to_thread(self._manifests.has_lost_files):
                await asyncio.sleep(LOST_FILE_S)
            batch = await asyncio.to_thread(self._manifests.scan)
        except OSError as error:
            if not self.away:
                log.warning("manifests are away, their objects stay", directory=self._directory, error=error.strerror)
            self.away = f"{self._directory}: {error.strerror}"
            return None
        if self.away:
            log.info("manifests are back", directory=self._directory)
        self.away = ""
        return batch

    def _operator_error(self, error: OSError) -> OperatorError:
        return OperatorError(f"--manifests {self._directory}: {error.strerror}")
