"""What the manifest files of one directory say together, and what changed since the last look.

Level-triggered: a scan compares every file's (mtime, size, inode) with what was read, whatever caused the scan.
Blocking; the source runs it in a thread.
"""

import errno
import hashlib
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path

from controlloop.errors import Skipped
from controlloop.printable import printable
from proxy.sources import Batch, Update
from proxy.sources.manifests import Manifest, ManifestError, ObjectKey, read_manifest

SUFFIXES = (".yaml", ".yml", ".json")
SETTLED_NS = 20_000_000
"""The kernel's file clock moves every 1 to 10 ms; a file younger than this may change again under the same mtime."""

Stamp = tuple[int, int, int]


@dataclass(slots=True)
class ManifestFile:
    stamp: Stamp | None = None
    digest: bytes = b""
    manifest: Manifest = field(default_factory=Manifest)
    """The last one that could be read."""
    broken: str = ""
    """Why the file as it is now cannot be read."""

    def new_content(self, path: Path) -> bytes | None:
        """What is in the file; None: the same as before. OSError."""
        stamp, settled = _stamp(path)
        if stamp == self.stamp:
            return None
        content = path.read_bytes()
        self.stamp = stamp if settled else None
        before, self.digest = self.digest, hashlib.blake2b(content).digest()
        return content if self.digest != before else None

    def forget(self, reason: str) -> None:
        """Let the next look read the file, even if it comes back just as it was."""
        self.stamp, self.digest, self.broken = None, b"", reason


class ManifestDirectory:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, ManifestFile] = {}
        self._holders: dict[ObjectKey, set[str]] = {}
        self._shared: set[ObjectKey] = set()
        self._given: dict[ObjectKey, bytes] = {}
        self._skipped: tuple[Skipped, ...] = ()

    def has_lost_files(self) -> bool:
        """Whether a file that was read is no longer there. OSError when the directory cannot be read."""
        return bool(self._files.keys() - self._names())

    def scan(self, *, listed: bool = False) -> Batch | None:
        """What changed since the last scan; None: nothing. With `listed`, everything. OSError as above."""
        names = self._names()
        touched: set[ObjectKey] = set()
        for name in self._files.keys() - names:
            touched |= self._hold(name, self._files.pop(name).manifest, Manifest())
        for name in names:
            touched |= self._look_at(name)
        updates = [self._settle(key) for key in touched]
        before, self._skipped = self._skipped, tuple(self._findings())
        if listed:
            everything = (Update(kind, name, body) for (kind, name), body in self._given.items())
            return Batch(tuple(everything), listed=True, skipped=self._skipped)
        changes = tuple(update for update in updates if update is not None)
        return Batch(changes, listed=False, skipped=self._skipped) if changes or self._skipped != before else None

    def _names(self) -> set[str]:
        # Hidden names are left out: editors keep their locks and copies there (.#web.yaml).
        return {
            path.name for path in self._directory.iterdir() if path.suffix in SUFFIXES and not path.name.startswith(".")
        }

    def _look_at(self, name: str) -> set[ObjectKey]:
        """Read a file if it changed; gives back the objects that may be different now."""
        file = self._files.setdefault(name, ManifestFile())
        path = self._directory / name
        try:
            content = file.new_content(path)
            if content is None:
                return set()
            manifest = read_manifest(path, content)
        except OSError as error:
            file.forget(error.strerror or "cannot be read")
            return set()
        except ManifestError as error:
            file.broken = str(error)
            return set()
        before, file.manifest, file.broken = file.manifest, manifest, ""
        return self._hold(name, before, manifest)

    def _hold(self, name: str, before: Manifest, after: Manifest) -> set[ObjectKey]:
        """Note which objects a file has; an object may be in several."""
        for key in before.objects:
            self._holders[key].discard(name)
        for key in after.objects:
            self._holders.setdefault(key, set()).add(name)
        return before.objects.keys() | after.objects.keys()

    def _settle(self, key: ObjectKey) -> Update | None:
        """Choose which file's version counts, the first by name; None: the one that was given out already."""
        holders = self._holders[key]
        if len(holders) > 1:
            self._shared.add(key)
        else:
            self._shared.discard(key)
        body = self._files[min(holders)].manifest.objects[key] if holders else None
        if not holders:
            del self._holders[key]
        if body == self._given.get(key):
            return None
        if body is None:
            del self._given[key]
        else:
            self._given[key] = body
        return Update(*key, body)

    def _findings(self) -> list[Skipped]:
        findings = []
        for name, file in sorted(self._files.items()):
            if file.broken:
                findings.append(Skipped(self._place(name), file.broken))
            findings += file.manifest.skipped
        for key in self._shared:
            first, *others = sorted(self._holders[key])
            reason = f"{printable(first)} has it too and goes first"
            label = printable(f"{key[0].value} {key[1]}")
            findings += [Skipped(f"{self._place(other)} {label}", reason) for other in others]
        return findings

    def _place(self, name: str) -> str:
        return printable(str(self._directory / name))


def _stamp(path: Path) -> tuple[Stamp, bool]:
    """A file's stamp, and whether every later write will change it."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return (
        (status.st_mtime_ns, status.st_size, status.st_ino),
        abs(time.time_ns() - status.st_mtime_ns) > SETTLED_NS,
    )
