"""How far a lab is: a line for each step, which on a terminal counts."""

import shutil
import time
from typing import TextIO

UP_AND_CLEAR = "\033[A\r\033[K"


class Progress:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._started = time.monotonic()
        self._step = ""

    def __call__(self, text: str) -> None:
        """`STEP`, or `STEP: HOW FAR`, which takes the line of its step and is for terminals alone."""
        step = text.partition(":")[0]
        is_new, self._step = step != self._step, step
        line = f"{time.monotonic() - self._started:6.1f} s  {text}"
        if self._stream.isatty():
            print(("" if is_new else UP_AND_CLEAR) + fitted(line), file=self._stream, flush=True)
        elif is_new:
            print(line.partition(":")[0], file=self._stream, flush=True)


def fitted(line: str) -> str:
    """In one line of the terminal: the next one takes its place."""
    width = shutil.get_terminal_size().columns
    return line if len(line) <= width else f"{line[: width - 3]}..."
