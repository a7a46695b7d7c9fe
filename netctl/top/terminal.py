"""The terminal while `netctl top` has it: another screen, single keys, and all given back whatever happens."""

import os
import select
import shutil
import signal
import sys
import termios
import time
import tty
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Protocol, Self

ENTER_SCREEN, LEAVE_SCREEN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
HOME, TO_END_OF_LINE, TO_END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
KEYS = {
    "\x1b[A": "up",
    "\x1bOA": "up",
    "\x1b[B": "down",
    "\x1bOB": "down",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
}
SHOWN_AS = {"\r": "enter", "\n": "enter", " ": "enter", "\x7f": "erase", "\x08": "erase", "\x1b": "escape"}


class Source(Protocol):
    def fileno(self) -> int: ...

    def read(self) -> None: ...


class StoppedError(Exception):
    """A signal ends us; the number."""


class Terminal:
    def __enter__(self) -> Self:
        self._in, self._out = sys.stdin.fileno(), sys.stdout.fileno()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = termios.tcgetattr(self._in)
        self._handlers = {
            signal.SIGWINCH: signal.signal(signal.SIGWINCH, self._resized),
            signal.SIGTERM: signal.signal(signal.SIGTERM, stop),
            signal.SIGHUP: signal.signal(signal.SIGHUP, stop),
        }
        tty.setcbreak(self._in)
        self._write(ENTER_SCREEN)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A terminal that hung up cannot be given anything back.
        with suppress(OSError, termios.error):
            self._write(LEAVE_SCREEN)
            termios.tcsetattr(self._in, termios.TCSADRAIN, self._before)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._wake_read)
        os.close(self._wake_write)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, as they are now."""
        with suppress(OSError):
            size = os.get_terminal_size(self._out)
            if size.columns and size.lines:
                return size.columns, size.lines
        fallback = shutil.get_terminal_size()
        return fallback.columns, fallback.lines

    def show(self, lines: Sequence[str]) -> None:
        body = f"{TO_END_OF_LINE}\n".join(lines)  # which the terminal makes a return, too
        self._write(f"{HOME}{body}{TO_END_OF_LINE}{TO_END_OF_SCREEN}")

    def keys(self, until: float, source: Source) -> list[str]:
        """Those that are pressed next; none when time (monotonic) or the screen's size has changed. Meanwhile `source`
        is read.
        """
        while (left_s := until - time.monotonic()) > 0:
            ready, _, _ = select.select([self._in, self._wake_read, source], [], [], left_s)
            if source in ready:
                source.read()
            if self._wake_read in ready:
                os.read(self._wake_read, 1024)
                return []
            if self._in in ready:
                pressed = os.read(self._in, 1024)
                if not pressed:
                    raise StoppedError(signal.SIGHUP)
                return list(split(pressed.decode(errors="replace")))
        return []

    def _write(self, text: str) -> None:
        rest = text.encode(sys.stdout.encoding or "ascii", errors="replace")
        while rest:
            rest = rest[os.write(self._out, rest) :]

    def _resized(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        with suppress(BlockingIOError):
            os.write(self._wake_write, b"x")


def stop(number: int, frame: FrameType | None) -> None:
    del frame
    raise StoppedError(number)


def split(pressed: str) -> list[str]:
    """Keys by name; a letter is its own."""
    found = []
    while pressed:
        sequence = next((each for each in KEYS if pressed.startswith(each)), "")
        found.append(KEYS[sequence] if sequence else SHOWN_AS.get(pressed[0], pressed[0]))
        pressed = pressed[len(sequence) or 1 :]
    return found
