"""A bundle as a file: gzip'ed tar, for its taker alone. It is never unpacked to disk, and what comes from elsewhere is
bounded in size and must hold plain files.
"""

import io
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from gzip import GzipFile
from pathlib import Path, PurePosixPath

from controlloop.errors import OperatorError

LARGEST = 512 * 2**20
"""Bytes, unpacked, all members together."""
LARGEST_HEADER = 64 * 1024
"""Bytes that may be read at once where no content is: extended headers could be as large as they say."""
LEVEL = 3
"""Of gzip: whoever waits for the bundle waits for this, too."""


def write(path: Path, members: Iterable[tuple[str, bytes]], moment: float) -> None:
    """OperatorError when the file is there already, or cannot be written; then nothing is left of it."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise OperatorError(f"bundle: {path} is there already; give another name, or remove it") from None
    except OSError as error:
        raise OperatorError(f"bundle: {path}: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as file, tarfile.open(fileobj=file, mode="w:gz", compresslevel=LEVEL) as archive:
            for name, content in members:
                archive.addfile(member(name, len(content), moment), io.BytesIO(content))
    except BaseException as error:
        with suppress(OSError):
            path.unlink()
        if isinstance(error, OSError):
            raise OperatorError(f"bundle: {path}: {error.strerror}") from None
        raise


def member(name: str, size: int, moment: float) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.size, made.mtime, made.mode = size, int(moment), 0o600
    return made


class BadArchiveError(Exception):
    """What is wrong with it, in one line without its name."""


class Bounded(io.RawIOBase):
    """Reads what gzip holds; BadArchiveError where that is more than a bundle may be."""

    def __init__(self, file: GzipFile) -> None:
        self._file = file
        self.at_once = LARGEST_HEADER

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if offset > LARGEST:
            raise BadArchiveError(f"holds more than {LARGEST >> 20} MiB")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.at_once:
            raise BadArchiveError(f"wants {size} bytes at once; at most {self.at_once}")
        if self.tell() + size > LARGEST:
            raise BadArchiveError(f"holds more than {LARGEST >> 20} MiB")
        return self._file.read(size)


class Archive:
    """Open for reading. Members are looked at one after the other, no farther than one is looked for."""

    def __init__(self, path: Path) -> None:
        """OSError when the file cannot be opened; BadArchiveError when it is none of ours."""
        with path.open("rb") as file:
            packed = file.read(LARGEST + 1)
        if len(packed) > LARGEST:
            raise BadArchiveError(f"holds more than {LARGEST >> 20} MiB")
        self._file = Bounded(GzipFile(fileobj=io.BytesIO(packed)))
        self._seen: dict[str, tarfile.TarInfo] = {}
        with complaints():
            self._tar = tarfile.open(fileobj=self._file, mode="r:")  # noqa: SIM115

    def read(self, name: str) -> bytes:
        """KeyError when it has no such member."""
        with complaints():
            while name not in self._seen:
                found = self._tar.next()
                if found is None:
                    raise KeyError(name)
                check(found)
                self._seen.setdefault(found.name, found)
            return self._content(self._seen[name])

    def _content(self, wanted: tarfile.TarInfo) -> bytes:
        self._file.at_once = LARGEST
        try:
            self._file.seek(wanted.offset_data)
            content = self._file.read(wanted.size)
        finally:
            self._file.at_once = LARGEST_HEADER
        if len(content) != wanted.size:
            raise BadArchiveError(f"ends within {wanted.name}")
        return content


@contextmanager
def complaints() -> Iterator[None]:
    """Whatever gzip and tarfile think of what they read, as BadArchiveError."""
    try:
        yield
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, OverflowError) as error:
        raise BadArchiveError(" ".join(str(error).split()) or type(error).__name__) from None


def check(found: tarfile.TarInfo) -> None:
    """Members of ours are plain files in one folder."""
    path = PurePosixPath(found.name)
    if not found.isreg() or found.issparse():
        raise BadArchiveError(f"{found.name!r} is no plain file")
    if path.is_absolute() or ".." in path.parts:
        raise BadArchiveError(f"{found.name!r} leads out of it")
    if found.size > LARGEST:
        raise BadArchiveError(f"{found.name!r} has {found.size} bytes; at most {LARGEST >> 20} MiB")
