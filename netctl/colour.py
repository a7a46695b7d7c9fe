"""Colour stands for a state, and never alone: a word or a mark says the same. Pure."""

from collections.abc import Callable
from enum import Enum


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
