"""Colour stands for a state, and never alone: a word or a mark says the same. Pure but for `painter`."""

import os
import sys
from collections.abc import Callable
from enum import Enum

import click


class State(Enum):
    """By its colour, as click calls it."""

    OK = "green"
    DEGRADED = "yellow"
    FAILED = "red"
    STALE = "bright_black"


Paint = Callable[[str, State], str]


def plain(text: str, state: State) -> str:
    del state
    return text


def coloured(text: str, state: State) -> str:
    return click.style(text, fg=state.value)


def painter() -> Paint:
    """Colours only for a terminal that has them, and for nobody who says NO_COLOR (no-color.org)."""
    wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
    return coloured if wanted else plain
