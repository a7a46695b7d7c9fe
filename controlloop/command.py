"""The process seam: the only place that starts a program.

Argument lists, absolute paths, a clean environment, no shell. A failure carries everything needed to replay it by hand.
"""

import os
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import IO, TypeVar

T = TypeVar("T")

SEARCH_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
NOT_INSTALLED = 127
"""What a shell says of a program that is not there."""

PASSED_ON = ("XTABLES_LOCKFILE", "XTABLES_LIBDIR")


class CommandError(Exception):
    """A program that was run and failed, or that is missing (returncode 127)."""

    def __init__(self, argv: Sequence[str], returncode: int, stderr: str) -> None:
        first_line = stderr.strip().partition("\n")[0]
        super().__init__(f"{' '.join(argv)} failed (exit {returncode}): {first_line}")
        self.argv = tuple(argv)
        self.returncode = returncode
        self.stderr = stderr


def find(program: str) -> str:
    """Absolute path of a system program; CommandError names the missing one."""
    path = shutil.which(program, path=SEARCH_PATH)
    if path is None:
        raise CommandError([program], NOT_INSTALLED, f"{program} is not installed (looked in {SEARCH_PATH})")
    return path


def clean_environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {"PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8", **kept}


own_processes: deque[int] = deque(maxlen=64)
"""Ids of the programs that were started last: the kernel tells by them whose a change was."""


async def run(argv: Sequence[str], stdin: bytes = b"", *, environment: Mapping[str, str] | None = None) -> bytes:
    """Run one program to its end and give back its stdout; CommandError when it fails.

    `environment` is added to the clean one.
    """
    process = started(argv, stdin, environment or {})
    del stdin  # the program needs memory now
    return await outcome(argv, process)


async def outcome(argv: Sequence[str], process: subprocess.Popen[bytes]) -> bytes:
    """What `run` gives back, of a program that was started."""
    stdout, stderr = await beside(process, process.communicate)
    if process.returncode:
        raise CommandError(argv, process.returncode, stderr.decode(errors="replace"))
    return stdout


async def beside(process: subprocess.Popen[bytes], work: Callable[[], T]) -> T:
    """Let a thread wait for the program, that is, do what ends when the program does.

    When the caller is cancelled the program is ended too: an unsupervised writer must not outlive its daemon.
    """
    import asyncio  # noqa: PLC0415 - 25 ms that netctl need not wait for

    done = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        process.kill()
        await asyncio.gather(done, return_exceptions=True)
        raise


def started(argv: Sequence[str], stdin: bytes, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """All that it reads is there when it starts: it does not wait until our loop finds the time to feed it.

    Not asyncio's own way, which turns the loop before it gives us the id: the kernel may tell of the program's first
    change by then.
    """
    with os.fdopen(os.memfd_create("stdin"), "w+b") as fed:
        fed.write(stdin)
        fed.seek(0)
        return reading_from(fed, argv, environment)


def reading_from(
    stdin: IO[bytes] | int, argv: Sequence[str], environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [find(argv[0]), *argv[1:]],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**clean_environment(), **environment},
    )
    own_processes.append(process.pid)
    return process


class Fed:
    """A program that reads what it is to do piece by piece, while that is still being made.

    When we are gone it reads no more: it has to leave all undone then.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = argv
        self._process = reading_from(subprocess.PIPE, argv, {})
        self._texts: SimpleQueue[bytes] = SimpleQueue()
        # Nobody waits for this thread at our exit, which a program that does not read would hold up.
        self._thread = Thread(target=self._write, daemon=True)
        self._thread.start()

    def feed(self, text: bytes) -> None:
        """Never waits, and whether the program is still there is not asked."""
        self._texts.put(text)

    def _write(self) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            while text := self._texts.get():
                self._process.stdin.write(text)
                self._process.stdin.flush()

    async def end(self, text: bytes) -> None:
        """Feed the last of it, and let the program end: CommandError when it fails."""
        self.feed(text)
        self.feed(b"")
        await beside(self._process, self._thread.join)
        await outcome(self._argv, self._process)

    def abandon(self) -> None:
        """End it where it is."""
        self._process.kill()
        self.feed(b"")
        self._thread.join()
        self._process.communicate()
