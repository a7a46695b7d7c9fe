"""Sees to it that settings are put back, whatever ends this process: a child that waits for the end of a pipe.

Before each change it is told how to undo it. The pipe ends with us, also after kill -9, and the child then does what it
was told.
"""

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from controlloop.command import clean_environment

WRITE, REMOVE, RUN = "write", "remove", "run"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Undo:
    """Fork it before sockets and threads are made."""

    def __init__(self) -> None:
        reader, self._writer = os.pipe()
        os.set_inheritable(self._writer, False)
        self._child = os.fork()
        if self._child == 0:
            try:
                os.close(self._writer)
                _wait_and_undo(reader)
            finally:
                os._exit(0)
        os.close(reader)

    def write_back(self, path: str, value: str) -> None:
        """At the end write this value into the file."""
        self._tell(WRITE, path, value)

    def remove(self, path: str) -> None:
        """At the end remove this folder."""
        self._tell(REMOVE, path)

    def run(self, argv: Sequence[str]) -> None:
        """At the end run this program."""
        self._tell(RUN, *argv)

    def _tell(self, *words: str) -> None:
        os.write(self._writer, ("\t".join(words) + "\n").encode())

    def close(self) -> None:
        """Undo everything; it is done when this comes back."""
        os.close(self._writer)
        os.waitpid(self._child, 0)


def _wait_and_undo(reader: int) -> None:
    """In a session of its own: what a terminal or a shell sends to us is not for it."""
    os.setsid()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        # Whoever reads our output must not wait for the child.
        os.dup2(nothing, standard)
    told = b"".join(iter(lambda: os.read(reader, 4096), b"")).decode()
    for line in reversed(told.splitlines()):
        kind, *words = line.split("\t")
        with suppress(OSError):
            _undo(kind, words)


def _undo(kind: str, words: list[str]) -> None:
    if kind == WRITE:
        path, value = words
        Path(path).write_text(value)
    elif kind == REMOVE:
        Path(words[0]).rmdir()
    else:
        subprocess.run(words, check=False, capture_output=True, env=clean_environment())
