"""The process seam: the only place that starts a program.

Argument lists, absolute paths, a clean environment, no shell. A failure carries everything needed to replay it by hand.
"""

import os
import shutil
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence

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

    When the caller is cancelled the program is ended too: an unsupervised writer must not outlive its daemon.
    """
    import asyncio  # noqa: PLC0415 - 25 ms that netctl need not wait for

    process = started(argv, stdin, environment or {})
    del stdin  # the program needs memory now
    ended = asyncio.ensure_future(asyncio.to_thread(process.communicate))
    try:
        stdout, stderr = await asyncio.shield(ended)
    except asyncio.CancelledError:
        process.kill()
        await ended
        raise
    if process.returncode:
        raise CommandError(argv, process.returncode, stderr.decode(errors="replace"))
    return stdout


def started(argv: Sequence[str], stdin: bytes, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """All that it reads is there when it starts: it does not wait until our loop finds the time to feed it.

    Not asyncio's own way, which turns the loop before it gives us the id: the kernel may tell of the program's first
    change by then.
    """
    with os.fdopen(os.memfd_create("stdin"), "w+b") as fed:
        fed.write(stdin)
        fed.seek(0)
        process = subprocess.Popen(
            [find(argv[0]), *argv[1:]],
            stdin=fed,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**clean_environment(), **environment},
        )
    own_processes.append(process.pid)
    return process
