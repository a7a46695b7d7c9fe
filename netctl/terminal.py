"""What the reader's terminal can show."""

import os
import sys

import click

from netctl.colour import Paint, State, plain


def painter() -> Paint:
    """Colours only for a terminal that has them, and for nobody who says NO_COLOR (no-color.org)."""
    wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
    return coloured if wanted else plain


def coloured(text: str, state: State) -> str:
    return click.style(text, fg=state.value)
