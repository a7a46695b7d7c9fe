"""Tells that something in a directory may have changed; what it was is for the one who looks."""

import asyncio
from contextlib import suppress
from pathlib import Path

from asyncinotify import Event, Inotify, Mask, Watch

# A file that is being written says nothing yet: it is worth a look when it is closed or renamed into place.
MASK = (
    Mask.CLOSE_WRITE
    | Mask.CREATE
    | Mask.DELETE
    | Mask.MOVED_FROM
    | Mask.MOVED_TO
    | Mask.ATTRIB
    | Mask.DELETE_SELF
    | Mask.MOVE_SELF
    | Mask.UNMOUNT
)


class DirectoryWatch:
    """Use it inside one event loop and `close` it there. The directory may come, go and be replaced."""

    def __init__(self, directory: Path) -> None:
        """OSError when the kernel grants no inotify instance."""
        self._directory = directory.absolute()
        self._inotify = Inotify()
        self._awake = asyncio.Event()
        self._parent = self._follow(self._directory.parent, None)
        self._watch = self._follow(self._directory, None)
        self._listener = asyncio.create_task(self._listen())

    async def changed(self, within_s: float) -> None:
        """Return at the next change, or after `within_s`. A change between two calls counts for the second one."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._awake.wait()
        self._awake.clear()
        # Both may be other directories by now: removed and made again, or a symbolic link that was swapped.
        self._parent = self._follow(self._directory.parent, self._parent)
        self._watch = self._follow(self._directory, self._watch)

    async def close(self) -> None:
        self._listener.cancel()
        with suppress(asyncio.CancelledError):
            await self._listener
        self._inotify.close()

    def _follow(self, path: Path, before: Watch | None) -> Watch | None:
        """Watch what is at `path` now; what was there before is watched no more. None: nothing is there."""
        watch = None
        with suppress(OSError):
            watch = self._inotify.add_watch(path, MASK)
        if before is not None and before is not watch:
            # A directory that was deleted took its watch along.
            with suppress(OSError):
                self._inotify.rm_watch(before)
        return watch

    async def _listen(self) -> None:
        async for event in self._inotify:
            if self._concerns_us(event):
                self._awake.set()

    def _concerns_us(self, event: Event) -> bool:
        """A neighbor of the directory does not; an overflow, which names nothing, does."""
        in_parent = event.watch is not None and event.watch is self._parent
        return not in_parent or (event.name is not None and event.name.name == self._directory.name)
