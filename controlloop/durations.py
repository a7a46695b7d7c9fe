"""Lengths of time as Go writes them (`time.ParseDuration`), in flags and configuration files of a drop-in. Pure."""

import re

SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
TERM = r"([0-9]{1,15}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})(ns|us|µs|μs|ms|s|m|h)"
_TERM = re.compile(TERM)
_DURATION = re.compile(rf"[-+]?(?:0|(?:{TERM})+)")


def parse_duration(text: str) -> float:
    """`1h30m`, `500ms`, `0` in seconds. ValueError for anything else, a number without a unit included."""
    if not _DURATION.fullmatch(text):
        raise ValueError(text)
    length = sum(float(number) * SECONDS[unit] for number, unit in _TERM.findall(text))
    return -length if text.startswith("-") else length
